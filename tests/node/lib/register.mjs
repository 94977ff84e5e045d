// Packages are found in build/node, and `sessiond` is the one of this tree. For `node --import`.
import { register } from 'node:module';

register('./resolve.mjs', import.meta.url);

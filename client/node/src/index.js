export { Client } from './client.js';
export { compactionSession } from './compaction.js';
export { SessiondError } from './errors.js';
export { SessiondSession } from './session.js';

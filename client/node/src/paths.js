// Where is the daemon's socket?

import fs from 'node:fs';
import path from 'node:path';

import { SessiondError } from './errors.js';

const SOCKET_PATH_BYTES_MAX = 107;
const WHAT_TO_START =
  'start it with `systemctl --user start sessiond`, run `sessiond` in a terminal, or run this program under `sessionctl run -- COMMAND`';

/** The paths to look at, in order: `socket` alone, or $SESSIOND_SOCKET alone, or the three usual places. */
export function candidates(socket) {
  const named = socket ?? (process.env.SESSIOND_SOCKET || undefined);
  if (named !== undefined) return [usable(named)];
  const usual = [`/run/user/${process.getuid()}/sessiond/sessiond.sock`, '/run/sessiond/sessiond.sock'];
  const runtime = process.env.XDG_RUNTIME_DIR;
  if (runtime) usual.unshift(path.join(runtime, 'sessiond', 'sessiond.sock'));
  return [...new Set(usual)];
}

function usable(socket) {
  const size = Buffer.byteLength(socket);
  if (size < 1 || size > SOCKET_PATH_BYTES_MAX)
    throw new TypeError(`a socket path has 1 to ${SOCKET_PATH_BYTES_MAX} bytes (a limit of the system): ${socket}`);
  return socket;
}

/** The first path that exists. It alone is tried: a refused connection never leads to the next one. */
export function choose(paths) {
  const found = paths.find((candidate) => fs.existsSync(candidate));
  if (found === undefined) throw notRunning(paths, `there is no socket at ${paths.join(' or ')}`);
  return found;
}

export function notRunning(paths, what, cause) {
  return new SessiondError('not_running', `no sessiond answers: ${what}; ${WHAT_TO_START}`, { details: { tried: paths }, cause });
}

export { Client } from './client.js';
export { SessiondError } from './errors.js';
export { SessiondSession } from './session.js';

/**
 * Every error that this package makes. `code` is for programs and stable: the codes of PROTOCOL.md, and these of this side:
 *
 *   not_running   no daemon was found, or it refused; nothing was sent
 *   unreachable   the daemon stayed away; a change was not made
 *   uncertain     it is unknown whether a change was made: repeat it with `key`, and it is made once
 *   protocol      the other side does not speak this protocol
 *   unreadable    JavaScript cannot represent a stored item; `details.text` is its text
 *   closed        the client was closed
 *
 * After every one of them but `uncertain` the change was not made.
 */
export class SessiondError extends Error {
  /**
   * @param {string} code
   * @param {string} message for people: what is wrong and what to do
   * @param {{details?: Record<string, any>, key?: string, cause?: unknown}} [more]
   */
  constructor(code, message, { details = {}, key, cause } = {}) {
    super(`${code}: ${message}`, cause === undefined ? undefined : { cause });
    this.name = 'SessiondError';
    this.code = code;
    this.details = details;
    this.key = key;
  }

  /** The index of the offending item, where it is one. */
  get item() {
    return this.details.item;
  }
}

/** The error that an error map of the daemon stands for. */
export function fromWire(error, key) {
  const { code, message, ...details } = error;
  if (typeof code !== 'string' || typeof message !== 'string')
    return new SessiondError('protocol', 'the daemon refused without saying why', { key });
  return new SessiondError(code, message, { details, key });
}

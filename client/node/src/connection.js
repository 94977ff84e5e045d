// One connection to the daemon: frames out, answers in. It decides nothing: what happens to calls after a mishap is the
// client's business. The socket keeps the process alive only while an answer is due.
//
// All frames that one turn of the event loop makes leave in one piece: the daemon finds them together, and the changes among
// them share a commit.

import net from 'node:net';

import { Inbox, Outbox } from './wire.js';

const RECEIVE_BYTES = 128 * 1024;

export class Connection {
  /** The daemon's `hello`; undefined until it has come. */
  hello;

  #socket;
  #inbox = new Inbox();
  #farewell;
  #outbox = new Outbox(); // the frames of this turn
  #leaves = false; // at its end
  #due = 0; // answers
  #heardAt = 0; // ms: when bytes came last, or the first answer became due
  #watch;
  #silenceMs;
  #events;

  /**
   * @param {string} path
   * @param {number} silenceMs
   * @param {{onOpen: () => void, onAnswer: (msgid: number, error: any, result: any) => void,
   *          onEnd: (why: string, code?: string) => void}} events `onEnd` comes once, last
   */
  constructor(path, silenceMs, events) {
    this.#silenceMs = silenceMs;
    this.#events = events;
    const onread = { buffer: Buffer.allocUnsafeSlow(RECEIVE_BYTES), callback: (size, buffer) => this.#take(buffer.subarray(0, size)) };
    this.#socket = net.connect({ path, onread });
    this.#socket.on('connect', () => events.onOpen());
    this.#socket.on('error', (error) => this.#end(`${path}: ${error.message}`, error.code));
    this.#socket.on('close', () => this.#end(`the daemon closed the connection: ${this.#farewell ?? 'it gave no reason'}`));
  }

  /** Returns the frame's size; one that has more than `most` bytes is not sent. Throws if it cannot be made. */
  send(msgid, method, params, most) {
    const size = this.#outbox.add(msgid, method, params, most);
    if (size > most) return size;
    if (this.#due++ === 0) {
      this.#socket.ref();
      this.#heardAt = Date.now();
      this.#watch ??= setInterval(() => this.#look(), Math.max(10, this.#silenceMs / 4)).unref();
    }
    if (!this.#leaves) process.nextTick(() => this.#flush());
    this.#leaves = true;
    return size;
  }

  #flush() {
    this.#leaves = false;
    const bytes = this.#outbox.take();
    if (this.#events) this.#socket.write(bytes);
  }

  close(why = 'the client was closed') {
    this.#end(why);
  }

  #take(chunk) {
    this.#heardAt = Date.now();
    let messages;
    try {
      messages = this.#inbox.feed(chunk);
    } catch (error) {
      this.#end(`the daemon sent something else than MessagePack: ${error.message}`);
      return;
    }
    for (const message of messages) {
      if (!Array.isArray(message) || (message[0] !== 1 && message[0] !== 2)) {
        this.#end('the daemon sent something else than an answer');
        return;
      }
      if (message[0] === 1) this.#answer(message);
      else if (message[1] === 'error') this.#farewell = `${message[2]?.[0]?.code}: ${message[2]?.[0]?.message}`;
    }
  }

  #answer([, msgid, error, result]) {
    if (--this.#due === 0) this.rest();
    this.#events?.onAnswer(msgid, error, result);
  }

  /** Lets the process end, unless an answer is due. */
  rest() {
    if (this.#due > 0) return;
    this.#socket.unref();
    clearInterval(this.#watch);
    this.#watch = undefined;
  }

  #look() {
    if (Date.now() - this.#heardAt >= this.#silenceMs) this.#end(`the daemon was silent for ${this.#silenceMs} ms`);
  }

  #end(why, code) {
    const events = this.#events;
    this.#events = undefined;
    clearInterval(this.#watch);
    this.#socket.destroy();
    events?.onEnd(why, code);
  }
}

// The daemon's methods as promises.
//
//     call ──▶ queue ──send──▶ sent ──answer──▶ promise
//                ▲               │
//                └── the connection broke, or `busy`
//
// A client owns its calls; each stands in the queue, among those sent, or waits for its turn after a `busy`. The queue is
// in the order of the calls always, so that they are sent again in the order in which they were made.

import { randomFillSync } from 'node:crypto';
import path from 'node:path';

import { Connection } from './connection.js';
import { SessiondError, fromWire } from './errors.js';
import { candidates, choose, notRunning } from './paths.js';

const PROTOCOL = [1, 1];
const FIRST_PAUSE_MS = 5;
const LONGEST_PAUSE_MS = 500;
const STARTS_MAX = 100; // how often removals by others may make a reading start over
const META_ITEMS_MAX = 524288;
const CHANGE_OPTIONS = new Set(['key', 'digest', 'ifRevision', 'ifEpoch', 'store']);

// Refusals that come after the look-up of the key, or would have met the first try as well: they leave no doubt.
const SETTLED = new Set(['invalid', 'unknown_method', 'denied', 'conflict', 'key_reused', 'too_large']);

const KEY_RANDOM_BYTES = 10;
const random = { bytes: Buffer.alloc(400 * KEY_RANDOM_BYTES), at: Infinity }; // drawn for many keys at once
const time = { ms: 0, digits: '' }; // of the last key

/** A fresh name for one change: 48 bits of milliseconds, then 80 random bits, so that keys arrive nearly sorted. */
export function newKey() {
  if (random.at >= random.bytes.length) {
    randomFillSync(random.bytes);
    random.at = 0;
  }
  const now = Date.now();
  if (now !== time.ms) Object.assign(time, { ms: now, digits: now.toString(16).padStart(12, '0') });
  const begin = random.at;
  random.at += KEY_RANDOM_BYTES;
  return time.digits + random.bytes.toString('hex', begin, random.at);
}

export class Client {
  #paths;
  #path; // the one that worked first: it stays the only one
  #retryMs;
  #silenceMs;
  #name;
  #connection;
  #ready = false; // introduced: calls may be sent
  #limits = {};
  #instance;
  #queue = [];
  #sent = new Map(); // msgid -> call
  #delayed = 0; // calls that wait after a `busy`
  #nextMsgid = 0;
  #nextNumber = 0;
  #pauseMs = FIRST_PAUSE_MS;
  #timer;
  #closed = false;
  #whenIdle = [];

  constructor({ socket, retryMs = 10_000, silenceMs = 60_000, name } = {}) {
    if (!(retryMs >= 0) || !(silenceMs > 0)) throw new RangeError('silenceMs must be positive, retryMs not negative');
    this.#paths = candidates(socket);
    this.#retryMs = retryMs;
    this.#silenceMs = silenceMs;
    this.#name = (name ?? `${path.basename(process.argv[1] ?? 'node')} (sessiond-node)`).slice(0, 80).toWellFormed();
  }

  /** Waits for the calls under way, then disconnects. Any number of times. */
  async close() {
    this.#closed = true;
    while (this.#queue.length + this.#sent.size + this.#delayed > 0)
      await new Promise((resolve) => this.#whenIdle.push(resolve));
    this.#connection?.close();
  }

  // ---- the daemon ----

  hello() {
    return this.#call('hello', { client: this.#name, protocol: PROTOCOL });
  }

  async ping() {
    await this.#call('ping', {});
  }

  info() {
    return this.#call('info', {});
  }

  // ---- reading ----

  async getItems(session, { limit, after, before, maxBytes, ifEpoch, withMeta, store } = {}) {
    const read = (range) =>
      this.#call('get_items', { session, ...range, with_meta: withMeta || undefined, store }).then(itemsOf);
    if (maxBytes !== undefined) return read({ limit, after, before, max_bytes: maxBytes, if_epoch: ifEpoch });
    for (let starts = 0; ; starts++) {
      const first = await read({ limit, after, before, if_epoch: ifEpoch });
      try {
        return await this.#readOn(first, before, read);
      } catch (error) {
        if (error.code !== 'conflict' || starts === STARTS_MAX) throw error;
      }
    }
  }

  /** The pages after the first: the history as it stood then, while others append. */
  async #readOn(first, before, read) {
    const end = Math.min(first.headSeq + 1, before ?? Infinity);
    let page = first;
    while (page.more) {
      page = await read({ after: page.lastSeq, before: end, if_epoch: first.epoch });
      first.items = first.items.concat(page.items);
      if (first.meta) first.meta = first.meta.concat(page.meta);
    }
    return { ...first, lastSeq: page.lastSeq, more: false };
  }

  async listSessions({ after, limit, prefix, store } = {}) {
    const read = (from) => this.#call('list_sessions', { after: from, limit, prefix, store });
    let page = await read(after);
    const sessions = page.sessions.map(camelCased);
    while (page.more && limit === undefined) {
      page = await read(page.sessions.at(-1).id);
      sessions.push(...page.sessions.map(camelCased));
    }
    return { sessions, more: page.more };
  }

  async listStores() {
    const { stores } = await this.#call('list_stores', {});
    return { stores: stores.map(camelCased) };
  }

  // ---- changes ----

  async addItems(session, items, options = {}) {
    const params = { session, items: texts(items), meta: besides(options.meta, items) };
    return camelCased(await this.#change('add_items', params, options, ['meta']));
  }

  async popItem(session, options = {}) {
    const params = { session, with_meta: options.withMeta || undefined };
    return { erased: false, ...camelCased(await this.#change('pop_item', params, options, ['withMeta'])) };
  }

  async clearSession(session, options = {}) {
    return camelCased(await this.#change('clear_session', { session }, options));
  }

  async replaceItems(session, items, options = {}) {
    const params = { session, from_seq: options.fromSeq, items: texts(items), meta: besides(options.meta, items) };
    return camelCased(await this.#change('replace_items', params, options, ['fromSeq', 'meta']));
  }

  async deleteSession(session, options = {}) {
    return camelCased(await this.#change('delete_session', { session }, options));
  }

  /** `options` are those of every change, and the method's `own`. */
  #change(method, params, options, own = []) {
    for (const name of Object.keys(options))
      if (!CHANGE_OPTIONS.has(name) && !own.includes(name)) throw new TypeError(`${method} has no option ${name}`);
    const { key = newKey(), digest, ifRevision, ifEpoch, store } = options;
    params.key = key;
    params.digest = digest;
    params.if_revision = ifRevision;
    params.if_epoch = ifEpoch;
    params.store = store;
    return this.#call(method, params, key);
  }

  // ---- calls ----

  #call(method, params, key) {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new SessiondError('closed', 'this client was closed', { key });
      if (params.session !== undefined && !isText(params.session))
        throw new TypeError('a session id is a string of well-formed Unicode');
      this.#queue.push({ number: this.#nextNumber++, method, params, key, resolve, reject, giveUpAt: undefined, doubt: undefined, busyPauseMs: FIRST_PAUSE_MS });
      this.#pump();
    });
  }

  /** Sends what waits, or connects. */
  #pump() {
    if (this.#ready) {
      const queue = this.#queue;
      this.#queue = [];
      for (const call of queue) this.#send(call);
    } else if (!this.#connection && !this.#timer && this.#queue.length > 0) {
      this.#connect();
    }
  }

  #send(call) {
    try {
      this.#check(call);
      const most = this.#limits.frame_bytes;
      const size = this.#connection.send(this.#nextMsgid, call.method, call.params, most);
      if (size > most) throw tooLarge(call, size, 'bytes', most);
    } catch (error) {
      this.#fail(call, error);
      return;
    }
    call.sentTo = this.#instance;
    this.#sent.set(this.#takeMsgid(), call);
  }

  /** What no daemon would take is not sent: it would cost the connection. */
  #check(call) {
    const { items, meta } = call.params;
    if (items === undefined) return;
    if (meta && this.#limits.meta_bytes === undefined)
      throw new SessiondError('unknown_method', 'this daemon is too old to keep anything beside items', { key: call.key });
    const most = meta ? Math.min(this.#limits.items, META_ITEMS_MAX) : this.#limits.items;
    if (items.length > most) throw tooLarge(call, items.length, 'items', most);
  }

  #take(msgid, error, result) {
    const call = this.#sent.get(msgid);
    if (!call) return;
    this.#sent.delete(msgid);
    if (call.isGreeting) this.#greeted(call.socket, error, result);
    else if (error === null) this.#finish(call, call.resolve, result);
    else this.#refused(call, fromWire(error, call.key));
  }

  #refused(call, refusal) {
    if (refusal.code === 'uncertain') call.doubt ??= call.sentTo;
    else if (refusal.code !== 'busy') {
      const unsure = call.doubt !== undefined && !SETTLED.has(refusal.code);
      this.#fail(call, unsure ? uncertain(call, `the answer to its repetition was ${refusal.message}`, refusal) : refusal);
      return;
    }
    const left = this.#timeLeft(call);
    if (left <= 0) {
      this.#fail(call, call.doubt !== undefined && refusal.code === 'busy' ? uncertain(call, refusal.message, refusal) : refusal);
      return;
    }
    const pause = Math.max(refusal.details.retry_after_ms ?? 0, jittered(call.busyPauseMs));
    call.busyPauseMs = Math.min(2 * call.busyPauseMs, LONGEST_PAUSE_MS);
    this.#delayed++;
    setTimeout(() => {
      this.#delayed--;
      this.#requeue([call]);
      this.#pump();
    }, Math.min(pause, left));
  }

  #requeue(calls) {
    this.#queue.push(...calls);
    this.#queue.sort((a, b) => a.number - b.number);
  }

  /** Milliseconds until a call is given up; counted from its first mishap. */
  #timeLeft(call) {
    call.giveUpAt ??= Date.now() + this.#retryMs;
    return call.giveUpAt - Date.now();
  }

  #fail(call, error) {
    this.#finish(call, call.reject, error);
  }

  /**
   * A call that has ended lets go of what it held: a Map leaves old tables behind as it is used, and each refers to the next
   * and to what was in it, until a full collection finds them. With whole histories in them that costs more than all else.
   */
  #finish(call, settle, value) {
    call.params = call.resolve = call.reject = undefined;
    settle(value);
    if (this.#queue.length + this.#sent.size + this.#delayed === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  // ---- the connection ----

  #connect() {
    let socket;
    try {
      socket = this.#path ?? choose(this.#paths);
    } catch (error) {
      this.#failQueue(() => error);
      return;
    }
    const connection = new Connection(socket, this.#silenceMs, {
      onOpen: () => {
        this.#sent.set(this.#nextMsgid, { isGreeting: true, socket });
        connection.send(this.#takeMsgid(), 'hello', { client: this.#name, protocol: PROTOCOL });
      },
      onAnswer: (msgid, error, result) => this.#take(msgid, error, result),
      onEnd: (why, code) => this.#lost(socket, why, code),
    });
    this.#connection = connection;
  }

  #takeMsgid() {
    const msgid = this.#nextMsgid;
    this.#nextMsgid = (msgid + 1) % 2 ** 32;
    return msgid;
  }

  #greeted(socket, error, hello) {
    if (error !== null || typeof hello?.instance !== 'string' || typeof hello.limits !== 'object') {
      const refusal = error === null ? new SessiondError('protocol', `what answers at ${socket} is no sessiond`) : fromWire(error);
      if (refusal.code !== 'busy') this.#failQueue(() => refusal);
      this.#connection.close(refusal.message);
      return;
    }
    this.#path = socket;
    this.#instance = hello.instance;
    this.#limits = hello.limits;
    this.#pauseMs = FIRST_PAUSE_MS;
    this.#ready = true;
    const elsewhere = this.#queue.filter((call) => call.doubt !== undefined && call.doubt !== hello.instance);
    this.#queue = this.#queue.filter((call) => !elsewhere.includes(call));
    for (const call of elsewhere)
      this.#fail(call, uncertain(call, `the daemon that may have made it was instance ${call.doubt}, the one that answers now is ${hello.instance}`));
    this.#pump();
    this.#connection?.rest();
  }

  #lost(socket, why, code) {
    const calls = [...this.#sent.values()].filter((call) => !call.isGreeting);
    const refused = this.#path === undefined && code !== undefined && code !== 'EAGAIN';
    this.#connection = undefined;
    this.#ready = false;
    this.#sent.clear();
    for (const call of calls) if (call.key !== undefined) call.doubt ??= call.sentTo;
    this.#requeue(calls);
    if (refused) {
      this.#failQueue(() => notRunning(this.#paths, why));
      return;
    }
    const given = this.#queue.filter((call) => this.#timeLeft(call) <= 0);
    this.#queue = this.#queue.filter((call) => !given.includes(call));
    for (const call of given)
      this.#fail(call, call.doubt === undefined ? new SessiondError('unreachable', why, { key: call.key }) : uncertain(call, why));
    this.#connectLater();
  }

  #connectLater() {
    if (this.#queue.length === 0 || this.#timer) return;
    const left = Math.min(...this.#queue.map((call) => this.#timeLeft(call)));
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#pump();
    }, Math.max(0, Math.min(jittered(this.#pauseMs), left)));
    this.#pauseMs = Math.min(2 * this.#pauseMs, LONGEST_PAUSE_MS);
  }

  #failQueue(errorFor) {
    for (const call of this.#queue.splice(0)) {
      const error = errorFor(call);
      this.#fail(call, call.doubt === undefined ? error : uncertain(call, error.message, error));
    }
  }
}

function jittered(ms) {
  return ms * (0.75 + Math.random() / 2);
}

function tooLarge({ method, key }, value, unit, limit) {
  const what = `${method} with ${value} ${unit} is over the limit of ${limit} for one request`;
  return new SessiondError('too_large', what, { details: { limit }, key });
}

function uncertain(call, why, cause) {
  return new SessiondError('uncertain', `it is unknown whether ${call.method} was made: ${why}`, { key: call.key, cause });
}

// ---- parameters and results ----

function isText(value) {
  return typeof value === 'string' && value.isWellFormed();
}

function texts(items) {
  if (!Array.isArray(items)) throw new TypeError('items must be an array of JSON texts');
  items.forEach((item, index) => {
    if (!isText(item)) throw new TypeError(`items[${index}] must be a JSON text: a string of well-formed Unicode`);
  });
  return items;
}

/** `meta` as the wire wants it; a list of nothing is left out. */
function besides(meta, items) {
  if (meta === undefined || meta === null) return undefined;
  if (!Array.isArray(meta) || meta.length !== items.length) throw new TypeError('meta must be an array as long as items');
  meta.forEach((text, index) => {
    if (text !== null && text !== undefined && !isText(text)) throw new TypeError(`meta[${index}] must be a JSON text, or null`);
  });
  return meta.some((text) => text) ? meta.map((text) => text ?? null) : undefined;
}

const camelNames = new Map(); // of the daemon's names, which are few

function camelName(name) {
  let camel = camelNames.get(name);
  if (camel === undefined) {
    camel = name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
    camelNames.set(name, camel);
  }
  return camel;
}

function camelCased(map) {
  const result = {};
  for (const name of Object.keys(map)) result[camelName(name)] = map[name];
  return result;
}

function itemsOf(r) {
  const items = { items: r.items, firstSeq: r.first_seq, lastSeq: r.last_seq, headSeq: r.head_seq };
  if (r.meta) items.meta = r.meta;
  return { ...items, revision: r.revision, epoch: r.epoch, more: r.more, missing: r.missing ?? 0 };
}

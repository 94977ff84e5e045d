// A history of the OpenAI Agents SDK for JavaScript, kept by sessiond.

import { createHash } from 'node:crypto';

import { Client } from './client.js';
import { NAMELESS, loadConverter } from './convert.js';
import { SessiondError } from './errors.js';
import { canonical, checkJson, plain } from './json.js';

const KEY_BYTES_MAX = 255;
const NUMBER_MAX = Number.MAX_SAFE_INTEGER;
const TRIES_MAX = 100; // how often changes of others may make a replacement start over

/** One client for all sessions of a socket: one connection. */
const clients = new Map();

function sharedClient(socket) {
  const name = socket ?? process.env.SESSIOND_SOCKET ?? '';
  if (!clients.has(name)) clients.set(name, new Client({ socket }));
  return clients.get(name);
}

export class SessiondSession {
  /** The SDK gives each call the run's context as its last argument, for classes that extend this one. */
  acceptsRunContext = true;

  #client;

  constructor(sessionId, { store, socket, client } = {}) {
    if (typeof sessionId !== 'string' || !sessionId.isWellFormed()) throw new TypeError('a session id is a string of well-formed Unicode');
    const size = Buffer.byteLength(sessionId);
    if (size < 1 || size > 255) throw new RangeError(`a session id has 1 to 255 bytes in UTF-8, this one has ${size}`);
    this.sessionId = sessionId;
    this.store = store ?? (process.env.SESSIOND_STORE || undefined);
    this.#client = client ?? sharedClient(socket);
  }

  async getSessionId() {
    return this.sessionId;
  }

  async getItems(limit) {
    if (limit <= 0) return [];
    const { items } = await this.#read(limit < NUMBER_MAX ? Math.ceil(limit) : undefined);
    return items;
  }

  async addItems(items) {
    if (items.length === 0) return;
    await this.#client.addItems(this.sessionId, ...(await this.#stored(items)));
  }

  async popItem() {
    const popped = await this.#client.popItem(this.sessionId, { withMeta: true, store: this.store });
    if (popped.item === null) return undefined;
    const items = await (await loadConverter()).read([popped.item], [popped.meta]);
    await this.#nameResults(items, popped.seq);
    return items[0];
  }

  async clearSession() {
    await this.#client.clearSession(this.sessionId, { store: this.store });
  }

  /** The history gives way to these items in one step. Whoever reads meanwhile sees the one or the other, whole. */
  async replaceHistoryWithCompaction(items) {
    await this.#replace(undefined, items, {}, () => []);
  }

  /**
   * The oldest items, which must be `oldest`, give way to others in one step. What was appended after them stays; any other
   * change refuses it, with the code `conflict`.
   */
  async replaceOldest(oldest, items) {
    const wanted = oldest.map(canonical);
    await this.#replace(undefined, items, {}, (there) => {
      if (wanted.some((name, i) => i >= there.length || canonical(there[i]) !== name))
        throw new SessiondError('conflict', 'the history does not begin with the items that are to be replaced');
      return there.slice(wanted.length);
    });
  }

  /** Stored and expected items in the form in which they are compared: without what is undefined. */
  prepareHistoryItemsForPersistenceComparison(items) {
    return plain(items);
  }

  /**
   * Makes a change once, however often it is asked for: the operation's id and the change are stored in one transaction,
   * for as long as the daemon keeps receipts (24 hours of its uptime).
   */
  async applyHistoryTransaction(args) {
    const { operationId, transaction } = checked(args);
    const change = { key: this.#operationKey(operationId), digest: `sha256:${sha256(canonical(transaction))}` };
    try {
      if (transaction.type === 'append_items') await this.#append(transaction.items, change);
      else await this.#replaceSuffix(transaction, change);
    } catch (error) {
      if (error.code !== 'key_reused') throw error;
      throw new SessiondError('key_reused', 'this operation was already applied with a different transaction', { key: change.key, cause: error });
    }
  }

  // ---- inside ----

  async #append(items, change) {
    const [texts, options] = await this.#stored(items);
    await this.#client.addItems(this.sessionId, texts, { ...options, ...change });
  }

  async #replaceSuffix({ expectedSuffix, replacement }, change) {
    if (await this.#wasApplied(change)) return;
    const wanted = expectedSuffix.map(canonical);
    await this.#replace(wanted.length, replacement, change, (items) => {
      if (items.length !== wanted.length || items.some((item, i) => canonical(item) !== wanted[i]))
        throw new SessiondError('conflict', 'the history does not end with the suffix that the transaction expects', { key: change.key });
    });
  }

  /** The key is looked up before any precondition: one that cannot hold asks for the receipt and changes nothing. */
  async #wasApplied(change) {
    try {
      await this.#client.replaceItems(this.sessionId, [], { ...change, ifRevision: NUMBER_MAX, store: this.store });
      return true;
    } catch (error) {
      if (error.code !== 'conflict') throw error;
      return false;
    }
  }

  /**
   * The latest `n` items (undefined: all) give way to others, and to those that `check` returns of them, if it lets those
   * there are pass and nobody changes the session meanwhile; else it begins anew. An item that stays the same keeps its stored text and what stands beside it.
   */
  async #replace(n, items, change, check) {
    const converter = await loadConverter();
    for (let tries = 1; ; tries++) {
      const old = await this.#read(n);
      const all = [...items, ...(check(old.items) ?? [])];
      const stored = await converter.store(all, keeping(old, all));
      const fromSeq = n === undefined ? undefined : (old.firstSeq ?? old.headSeq + 1);
      try {
        const [texts, options] = this.#arguments(stored);
        await this.#client.replaceItems(this.sessionId, texts, { ...options, ...change, fromSeq, ifRevision: old.revision });
        return;
      } catch (error) {
        if (error.code !== 'conflict' || tries === TRIES_MAX) throw error;
      }
    }
  }

  async #stored(items) {
    return this.#arguments(await (await loadConverter()).store(items));
  }

  #arguments(stored) {
    return [stored.map(({ text }) => text), { meta: stored.map(({ meta }) => meta), store: this.store }];
  }

  /** The latest `limit` items (undefined: all) as the SDK wants them, with what is stored of them. */
  async #read(limit) {
    const converter = await loadConverter();
    const answer = await this.#client.getItems(this.sessionId, { limit, withMeta: true, store: this.store });
    const items = await converter.read(answer.items, answer.meta);
    await this.#nameResults(items, limit === undefined ? 0 : answer.firstSeq);
    return { ...answer, items, texts: answer.items };
  }

  /** A stored result says whose call it answers, but not of which tool: that stands in the call, which may be before `seq`. */
  async #nameResults(items, seq) {
    const nameless = items.filter((item) => item.type === 'function_call_result' && item.name === NAMELESS);
    if (nameless.length === 0) return;
    const calls = items.filter((item) => item.type === 'function_call').map(({ callId, name }) => [callId, name]);
    const names = new Map(calls);
    if (seq && !nameless.every(({ callId }) => names.has(callId)))
      for (const { call_id, name } of await this.#callsBefore(seq)) if (!names.has(call_id)) names.set(call_id, name);
    for (const result of nameless) result.name = names.get(result.callId) ?? result.callId;
  }

  async #callsBefore(seq) {
    const { items } = await this.#client.getItems(this.sessionId, { before: seq, store: this.store });
    return items.filter((text) => text.includes('function_call')).map((text) => JSON.parse(text)).filter(({ type }) => type === 'function_call');
  }

  /** Operations of two sessions never meet, though keys belong to the whole store. */
  #operationKey(operationId) {
    const key = `operation ${this.sessionId.length} ${this.sessionId} ${operationId}`;
    return Buffer.byteLength(key) <= KEY_BYTES_MAX && key.isWellFormed() ? key : `operation sha256:${sha256(key)}`;
  }
}

function sha256(text) {
  return createHash('sha256').update(text, 'utf16le').digest('hex');
}

/** For each of the items the stored text of an equal one, each of which is used once; undefined where there is none. */
function keeping({ items, texts, meta }, wanted) {
  const stored = new Map();
  items.forEach((item, i) => {
    const name = canonical(item);
    if (!stored.has(name)) stored.set(name, []);
    stored.get(name).push({ text: texts[i], meta: meta[i] });
  });
  return wanted.map((item) => stored.get(canonical(item))?.shift());
}

function checked(args) {
  const { operationId, transaction } = args ?? {};
  if (typeof operationId !== 'string' || !operationId.trim()) throw new TypeError('operationId must be a non-empty string');
  const lists = { append_items: ['items'], replace_suffix: ['expectedSuffix', 'replacement'] }[transaction?.type];
  if (!lists) throw new TypeError('a transaction is of type append_items or replace_suffix');
  const names = Object.keys(transaction);
  if (names.length !== lists.length + 1 || !lists.every((name) => Array.isArray(transaction[name])))
    throw new TypeError(`a transaction of type ${transaction.type} has the lists ${lists.join(' and ')}, and nothing else`);
  for (const name of lists) checkJson(transaction[name], name);
  return { operationId, transaction: plain(transaction) };
}

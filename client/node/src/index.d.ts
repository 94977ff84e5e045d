/**
 * sessiond for JavaScript: the conversation histories of agents, kept by the daemon `sessiond` on this host.
 *
 *     import { Agent, run } from '@openai/agents';
 *     import { SessiondSession } from 'sessiond';
 *
 *     const session = new SessiondSession('user_123');
 *     await run(agent, 'What city is the Golden Gate Bridge in?', { session });
 *
 * What sessions, items, stores, revisions, epochs and keys are stands in PROTOCOL.md. Numbers named `…Seq` are the numbers of
 * items in their session. A connection that nobody waits for never keeps a process alive.
 */
// Without the SDK, which who uses `Client` alone does not need, its types are `any`.
// @ts-ignore
import type { AgentInputItem, OpenAIResponsesCompactionSession, RunContext, SessionHistoryTransactionArgs } from '@openai/agents';
// @ts-ignore
import type { OpenAIResponsesCompactionSessionOptions } from '@openai/agents';

/**
 * A history of the Agents SDK. Stored is the wire shape of the Responses API, as the Python SDK stores it: programs in both
 * languages go on with one conversation. What JavaScript must remember beside an item travels in `meta`.
 *
 * An item that cannot be stored as it is (NaN, an integer over 2^53, a Uint8Array, a type that is not known) is refused with
 * its index in `error.item`, and nothing is stored. All sessions of a process share one connection.
 */
export class SessiondSession {
  /**
   * @param sessionId 1 to 255 bytes in UTF-8
   */
  constructor(sessionId: string, options?: SessionOptions);

  readonly sessionId: string;
  readonly store: string | undefined;
  readonly acceptsRunContext: true;

  getSessionId(): Promise<string>;
  /** The latest `limit` items, oldest first; all of them without a limit. */
  getItems(limit?: number, runContext?: RunContext<any>): Promise<AgentInputItem[]>;
  /** Appends the items side by side, or none of them. */
  addItems(items: AgentInputItem[], runContext?: RunContext<any>): Promise<void>;
  /** Takes the newest item, in one step: two pops never return the same. */
  popItem(runContext?: RunContext<any>): Promise<AgentInputItem | undefined>;
  clearSession(runContext?: RunContext<any>): Promise<void>;
  /** The whole history gives way to these items, in one step. Items that stay keep their stored bytes. */
  replaceHistoryWithCompaction(items: AgentInputItem[], runContext?: RunContext<any>): Promise<void>;
  /**
   * The oldest items, which must be `oldest`, give way to others in one step. What was appended after them stays; after any
   * other change it is refused, with the code `conflict`.
   */
  replaceOldest(oldest: AgentInputItem[], items: AgentInputItem[]): Promise<void>;
  /** Once for each `operationId`, across restarts of program and daemon. */
  applyHistoryTransaction(args: SessionHistoryTransactionArgs, runContext?: RunContext<any>): Promise<void>;
  prepareHistoryItemsForPersistenceComparison(items: AgentInputItem[]): AgentInputItem[];
}

/**
 * The SDK's compaction around a session, to be given to `run()`: what was compacted gives way in one step, and what others
 * appended meanwhile stays. If the history has changed otherwise, nothing is replaced, and the code is `conflict`.
 */
export function compactionSession(
  session: SessiondSession,
  options?: Omit<OpenAIResponsesCompactionSessionOptions, 'underlyingSession'>,
): Promise<OpenAIResponsesCompactionSession>;

export interface SessionOptions {
  /** Default: $SESSIOND_STORE, else the daemon's, "default". */
  store?: string;
  /** Path of the daemon's socket. Default: see ClientOptions. */
  socket?: string;
  /** A client to use, in place of the one that all sessions of a socket share. */
  client?: Client;
}

/**
 * The daemon's methods. Calls may overlap: they are sent at once, in order, on one connection. It connects with the first call
 * and, once connected, reconnects to the same path whenever the connection breaks; what was not answered is sent again, changes
 * by their key and only to the same instance of the daemon, so that they happen once. A full backlog and `busy` are tried
 * again as well. All that goes on for `retryMs`, then the call fails.
 */
export class Client {
  constructor(options?: ClientOptions);

  hello(): Promise<Hello>;
  ping(): Promise<void>;
  /** What the daemon says of itself, with the names of PROTOCOL.md. */
  info(): Promise<Record<string, any>>;
  /** A history as it stood at one moment, however long it is and whoever appends meanwhile. */
  getItems(session: string, options?: Range): Promise<Items>;
  listSessions(options?: Listing): Promise<{ sessions: SessionInfo[]; more: boolean }>;
  listStores(): Promise<{ stores: StoreInfo[] }>;
  /** Appends JSON texts, side by side and in order, or none of them. */
  addItems(session: string, items: string[], change?: ItemsChange): Promise<Added>;
  /** Takes the newest item. */
  popItem(session: string, change?: Change & { withMeta?: boolean }): Promise<Popped>;
  clearSession(session: string, change?: Change): Promise<Cleared>;
  /** The items from `fromSeq` on (absent: all) give way to these, in one step. */
  replaceItems(session: string, items: string[], change?: ItemsChange & { fromSeq?: number }): Promise<Replaced>;
  /** All of it, identity and receipts included. */
  deleteSession(session: string, change?: Change): Promise<{ removed: number }>;
  /** Waits for the calls under way, then disconnects. Any number of times. */
  close(): Promise<void>;
}

export interface ClientOptions {
  /**
   * Path. Default: $SESSIOND_SOCKET if set; else the first that exists of $XDG_RUNTIME_DIR/sessiond/sessiond.sock,
   * /run/user/UID/sessiond/sessiond.sock and /run/sessiond/sessiond.sock.
   */
  socket?: string;
  /** How long a call goes on after its first mishap. Default: 10,000. */
  retryMs?: number;
  /** How long the daemon may send nothing while calls wait; then the connection counts as broken. Default: 60,000. */
  silenceMs?: number;
  /** Who calls, for the daemon's log. Default: the program's name. */
  name?: string;
}

export interface Range {
  /** Only the latest that many; 0: none. */
  limit?: number;
  /** Only items with `after < seq < before`. */
  after?: number;
  before?: number;
  /** One page of so many bytes at most, in place of the whole selection. */
  maxBytes?: number;
  /** `conflict` unless the session's epoch is this. */
  ifEpoch?: number;
  /** Give what stands beside the items as well. */
  withMeta?: boolean;
  store?: string;
}

export interface Listing {
  /** Ids greater than this, byte by byte. */
  after?: string;
  /** Only the first that many, at most 1,000. */
  limit?: number;
  prefix?: string;
  store?: string;
}

export interface Change {
  /** Names this change once and for all, 1 to 255 bytes: repeated with the same key it happens once. Default: a fresh one. */
  key?: string;
  /** With key: what makes two requests the same change, in place of the request itself. */
  digest?: string;
  /** `conflict` unless the session's revision is this. 0: the session must not exist yet. */
  ifRevision?: number;
  ifEpoch?: number;
  store?: string;
}

export interface ItemsChange extends Change {
  /** What to keep beside each of the items: a JSON object of up to 1 MiB, or null. */
  meta?: (string | null)[];
}

export interface Items {
  /** JSON texts, oldest first, byte for byte as they were added. */
  items: string[];
  /** Only `withMeta`. */
  meta?: (string | null)[];
  /** null: there are none. */
  firstSeq: number | null;
  lastSeq: number | null;
  /** The highest that the session ever gave; 0: it never existed, as with the next two. */
  headSeq: number;
  revision: number;
  epoch: number;
  /** The selection goes on after `lastSeq`. Only with `maxBytes`. */
  more: boolean;
  /** Rows of the store that were acknowledged and are not there; 0: none. */
  missing: number;
}

export interface Added {
  firstSeq: number | null;
  lastSeq: number | null;
  revision: number;
  epoch: number;
}

export interface Popped {
  /** null: there was none. */
  item: string | null;
  /** Only `withMeta`. */
  meta?: string | null;
  seq: number | null;
  revision: number;
  epoch: number;
  /** The pop was repeated by key, and a clear has erased the item since. */
  erased: boolean;
}

export interface Cleared {
  removed: number;
  revision: number;
  epoch: number;
}

export interface Replaced extends Added {
  removed: number;
}

export interface SessionInfo {
  id: string;
  count: number;
  bytes: number;
  headSeq: number;
  revision: number;
  epoch: number;
  createdUs: number;
  updatedUs: number;
}

export interface StoreInfo {
  name: string;
  engine: string;
  durability: string;
  /** null, as the next three: the store cannot be opened at the moment. */
  sessions: number | null;
  bytes: number | null;
  logBytes: number | null;
  missing: number | null;
}

export interface Hello {
  server: string;
  version: string;
  protocol: number;
  instance: string;
  uid: number;
  limits: Record<string, number>;
}

/**
 * Every error of this package. After every one of them but `uncertain` the change was not made.
 */
export class SessiondError extends Error {
  /**
   * The codes of PROTOCOL.md, and: `not_running`, `unreachable`, `uncertain`, `protocol`, `unreadable`, `closed`.
   */
  readonly code: string;
  /** What else is known of it, such as `{ item: 3 }` or `{ revision: 7, epoch: 2 }`. */
  readonly details: Record<string, any>;
  /** The key of the change that failed. Repeating the change with this key stores it once. */
  readonly key: string | undefined;
  /** The index of the offending item, where it is one. */
  readonly item: number | undefined;
}

// Items of the JavaScript SDK (`callId`, `function_call_result`) to items as they are stored, and back. Stored is the wire
// shape of the Responses API (`call_id`, `function_call_output`), exactly as the Python SDK stores it.
//
// The SDK converts: its OpenAIConversationsSession does, with whatever looks like a client. What it drops or cannot take is
// done here. And whatever is lost on the way all the same goes into `meta`, beside the stored item, as the difference between
// the item that was given and the one that would be read: so who wrote an item in JavaScript reads it back as it was.

import { SessiondError } from './errors.js';
import { applied, checkJson, difference, parseItem, plain } from './json.js';

const PLACEHOLDER_ID = 'FAKE_ID'; // the SDK's own, where a model gave none
const AUDIO_MARK = 'audio goes here';

/** The name of a tool's result that is not known from the item alone: it stands in the call. */
export const NAMELESS = '';

/** The SDK's converter; loaded when a session is used first. */
let loading;

export function loadConverter() {
  loading ??= load();
  return loading;
}

async function load() {
  let sdk;
  try {
    sdk = await import('@openai/agents');
  } catch (error) {
    loading = undefined;
    throw new SessiondError('protocol', 'SessiondSession needs the package @openai/agents: npm install @openai/agents', { cause: error });
  }
  return new Converter(sdk.OpenAIConversationsSession);
}

// Between two stored items, to know which of what comes out belongs to which.
const SEPARATOR = { type: 'sessiond.separator' };

class Converter {
  #Conversations;
  #out;

  constructor(Conversations) {
    this.#Conversations = Conversations;
    this.#out = new Conversations({ conversationId: 'none', client: {} });
  }

  /**
   * Items of the SDK to `{text, meta}` each, but those in whose place `kept` has one already; meta is null where nothing is
   * to be remembered. Refuses with the index.
   */
  async store(items, kept = []) {
    const wire = items.map((item, index) => kept[index] ?? refusing(index, () => this.#toWire(item, index)));
    const fresh = wire.filter((_, index) => !kept[index]);
    const back = await this.#fromWire(fresh);
    let at = 0;
    return items.map((item, index) => {
      if (kept[index]) return kept[index];
      const d = difference(back[at++], plain(item));
      return { text: JSON.stringify(wire[index]), meta: d ? JSON.stringify({ js: d }) : null };
    });
  }

  /** Stored texts and what stands beside them to items of the SDK. */
  async read(texts, metas) {
    const items = await this.#fromWire(texts.map(parseItem));
    return items.map((item, index) => {
      const d = metas?.[index] && JSON.parse(metas[index]).js;
      return d ? applied(item, d) : item;
    });
  }

  // ---- to the wire ----

  #toWire(item, index) {
    checkJson(item, `items[${index}]`);
    const given = normalised(item);
    const wire = this.#out.prepareHistoryItemsForPersistenceComparison([disguised(given)]);
    if (wire.length !== 1) throw new TypeError('the SDK cannot convert it');
    return completed(plain(wire[0]), given);
  }

  // ---- from the wire ----

  async #fromWire(wire) {
    const result = wire.map(ours);
    const theirs = wire.map((_, index) => index).filter((index) => result[index] === undefined);
    const converted = await this.#converted(theirs.map((index) => readable(wire[index])), theirs);
    theirs.forEach((index, i) => {
      result[index] = converted[i];
      if (result[index].type === 'function_call_result') result[index].name = wire[index].name ?? NAMELESS;
    });
    return result;
  }

  async #converted(wire, indices) {
    let asked = 0;
    async function* list() {
      for (const item of wire) {
        asked++;
        yield item;
        yield SEPARATOR;
      }
    }
    const session = new this.#Conversations({ conversationId: 'none', client: { conversations: { items: { list } } } });
    let items;
    try {
      items = await session.getItems();
    } catch (error) {
      throw unreadable(indices[asked - 1], error);
    }
    const groups = [[]];
    for (const item of items) {
      if (item.type === 'unknown' && item.providerData === SEPARATOR) groups.push([]);
      else groups.at(-1).push(item);
    }
    groups.pop();
    return groups.map((group, i) => {
      if (group.length !== 1) throw unreadable(indices[i], new Error(`it would become ${group.length} items`));
      return plain(group[0]);
    });
  }
}

function refusing(index, convert) {
  try {
    return convert();
  } catch (error) {
    throw new SessiondError('invalid', `item ${index}: ${error.message}`, { details: { item: index }, cause: error });
  }
}

function unreadable(index, error) {
  return new SessiondError('unreadable', `item ${index}: ${error.message}`, { details: { item: index }, cause: error });
}

// ---- to the wire: before the SDK's converter and after it ----

/** Easy messages in full. */
function normalised(item) {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) throw new TypeError('an item must be an object');
  const full = item.type === undefined && typeof item.role === 'string' ? { type: 'message', ...item } : item;
  if (full.type === 'message' && full.role === 'assistant' && typeof full.content === 'string')
    return { ...full, content: [{ type: 'output_text', text: full.content }] };
  return full;
}

/** In the place of what the SDK's converter drops or refuses, something that it takes. */
function disguised(item) {
  if (item.type === 'reasoning' && item.id === undefined) return { ...item, id: PLACEHOLDER_ID };
  if (item.type === 'message' && item.role === 'user' && Array.isArray(item.content) && item.content.some(isAudio))
    return { ...item, content: item.content.map((part) => (isAudio(part) ? { type: 'input_text', text: AUDIO_MARK } : part)) };
  return item;
}

function isAudio(part) {
  return part?.type === 'audio';
}

function completed(wire, item) {
  if (wire.id === PLACEHOLDER_ID) delete wire.id;
  if (typeof item.id === 'string' && item.id !== PLACEHOLDER_ID) wire.id = item.id;
  if (item.type === 'message' && item.role === 'user' && Array.isArray(item.content))
    item.content.forEach((part, i) => {
      if (isAudio(part)) wire.content[i] = audioToWire(part);
    });
  return wire;
}

function audioToWire({ audio, format }) {
  if (typeof audio === 'string') return { type: 'input_audio', input_audio: plain({ data: audio, format: format ?? undefined }) };
  if (typeof audio?.id === 'string') return { type: 'input_audio', file_id: audio.id };
  throw new TypeError('audio must be base64 data, or a file with an id');
}

// ---- from the wire: what the SDK's converter drops, refuses or explodes ----

/** The item of the SDK, or undefined: its converter is right. */
function ours(wire) {
  const isMessage = wire.type === 'message' || (wire.type === undefined && typeof wire.role === 'string');
  if (isMessage && wire.role === 'user') return userMessage(wire) ?? verbatim(wire);
  if (isMessage && wire.role !== 'assistant' && !isSystemText(wire)) return verbatim(wire);
  if (wire.type === 'computer_call_output' && typeof wire.output?.image_url === 'string') return screenshot(wire);
  return explodes(wire) ? verbatim(wire) : undefined;
}

/** For what the SDK has no word: it goes to the model as it is. */
function verbatim(wire) {
  return plain({ type: 'unknown', id: wire.id, providerData: wire });
}

function isSystemText({ role, content }) {
  return role === 'system' && (typeof content === 'string' || content?.every?.(({ type }) => type === 'input_text'));
}

/** The SDK takes a list of typed outputs for items of their own. */
function explodes({ output }) {
  return Array.isArray(output) && output.length > 0 && output.every((entry) => typeof entry?.type === 'string' && !entry.type.startsWith('input_'));
}

/** In full, so that the SDK's converter takes it. */
function readable(wire) {
  const type = wire.type ?? (typeof wire.role === 'string' ? 'message' : undefined);
  if (type === 'message' && wire.role === 'assistant') {
    const content = typeof wire.content === 'string' ? [{ type: 'output_text', text: wire.content }] : wire.content;
    return { status: 'completed', ...wire, type, content };
  }
  if (type === 'reasoning' && !Array.isArray(wire.summary)) return { ...wire, summary: [] };
  return { ...wire, type };
}

/** Undefined, if a part of it has no counterpart. */
function userMessage({ type: _type, role, id, content, ...rest }) {
  const parts = typeof content === 'string' ? content : content?.map?.(partFromWire);
  if (parts === undefined || (typeof parts !== 'string' && parts.includes(undefined))) return undefined;
  return plain({ id, type: 'message', role, content: parts, ...besides(rest) });
}

function besides(rest) {
  return Object.keys(rest).length ? { providerData: rest } : {};
}

const PARTS = {
  input_text: ({ text, ...rest }) => ({ text, ...besides(rest) }),
  input_image: ({ image_url, file_id, detail, ...rest }) =>
    (image_url ?? file_id) && { image: image_url ?? { id: file_id }, detail, ...besides(rest) },
  input_file: ({ file_data, file_url, file_id, filename, ...rest }) =>
    (file_data ?? file_url ?? file_id) && {
      file: file_data ?? (file_url === undefined ? { id: file_id } : { url: file_url }),
      filename,
      ...besides(rest),
    },
};

function partFromWire(part) {
  const { type, ...members } = part ?? {};
  if (type === 'input_audio') return audioFromWire(members);
  const converted = Object.hasOwn(PARTS, type) && PARTS[type](members);
  return converted ? plain({ type, ...converted }) : undefined;
}

function audioFromWire({ input_audio, file_id, ...rest }) {
  const { data, format, ...inside } = input_audio ?? {};
  if (Object.keys(inside).length || (data ?? file_id) === undefined) return undefined;
  return plain({ type: 'audio', audio: data ?? { id: file_id }, format, ...besides(rest) });
}

function screenshot({ type: _type, id, call_id, output, ...rest }) {
  const result = { type: 'computer_call_result', id, callId: call_id };
  return plain({ ...result, output: { type: 'computer_screenshot', data: output.image_url }, ...besides(rest) });
}

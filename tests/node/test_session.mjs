// SessiondSession as a store: what goes in comes out, in both shapes.
import assert from 'node:assert/strict';
import test, { after, before, beforeEach } from 'node:test';
import { isDeepStrictEqual } from 'node:util';

import { MemorySession } from '@openai/agents';
import { Client, SessiondError, SessiondSession } from 'sessiond';

import { Daemon } from './lib/daemon.mjs';

const daemon = new Daemon();
let client;
let number = 0;
let session;

before(async () => {
  await daemon.start();
  client = new Client({ socket: daemon.socket });
});
after(async () => {
  await client.close();
  await daemon.remove();
});
beforeEach(() => {
  session = new SessiondSession(`s${++number}`, { client });
});

const LONG = 'a long text, as tools give them. '.repeat(50_000);

/** One of each kind that the SDK knows, and odd ones. */
const ITEMS = [
  { role: 'user', content: 'easy' },
  { type: 'message', role: 'user', content: 'Grüße 🌉 \u0000 \ud800' },
  { type: 'message', role: 'system', content: 'Be brief.' },
  {
    type: 'message',
    role: 'user',
    content: [
      { type: 'input_text', text: 'look', providerData: { note: 1 } },
      { type: 'input_image', image: 'data:image/png;base64,AAAA', detail: 'high' },
      { type: 'input_image', image: { id: 'file_1' } },
      { type: 'input_image', image: 'https://example.com/i.png', detail: 'original' },
      { type: 'input_file', file: { id: 'file_2' }, filename: 'a.pdf' },
      { type: 'input_file', file: { url: 'https://example.com/a.pdf' } },
      { type: 'audio', audio: 'QUJD', format: 'wav', transcript: 'abc' },
      { type: 'audio', audio: { id: 'file_3' } },
    ],
    providerData: { model: 'm' },
  },
  { type: 'message', role: 'assistant', status: 'completed', id: 'msg_1', content: [{ type: 'output_text', text: 'a' }, { type: 'refusal', refusal: 'no' }] },
  { type: 'message', role: 'assistant', status: 'completed', id: 'FAKE_ID', phase: 'commentary', content: [{ type: 'output_text', text: 'b', providerData: { annotations: [{ type: 'url_citation' }] } }] },
  { type: 'reasoning', id: 'rs_1', content: [{ type: 'input_text', text: 'hm' }], providerData: { encrypted_content: 'gAAAA' } },
  { type: 'reasoning', content: [{ type: 'input_text', text: 'without an id' }], rawContent: [{ type: 'reasoning_text', text: 'raw' }] },
  { type: 'reasoning', content: [] },
  { type: 'function_call', callId: 'call_1', name: 'tool', arguments: '{"n":1}', status: 'completed', namespace: 'n', providerData: { model: 'm', extra: { camelCase: 1 } } },
  { type: 'function_call_result', callId: 'call_1', name: 'tool', status: 'completed', output: { type: 'text', text: LONG } },
  { type: 'function_call_result', callId: 'call_1', name: 'tool', status: 'completed', output: 'text' },
  { type: 'function_call_result', callId: 'call_1', name: 'call_1', status: 'incomplete', output: [{ type: 'input_text', text: LONG, providerData: { x: 1 } }, { type: 'input_image', image: `data:image/png;base64,${LONG}` }] },
  { type: 'function_call_result', callId: 'call_1', name: 'tool', status: 'completed', output: { type: 'image', image: `data:image/png;base64,${LONG}` } },
  { type: 'computer_call', id: 'cu_1', callId: 'call_2', status: 'completed', action: { type: 'click', x: 1, y: 2, button: 'left' }, providerData: { pending_safety_checks: [] } },
  { type: 'computer_call_result', callId: 'call_2', output: { type: 'computer_screenshot', data: `data:image/png;base64,${LONG}` } },
  { type: 'hosted_tool_call', id: 'ws_1', name: 'web_search_call', status: 'completed', providerData: { type: 'web_search_call', action: { type: 'search', query: 'q' } } },
  { type: 'hosted_tool_call', id: 'ig_1', name: 'image_generation_call', status: 'completed', output: LONG, providerData: { type: 'image_generation_call', result: LONG } },
  { type: 'hosted_tool_call', id: 'mcp_1', name: 'mcp_call', status: 'completed', output: 'o', providerData: { type: 'mcp_call', id: 'mcp_1', name: 'n', arguments: '{}', server_label: 's' } },
  { type: 'shell_call', callId: 'call_3', status: 'completed', action: { commands: ['ls'], timeoutMs: 5 } },
  { type: 'shell_call_output', callId: 'call_3', output: [{ stdout: 'x', stderr: '', outcome: { type: 'exit', exitCode: 0 } }] },
  { type: 'apply_patch_call', callId: 'call_4', status: 'completed', operation: { type: 'update_file', path: 'p', diff: 'd', moveTo: 'q' } },
  { type: 'apply_patch_call_output', callId: 'call_4', status: 'completed', output: 'done' },
  { type: 'compaction', id: 'cmp_1', encrypted_content: 'zzz' },
  { role: 'user', content: 'x', providerData: JSON.parse('{"__proto__": {"not": "a prototype"}}') },
  { type: 'unknown', id: 'u_1', providerData: { type: 'from_the_future', deep: { camelCase: [1, { keepMe: 2 }] } } },
];

test('every item comes back as it was', async () => {
  await session.addItems(ITEMS);
  const got = await session.getItems();
  for (const [i, item] of ITEMS.entries()) assert.ok(isDeepStrictEqual(got[i], item), JSON.stringify([got[i], item]).slice(0, 1000));
  assert.equal(got.length, ITEMS.length);
});

test('what stands beside an item is small, however long the item is', async () => {
  await session.addItems(ITEMS);
  const { meta } = await client.getItems(session.sessionId, { withMeta: true });
  for (const text of meta) assert.ok(text === null || text.length < 2 * LONG.length && text.length < 1000, text?.slice(0, 200));
});

test('nothing of JavaScript alone stands in a stored item', async () => {
  await session.addItems(ITEMS.filter(({ type }) => type !== 'unknown'));
  const { items } = await client.getItems(session.sessionId);
  const names = new Set();
  const look = (value) => {
    for (const [name, member] of Object.entries(typeof value === 'object' && value !== null ? value : {})) {
      if (!Array.isArray(value)) names.add(name);
      look(member);
    }
  };
  items.map((text) => JSON.parse(text)).forEach(look);
  for (const name of ['callId', 'providerData', 'rawContent', 'image', 'timeoutMs', 'exitCode', 'transcript']) assert.ok(!names.has(name), name);
  assert.ok(names.has('call_id') && names.has('encrypted_content') && names.has('image_url') && names.has('input_audio'));
});

// ---- items that Python has written ----

const PYTHON = [
  '{"content": "q", "role": "user"}',
  '{"role": "user", "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}, {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}}, {"type": "input_file", "file_id": "f", "filename": "a"}]}',
  '{"id": "rs_1", "summary": [{"text": "s", "type": "summary_text"}], "type": "reasoning", "encrypted_content": "gAAAA", "content": [{"type": "reasoning_text", "text": "r"}]}',
  '{"summary": [], "type": "reasoning"}',
  '{"arguments": "{}", "call_id": "call_1", "name": "tool_a", "type": "function_call", "id": "fc_1", "status": "completed"}',
  '{"call_id": "call_1", "output": "ra", "type": "function_call_output"}',
  '{"call_id": "call_1", "output": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "high"}], "type": "function_call_output"}',
  '{"id": "msg_1", "content": [{"annotations": [], "text": "x", "type": "output_text", "logprobs": []}], "role": "assistant", "status": "completed", "type": "message"}',
  '{"role": "assistant", "content": "easy"}',
  '{"role": "developer", "content": "be nice"}',
  '{"call_id": "c", "output": {"type": "computer_screenshot", "image_url": "data:,"}, "type": "computer_call_output", "acknowledged_safety_checks": null}',
  '{"type": "custom_tool_call_output", "call_id": "x", "output": [{"type": "text", "text": "not an item of its own"}]}',
  '{"type": "item_reference", "id": "i"}',
];

test('items that Python has written are items of the SDK', async () => {
  await client.addItems(session.sessionId, PYTHON);
  const got = await session.getItems();
  assert.equal(got.length, PYTHON.length);
  const [easy, full, reasoning, bare, call, result, structured, message, easyAnswer, developer, screenshot, custom, reference] = got;
  assert.deepEqual(easy, { type: 'message', role: 'user', content: 'q' });
  assert.deepEqual(full.content, [
    { type: 'input_text', text: 'look' },
    { type: 'input_image', image: 'data:image/png;base64,AA==', detail: 'low' },
    { type: 'audio', audio: 'AA==', format: 'mp3' },
    { type: 'input_file', file: { id: 'f' }, filename: 'a' },
  ]);
  assert.equal(reasoning.id, 'rs_1');
  assert.equal(reasoning.providerData.encrypted_content, 'gAAAA');
  assert.deepEqual([bare.type, bare.id, bare.content], ['reasoning', undefined, []]);
  assert.deepEqual([call.type, call.callId, call.name], ['function_call', 'call_1', 'tool_a']);
  assert.deepEqual([result.type, result.callId, result.name, result.output], ['function_call_result', 'call_1', 'tool_a', 'ra']);
  assert.deepEqual(structured.output[1], { type: 'input_image', image: 'data:image/png;base64,AA==', detail: 'high' });
  assert.equal(message.content[0].text, 'x');
  assert.deepEqual(easyAnswer.content, [{ type: 'output_text', text: 'easy' }]);
  assert.equal(screenshot.output.data, 'data:,');
  for (const [item, text] of [[developer, PYTHON[9]], [custom, PYTHON[11]], [reference, PYTHON[12]]])
    assert.deepEqual([item.type, item.providerData], ['unknown', JSON.parse(text)]);
});

test('a result has the name of its call, though the call is outside the limit', async () => {
  await client.addItems(session.sessionId, PYTHON.slice(4, 6));
  assert.equal((await session.getItems(1))[0].name, 'tool_a');
  assert.equal((await session.popItem()).name, 'tool_a');
});

test('an integer that JavaScript would round is refused, and one in a text is not', async () => {
  await client.addItems(session.sessionId, ['{"role":"user","content":"12345678901234567890","f":1234567890123456789.5,"e":12345678901234567890e3}']);
  assert.equal((await session.getItems())[0].content, '12345678901234567890');
  await client.addItems(session.sessionId, ['{"role":"user","content":"x","n":12345678901234567890}']);
  await assert.rejects(session.getItems(), (error) => error instanceof SessiondError && error.code === 'unreadable' && error.item === 1);
});

// ---- refusals ----

const cycle = {};
cycle.cycle = cycle;
const user = (content, more) => ({ role: 'user', content, ...more });

for (const [what, bad] of Object.entries({
  NaN: user('x', { providerData: { n: NaN } }),
  Infinity: user('x', { providerData: { n: -Infinity } }),
  'an integer over 2^53': user('x', { providerData: { n: 2 ** 53 } }),
  'a bigint': user('x', { providerData: { n: 1n } }),
  'a Uint8Array': user([{ type: 'input_image', image: new Uint8Array(3) }]),
  'a date': user('x', { providerData: { d: new Date(0) } }),
  'a function': user('x', { providerData: { f: () => 0 } }),
  'a hole in an array': user([undefined]),
  'a cycle': user('x', { providerData: cycle }),
  'an unknown type': { type: 'nonsense' },
  'an unknown part': user([{ type: 'nonsense' }]),
  'no object': null,
})) {
  test(`${what} is refused with the item's index, and nothing is stored`, async () => {
    await assert.rejects(session.addItems([user('good'), bad]), (error) => error instanceof SessiondError && error.code === 'invalid' && error.item === 1);
    const transaction = { type: 'append_items', items: [user('good'), bad] };
    await assert.rejects(session.applyHistoryTransaction({ operationId: 'o', transaction }));
    assert.deepEqual(await session.getItems(), []);
  });
}

// ---- as MemorySession ----

test('limits, copies, pops and clears are those of MemorySession', async () => {
  const memory = new MemorySession({ sessionId: session.sessionId });
  const both = async (use) => {
    const [theirs, ours] = [await use(memory), await use(session)];
    assert.deepEqual(ours, theirs);
    return ours;
  };
  const given = ITEMS.slice(0, 5).map((item) => structuredClone(item));
  given[1].content = 'plain';
  await both((one) => one.popItem());
  await both((one) => one.getItems());
  await both((one) => one.addItems([]));
  await both((one) => one.addItems(given));
  given[0].content = 'changed later';
  for (const limit of [undefined, 0, -1, 1, 1.5, 2, 5, 6, 1e20, Infinity, NaN]) await both((one) => one.getItems(limit));
  const items = await both((one) => one.getItems());
  items[0].content = 'changed later';
  await both((one) => one.getItems());
  await both((one) => one.popItem());
  await both((one) => one.getItems());
  await both((one) => one.clearSession());
  await both((one) => one.popItem());
  await both((one) => one.addItems(given));
  await both((one) => one.getItems());
  await both((one) => one.getSessionId());
});

test('an id that cannot be one is refused at once', () => {
  for (const id of ['', 'x'.repeat(256), '\ud800', 5, undefined]) assert.throws(() => new SessiondSession(id, { client }));
});

// ---- transactions ----

const suffix = (expectedSuffix, replacement) => ({ type: 'replace_suffix', expectedSuffix, replacement });
const append = (...items) => ({ type: 'append_items', items });
const contents = async () => (await session.getItems()).map(({ content }) => content);

test('an operation happens once, whoever repeats it', async () => {
  const args = { operationId: 'one', transaction: append(user('a'), user('b')) };
  await session.applyHistoryTransaction(args);
  await new SessiondSession(session.sessionId, { client }).applyHistoryTransaction(args);
  await daemon.restart();
  await session.applyHistoryTransaction(args);
  assert.deepEqual(await contents(), ['a', 'b']);
  const change = { operationId: 'two', transaction: suffix([user('b')], [user('c'), user('d')]) };
  await session.applyHistoryTransaction(change);
  await session.applyHistoryTransaction(change); // its suffix fits no longer
  assert.deepEqual(await contents(), ['a', 'c', 'd']);
});

test('an id with another transaction fails and changes nothing', async () => {
  await session.applyHistoryTransaction({ operationId: 'one', transaction: append(user('a')) });
  for (const transaction of [append(user('b')), append(), suffix([], [user('a')]), suffix([user('a')], [])])
    await assert.rejects(session.applyHistoryTransaction({ operationId: 'one', transaction }), /different transaction/);
  assert.deepEqual(await contents(), ['a']);
  const elsewhere = new SessiondSession(`${session.sessionId} elsewhere`, { client });
  await elsewhere.applyHistoryTransaction({ operationId: 'one', transaction: append(user('b')) }); // each session has its own
});

test('a suffix that does not match fails and changes nothing', async () => {
  await session.addItems([user('a'), user('b')]);
  for (const [i, expected] of [[user('a')], [user('x'), user('b')], [user('x'), user('a'), user('b')]].entries())
    await assert.rejects(session.applyHistoryTransaction({ operationId: `o${i}`, transaction: suffix(expected, []) }), /suffix/);
  assert.deepEqual(await contents(), ['a', 'b']);
  await session.applyHistoryTransaction({ operationId: 'empty', transaction: suffix([], [user('c')]) });
  await session.applyHistoryTransaction({ operationId: 'all', transaction: suffix([user('a'), user('b'), user('c')], []) });
  assert.deepEqual(await contents(), []);
});

test('a suffix is found behind gaps that pops have left', async () => {
  for (const content of ['a', 'x', 'b', 'y']) {
    await session.addItems([user(content)]);
    if (content > 'b') await session.popItem();
  }
  await session.applyHistoryTransaction({ operationId: 'o', transaction: suffix([user('b')], [user('c')]) });
  assert.deepEqual(await contents(), ['a', 'c']);
});

test('ids that are too long, or no Unicode, are ids all the same', async () => {
  for (const operationId of ['x'.repeat(10_000), `${'x'.repeat(10_000)}y`, '\ud800', '\udfff'])
    for (let i = 0; i < 2; i++) await session.applyHistoryTransaction({ operationId, transaction: append(user(operationId.slice(-1) === 'y' ? 'y' : 'x')) });
  assert.deepEqual(await contents(), ['x', 'y', 'x', 'x']);
});

test('transactions that are none are refused', async () => {
  for (const args of [undefined, {}, { operationId: ' ', transaction: append() }, { operationId: 'o', transaction: { type: 'other' } },
    { operationId: 'o', transaction: { ...append(), more: 1 } }, { operationId: 'o', transaction: { type: 'append_items', items: 'x' } }])
    await assert.rejects(session.applyHistoryTransaction(args), TypeError);
});

test('many processes that replace a suffix at once: one does', async () => {
  await session.addItems([user('a')]);
  const results = await Promise.allSettled(Array.from({ length: 20 }, async (_, i) => {
    const own = new Client({ socket: daemon.socket });
    try {
      await new SessiondSession(session.sessionId, { client: own }).applyHistoryTransaction({ operationId: `o${i}`, transaction: suffix([user('a')], [user(`by ${i}`)]) });
    } finally {
      await own.close();
    }
  }));
  assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1);
  assert.match((await contents()).join(), /^by \d+$/);
});

// ---- replacing ----

test('items that stay keep their stored bytes and what stands beside them', async () => {
  const odd = PYTHON.map((text) => text.replaceAll('": ', '" :   '));
  await client.addItems(session.sessionId, odd);
  await session.addItems(ITEMS);
  const before = await client.getItems(session.sessionId, { withMeta: true });
  const history = await session.getItems();
  await session.replaceHistoryWithCompaction([{ type: 'compaction', encrypted_content: 'new' }, ...history.slice(3)]);
  const after = await client.getItems(session.sessionId, { withMeta: true });
  assert.ok(isDeepStrictEqual(after.items.slice(1), before.items.slice(3)));
  assert.ok(isDeepStrictEqual(after.meta.slice(1), before.meta.slice(3)));
  assert.equal(after.revision, before.revision + 1);
  await session.applyHistoryTransaction({ operationId: 'o', transaction: suffix(history.slice(-3), [user('x'), ...history.slice(-2)]) });
  const last = await client.getItems(session.sessionId, { limit: 2, withMeta: true });
  assert.ok(isDeepStrictEqual([last.items, last.meta], [before.items.slice(-2), before.meta.slice(-2)]));
});

test('a reader never sees a history that is half replaced', async () => {
  const whole = [{ type: 'compaction', encrypted_content: 'c' }, user('a'), user('b')];
  await session.replaceHistoryWithCompaction(whole);
  let done = false;
  const reading = (async () => {
    while (!done) assert.equal((await client.getItems(session.sessionId)).items.length, 3);
  })();
  for (let i = 0; i < 50; i++) await session.replaceHistoryWithCompaction([whole[0], user(`a${i}`), user('b')]);
  done = true;
  await reading;
});

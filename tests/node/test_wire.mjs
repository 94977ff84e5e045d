// The bytes of requests and answers beside the library's, which reads and writes them one value at a time.
import assert from 'node:assert/strict';
import test from 'node:test';

import { decode, encode } from '@msgpack/msgpack';

import { Inbox, Outbox } from '../../client/node/src/wire.js';

const SEED = Number(process.env.SEED ?? 1);
const ROUNDS = 400;

/** Numbers below n, the same in each run of one seed. */
function chance(seed) {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    return ((state ^ (state >>> 13)) >>> 0) % n;
  };
}

const ALPHABETS = ['x', 'abc"\\{}:, ', 'é', 'xé', '€', '🌉', 'aé€🌉\u0000\u007f\u0080\u07ff\u0800\uffff'];
const EDGES = [0, 1, 15, 16, 31, 32, 39, 40, 41, 85, 127, 128, 255, 256, 21845, 21846, 65535, 65536, 70000];

function anyText(pick, longest) {
  const letters = [...ALPHABETS[pick(ALPHABETS.length)]];
  const length = pick(3) ? pick(60) : EDGES[pick(EDGES.length)];
  return Array.from({ length: Math.min(length, longest) }, () => letters[pick(letters.length)]).join('');
}

const NUMBERS = [0, 1, 127, 128, 255, 256, 65535, 65536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, -1, -33, -(2 ** 31), -(2 ** 40), 1.5, -0.25, 2 ** 60, Infinity];

function anyValue(pick, depth = 0) {
  const kind = pick(depth < 3 ? 9 : 7);
  if (kind < 2) return anyText(pick, depth === 0 ? Infinity : 300);
  if (kind < 4) return NUMBERS[pick(NUMBERS.length)];
  if (kind === 4) return [null, true, false][pick(3)];
  if (kind === 5) return Uint8Array.from({ length: pick(300) }, () => pick(256));
  if (kind === 6) return new Date(pick(2) ? pick(1e9) * 1000 : 1e12 + pick(1000)); // which takes an extension
  const length = pick(5) ? pick(6) : pick(40);
  if (kind === 7) return Array.from({ length }, () => anyValue(pick, depth + 1));
  return Object.fromEntries(Array.from({ length }, (_, i) => [anyText(pick, 40) + i, anyValue(pick, depth + 1)]));
}

/** All messages, from bytes that come in pieces of so many. */
function inPieces(bytes, size) {
  const inbox = new Inbox();
  const messages = [];
  for (let at = 0; at < bytes.length; at += size) messages.push(...inbox.feed(bytes.subarray(at, at + size)));
  return messages;
}

/** All messages, from bytes that come in two pieces. */
function inTwo(bytes, at) {
  const inbox = new Inbox();
  return [...inbox.feed(bytes.subarray(0, at)), ...inbox.feed(bytes.subarray(at))];
}

test(`requests are the bytes that the library makes of them (SEED=${SEED})`, () => {
  const pick = chance(SEED);
  const outbox = new Outbox();
  for (let i = 0; i < ROUNDS; i++) {
    const expected = [];
    for (let n = pick(5); n >= 0; n--) {
      const params = Object.fromEntries(['session', 'items', 'meta', 'key', 'limit'].slice(pick(5)).map((name) => [name, anyValue(pick)]));
      const request = [0, pick(2) ? pick(300) : 2 ** 32 - 1, 'add_items', pick(9) ? [params] : []];
      expected.push(Buffer.from(encode(request)));
      if (request[3].length) params[`left out ${n}`] = undefined;
      assert.equal(outbox.add(request[1], request[2], request[3][0] ?? null), expected.at(-1).length);
    }
    assert.ok(outbox.take().equals(Buffer.concat(expected)), `round ${i}`);
  }
});

test('bytes that were taken are not written over', () => {
  const outbox = new Outbox();
  const taken = [];
  for (let i = 0; i < 3000; i++) {
    outbox.add(i, 'ping', { text: 'é'.repeat(i % 90) });
    if (i % 7 === 0) taken.push(outbox.take());
  }
  taken.push(outbox.take());
  const messages = inPieces(Buffer.concat(taken), 1000);
  assert.deepEqual(messages.map(([, msgid, , [{ text }]]) => [msgid, text.length]), messages.map((_, i) => [i, i % 90]));
  assert.equal(messages.length, 3000);
});

test('a request that is too large, or cannot be sent, leaves nothing behind', () => {
  const outbox = new Outbox();
  const one = outbox.add(1, 'ping', null);
  assert.equal(outbox.add(2, 'add_items', { items: ['x'.repeat(100_000)] }, 100), encode([0, 2, 'add_items', [{ items: ['x'.repeat(100_000)] }]]).length);
  for (const bad of ['\ud800', `\udc00${'x'.repeat(100)}`, { '\ud800': 1 }, [() => {}], 5n ** 50n])
    assert.throws(() => outbox.add(3, 'ping', { first: 'kept?', bad }));
  assert.equal(outbox.add(4, 'ping', null), one);
  assert.deepEqual(inPieces(outbox.take(), 3), [[0, 1, 'ping', []], [0, 4, 'ping', []]]);
});

test(`answers are what the library reads in them, however they arrive (SEED=${SEED})`, () => {
  const pick = chance(SEED + 1);
  for (let i = 0; i < ROUNDS; i++) {
    const messages = Array.from({ length: 1 + pick(3) }, () => encode([1, pick(70000), pick(4) ? null : anyValue(pick, 2), anyValue(pick, 1)]));
    const bytes = Buffer.concat(messages);
    const expected = messages.map((message) => decode(message));
    for (const size of [bytes.length, 1 + pick(9), 1 + pick(bytes.length)]) assert.deepEqual(inPieces(bytes, size).map(detached), expected);
  }
});

/** Bytes as the plain kind. */
function detached(value) {
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (Array.isArray(value)) return value.map(detached);
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, detached(member)]));
}

/** Valid and invalid UTF-8: texts, halves of them, lone bytes, what is too long or beyond Unicode. */
const ODD = ['80', 'bf', 'c0af', 'c3', 'e282', 'eda080', 'edbfbf', 'f0808080', 'f09f8c', 'f4908080', 'f8', 'ff', 'efbbbf', '00', '7f'].map((hex) => Buffer.from(hex, 'hex'));

function anyBytes(pick) {
  const parts = [Buffer.from(anyText(pick, 600))];
  for (let n = pick(4); n > 0; n--) parts.splice(pick(parts.length + 1), 0, ODD[pick(ODD.length)], Buffer.from(anyText(pick, 20)));
  return Buffer.concat(parts);
}

const UTF8 = new TextDecoder('utf-8', { ignoreBOM: true });
const textOf = (bytes) => Buffer.concat([Buffer.from([0xda, bytes.length >> 8, bytes.length & 0xff]), bytes]);

test(`texts of any bytes are read as UTF-8 is everywhere, split at each byte (SEED=${SEED})`, () => {
  const pick = chance(SEED + 2);
  for (let i = 0; i < ROUNDS / 4; i++) {
    const texts = Array.from({ length: pick(40) }, () => anyBytes(pick));
    const head = Buffer.from([0x94, 0x01, 0x05, 0xc0, 0x81, 0xa5, ...Buffer.from('items'), 0xdc, 0, texts.length]);
    const bytes = Buffer.concat([head, ...texts.map(textOf)]);
    const expected = [[1, 5, null, { items: texts.map((text) => UTF8.decode(text)) }]];
    assert.deepEqual(inPieces(bytes, 1), expected);
    for (let at = 0; at < bytes.length; at += 1 + pick(bytes.length < 300 ? 1 : 97)) assert.deepEqual(inTwo(bytes, at), expected);
  }
});

test(`any bytes are messages or refused, the same however they arrive (SEED=${SEED})`, () => {
  const pick = chance(SEED + 3);
  const read = (bytes, size) => {
    try {
      return inPieces(bytes, size);
    } catch {
      return 'refused';
    }
  };
  let refused = 0;
  for (let i = 0; i < 10 * ROUNDS; i++) {
    const bytes = Buffer.from(encode([1, 5, null, anyValue(pick, 1)])).subarray(0, 2000);
    for (let n = 1 + pick(4); n > 0; n--) bytes[pick(bytes.length)] = pick(256);
    const whole = read(bytes, bytes.length);
    assert.deepEqual(read(bytes, 1 + pick(7)), whole);
    if (whole === 'refused') refused++;
  }
  assert.ok(refused > 0 && refused < 10 * ROUNDS);
});

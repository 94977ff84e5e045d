// The golden messages of proto/vectors: meaning to bytes, bytes to meaning.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';

import { Inbox, Outbox } from '../../client/node/src/wire.js';
import { top } from './lib/daemon.mjs';

const directory = path.join(top, 'proto/vectors');
const vectors = fs.readdirSync(directory).filter((name) => name.endsWith('.json'))
  .map((name) => JSON.parse(fs.readFileSync(path.join(directory, name), 'utf8')));

function unescaped(value) {
  if (Array.isArray(value)) return value.map(unescaped);
  if (typeof value !== 'object' || value === null) return value;
  if (Object.keys(value).join() === '$bytes') return new Uint8Array(Buffer.from(value.$bytes, 'hex'));
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, unescaped(member)]));
}

/** Bytes as bytes of their own, not as a view of a buffer. */
function detached(value) {
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (Array.isArray(value)) return value.map(detached);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, detached(member)]));
}

const envelopes = {
  request: ({ msgid, method, params }) => [0, msgid, method, params === null ? [] : [params]],
  response: ({ msgid, error, result }) => [1, msgid, error, result],
  notification: ({ method, params }) => [2, method, [params]],
};

test('there are vectors of every kind', () => {
  for (const direction of Object.keys(envelopes))
    assert.ok(vectors.filter((vector) => vector.direction === direction).length > 2);
});

for (const { name, direction, meaning, bytes } of vectors) {
  if (direction === 'request')
    test(`${name} is packed as the golden bytes`, () => {
      const { msgid, method, params } = unescaped(meaning);
      const outbox = new Outbox();
      assert.equal(outbox.add(msgid, method, params), bytes.length / 2);
      assert.equal(outbox.take().toString('hex'), bytes);
    });
  test(`${name} is read as its meaning, however it arrives`, () => {
    const data = Buffer.from(bytes, 'hex');
    const twice = Buffer.concat([data, data]);
    const expected = envelopes[direction](unescaped(meaning));
    for (const step of [1, 7, data.length]) {
      const inbox = new Inbox();
      const messages = [];
      for (let at = 0; at < twice.length; at += step) messages.push(...inbox.feed(twice.subarray(at, at + step)).map(detached));
      assert.deepEqual(messages, [expected, expected]);
    }
  });
}

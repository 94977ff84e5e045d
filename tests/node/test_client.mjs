// The client against a real daemon, and against sockets that behave badly.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import test, { after, before, beforeEach } from 'node:test';
import { fileURLToPath } from 'node:url';

import { encode } from '@msgpack/msgpack';
import { Client, SessiondError } from 'sessiond';

import { Inbox } from '../../client/node/src/wire.js';
import { Daemon, build, node, output, until } from './lib/daemon.mjs';

const daemon = new Daemon();
let client;
let number = 0;
let session;

before(() => daemon.start());
after(async () => {
  await client.close();
  await daemon.remove();
});
beforeEach(async () => {
  await client?.close();
  client = new Client({ socket: daemon.socket });
  session = `s${++number}`;
});

const refusal = (code, more = {}) => (error) => {
  assert.ok(error instanceof SessiondError, error.stack);
  assert.equal(error.code, code, error.message);
  for (const [name, value] of Object.entries(more)) assert.deepEqual(error[name], value);
  return true;
};

test('all methods answer with the names of JavaScript', async () => {
  assert.deepEqual(await client.addItems(session, ['{"a":1}', '{"b":2}', '{"c":3}']), { firstSeq: 1, lastSeq: 3, revision: 1, epoch: (await client.getItems(session)).epoch });
  const { epoch, ...got } = await client.getItems(session, { limit: 2 });
  assert.deepEqual(got, { items: ['{"b":2}', '{"c":3}'], firstSeq: 2, lastSeq: 3, headSeq: 3, revision: 1, more: false, missing: 0 });
  assert.deepEqual(await client.popItem(session), { item: '{"c":3}', seq: 3, revision: 2, epoch: epoch + 1, erased: false });
  assert.deepEqual(await client.replaceItems(session, ['{"d":4}'], { fromSeq: 2 }), { removed: 1, firstSeq: 4, lastSeq: 4, revision: 3, epoch: epoch + 2 });
  assert.deepEqual((await client.listSessions({ prefix: session })).sessions.map(({ id, count, headSeq }) => [id, count, headSeq]), [[session, 2, 4]]);
  assert.ok((await client.listStores()).stores.some(({ name, durability }) => name === 'default' && durability === 'full'));
  assert.deepEqual(await client.clearSession(session), { removed: 2, revision: 4, epoch: epoch + 3 });
  assert.deepEqual(await client.deleteSession(session), { removed: 0 });
  assert.equal((await client.hello()).server, 'sessiond');
  assert.equal((await client.info()).pid > 0, true);
  assert.equal(await client.ping(), undefined);
});

test('items come back byte for byte', async () => {
  const items = ['{"n":  2.50, "n": 18446744073709551616}', '{"\\ud800":"\\u0000","e":"🌉"}', '{"é":"Grüße"}'];
  await client.addItems(session, items);
  assert.deepEqual((await client.getItems(session)).items, items);
});

test('what stands beside items is given to who asks', async () => {
  await client.addItems(session, ['{"a":1}', '{"b":2}'], { meta: [null, '{"x": 1}'] });
  assert.equal((await client.getItems(session)).meta, undefined);
  assert.deepEqual((await client.getItems(session, { withMeta: true })).meta, [null, '{"x": 1}']);
  assert.equal((await client.popItem(session, { withMeta: true })).meta, '{"x": 1}');
});

test('a long history is read whole, with what stands beside it, while others append', async () => {
  const items = Array.from({ length: 300 }, (_, n) => JSON.stringify({ n, pad: 'x'.repeat(60_000) }));
  for (let n = 0; n < 300; n += 100)
    await client.addItems(session, items.slice(n, n + 100), { meta: items.slice(n, n + 100).map((_, i) => `{"m":${n + i}}`) });
  const [got] = await Promise.all([client.getItems(session, { withMeta: true }), ...Array.from({ length: 20 }, () => new Client({ socket: daemon.socket })).map(async (other) => {
    await other.addItems(session, ['{"late":true}']);
    await other.close();
  })]);
  assert.deepEqual(got.items.slice(0, 300), items);
  assert.deepEqual(got.meta.slice(0, 300), items.map((_, n) => `{"m":${n}}`));
  assert.equal(got.lastSeq, got.headSeq);
  assert.deepEqual((await client.getItems(session, { limit: 250, before: 301 })).items, items.slice(50));
});

test('a refusal has the code, the index and the key', async () => {
  await assert.rejects(client.addItems(session, ['{}', '[]']), refusal('invalid', { item: 1 }));
  await assert.rejects(client.addItems(session, ['{}'], { ifRevision: 5, key: 'k' }), refusal('conflict', { key: 'k', details: { revision: 0, epoch: 0 } }));
  await client.addItems(session, ['{}'], { key: `${session} k` });
  await client.addItems(session, ['{}'], { key: `${session} k` });
  await assert.rejects(client.addItems(session, ['{"x":1}'], { key: `${session} k` }), refusal('key_reused'));
  assert.equal((await client.getItems(session)).items.length, 1);
});

test('what is no text is refused before it is sent', async () => {
  await assert.rejects(client.addItems(session, [{}]), TypeError);
  await assert.rejects(client.addItems(session, ['"\ud800"']), TypeError);
  await assert.rejects(client.addItems(session, ['{}'], { meta: [] }), TypeError);
  await assert.rejects(client.addItems(session, ['{}'], { kee: 'k' }), TypeError);
  await assert.rejects(client.getItems('\udc00'), TypeError);
  await assert.rejects(client.addItems(session, new Array(524289).fill('{}'), { meta: ['{}', ...new Array(524288).fill(null)] }), refusal('too_large'));
});

test('calls that overlap take effect in order', async () => {
  const added = await Promise.all(Array.from({ length: 2000 }, (_, n) => client.addItems(session, [`{"n":${n}}`])));
  assert.deepEqual(added.map(({ firstSeq }) => firstSeq), Array.from({ length: 2000 }, (_, n) => n + 1));
});

test('a daemon that is killed and started again is noticed by nobody', async () => {
  const done = [];
  const calls = Array.from({ length: 500 }, (_, n) => client.addItems(session, [`{"n":${n}}`]).then(() => done.push(n)));
  await until('some of them to be done', () => done.length > 0);
  await daemon.restart();
  await Promise.all(calls);
  const { items } = await client.getItems(session);
  assert.deepEqual(items.map((text) => JSON.parse(text).n).toSorted((a, b) => a - b), Array.from({ length: 500 }, (_, n) => n));
});

test('no daemon is an error at once that names the path', async () => {
  const nobody = new Client({ socket: path.join(daemon.directory, 'nobody') });
  await assert.rejects(nobody.ping(), refusal('not_running'));
  fs.writeFileSync(path.join(daemon.directory, 'file'), '');
  await assert.rejects(new Client({ socket: path.join(daemon.directory, 'file') }).ping(), refusal('not_running'));
});

// ---- other peers than the daemon ----

/** A peer that answers each request as `answer(method, params)` says: a result, an Error, or `undefined` to hang up. */
async function peer(name, answer) {
  const socket = path.join(daemon.directory, name);
  const server = net.createServer((connection) => {
    const inbox = new Inbox();
    connection.on('error', () => {});
    connection.on('data', (chunk) => {
      for (const [, msgid, method, [params]] of inbox.feed(chunk)) {
        const result = answer(method, params);
        if (result === undefined) connection.destroy();
        else connection.write(encode(result instanceof Error ? [1, msgid, { code: result.message, message: '', ...result }, null] : [1, msgid, null, result]));
      }
    });
  });
  await new Promise((resolve) => server.listen(socket, resolve));
  return { socket, close: () => server.close() };
}

const hello = (instance) => ({ server: 'sessiond', version: '0', protocol: 1, instance, uid: 0, limits: { frame_bytes: 1 << 20, items: 1000, meta_bytes: 1 << 20 } });
const added = { first_seq: 1, last_seq: 1, revision: 1, epoch: 1 };

test('an answer that is lost is asked for again, with the same key', async () => {
  const keys = [];
  const there = await peer('lost', (method, params) => {
    if (method === 'hello') return hello('a');
    keys.push(params.key);
    return keys.length < 3 ? undefined : added;
  });
  const one = new Client({ socket: there.socket });
  assert.equal((await one.addItems('s', ['{}'])).firstSeq, 1);
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
  await one.close();
  there.close();
});

test('a change that got no answer is never repeated to another instance', async () => {
  let n = 0;
  let changes = 0;
  const there = await peer('elsewhere', (method) => {
    if (method === 'hello') return hello(`instance ${n++}`);
    changes++;
    return undefined;
  });
  const one = new Client({ socket: there.socket });
  await assert.rejects(one.addItems('s', ['{}'], { key: 'mine' }), refusal('uncertain', { key: 'mine' }));
  assert.equal(changes, 1);
  await one.close();
  there.close();
});

test('busy is tried again, and given up after a while', async () => {
  let n = 0;
  const there = await peer('busy', (method) => {
    if (method === 'hello') return hello('a');
    return method === 'ping' || n++ < 3 ? Object.assign(new Error('busy'), { retry_after_ms: 1 }) : added;
  });
  const one = new Client({ socket: there.socket, retryMs: 200 });
  assert.equal((await one.addItems('s', ['{}'])).firstSeq, 1);
  await assert.rejects(one.ping(), refusal('busy'));
  await one.close();
  there.close();
});

test('a busy daemon is not asked again before the time that it names', async () => {
  let n = 0;
  const there = await peer('busy for long', (method) => {
    if (method === 'hello') return hello('a');
    n++;
    return Object.assign(new Error('busy'), { retry_after_ms: 1e6 });
  });
  const one = new Client({ socket: there.socket, retryMs: 100 });
  await assert.rejects(one.addItems('s', ['{}']), refusal('busy')); // after the last try, which comes when the time is up
  assert.ok(n <= 3, `asked ${n} times`);
  await one.close();
  there.close();
});

test('what is no sessiond, or does not like us, is an error that says so', async () => {
  for (const [answer, code] of [[{}, 'protocol'], [Object.assign(new Error('invalid')), 'invalid']]) {
    const there = await peer(`no sessiond ${code}`, () => answer);
    const one = new Client({ socket: there.socket });
    await assert.rejects(one.ping(), refusal(code));
    await one.close();
    there.close();
  }
});

test('a connection that is silent counts as broken', async () => {
  const sockets = [];
  const server = net.createServer((connection) => sockets.push(connection));
  const socket = path.join(daemon.directory, 'silent');
  await new Promise((resolve) => server.listen(socket, resolve));
  const one = new Client({ socket, silenceMs: 50, retryMs: 100 });
  await assert.rejects(one.ping(), refusal('unreachable'));
  for (const connection of sockets) connection.destroy();
  server.close();
});

test('a full backlog is waited out', async () => {
  const script = `import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(0)
held = []
try:
    while True:
        c = socket.socket(socket.AF_UNIX); c.setblocking(False); c.connect(sys.argv[1]); held.append(c)
except BlockingIOError: pass
print("full", flush=True)
sys.stdin.readline()
`;
  const { spawn } = await import('node:child_process');
  const socket = path.join(daemon.directory, 'full');
  const child = spawn('python3', ['-c', script, socket], { stdio: ['pipe', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const one = new Client({ socket, retryMs: 100 });
  await assert.rejects(one.ping(), refusal('unreachable')); // EAGAIN all the while, and no word of a daemon that does not run
  await one.close();
  const other = new Client({ socket });
  const added = other.addItems(session, ['{}']); // refused, too, and tried again
  fs.symlinkSync(daemon.socket, `${socket} no longer`);
  fs.renameSync(`${socket} no longer`, socket);
  assert.equal((await added).firstSeq, 1);
  await other.close();
  child.stdin.end('\n');
  await new Promise((resolve) => child.once('exit', resolve));
});

// ---- descriptors and the end of a process ----

test('a thousand clients opened and closed leave no descriptor, here and in the daemon', async () => {
  const count = () => ['self', daemon.pid].map((pid) => fs.readdirSync(`/proc/${pid}/fd`).length);
  const cycle = async () => {
    const one = new Client({ socket: daemon.socket });
    await one.ping();
    await one.close();
    await one.close();
    await assert.rejects(one.ping(), refusal('closed'));
  };
  await cycle();
  const first = count();
  for (let i = 0; i < 1000; i++) await cycle();
  await until('descriptors as before', () => count().every((n, i) => n <= first[i]));
});

test('a script ends though its client is connected', async () => {
  const script = fileURLToPath(new URL('./lib/idle.mjs', import.meta.url));
  assert.equal(await node(script, [daemon.socket], { timeout: 60_000 }), 'done\n');
});

test('histories that were read are let go at once, and do not wait for full collections', async () => {
  const script = fileURLToPath(new URL('./lib/collections.mjs', import.meta.url));
  const { minor, full } = JSON.parse(await node(script, [daemon.socket]));
  assert.ok(minor > 0 && full < 30, `${full} full collections for 10,000 readings`); // some 5; 80 to 180 if they are kept
});

test('sessionctl reads what Node has written', async () => {
  await client.addItems(session, ['{"by": "Node"}']);
  assert.equal(await output(path.join(build, 'sessionctl'), ['--socket', daemon.socket, 'get', session]), '{"by": "Node"}\n');
});

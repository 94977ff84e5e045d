// The load of the benchmark through Node: the client of sessiond, and ioredis beside it.
//
// One process; a client is a loop with a session of its own, and 50 clients are 50 loops on one connection, as programs in
// JavaScript have it. What is read is parsed, on both sides, as an agent parses it. It reads orders as JSON lines and answers
// each with what `generate` prints.
import readline from 'node:readline';

const [kind, where] = process.argv.slice(2);

const KINDS = {
  async sessiond(socket) {
    const { Client } = await import('sessiond');
    const client = new Client({ socket });
    return {
      get: async (session) => (await client.getItems(session, { store: 'node' })).items,
      add: (session, items) => client.addItems(session, items, { store: 'node' }),
    };
  },
  async ioredis(path) {
    const { Redis } = await import('ioredis');
    const redis = new Redis({ path });
    return {
      get: (session) => redis.lrange(`node:${session}`, 0, -1),
      add: (session, items) => redis.rpush(`node:${session}`, ...items),
    };
  },
};

function makeItem(size) {
  const blank = JSON.stringify({ role: 'user', content: '' });
  return JSON.stringify({ role: 'user', content: 'x'.repeat(size - blank.length) });
}

async function client(history, session, order, start, end, figures) {
  const items = Array.from({ length: order.items }, () => makeItem(order.bytes));
  for (let begun; (begun = process.hrtime.bigint()) < end; figures.all++) {
    if (order.workload === 'add') await history.add(session, items);
    else if ((await history.get(session)).map((text) => JSON.parse(text)).length !== order.items) throw new Error('this is not the history');
    if (begun >= start) figures.samples.push(Number(process.hrtime.bigint() - begun));
  }
}

async function obey(history, order) {
  const sessions = Array.from({ length: order.clients }, (_, i) => `${order.prefix}-${i}`);
  if (order.workload === 'prepare') {
    for (const session of sessions) await history.add(session, Array.from({ length: order.items }, () => makeItem(order.bytes)));
    return {};
  }
  const length = BigInt(Math.round(order.seconds * 1e9));
  const start = process.hrtime.bigint() + length / 10n;
  const figures = { samples: [], all: 0 };
  await Promise.all(sessions.map((session) => client(history, session, order, start, start + length, figures)));
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const samples = figures.samples.sort((a, b) => a - b);
  const n = samples.length;
  const [median_ns, p99_ns, worst_ns] = [samples[n >> 1], samples[Math.floor((n * 99) / 100)], samples[n - 1]];
  return { requests: n, all: figures.all, seconds, median_ns, p99_ns, worst_ns };
}

const history = await KINDS[kind](where);
for await (const line of readline.createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await obey(history, JSON.parse(line))));
}
process.exit();

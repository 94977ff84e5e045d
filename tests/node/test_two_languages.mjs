// One conversation that a Python agent and a Node agent continue in turns, with the two real SDKs and their real model classes
// against an endpoint that answers from the history it is sent, and checks it as the real API does.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import test, { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Client } from 'sessiond';

import { Daemon, python, register, top, until } from './lib/daemon.mjs';

const daemon = new Daemon();
let endpoint;
let env;

before(async () => {
  await daemon.start();
  const port = path.join(daemon.directory, 'port');
  endpoint = spawn(python, [path.join(top, 'tests/lib/responses_endpoint.py'), '--port-file', port], { stdio: 'ignore' });
  await until('the endpoint to listen', () => fs.existsSync(port));
  env = { ...process.env, PYTHONPATH: path.join(top, 'client/python/src'), OPENAI_BASE_URL: `http://127.0.0.1:${fs.readFileSync(port, 'utf8').trim()}/v1` };
});
after(async () => {
  endpoint.kill();
  await daemon.remove();
});

const file = (name) => fileURLToPath(new URL(`lib/${name}`, import.meta.url));
const programs = { python: [python, file('turn.py')], node: [process.execPath, '--import', register, file('turn.mjs')] };

/** An agent that runs: give it questions one by one. */
class Asked {
  #child;
  #answers;

  constructor(language, where, conversation) {
    const [command, ...args] = programs[language];
    this.#child = spawn(command, [...args, where, conversation], { env, stdio: ['pipe', 'pipe', 'inherit'] });
    this.#answers = readline.createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async turn(question) {
    this.#child.stdin.write(`${JSON.stringify(question)}\n`);
    const { value, done } = await this.#answers.next();
    assert.ok(!done, 'the agent has ended');
    return JSON.parse(value);
  }

  async end() {
    this.#child.stdin.end();
    if (this.#child.exitCode === null) await once(this.#child, 'exit');
  }
}

const QUESTIONS = [
  'What city is the Golden Gate Bridge in?',
  'What state is it in?',
  'call get_weather {"city": "Paris"} & get_weather {"city": "Rome"}',
  'call look {}\ncall get_weather {"city": "Oslo"}',
  [{ role: 'user', content: [{ type: 'input_text', text: 'Which bridge did I ask about?' }, { type: 'input_image', image_url: 'data:image/png;base64,AAAA', detail: 'high' }] }],
  [{ role: 'user', content: [{ type: 'input_text', text: 'What is 2 + 3?' }, { type: 'input_image', image_url: 'data:image/png;base64,BBBB', detail: 'low' }] }],
  'call get_weather {"city": "Rome"}\nWhat\'s the population?',
  'What is 20 + 22?',
  'call look {} & look {}',
  'Which bridge did I ask about?',
];

/** What is sent, without what means nothing: names of ids count, not their letters; defaults may be left out. */
function meaning(input) {
  const names = new Map();
  const named = (id) => names.get(id) ?? names.set(id, `id ${names.size}`).get(id);
  const look = (value, name) => {
    if (Array.isArray(value)) return value.map((member) => look(member));
    if (typeof value !== 'object' || value === null) return ['id', 'call_id', 'encrypted_content'].includes(name) ? named(value) : value;
    const { status: _status, annotations: _annotations, logprobs: _logprobs, ...rest } = value;
    if (rest.role) rest.type = 'message';
    if (rest.type === 'function_call') delete rest.id; // which JavaScript's runner never stores
    return Object.fromEntries(Object.keys(rest).sort().map((key) => [key, look(rest[key], key)]));
  };
  return look(input);
}

/** The questions, asked of the agents by turns. */
async function conversation(where, name, languages) {
  const asked = languages.map((language) => new Asked(language, where, name));
  const turns = [];
  try {
    for (const [i, question] of QUESTIONS.entries()) turns.push(await asked[i % asked.length].turn(question));
  } finally {
    await Promise.all(asked.map((one) => one.end()));
  }
  return turns;
}

test('ten turns, by turns: each model is sent what it would be sent if its SDK had kept the history alone', async () => {
  const alone = {};
  for (const language of ['python', 'node']) alone[language] = await conversation('alone', 'x', [language]);
  for (const languages of [['python', 'node'], ['node', 'python']]) {
    const turns = await conversation(daemon.socket, languages.join(), languages);
    turns.forEach(({ answer, sent }, i) => {
      const expected = alone[languages[i % 2]][i];
      assert.equal(answer, expected.answer);
      assert.deepEqual(sent.map(meaning), expected.sent.map(meaning), `turn ${i + 1}`);
    });
  }
});

test('what they have stored is of one shape, whoever wrote it', async () => {
  const client = new Client({ socket: daemon.socket });
  const [one, other] = await Promise.all(['python,node', 'node,python'].map(async (name) => (await client.getItems(name)).items.map((text) => JSON.parse(text))));
  assert.ok(one.length > 30);
  const parts = (items, name) => new Set(items.flatMap((item) => (Array.isArray(item[name]) ? item[name].map(({ type }) => type) : [])));
  for (const type of ['reasoning', 'function_call', 'function_call_output']) assert.ok(one.some((item) => item.type === type), type);
  for (const name of ['content', 'output']) assert.ok(parts(one, name).has('input_image'), `an image in ${name}`);
  assert.deepEqual(meaning(one), meaning(other));
  await client.close();
});

// run() of the real @openai/agents with a scripted model: whatever a scenario does, the model is sent the same and the history
// is the same as with the SDK's own MemorySession.
import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';

import { Agent, MemorySession, OpenAIResponsesCompactionSession, RunState, run, setTracingDisabled, tool } from '@openai/agents';
import { ScriptedModel, assistantMessage, functionCall, modelError, modelResponder } from '@openai/agents/testing';
import { Client, SessiondSession, compactionSession } from 'sessiond';
import { z } from 'zod';

import { Daemon } from './lib/daemon.mjs';

setTracingDisabled(true);
const daemon = new Daemon();
let number = 0;

before(() => daemon.start());
after(() => daemon.remove());

const weather = (more = {}) => tool({
  name: 'get_weather',
  description: 'The weather of a city.',
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `It is sunny in ${city}.`,
  ...more,
});
const camera = tool({
  name: 'look',
  description: 'Takes a picture.',
  parameters: z.object({}),
  execute: async () => [{ type: 'text', text: 'here' }, { type: 'image', image: { data: 'iVBORw0KGgo=', mediaType: 'image/png' }, detail: 'low' }],
});
const call = (name, args, callId) => functionCall(name, args, { callId, id: `fc_${callId}` });
const thought = { type: 'reasoning', id: 'rs_1', content: [{ type: 'input_text', text: 'hm', providerData: { type: 'summary_text' } }], providerData: { encrypted_content: 'gAAAA' } };

/** Each takes a session, uses it, and returns its model (or models) and what else is to be compared. */
const scenarios = {
  async 'three turns'(session) {
    const model = new ScriptedModel([[assistantMessage('San Francisco')], [assistantMessage('California')], [assistantMessage('39 million')]]);
    const agent = new Agent({ name: 'A', model });
    const outputs = [];
    for (const question of ['Which city?', 'Which state?', [{ role: 'user', content: 'How many people?' }]])
      outputs.push((await run(agent, question, { session })).finalOutput);
    return { models: [model], outputs };
  },

  async 'tools, reasoning and pictures'(session) {
    const model = new ScriptedModel([
      [thought, call('get_weather', { city: 'Paris' }, 'call_1'), call('get_weather', { city: 'Rome' }, 'call_2')],
      [call('look', {}, 'call_3')],
      [assistantMessage('Sunny.', { providerData: { model: 'm' } })],
      [assistantMessage('Yes.')],
    ]);
    const agent = new Agent({ name: 'A', model, tools: [weather(), camera] });
    const picture = { role: 'user', content: [{ type: 'input_text', text: 'And here?' }, { type: 'input_image', image: 'data:image/png;base64,AAAA', detail: 'high' }] };
    const outputs = [(await run(agent, 'Weather?', { session })).finalOutput, (await run(agent, [picture], { session })).finalOutput];
    return { models: [model], outputs };
  },

  async streaming(session) {
    const model = new ScriptedModel([[call('get_weather', { city: 'Paris' }, 'call_1')], [assistantMessage('Sunny.')], [assistantMessage('Still.')]]);
    const agent = new Agent({ name: 'A', model, tools: [weather()] });
    const outputs = [];
    for (const question of ['Weather?', 'And now?']) {
      const result = await run(agent, question, { session, stream: true });
      for await (const event of result) void event;
      await result.completed;
      outputs.push(result.finalOutput);
    }
    return { models: [model], outputs };
  },

  async 'a handoff'(session) {
    const second = new ScriptedModel([[assistantMessage('I am the second.')], [assistantMessage('Still the second.')]]);
    const other = new Agent({ name: 'Second', model: second });
    const first = new ScriptedModel([[call('transfer_to_Second', {}, 'call_1')]]);
    const agent = new Agent({ name: 'First', model: first, handoffs: [other] });
    const result = await run(agent, 'Hello', { session });
    return { models: [first, second], outputs: [result.finalOutput, (await run(result.lastAgent, 'Again', { session })).finalOutput] };
  },

  async 'an interruption that is resumed'(session) {
    const model = new ScriptedModel([[call('get_weather', { city: 'Oslo' }, 'call_1')], [assistantMessage('Sunny.')], [assistantMessage('Bye.')]]);
    const agent = new Agent({ name: 'A', model, tools: [weather({ needsApproval: true })] });
    const interrupted = await run(agent, 'Weather?', { session });
    assert.equal(interrupted.interruptions.length, 1);
    const state = await RunState.fromString(agent, JSON.stringify(interrupted.state));
    state.approve(state.getInterruptions()[0]);
    const resumed = await run(agent, state, { session });
    return { models: [model], outputs: [resumed.finalOutput, (await run(agent, 'Bye', { session })).finalOutput] };
  },

  async 'a model that fails, and a second try'(session) {
    const model = new ScriptedModel([[assistantMessage('One.')], modelError(new Error('no luck')), [assistantMessage('Two.')]]);
    const agent = new Agent({ name: 'A', model });
    const outputs = [(await run(agent, 'One?', { session })).finalOutput];
    await assert.rejects(run(agent, 'Two?', { session }), /no luck/);
    outputs.push((await run(agent, 'Two?', { session })).finalOutput);
    return { models: [model], outputs };
  },

  async 'an output guardrail that trips'(session) {
    const model = new ScriptedModel([[call('get_weather', { city: 'Paris' }, 'call_1')], [assistantMessage('secret')], [assistantMessage('fine')]]);
    const guardrail = { name: 'no secrets', execute: async ({ agentOutput }) => ({ tripwireTriggered: agentOutput === 'secret', outputInfo: {} }) };
    const agent = new Agent({ name: 'A', model, tools: [weather()], outputGuardrails: [guardrail] });
    await assert.rejects(run(agent, 'Tell me', { session }), /guardrail/i);
    return { models: [model], outputs: [(await run(agent, 'Then tell me that', { session })).finalOutput] };
  },

  async 'a compaction by the model'(session) {
    const compaction = { type: 'compaction', id: 'cmp_1', encrypted_content: 'zzz' };
    const model = new ScriptedModel([[assistantMessage('One.')], [compaction, assistantMessage('Two.')], [assistantMessage('Three.')]]);
    const agent = new Agent({ name: 'A', model });
    const outputs = [];
    for (const question of ['One?', 'Two?', 'Three?']) outputs.push((await run(agent, question, { session })).finalOutput);
    return { models: [model], outputs };
  },

  async "the SDK's compaction in one step"(session) {
    const options = { client: { responses: { compact: async () => ({ id: 'resp_1', output: [{ type: 'compaction', id: 'cmp_1', encrypted_content: 'zzz' }] }) } }, model: 'gpt-4.1', compactionMode: 'input', shouldTriggerCompaction: ({ sessionItems }) => sessionItems?.length >= 4 };
    const wrapped = session instanceof SessiondSession ? await compactionSession(session, options) : new OpenAIResponsesCompactionSession({ ...options, underlyingSession: session });
    const model = new ScriptedModel([[assistantMessage('One.')], [assistantMessage('Two.')], [assistantMessage('Three.')]]);
    const agent = new Agent({ name: 'A', model });
    const outputs = [];
    for (const question of ['One?', 'Two?', 'Three?']) outputs.push((await run(agent, question, { session: wrapped })).finalOutput);
    return { models: [model], outputs };
  },

  async "the SDK's compaction session around it"(session) {
    const model = new ScriptedModel([[assistantMessage('One.')], [assistantMessage('Two.')], [assistantMessage('Three.')]]);
    const agent = new Agent({ name: 'A', model });
    const output = [{ type: 'compaction', id: 'cmp_1', encrypted_content: 'zzz' }];
    const client = { responses: { compact: async () => ({ id: 'resp_1', output, usage: { input_tokens: 1, output_tokens: 1, total_tokens: 2 } }) } };
    const wrapped = new OpenAIResponsesCompactionSession({ underlyingSession: session, client, model: 'gpt-4.1', compactionMode: 'input', shouldTriggerCompaction: ({ sessionItems }) => sessionItems?.length >= 4 });
    const outputs = [];
    for (const question of ['One?', 'Two?', 'Three?']) outputs.push((await run(agent, question, { session: wrapped })).finalOutput);
    return { models: [model], outputs };
  },
};

const asJson = (value) => JSON.parse(JSON.stringify(value));

async function played(scenario, session) {
  const { models, outputs } = await scenario(session);
  const inputs = models.map((model) => model.calls.map(({ request, streamed }) => [streamed, request.input]));
  return asJson({ inputs, outputs, history: await session.getItems() });
}

for (const [name, scenario] of Object.entries(scenarios))
  test(`${name}: as with MemorySession`, async () => {
    const sessionId = `s${++number}`;
    const theirs = await played(scenario, new MemorySession({ sessionId }));
    const ours = await played(scenario, new SessiondSession(sessionId, { socket: daemon.socket }));
    assert.deepEqual(ours, theirs);
    assert.ok(theirs.history.length > 0);
  });

for (const stream of [false, true])
  test(`a daemon that is killed and started again in the middle of a run is not noticed${stream ? ', streaming' : ''}`, async () => {
    const session = new SessiondSession(`killed ${stream}`, { socket: daemon.socket });
    const restarting = (...output) => modelResponder(async () => {
      await daemon.restart();
      return output;
    });
    const model = new ScriptedModel([[assistantMessage('One.')], restarting(call('get_weather', { city: 'Paris' }, 'call_1')), restarting(assistantMessage('Two.'))]);
    const agent = new Agent({ name: 'A', model, tools: [weather()] });
    await run(agent, 'One?', { session });
    const result = await run(agent, 'Two?', { session, stream });
    await result.completed;
    assert.equal(result.finalOutput, 'Two.');
    assert.deepEqual((await session.getItems()).map(({ role, type }) => role ?? type), ['user', 'assistant', 'user', 'function_call', 'function_call_result', 'assistant']);
  });

const compacting = (compact) => ({
  client: { responses: { compact: async () => ({ id: 'resp_1', output: await compact(), usage: { input_tokens: 1, output_tokens: 1, total_tokens: 2 } }) } },
  model: 'gpt-4.1',
  compactionMode: 'input',
  shouldTriggerCompaction: ({ sessionItems }) => sessionItems?.length >= 4,
});
const COMPACTED = [{ type: 'compaction', id: 'cmp_1', encrypted_content: 'zzz' }];
const answers = (...texts) => new Agent({ name: 'A', model: new ScriptedModel(texts.map((text) => [assistantMessage(text)])) });

test("the SDK's compaction is one step: no reader sees less than all, and what others append meanwhile stays", async () => {
  const session = new SessiondSession('compacted', { socket: daemon.socket });
  const client = new Client({ socket: daemon.socket });
  let revision;
  const wrapped = await compactionSession(session, compacting(async () => {
    await new SessiondSession('compacted', { socket: daemon.socket }).addItems([{ role: 'user', content: 'from another' }]);
    ({ revision } = await client.getItems('compacted'));
    return COMPACTED;
  }));
  const agent = answers('One.', 'Two.');
  for (const question of ['One?', 'Two?']) await run(agent, question, { session: wrapped });
  const { items, revision: then } = await client.getItems('compacted');
  assert.equal(then, revision + 1);
  assert.deepEqual(items.map((text) => JSON.parse(text)).map(({ type, content }) => content ?? type), ['compaction', 'from another']);
  await client.close();
});

test('control: with the wrapper of the SDK itself, what others append meanwhile is gone, and it is more than one step', async () => {
  const session = new SessiondSession('theirs', { socket: daemon.socket });
  const client = new Client({ socket: daemon.socket });
  let revision;
  const wrapped = new OpenAIResponsesCompactionSession({ ...compacting(async () => {
    await new SessiondSession('theirs', { socket: daemon.socket }).addItems([{ role: 'user', content: 'from another' }]);
    ({ revision } = await client.getItems('theirs'));
    return COMPACTED;
  }), underlyingSession: session });
  const agent = answers('One.', 'Two.');
  for (const question of ['One?', 'Two?']) await run(agent, question, { session: wrapped });
  const { items, revision: then } = await client.getItems('theirs');
  assert.equal(items.length, 1);
  assert.ok(then > revision + 1);
  await client.close();
});

test('a history that was changed under the compaction is not replaced', async () => {
  const session = new SessiondSession('changed', { socket: daemon.socket });
  const wrapped = await compactionSession(session, compacting(async () => {
    await session.popItem();
    return COMPACTED;
  }));
  const agent = answers('One.', 'Two.');
  await run(agent, 'One?', { session: wrapped });
  await assert.rejects(run(agent, 'Two?', { session: wrapped }), ({ code }) => code === 'conflict');
  assert.equal((await session.getItems()).length, 3);
});

test('the run context is taken and does no harm', async () => {
  class Counted extends SessiondSession {
    contexts = [];

    addItems(items, runContext) {
      this.contexts.push(runContext?.context);
      return super.addItems(items, runContext);
    }
  }
  const session = new Counted('context', { socket: daemon.socket });
  await run(new Agent({ name: 'A', model: new ScriptedModel([[assistantMessage('x')]]) }), 'Hi', { session, context: { who: 'me' } });
  assert.deepEqual(session.contexts, [{ who: 'me' }]);
});

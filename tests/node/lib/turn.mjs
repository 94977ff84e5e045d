// Turns of an agent in Node: each line of stdin is a question as JSON, each of stdout its answer and what was sent.
import readline from 'node:readline';

import { Agent, MemorySession, run, setDefaultOpenAIClient, setTracingDisabled, tool } from '@openai/agents';
import OpenAI from 'openai';
import { SessiondSession } from 'sessiond';
import { z } from 'zod';

const [where, conversation] = process.argv.slice(2);
let sent = [];

setTracingDisabled(true);
setDefaultOpenAIClient(new OpenAI({
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: 'scripted',
  fetch: (url, init) => {
    sent.push(JSON.parse(init.body).input);
    return fetch(url, init);
  },
}));

const weather = tool({
  name: 'get_weather',
  description: 'The weather of a city.',
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `It is sunny in ${city}.`,
});
const look = tool({
  name: 'look',
  description: 'Takes a picture.',
  parameters: z.object({}),
  execute: async () => [{ type: 'text', text: 'here' }, { type: 'image', image: 'data:image/png;base64,iVBORw0KGgo=', detail: 'low' }],
});
const agent = new Agent({
  name: 'Assistant',
  tools: [weather, look],
  model: 'gpt-5',
  modelSettings: { reasoning: { effort: 'low' }, providerData: { include: ['reasoning.encrypted_content'] } },
});
const session = where === 'alone' ? new MemorySession({ sessionId: conversation }) : new SessiondSession(conversation, { socket: where });
for await (const line of readline.createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  sent = [];
  const input = typeof question === 'string' ? question : question.map(({ role, content }) => ({ role, content: content.map(partOf) }));
  const answer = (await run(agent, input, { session })).finalOutput;
  console.log(JSON.stringify({ answer, sent }));
}

/** A part of a message as JavaScript writes it. */
function partOf({ image_url, ...part }) {
  return image_url ? { ...part, image: image_url } : part;
}

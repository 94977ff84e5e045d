// A program in JavaScript: SessiondSession of the npm package, on the store that it is told.
import { Agent, run } from '@openai/agents';
import { SessiondSession } from 'sessiond';

const [question, store] = process.argv.slice(2);
const agent = new Agent({ name: 'Assistant', instructions: 'Reply very concisely.' });
const session = new SessiondSession('conversation_123', { store });
const result = await run(agent, question, { session });
console.log(result.finalOutput);

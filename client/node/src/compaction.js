// The SDK's compaction around a session of ours, with a replacement in one step.

import { SessiondError } from './errors.js';

const STEP = 'replaceUnderlyingSessionItems'; // the SDK's own step, a clear and an add, in whose place ours stands

/**
 * The SDK's OpenAIResponsesCompactionSession around `session`. What was compacted gives way in one step: a reader sees the
 * history before or after it, a crash leaves one of the two, and what others appended meanwhile stays.
 */
export async function compactionSession(session, options = {}) {
  const { OpenAIResponsesCompactionSession: Theirs } = await import('@openai/agents');
  if (typeof Theirs?.prototype[STEP] !== 'function')
    throw new SessiondError('protocol', 'this version of @openai/agents replaces a compacted history in a way that is not known here');
  class InOneStep extends Theirs {
    async [STEP]({ outputItems, previousItems }) {
      // What the model was sent; `previousItems` was read after its answer, and may have more.
      await session.replaceOldest(this.sessionItems ?? previousItems, outputItems);
    }
  }
  return new InOneStep({ ...options, underlyingSession: session });
}

"""A program as there are many: it keeps its conversation in a SQLite file beside it."""

import asyncio
import sys

from agents import Agent, Runner
from agents import SQLiteSession


async def main() -> None:
    agent = Agent(name="Assistant", instructions="Reply very concisely.")
    session = SQLiteSession("conversation_123", "conversations.db")
    result = await Runner.run(agent, sys.argv[1], session=session)
    print(result.final_output)


asyncio.run(main())

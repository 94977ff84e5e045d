"""A program that was written for sessiond: it is told which store it shares with the others."""

import asyncio
import sys

from agents import Agent, Runner
from sessiond import SessiondSession


async def main(question: str, store: str) -> None:
    agent = Agent(name="Assistant", instructions="Reply very concisely.")
    session = SessiondSession("conversation_123", store=store)
    result = await Runner.run(agent, question, session=session)
    print(result.final_output)


asyncio.run(main(sys.argv[1], sys.argv[2]))

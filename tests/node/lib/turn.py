"""Turns of an agent in Python: each line of stdin is a question as JSON, each of stdout its answer and what was sent."""

import asyncio
import json
import os
import sys
from typing import Any

from agents import Agent, ModelSettings, RunConfig, Runner, SQLiteSession, ToolOutputImage, ToolOutputText
from agents import function_tool, set_default_openai_client, set_tracing_disabled
from agents.run import CallModelData, ModelInputData
from openai import AsyncOpenAI
from openai.types.shared import Reasoning
from sessiond import SessiondSession

sent: list[Any] = []


def note(data: CallModelData[Any]) -> ModelInputData:
    sent.append(json.loads(json.dumps(data.model_data.input)))
    return data.model_data


@function_tool
def get_weather(city: str) -> str:
    return f"It is sunny in {city}."


@function_tool
def look() -> list[Any]:
    return [ToolOutputText(text="here"), ToolOutputImage(image_url="data:image/png;base64,iVBORw0KGgo=", detail="low")]


async def main(where: str, conversation: str) -> None:
    set_tracing_disabled(True)
    set_default_openai_client(AsyncOpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key="scripted"))
    settings = ModelSettings(reasoning=Reasoning(effort="low"), response_include=["reasoning.encrypted_content"])
    agent = Agent(name="Assistant", tools=[get_weather, look], model_settings=settings, model="gpt-5")
    session = SQLiteSession(conversation) if where == "alone" else SessiondSession(conversation, socket=where)
    while line := await asyncio.to_thread(sys.stdin.readline):
        sent.clear()
        config = RunConfig(call_model_input_filter=note)
        result = await Runner.run(agent, json.loads(line), session=session, run_config=config)
        print(json.dumps({"answer": result.final_output, "sent": sent}), flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2]))

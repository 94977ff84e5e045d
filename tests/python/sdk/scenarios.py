"""The scenarios of a Runner's life with a session: one small function each.

A scenario takes a Stage (its sessions) and the endpoint (the model). It is played on several
backends; what it returns, the calls that were made and the stored history must be the same on
all of them. A scenario checks itself that it really came to what its name says.

The lines "call TOOL ARGUMENTS" in a question are a script for the endpoint, see there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    ModelSettings,
    OutputGuardrail,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    Runner,
    RunState,
    SessionSettings,
    function_tool,
)
from agents.extensions.memory import EncryptedSession
from agents.memory import OpenAIResponsesCompactionSession
from openai import APIStatusError, AsyncOpenAI
from openai.types.shared import Reasoning
from responses_endpoint import ResponsesEndpoint
from stage import InjectedFailure, Stage, loop_of_run_sync

CITY = "What city is the Golden Gate Bridge in?"
STATE = "What state is it in?"
POPULATION = "What's the population?"

SCENARIOS: dict[str, Callable[[Stage, ResponsesEndpoint], Any]] = {}


def scenario(function: Callable) -> Callable:
    SCENARIOS[function.__name__] = function
    return function


def play(name: str, stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    """Plays a scenario to its end, in an event loop of its own if it wants one."""
    observed = SCENARIOS[name](stage, endpoint)
    return asyncio.run(observed) if asyncio.iscoroutine(observed) else observed


@function_tool
def get_weather(city: str) -> str:
    return f"sunny in {city}"


@function_tool(failure_error_function=None)
def broken_tool() -> str:
    raise RuntimeError("the tool is broken")


@function_tool(needs_approval=True)
def delete_file(name: str) -> str:
    return f"deleted {name}"


def assistant(**settings: Any) -> Agent:
    return Agent(
        name="Assistant",
        instructions="Reply very concisely.",
        **{"tools": [get_weather, broken_tool], **settings},
    )


# --- one turn after another -------------------------------------------------------------------


@scenario
async def run(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = stage.session()
    questions = (CITY, STATE, POPULATION)
    answers = [(await Runner.run(assistant(), q, session=session)).final_output for q in questions]
    assert answers == ["San Francisco", "California", "Approximately 39 million"]
    return answers


@scenario
def run_sync(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = stage.session()
    with loop_of_run_sync():
        results = [Runner.run_sync(assistant(), q, session=session) for q in (CITY, STATE)]
    answers = [result.final_output for result in results]
    assert answers == ["San Francisco", "California"]
    return answers


@scenario
async def run_streamed(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = stage.session()
    seen = []
    for question in (CITY, 'call get_weather {"city": "Paris"}\n' + STATE):
        result = Runner.run_streamed(assistant(), question, session=session)
        seen += [event.name async for event in result.stream_events() if hasattr(event, "name")]
        seen.append(result.final_output)
    assert seen[-1] == "California"
    return seen


@scenario
async def a_list_as_input(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = stage.session()
    talk = [
        {"role": "user", "content": CITY},
        {"role": "assistant", "content": "San Francisco"},
        {"role": "user", "content": [{"type": "input_text", "text": STATE}]},
    ]
    result = await Runner.run(assistant(), talk, session=session)
    assert result.final_output == "California"
    return result.to_input_list()


@scenario
async def two_sessions_of_one_store(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    first, second = stage.session("user_123"), stage.session("user_456")
    answers = [
        (await Runner.run(assistant(), "Hello", session=session)).final_output
        for session in (first, second, first)
    ]
    assert answers == ["Hello! How can I help?"] * 2 + ["Hello again!"]
    return answers


@scenario
async def a_correction_with_pop_item(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = stage.session()
    await Runner.run(assistant(), "What's 2 + 2?", session=session)
    popped = [await session.pop_item(), await session.pop_item(), await session.pop_item()]
    assert popped[2] is None
    result = await Runner.run(assistant(), "What's 2 + 3?", session=session)
    assert result.final_output == "5"
    await session.clear_session()
    return [popped, result.final_output, await session.get_items()]


# --- tools and handoffs -----------------------------------------------------------------------


@scenario
async def sequential_tools(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    question = "\n".join(f'call get_weather {{"city": "{c}"}}' for c in ("Paris", "Rome", "Oslo"))
    result = await Runner.run(assistant(), question, session=stage.session())
    assert result.final_output == "sunny in Paris; sunny in Rome; sunny in Oslo"
    return result.final_output


@scenario
async def parallel_tools(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    calls = " & ".join(f'get_weather {{"city": "{c}"}}' for c in ("Paris", "Rome", "Oslo"))
    result = await Runner.run(assistant(), f"call {calls}", session=stage.session())
    assert result.final_output == "sunny in Paris; sunny in Rome; sunny in Oslo"
    return result.final_output


@scenario
async def reasoning_and_tools(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    thinking = ModelSettings(
        reasoning=Reasoning(effort="low"), response_include=["reasoning.encrypted_content"]
    )
    agent = assistant(model_settings=thinking)
    session = stage.session()
    await Runner.run(agent, 'call get_weather {"city": "Paris"}', session=session)
    result = await Runner.run(agent, CITY, session=session)
    types = [item.get("type") for item in await session.get_items()]
    assert types.count("reasoning") == 3
    return result.to_input_list()


@scenario
async def a_handoff(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    geographer = Agent(name="Geographer", instructions="You know places.")
    session = stage.session()
    triage = assistant(handoffs=[geographer])
    await Runner.run(triage, CITY, session=session)
    result = await Runner.run(triage, f"call transfer_to_geographer {{}}\n{STATE}", session=session)
    assert (result.last_agent.name, result.final_output) == ("Geographer", "California")
    return result.to_input_list()


@scenario
async def an_agent_as_tool_with_its_own_session(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    geographer = Agent(name="Geographer", instructions="You know places.")
    tool = geographer.as_tool(
        tool_name="ask_geographer",
        tool_description="Asks the geographer.",
        session=stage.session("geographer"),
    )
    agent = assistant(tools=[tool])
    session = stage.session()
    answers = []
    for question in (CITY, STATE):
        call = f"call ask_geographer {json.dumps({'input': question})}"
        answers.append((await Runner.run(agent, call, session=session)).final_output)
    assert answers == ["San Francisco", "California"]
    return answers


@scenario
def an_approval_in_two_processes(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    state_file = str(stage.where / "run_state.json")
    asked = stage.in_another_process("approval_process.py", "interrupt", state_file)
    assert asked == ["delete_file"]
    answered = stage.in_another_process("approval_process.py", "resume", state_file)
    assert answered == ["a is empty; deleted b"]
    return [asked, answered]


async def resumed_twice(stage: Stage, failing: str) -> Any:
    """An approved run whose first write goes wrong is resumed again, from its saved state."""
    agent = assistant(tools=[delete_file])
    session = stage.session()
    result = await Runner.run(agent, 'call delete_file {"name": "a"}', session=session)
    state = await RunState.from_string(agent, result.to_state().to_string())
    for item in state.get_interruptions():
        state.approve(item)
    setattr(stage, failing, ("add_items", stage.methods_called().count("add_items") + 1))
    with pytest.raises(InjectedFailure):
        await Runner.run(agent, state, session=session)
    state = await RunState.from_string(agent, state.to_string())
    answer = (await Runner.run(agent, state, session=session)).final_output
    types = [item.get("type") for item in await session.get_items()]
    assert types == [None, "function_call", "function_call_output", "message"]
    return answer


@scenario
async def a_resumed_write_that_fails(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    return await resumed_twice(stage, "fail_at")


@scenario
async def a_resumed_write_whose_answer_is_lost(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    return await resumed_twice(stage, "lose_at")


# --- runs that end early ----------------------------------------------------------------------


def tripwire(trips: bool) -> Callable:
    def check(context: Any, agent: Any, value: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=trips)

    return check


@scenario
async def an_input_guardrail_that_trips_first(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    guardrail = InputGuardrail(guardrail_function=tripwire(True), run_in_parallel=False)
    session = stage.session()
    await Runner.run(assistant(), CITY, session=session)
    with pytest.raises(InputGuardrailTripwireTriggered):
        await Runner.run(assistant(input_guardrails=[guardrail]), STATE, session=session)


@scenario
async def an_input_guardrail_that_trips_beside_the_model(
    stage: Stage, endpoint: ResponsesEndpoint
) -> Any:
    guardrail = InputGuardrail(guardrail_function=tripwire(True), run_in_parallel=True)
    with pytest.raises(InputGuardrailTripwireTriggered):
        await Runner.run(assistant(input_guardrails=[guardrail]), CITY, session=stage.session())


@scenario
async def an_output_guardrail_that_trips(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    agent = assistant(output_guardrails=[OutputGuardrail(guardrail_function=tripwire(True))])
    with pytest.raises(OutputGuardrailTripwireTriggered):
        await Runner.run(agent, 'call get_weather {"city": "Paris"}', session=stage.session())


@scenario
async def guardrails_that_let_pass(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    agent = assistant(
        input_guardrails=[InputGuardrail(guardrail_function=tripwire(False))],
        output_guardrails=[OutputGuardrail(guardrail_function=tripwire(False))],
    )
    result = await Runner.run(agent, CITY, session=stage.session())
    assert result.final_output == "San Francisco"
    return result.final_output


@scenario
async def too_many_turns(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    question = "\n".join(['call get_weather {"city": "Paris"}'] * 5)
    with pytest.raises(MaxTurnsExceeded):
        await Runner.run(assistant(), question, session=stage.session(), max_turns=2)


@scenario
async def a_model_that_fails(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = stage.session()
    endpoint.outcomes.extend([None, 500])
    with pytest.raises(APIStatusError):
        await Runner.run(assistant(), 'call get_weather {"city": "Paris"}', session=session)
    result = await Runner.run(assistant(), CITY, session=session)
    return result.final_output


@scenario
async def a_tool_that_fails(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    with pytest.raises(Exception, match="the tool is broken"):
        await Runner.run(assistant(), "call broken_tool {}", session=stage.session())


@scenario
async def an_add_that_fails(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = stage.session()
    stage.fail_at = ("add_items", 2)
    with pytest.raises(InjectedFailure):
        await Runner.run(assistant(), CITY, session=session)


async def cancelled_stream(stage: Stage, endpoint: ResponsesEndpoint, mode: str) -> Any:
    """Cancels in the middle of the first answer: the endpoint holds it until that is done."""
    session = stage.session()
    endpoint.hold_streams()
    question = 'call get_weather {"city": "Paris"}\n' + CITY
    result = Runner.run_streamed(assistant(), question, session=session)
    async for event in result.stream_events():
        if getattr(getattr(event, "data", None), "type", "").endswith(".delta"):
            result.cancel(mode=mode)
            endpoint.release_streams()
    assert result.final_output is None
    return (await Runner.run(assistant(), CITY, session=session)).final_output


@scenario
async def a_stream_cancelled_at_once(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    return await cancelled_stream(stage, endpoint, "immediate")


@scenario
async def a_stream_cancelled_after_the_turn(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    answer = await cancelled_stream(stage, endpoint, "after_turn")
    types = [item.get("type") for item in await stage.session().get_items()]
    assert "function_call_output" in types
    return answer


# --- which history the model sees -------------------------------------------------------------


@scenario
async def a_session_input_callback(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    def only_questions(history: list, new: list) -> list:
        return [item for item in history if item.get("role") == "user"] + new

    session = stage.session()
    await Runner.run(assistant(), CITY, session=session)
    config = RunConfig(session_input_callback=only_questions)
    result = await Runner.run(assistant(), STATE, session=session, run_config=config)
    assert result.final_output == "I do not know which city you mean"
    assert len(await session.get_items()) == 4
    return result.final_output


async def talk_with_limit(session: Any, config: RunConfig | None = None) -> list[str]:
    """Three questions; with too small a window the last is answered wrongly."""
    answers = []
    for question in (CITY, "Hello", STATE):
        result = await Runner.run(assistant(), question, session=session, run_config=config)
        answers.append(result.final_output)
    return answers


@scenario
async def a_limit_of_the_session(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    answers = await talk_with_limit(stage.session(session_settings=SessionSettings(limit=2)))
    assert answers[-1] == "I do not know which city you mean"
    return answers


@scenario
async def a_limit_of_the_session_as_dict(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    answers = await talk_with_limit(stage.session(session_settings={"limit": 3}))
    assert answers[-1] == "California"
    return answers


@scenario
async def a_limit_assigned_later(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = stage.session()
    assert session.session_settings == SessionSettings()
    session.session_settings = SessionSettings(limit=2)
    return await talk_with_limit(session)


@scenario
async def a_limit_of_the_run(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    config = RunConfig(session_settings=SessionSettings(limit=2))
    answers = await talk_with_limit(stage.session(), config)
    assert answers[-1] == "I do not know which city you mean"
    return answers


@scenario
async def a_limit_of_the_run_over_the_session_s(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = stage.session(session_settings=SessionSettings(limit=0))
    answers = await talk_with_limit(session, RunConfig(session_settings=SessionSettings(limit=3)))
    assert answers[-1] == "California"
    return answers


@scenario
async def a_limit_of_the_call(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = stage.session(session_settings=SessionSettings(limit=1))
    await session.add_items([{"role": "user", "content": str(n)} for n in range(5)])
    counts = [len(await session.get_items(n)) for n in (None, 0, 1, 3, 5, 6, 2**31 - 1, -1)]
    assert counts == [1, 0, 1, 3, 5, 5, 5, 5]
    return [await session.get_items(limit=2), await session.get_items(3), counts]


# --- the SDK's wrappers -----------------------------------------------------------------------

KEY = "a secret of the tests"


@scenario
async def encrypted(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = EncryptedSession("talk", stage.session(), KEY)
    stage.reveal = lambda item: session._unwrap(item) or item
    for question in (CITY, 'call get_weather {"city": "Paris"}'):
        await Runner.run(assistant(), question, session=session)
    session.session_settings = SessionSettings(limit=3)
    last = await session.pop_item()
    result = await Runner.run(assistant(), "Hello", session=session)
    stored = await stage.session().get_items(-1)
    assert all(item["__enc__"] == 1 for item in stored), "something is stored in the clear"
    return [last, result.final_output, len(stored)]


def compacting(stage: Stage, threshold: int, **settings: Any) -> OpenAIResponsesCompactionSession:
    client = AsyncOpenAI(base_url=stage.base_url, api_key="of the tests", max_retries=0)
    return OpenAIResponsesCompactionSession(
        "talk",
        stage.session(),
        client=client,
        should_trigger_compaction=lambda context: (
            len(context["compaction_candidate_items"]) >= threshold
        ),
        **settings,
    )


def compactions(items: list[Any]) -> int:
    return sum(item.get("type") == "compaction" for item in items)


@scenario
async def compacted(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = compacting(stage, threshold=2)
    for question in (CITY, "Hello"):
        await Runner.run(assistant(), question, session=session)
    items = await session.get_items()
    assert compactions(items) == 1 and len(items) == 3
    assert not stage.recorded or "clear_session" in stage.methods_called()
    answer = (await Runner.run(assistant(), STATE, session=session)).final_output
    assert answer == "California", "what was compacted is forgotten"
    return [items, answer]


@scenario
async def compacted_after_tools(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = compacting(stage, threshold=2)
    question = 'call get_weather {"city": "Paris"}'
    result = await Runner.run(assistant(), question, session=session)
    assert compactions(await session.get_items()) == 1
    return result.final_output


@scenario
async def compacted_while_streaming(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = compacting(stage, threshold=1)
    result = Runner.run_streamed(assistant(), CITY, session=session)
    async for _ in result.stream_events():
        pass
    assert compactions(await session.get_items()) == 1
    return result.final_output


@scenario
async def compacted_from_what_is_stored(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = compacting(stage, threshold=100, compaction_mode="input")
    for question in (CITY, STATE):
        await Runner.run(assistant(), question, session=session)
    assert compactions(await session.get_items()) == 0
    await session.run_compaction({"force": True})
    assert compactions(await session.get_items()) == 1
    return (await Runner.run(assistant(), POPULATION, session=session)).final_output


@scenario
async def a_compaction_whose_add_fails(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = compacting(stage, threshold=100, compaction_mode="input")
    for question in (CITY, STATE):
        await Runner.run(assistant(), question, session=session)
    before = await session.get_items()
    stage.fail_at = ("add_items", 5)
    with pytest.raises(InjectedFailure):
        await session.run_compaction({"force": True})
    restored = ["clear_session", "add_items", "clear_session", "add_items"]
    assert stage.methods_called()[-4:] == restored
    assert await session.get_items() == before, "the history was not restored"
    return (await Runner.run(assistant(), POPULATION, session=session)).final_output


@scenario
async def compacted_and_encrypted(stage: Stage, endpoint: ResponsesEndpoint) -> Any:
    session = EncryptedSession("talk", compacting(stage, threshold=2), KEY)
    stage.reveal = lambda item: session._unwrap(item) or item
    answers = []
    for question in (CITY, "Hello", STATE):
        answers.append((await Runner.run(assistant(), question, session=session)).final_output)
    assert answers[-1] == "California"
    return [answers, await session.get_items()]

"""The scripted model is worth nothing as a witness unless it notices what is wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
import responses_endpoint
from openai import APIStatusError, AsyncOpenAI

USER = {"role": "user", "content": "Hello"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "done"}
ANSWER = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}

MALFORMED: dict[str, tuple[list[Any], str]] = {
    "nothing": ([], "Missing required parameter: 'input'"),
    "an output without its call": ([USER, OUTPUT], "No tool call found"),
    "an output before its call": ([USER, OUTPUT, CALL], "No tool call found"),
    "two outputs of one call": ([USER, CALL, OUTPUT, OUTPUT], "Duplicate output"),
    "a call without its output": ([USER, CALL, ANSWER], "No tool output found"),
    "an id that comes twice": ([USER, ANSWER, USER, ANSWER], "Duplicate item found with id msg_1"),
    "reasoning that leads to nothing": ([USER, THOUGHT], "without its required following item"),
    "reasoning before a question": ([USER, THOUGHT, USER], "without its required following item"),
    "an envelope": ([USER, {"__enc__": 1, "payload": "…"}], "Invalid value: ''"),
    "an unknown field": ([{**USER, "created_at": 1}], "Unknown parameter: 'input[0].created_at'"),
    "a missing field": ([{"role": "user"}], "Missing required parameter: 'input[0].content'"),
    "an id of another kind": ([{**ANSWER, "id": "fc_1"}], "Expected an ID that begins with 'msg'"),
    "parts of another role": ([{**ANSWER, "role": "user"}], "Invalid value in 'input[0].content"),
    "an output that is no text": ([USER, CALL, {**OUTPUT, "output": 1}], "Invalid type"),
    "no object": (["Hello"], "expected an object"),
    "sealed content of others": (
        [{"type": "compaction", "encrypted_content": "gAAAA"}, USER],
        "could not be verified",
    ),
}


@pytest.fixture
def ask(endpoint) -> Any:
    def ask(given: Any, **parameters: Any) -> Any:
        async def create() -> Any:
            client = AsyncOpenAI(base_url=endpoint.base_url, api_key="x", max_retries=0)
            return await client.responses.create(model="gpt-4.1", input=given, **parameters)

        return asyncio.run(create())

    return ask


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_history_is_refused(what, ask):
    given, message = MALFORMED[what]
    with pytest.raises(APIStatusError, match="400") as refused:
        ask(given)
    assert message in refused.value.message


@pytest.mark.parametrize(
    "given",
    [[USER, CALL, OUTPUT, ANSWER, USER], [USER, THOUGHT, CALL, OUTPUT], [USER, THOUGHT, ANSWER]],
)
def test_a_whole_history_is_answered(given, ask):
    assert ask(given).status == "completed"


def test_a_lost_history_is_answered_wrongly(ask):
    city = {"role": "user", "content": "What city is the Golden Gate Bridge in?"}
    state = {"role": "user", "content": "What state is it in?"}
    answer = {"role": "assistant", "content": "San Francisco"}
    assert ask([city, answer, state]).output_text == "California"
    assert ask([state]).output_text == "I do not know which city you mean"
    assert ask("What's the population?").output_text == "I do not know which place you mean"
    assert ask("Which bridge was it?").output_text == "I do not know which bridge you mean"


def test_the_same_history_gets_the_same_answer_and_another_gets_other_ids(ask):
    first, again, other = ask([USER]), ask([USER]), ask([USER], instructions="Be brief.")
    assert first.output == again.output
    assert first.output[0].id != other.output[0].id


def test_it_fails_when_it_is_told_to(ask, endpoint):
    endpoint.outcomes.extend([None, 500])
    ask([USER])
    with pytest.raises(APIStatusError, match="told to fail"):
        ask([USER])
    assert ask([USER]).output_text


def test_a_response_is_forgotten_that_was_not_to_be_stored(ask):
    stored, unstored = ask([USER]), ask([USER, ANSWER, USER], store=False)
    assert ask([USER], previous_response_id=stored.id).output_text == "Hello again!"
    with pytest.raises(APIStatusError, match="not found"):
        ask([USER], previous_response_id=unstored.id)


@pytest.fixture
def endpoint_process(tmp_path) -> Any:
    """The endpoint as a program; its URL once it listens. It must end well when it is asked to."""
    port_file = tmp_path / "port"
    command = [sys.executable, responses_endpoint.__file__, "--port-file", str(port_file)]
    process = subprocess.Popen(command)
    try:
        while not port_file.exists():
            assert process.poll() is None, "the endpoint ended"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port_file.read_text().strip()}"
        process.terminate()
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()


def test_another_process_is_asked_and_steered(endpoint_process):
    def post(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        data = json.dumps(body).encode()
        request = urllib.request.Request(endpoint_process + path, data)
        request.add_header("Authorization", "Bearer x")
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.load(refused)

    question = {"model": "gpt-4.1", "input": "Hello"}
    assert post("/script", {"outcomes": [None, 429]}) == (200, {"requests": 0})
    assert post("/v1/responses", question)[0] == 200
    assert post("/v1/responses", question)[0] == 429
    assert post("/script", {}) == (200, {"requests": 2})
    assert post("/v1/chat", question)[0] == 404


def test_without_a_key_nothing_is_answered(endpoint):
    request = urllib.request.Request(f"{endpoint.base_url}/responses", b"{}")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value:
        assert refused.value.code == 401

"""The agent runner in C (client/c/example): a conversation over several processes, a tool, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import TOP, Daemon, build_dir

sys.path.insert(0, str(TOP / "tests/lib"))

from responses_endpoint import ResponsesEndpoint


@pytest.fixture
def endpoint() -> Iterator[ResponsesEndpoint]:
    with ResponsesEndpoint() as running:
        yield running


def run(program: str, *arguments: str, given: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [build_dir() / program, *arguments],
        input=given,
        capture_output=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def ask(endpoint: ResponsesEndpoint, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return run("example/agent", *arguments, OPENAI_BASE_URL=endpoint.base_url, OPENAI_API_KEY="none")


def answer(endpoint: ResponsesEndpoint, *arguments: str) -> str:
    result = ask(endpoint, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().strip()


def stored(session: str, *flags: str) -> list[bytes]:
    result = run("sessionctl", *flags, "get", session)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_conversation_over_several_processes(daemon: Daemon, endpoint: ResponsesEndpoint) -> None:
    assert answer(endpoint, "s", "What city is the Golden Gate Bridge in?") == "San Francisco"
    daemon.restart()
    assert answer(endpoint, "s", "What state is it in?") == "California"
    assert [json.loads(item)["role"] for item in stored("s")] == ["user", "assistant"] * 2
    assert answer(endpoint, "other", "What state is it in?") == "I do not know which city you mean"


def test_its_store(daemon: Daemon, endpoint: ResponsesEndpoint) -> None:
    answer(endpoint, "--store", "myapp", "s", "hello")
    assert stored("s") == []
    assert len(stored("s", "--store", "myapp")) == 2


def test_a_tool_in_several_turns(daemon: Daemon, endpoint: ResponsesEndpoint) -> None:
    answer(endpoint, "s", "call get_time {} & get_time {}\ncall get_time {}")
    kinds = [json.loads(item).get("type", "user") for item in stored("s")]
    call, output = "function_call", "function_call_output"
    assert kinds == ["user", call, call, output, output, call, output, "message"]
    assert answer(endpoint, "s", "hello").startswith("Hello")  # the history with its calls is accepted


def test_the_history_goes_out_as_it_is_stored(daemon: Daemon, endpoint: ResponsesEndpoint) -> None:
    odd = b'{"role": "user", "content": "\\ud800 \\u0000", "n": 123456789012345678901234567890, "x": 1.0}'
    assert run("sessionctl", "add", "s", given=odd).returncode == 0
    assert ask(endpoint, "s", "hello").returncode == 1  # the API knows no "n"
    _, body = endpoint.requests[-1]
    assert body["input"][0] == json.loads(odd)
    assert stored("s") == [odd]


def test_what_the_model_refuses_leaves_the_session_as_it_was(daemon: Daemon, endpoint: ResponsesEndpoint) -> None:
    answer(endpoint, "s", "hello")
    before = stored("s")
    endpoint.outcomes.append(500)
    result = ask(endpoint, "s", "hello")
    assert result.returncode == 1
    assert b"500" in result.stderr
    assert stored("s") == before


def test_no_daemon_and_no_model(daemon: Daemon, endpoint: ResponsesEndpoint) -> None:
    result = run("example/agent", "s", "hello", OPENAI_BASE_URL="http://127.0.0.1:1/v1")
    assert result.returncode == 1
    daemon.stop()
    result = ask(endpoint, "s", "hello")
    assert result.returncode == 1
    assert b"start it" in result.stderr
    assert ask(endpoint, "s").returncode == 2

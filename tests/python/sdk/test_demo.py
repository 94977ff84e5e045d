"""`make demo` shows what it says, notices when it does not, and leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import responses_endpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "run"
DEADLINE_SECONDS = 60
ANSWERS = ["San Francisco", "California", "Approximately 39 million", "The Golden Gate Bridge", "California"]


class Show:
    """A demonstration under way. It and all its children carry a mark in their environment."""

    def __init__(self, environment: dict[str, str]):
        self._mark = f"DEMO_MARK={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        self.process = subprocess.Popen(
            [str(DEMO)],
            env={**os.environ, **environment, name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def read_until(self, line: str) -> None:
        assert self.process.stdout is not None
        for read in self.process.stdout:
            if line in read:
                return
        pytest.fail(f"the demonstration ended before {line!r}: {self.process.stderr.read()}")

    def end(self) -> tuple[int, str, str]:
        """Status, output and error output; no process of it is left."""
        output, errors = self.process.communicate(timeout=300)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.processes():
            assert time.monotonic() < deadline, f"still running: {self.processes()}"
            time.sleep(0.01)
        return self.process.returncode, output, errors

    def processes(self) -> list[int]:
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if self._is_ours(entry)]

    def _is_ours(self, process: Path) -> bool:
        try:
            return self._mark.encode() in (process / "environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def kill(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, short_dir: Path) -> Iterator[Callable[..., Show]]:
    """Starts a demonstration with the scripted model, unless the environment says otherwise."""
    monkeypatch.setenv("TMPDIR", str(short_dir))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    shows: list[Show] = []

    def show(**environment: str) -> Show:
        shows.append(Show(environment))
        return shows[-1]

    yield show
    for started in shows:
        started.kill()


def test_the_demonstration_shows_one_conversation(show):
    status, output, errors = show().end()
    assert (status, errors) == (0, "")
    said = [line.partition("agent: ")[2] for line in output.splitlines()]
    assert [answer for answer in said if answer] == ANSWERS
    assert output.count('"role":') == 2 * len(ANSWERS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demonstration_that_is_stopped_leaves_nothing_running(number, show):
    started = show()
    started.read_until("sessiond runs")
    started.process.send_signal(number)
    status, output, _ = started.end()
    assert status == 128 + number
    assert ANSWERS[-1] not in output


def test_a_demonstration_that_is_killed_leaves_nothing_running(show):
    started = show()
    started.read_until("sessiond runs")
    started.process.kill()
    assert started.end()[0] == -signal.SIGKILL


def test_a_wrong_answer_ends_the_demonstration(show, endpoint, monkeypatch):
    monkeypatch.setattr(responses_endpoint, "STATE_OF_CITY", {})
    status, output, errors = show(OPENAI_API_KEY="x", OPENAI_BASE_URL=endpoint.base_url).end()
    assert status == 1
    assert "I do not know which city you mean" in output
    assert "the answer is wrong; expected: California" in errors


def test_a_model_that_fails_ends_the_demonstration(show, endpoint):
    endpoint.outcomes.extend([400])
    status, _, errors = show(OPENAI_API_KEY="x", OPENAI_BASE_URL=endpoint.base_url).end()
    assert status == 1
    assert "told to fail" in errors


def test_what_is_not_built_is_named(show, tmp_path):
    status, _, errors = show(SESSIOND_BUILD=str(tmp_path)).end()
    assert status == 1
    assert f"{tmp_path}/sessiond" in errors and "make demo" in errors


def test_with_a_key_the_configured_model_is_asked(show, endpoint):
    status, output, errors = show(OPENAI_API_KEY="x", OPENAI_BASE_URL=endpoint.base_url).end()
    assert (status, errors) == (0, "")
    assert "The model: the real one" in output
    assert len(endpoint.requests) == len(ANSWERS)

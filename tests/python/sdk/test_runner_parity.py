"""The Runner cannot tell our sessions from the SDK's SQLiteSession.

Each scenario is played on SQLiteSession and on ours. The calls that the Runner makes, with their
arguments and outcomes, what it answers and what is stored in the end must be the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from scenarios import SCENARIOS, play
from stage import BACKENDS, OURS, SDK


@pytest.fixture
def played(stage_on, endpoint) -> Callable[..., dict[str, Any]]:
    """Plays a scenario on a backend: what was seen, which calls were made, what is stored."""

    def played(name: str, backend: str, recorded: bool = True) -> dict[str, Any]:
        stage = stage_on(backend, recorded)
        seen = play(name, stage, endpoint)
        return {"seen": seen, "calls": stage.calls, "stored": asyncio.run(stage.histories())}

    return played


@pytest.fixture
def expected(played, request) -> Callable[[str], dict[str, Any]]:
    """The play on a recorded SQLiteSession, which several tests compare with."""
    plays = request.session.stash.setdefault(EXPECTED, {})

    def expected(name: str) -> dict[str, Any]:
        if name not in plays:
            plays[name] = played(name, SDK)
        assert plays[name]["calls"], "the scenario used no session"
        return plays[name]

    return expected


EXPECTED = pytest.StashKey[dict[str, dict[str, Any]]]()


@pytest.mark.parametrize("backend", OURS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_runner_meets_the_same_session(name, backend, daemon, played, expected):
    actual, wanted = played(name, backend), expected(name)
    assert actual["seen"] == wanted["seen"]
    assert actual["calls"] == wanted["calls"]
    assert actual["stored"] == wanted["stored"]
    assert json.dumps(actual) == json.dumps(wanted), "the order of keys differs"


# A recorded session is of a subclass, and for subclasses the SDK's wrappers keep to the four public
# methods. Unrecorded they take shortcuts: compaction in one step, on SQLiteSession and on ours.
# What is seen and stored must be the same on that way too.
NEEDS_RECORDING = {
    "an_add_that_fails",
    "a_compaction_whose_add_fails",
    "a_resumed_write_that_fails",
    "a_resumed_write_whose_answer_is_lost",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in NEEDS_RECORDING])
def test_the_history_is_the_same_without_a_recorder(name, backend, daemon, played, expected):
    actual, wanted = played(name, backend, recorded=False), expected(name)
    assert actual["seen"] == wanted["seen"]
    assert actual["stored"] == wanted["stored"]

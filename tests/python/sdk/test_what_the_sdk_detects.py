"""What the SDK finds out about a session by looking at it, beside calling its four methods."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, SessionSettings
from agents.extensions.memory import EncryptedSession
from agents.memory import Session, SessionABC, is_openai_responses_compaction_aware_session
from agents.memory.session import _session_accepts_wrapper
from stage import BACKENDS

HELLO = [{"role": "user", "content": f"Hello {n}"} for n in range(5)]


@pytest.fixture(params=BACKENDS)
def session(request, daemon, stage_on) -> Any:
    """SQLiteSession shows that a test asks for what the SDK's own class does."""
    session = stage_on(request.param, recorded=False).session()
    yield session
    session.close()


def test_it_is_a_session(session):
    assert isinstance(session, SessionABC)
    assert isinstance(session, Session)


def test_it_has_no_ability_that_it_does_not_have(session):
    assert not is_openai_responses_compaction_aware_session(session)
    assert not _session_accepts_wrapper(session)
    assert not hasattr(session, "no_such_ability")


def test_settings_are_the_sdk_s_own(session):
    assert type(session.session_settings) is SessionSettings
    assert session.session_settings == SessionSettings(limit=None)


def test_unknown_settings_are_refused(stage_on, daemon):
    messages = set()
    for backend in BACKENDS:
        with pytest.raises(TypeError) as refused:
            stage_on(backend, recorded=False).session(session_settings={"limt": 3})
        messages.add(str(refused.value))
    assert messages == {"Unknown session settings: limt"}


def test_a_wrapper_changes_the_settings_below_it(session):
    async def talk() -> int:
        encrypted = EncryptedSession("talk", session, "a secret of the tests")
        encrypted.session_settings = SessionSettings(limit=2)
        assert session.session_settings.limit == 2
        await encrypted.add_items(HELLO)
        return len(await encrypted.get_items())

    assert asyncio.run(talk()) == 2


def test_no_settings_at_all(session, endpoint):
    session.session_settings = None
    assert session.session_settings is None
    asyncio.run(session.add_items(HELLO))
    result = asyncio.run(Runner.run(Agent(name="A"), "Hello", session=session))
    assert result.final_output == "Hello again!"
    assert len(asyncio.run(session.get_items())) == len(HELLO) + 2


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "SQLiteSession"])
def test_a_dict_assigned_becomes_settings(backend, stage_on, daemon, endpoint):
    session = stage_on(backend, recorded=False).session()
    session.session_settings = {"limit": 2}
    assert session.session_settings == SessionSettings(limit=2)
    run = Runner.run(Agent(name="A"), "Hello", session=session, run_config=RunConfig())
    assert asyncio.run(run).final_output
    with pytest.raises(TypeError, match="Unknown session settings: limt"):
        session.session_settings = {"limt": 2}


IMPORTED_AFTERWARDS = """
import sys
import {module}
assert "agents" not in sys.modules, "sessiond imports the SDK"
before = {module}.{name}("talk", session_settings={{"limit": 2}})
import agents, agents.memory
after = {module}.{name}("talk", session_settings={{"limit": 3}})
for session, limit in ((before, 2), (after, 3)):
    assert type(session.session_settings) is agents.SessionSettings, type(session.session_settings)
    assert session.session_settings.limit == limit
    assert isinstance(session, agents.memory.SessionABC)
"""


OURS = [("sessiond", "SessiondSession"), ("sessiond.agents", "SQLiteSession")]


@pytest.mark.parametrize("module, name", OURS)
def test_the_sdk_may_be_imported_afterwards(module, name, daemon):
    program = IMPORTED_AFTERWARDS.format(module=module, name=name)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""The documentation of the SDK's sessions, run as it stands with our sessions in place of its own.

seed/ holds the code blocks of that document, one file a block. They are run three times: as they
are, with SessiondSession, and with nothing but the import changed. The document mixes `await`
outside of functions with run_sync, so a block is run statement by statement: one that awaits gets
an event loop of its own, the others run outside of any.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import agents
import pytest
from sessiond import SessiondSession
from stage import loop_of_run_sync

SEED = Path(__file__).with_name("seed")

IMPORT = re.compile(r"^from agents import (.*, )?SQLiteSession$", re.M)
CONSTRUCTION = re.compile(r'\bSQLiteSession\(([^,()]+)(?:, "(\w+)\.db")?\)')


def replace_import(source: str, ours: str) -> str:
    """`from agents import A, SQLiteSession` becomes `from agents import A` and the line of ours."""

    def replacement(match: re.Match[str]) -> str:
        rest = f"from agents import {match[1].rstrip(', ')}\n" if match[1] else ""
        return rest + ours

    replaced, n = IMPORT.subn(replacement, source)
    assert n == 1, "a block imports SQLiteSession once"
    return replaced


def unchanged(source: str) -> str:
    return source


def with_sessiond_session(source: str) -> str:
    """A file becomes a store; without a file, the store that lives in memory."""
    source = replace_import(source, "from sessiond import SessiondSession")
    source, n = CONSTRUCTION.subn(
        lambda match: f'SessiondSession({match[1]}, store="{match[2] or "memory"}")', source
    )
    assert n > 0, "a block constructs a session"
    return source


def with_drop_in(source: str) -> str:
    return replace_import(source, "from sessiond.agents import SQLiteSession")


VARIANTS = {
    "SQLiteSession": (unchanged, "agents"),
    "SessiondSession": (with_sessiond_session, "sessiond"),
    "drop-in": (with_drop_in, "sessiond"),
}


class Reader:
    """Somebody who works through the document: one namespace, one working directory."""

    def __init__(self, variant: str):
        self._change, self._package = VARIANTS[variant]
        self.names: dict[str, Any] = {}

    def runs(self, block: str) -> None:
        source = (SEED / f"{block}.txt").read_text()
        if "SQLiteSession" in source:
            source = self._change(source)
        self.runs_source(source, block)

    def runs_source(self, source: str, name: str) -> None:
        for statement in ast.parse(source, name).body:
            module = ast.Module([statement], type_ignores=[])
            code = compile(module, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            with loop_of_run_sync():
                result = eval(code, self.names)
            if inspect.iscoroutine(result):
                asyncio.run(result)

    def history_of(self, session: Any) -> list[tuple[str, str]]:
        """Role and text of what is stored; the session must be of the right package."""
        assert type(session).__module__.split(".")[0] == self._package
        return [(item["role"], text_of(item)) for item in asyncio.run(session.get_items())]

    def history_in_file(self, session_id: str, file: str) -> list[tuple[str, str]]:
        """The same through a new object, as another program would open it."""
        source = f'from agents import SQLiteSession\nnew = SQLiteSession("{session_id}", "{file}")'
        self.runs_source(self._change(source), "a new object")
        return self.history_of(self.names["new"])


def text_of(item: dict[str, Any]) -> str:
    content = item["content"]
    return content if isinstance(content, str) else content[0]["text"]


@pytest.fixture(params=VARIANTS)
def reader(request, daemon, endpoint, tmp_path, monkeypatch) -> Reader:
    monkeypatch.chdir(tmp_path)
    return Reader(request.param)


@pytest.fixture
def reader_with_an_agent(reader) -> Reader:
    """The later blocks use the agent that the quick start made."""
    reader.names.update(Runner=agents.Runner, agent=agents.Agent(name="Assistant"))
    return reader


HELLO = [("user", "Hello"), ("assistant", "Hello! How can I help?")]


def test_quickstart(reader, capsys):
    reader.runs("1_quickstart")
    answers = ["San Francisco", "California", "Approximately 39 million"]
    assert capsys.readouterr().out.splitlines() == answers
    assert reader.history_of(reader.names["session"]) == [
        ("user", "What city is the Golden Gate Bridge in?"),
        ("assistant", answers[0]),
        ("user", "What state is it in?"),
        ("assistant", answers[1]),
        ("user", "What's the population?"),
        ("assistant", answers[2]),
    ]


def test_basic_operations(reader, capsys):
    reader.runs("2_basic_operations")
    printed = ast.literal_eval(capsys.readouterr().out)
    assert printed == reader.names["last_item"] == {"role": "assistant", "content": "Hi there!"}
    assert reader.names["items"] == []
    assert reader.history_of(reader.names["session"]) == []
    assert reader.history_in_file("user_123", "conversations.db") == []


def test_basic_operations_are_seen_by_another_object_before_the_clear(reader):
    source = (SEED / "2_basic_operations.txt").read_text()
    before_the_clear = reader._change(source.partition("# Clear all items")[0])
    reader.runs_source(before_the_clear, "2_basic_operations, but for the clear")
    assert reader.history_in_file("user_123", "conversations.db") == [("user", "Hello")]


def test_correction_with_pop_item(reader, capsys):
    reader.runs("3_correction_with_pop_item")
    # Had the first question stayed in the history, the answer would say so.
    assert capsys.readouterr().out.splitlines() == ["Agent: 4", "Agent: 5"]
    assert text_of(reader.names["assistant_item"]) == "4"
    assert reader.names["user_item"] == {"role": "user", "content": "What's 2 + 2?"}
    assert reader.history_of(reader.names["session"]) == [
        ("user", "What's 2 + 3?"),
        ("assistant", "5"),
    ]


def test_no_memory(reader_with_an_agent):
    reader = reader_with_an_agent
    for _ in range(2):
        reader.runs("4_no_memory")
        assert reader.names["result"].final_output == "Hello! How can I help?"


def test_sqlite_memory(reader_with_an_agent):
    reader = reader_with_an_agent
    reader.runs("5_sqlite_memory")
    assert reader.names["result"].final_output == "Hello! How can I help?"
    assert reader.history_of(reader.names["session"]) == HELLO
    assert reader.history_in_file("user_123", "conversations.db") == HELLO

    reader.runs("5_sqlite_memory")
    assert reader.names["result"].final_output == "Hello again!"
    assert len(reader.history_in_file("user_123", "conversations.db")) == 4


def test_the_in_memory_session_is_apart_from_the_file(reader):
    source = (SEED / "5_sqlite_memory.txt").read_text().partition("# Use the session")[0]
    source = source.replace("session =", "in_memory =", 1).replace("\nsession =", "\nin_file =")
    reader.runs_source(reader._change(source), "5_sqlite_memory, two names")
    asyncio.run(reader.names["in_memory"].add_items([{"role": "user", "content": "Hello"}]))
    assert reader.history_of(reader.names["in_memory"]) == [("user", "Hello")]
    assert reader.history_of(reader.names["in_file"]) == []


def test_multiple_sessions(reader):
    reader.runs("6_multiple_sessions")
    for result, session, session_id in (("1", "1", "user_123"), ("2", "2", "user_456")):
        assert reader.names[f"result{result}"].final_output == "Hello! How can I help?"
        assert reader.history_of(reader.names[f"session_{session}"]) == HELLO
        assert reader.history_in_file(session_id, "conversations.db") == HELLO


def test_custom_session(reader_with_an_agent):
    reader = reader_with_an_agent
    reader.runs("7_custom_session")
    assert reader.names["result"].final_output == "Hello! How can I help?"
    assert reader.history_of(reader.names["session"]._history) == HELLO
    assert reader.history_in_file("my_session", "custom.db") == HELLO
    assert asyncio.run(reader.names["session"].pop_item())["role"] == "assistant"
    asyncio.run(reader.names["session"].clear_session())
    assert reader.history_in_file("my_session", "custom.db") == []


def test_a_history_of_the_drop_in_is_found_by_its_store_s_name(
    daemon, endpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    reader = Reader("drop-in")
    reader.names.update(Runner=agents.Runner, agent=agents.Agent(name="Assistant"))
    reader.runs("5_sqlite_memory")
    store = reader.names["session"].store
    assert reader.history_of(SessiondSession("user_123", store=store)) == HELLO

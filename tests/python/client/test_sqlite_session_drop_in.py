"""`sessiond.agents.SQLiteSession`: an unchanged script with one changed import, and its old file."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import logging
import os
import pathlib
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from agents.memory import SQLiteSession as SdkSQLiteSession
from scripted import Peer, ScriptedServer

from sessiond import BusyError, Client, NotRunningError, SessiondError, agents, errors
from sessiond.agents import SQLiteSession, sdk_session_id, store_of_file, wire_session_id


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(work())  # type: ignore[arg-type]


def items_of(session: Any) -> Any:
    return run(session.get_items)


def write_old(path: pathlib.Path | str, session_id: Any, items: list[Any], **tables: str) -> None:
    """As the SDK's own SQLiteSession does."""
    old = SdkSQLiteSession(session_id, path, **tables)
    run(lambda: old.add_items(items))
    old.close()


def execute(path: pathlib.Path, *statements: tuple[Any, ...]) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(*statement)
    connection.commit()
    connection.close()


def snapshot(directory: pathlib.Path) -> dict[str, tuple[int, str]]:
    """Every file of a directory: its time and what is in it."""
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in directory.iterdir()
    }


@pytest.fixture
def files(tmp_path: pathlib.Path) -> pathlib.Path:
    directory = tmp_path / "files"
    directory.mkdir()
    return directory


# ---- the same face ----


def test_the_signature_is_the_sdks() -> None:
    ours, theirs = inspect.signature(SQLiteSession), inspect.signature(SdkSQLiteSession)
    assert list(ours.parameters) == list(theirs.parameters)
    for name, parameter in theirs.parameters.items():
        assert ours.parameters[name].default == parameter.default
        assert ours.parameters[name].kind == parameter.kind


def test_the_attributes_are_the_sdks(files: pathlib.Path) -> None:
    path = files / "c.db"
    ours, theirs = SQLiteSession("s", path, "a", "b"), SdkSQLiteSession("s", path, "a", "b")
    for name in ("session_id", "db_path", "sessions_table", "messages_table", "session_settings"):
        assert getattr(ours, name) == getattr(theirs, name)
    theirs.close()


def test_in_memory_needs_no_daemon_and_is_private_to_the_object() -> None:
    async def main() -> None:
        one, two = SQLiteSession("s"), SQLiteSession("s")
        await one.add_items([{"n": 1}, {"n": 2}])
        assert await two.get_items() == []
        assert await one.get_items(limit=1) == [{"n": 2}]
        assert await one.pop_item() == {"n": 2}
        await one.clear_session()
        assert await one.get_items() == [] and await one.pop_item() is None

    run(main)


def test_no_daemon_is_an_operational_error_and_a_connection_error(
    files: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIOND_SOCKET", "/nowhere/s")
    session = SQLiteSession("s", files / "c.db")
    for call in (session.get_items, session.pop_item, session.clear_session, lambda: session.add_items([{}])):
        with pytest.raises(sqlite3.OperationalError) as caught:
            run(call)
        assert isinstance(caught.value, NotRunningError) and isinstance(caught.value, ConnectionError)
        assert "/nowhere/s" in str(caught.value)


def test_every_error_has_an_operational_twin_that_can_be_pickled() -> None:
    for name in errors.__all__:
        kind = getattr(agents, name)
        assert issubclass(kind, (getattr(errors, name))) and issubclass(kind, sqlite3.OperationalError)
        error = kind("what", details={"item": 3}, key="k")
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is kind
        assert (back.message, back.code, back.details, back.key) == ("what", kind.code, {"item": 3}, "k")


def test_a_busy_daemon_is_an_operational_error(
    files: pathlib.Path, short_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIOND_SOCKET", str(short_dir / "s"))

    def script(peer: Peer) -> None:
        peer.hello()
        peer.refuse(peer.request("clear_session"), "busy", retry_after_ms=1)

    session = SQLiteSession("s", files / "c.db")
    session._history._retry_seconds = 0.0
    with ScriptedServer(str(short_dir / "s"), [script]), pytest.raises(sqlite3.OperationalError) as caught:
        run(session.clear_session)
    assert isinstance(caught.value, BusyError) and isinstance(caught.value, SessiondError)


# ---- names ----


@pytest.mark.parametrize("odd", ["", "~", "~~", "~a", "42", "a", "ä" * 127, "a b/c", "\0"])
def test_odd_ids_are_mapped_reversibly(odd: str) -> None:
    assert sdk_session_id(wire_session_id(odd)) == odd
    assert 1 <= len(wire_session_id(odd).encode()) <= 255


def test_no_two_ids_become_one() -> None:
    odd = ["", "~", "~~", "~~~", "~a", "a", "~~a"]
    assert len({wire_session_id(name) for name in odd}) == len(odd)


def test_an_integer_id_is_the_text_that_sqlite_makes_of_it(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    write_old(path, 42, [{"n": 1}])
    assert SQLiteSession(42, path).session_id == 42  # type: ignore[arg-type]
    assert items_of(SQLiteSession(42, path)) == items_of(SQLiteSession("42", path)) == [{"n": 1}]  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", ["", "~a", "42"])
def test_odd_ids_have_histories_of_their_own(daemon: Any, files: pathlib.Path, odd: str) -> None:
    path = files / "c.db"
    write_old(path, odd, [{"id": odd}])
    write_old(path, "other", [{"id": "other"}])
    assert items_of(SQLiteSession(odd, path)) == [{"id": odd}]
    run(lambda: SQLiteSession(odd, path).add_items([{"more": 1}]))
    assert items_of(SQLiteSession("other", path)) == [{"id": "other"}]


@pytest.mark.parametrize("bad", ["x" * 256, "ä" * 300, "\ud800", "~" * 255, None, b"s", 1.5], ids=repr)
def test_ids_that_cannot_be_are_refused_at_construction(files: pathlib.Path, bad: Any) -> None:
    for path in (":memory:", files / "c.db"):
        with pytest.raises((ValueError, TypeError), match="session_id"):
            SQLiteSession(bad, path)


def test_equal_names_in_different_directories_never_meet_and_links_do(daemon: Any, files: pathlib.Path) -> None:
    for name in ("a", "b"):
        (files / name).mkdir()
    (files / "link").symlink_to(files / "a")
    (files / "linked.db").symlink_to(files / "a" / "c.db")
    run(lambda: SQLiteSession("s", files / "a" / "c.db").add_items([{"in": "a"}]))
    assert items_of(SQLiteSession("s", files / "b" / "c.db")) == []
    for same in ("link/c.db", "linked.db", "b/../a/c.db"):
        assert items_of(SQLiteSession("s", files / same)) == [{"in": "a"}]
        assert items_of(SQLiteSession("s", str(files / same))) == [{"in": "a"}]


def test_a_relative_path_means_the_directory_at_construction(
    daemon: Any, files: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    session = SQLiteSession("s", "c.db")
    monkeypatch.chdir("/")
    run(lambda: session.add_items([{"n": 1}]))
    assert items_of(SQLiteSession("s", files / "c.db")) == [{"n": 1}]


def test_other_table_names_are_another_history(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    write_old(path, "s", [{"in": "default"}])
    write_old(path, "s", [{"in": "mine"}], sessions_table="my_sessions", messages_table="my messages".replace(" ", "_"))
    assert items_of(SQLiteSession("s", path)) == [{"in": "default"}]
    assert items_of(SQLiteSession("s", path, "my_sessions", "my_messages")) == [{"in": "mine"}]
    assert items_of(SQLiteSession("s", path, "my_sessions")) == [{"in": "default"}]
    run(lambda: SQLiteSession("s", path, "my_sessions").add_items([{}]))
    assert len(items_of(SQLiteSession("s", path))) == 1


@pytest.mark.parametrize(
    ("file", "readable"),
    [
        ("/x/conversations.db", "conversations"),
        ("/x/My Chats (2).sqlite3", "my-chats-2"),
        ("/x/ünïcode.db", "n-code"),
        ("/x/.db", "db"),
        ("/x/日本.db", "history"),
        ("/x/" + "y" * 200, "y" * 60),
        ("/x/\udcff.db", "history"),
    ],
)
def test_the_store_is_named_after_the_file(file: str, readable: str) -> None:
    name = store_of_file(file, "a", "b")
    assert name.rsplit("-", 1)[0] == readable
    assert agents._paths.STORE_NAME.match(name)
    assert len({store_of_file(file, *tables) for tables in (("a", "b"), ("b", "a"), ("ab", ""))}) == 3


# ---- what the old file holds ----


def test_an_old_history_is_brought_over_once_and_the_file_is_left_alone(
    daemon: Any, files: pathlib.Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files / "conversations.db"
    old = [{"n": n, "t": "Grüße \U0001f309", "s": "\ud800"} for n in range(100)]
    write_old(path, "user_123", old)
    before = snapshot(files)
    with caplog.at_level(logging.INFO, "sessiond"):
        assert items_of(SQLiteSession("user_123", path)) == old
    assert "brought over 100 messages" in caplog.text and str(path) in caplog.text
    caplog.clear()
    monkeypatch.setattr(agents, "read_messages", None)  # it is not even looked into again
    run(lambda: SQLiteSession("user_123", path).add_items([{"new": 1}]))
    assert items_of(SQLiteSession("user_123", path)) == [*old, {"new": 1}]
    assert caplog.text == ""
    assert snapshot(files) == before
    with SdkSQLiteSessionOn(path) as untouched:
        assert items_of(untouched) == old


class SdkSQLiteSessionOn:
    """The SDK's session, closed in the end."""

    def __init__(self, path: pathlib.Path) -> None:
        self._session = SdkSQLiteSession("user_123", path)

    def __enter__(self) -> SdkSQLiteSession:
        return self._session

    def __exit__(self, *_: Any) -> None:
        self._session.close()


@pytest.mark.parametrize("first", ["add_items", "pop_item", "clear_session", "get_items", "_get_compaction_snapshot"])
def test_whatever_is_called_first_finds_the_old_history(daemon: Any, files: pathlib.Path, first: str) -> None:
    path = files / "c.db"
    write_old(path, "s", [{"n": 1}, {"n": 2}])
    session = SQLiteSession("s", path)

    async def main() -> None:
        if first == "add_items":
            await session.add_items([{"n": 3}])
            assert await session.get_items() == [{"n": 1}, {"n": 2}, {"n": 3}]
        elif first == "pop_item":
            assert await session.pop_item() == {"n": 2}
            assert await session.get_items() == [{"n": 1}]
        elif first == "clear_session":
            await session.clear_session()
            assert await session.get_items() == []
        elif first == "get_items":
            assert await session.get_items(limit=1) == [{"n": 2}]
        else:
            assert (await session._get_compaction_snapshot(5)).items == [{"n": 1}, {"n": 2}]

    run(main)


def test_what_was_cleared_does_not_come_back(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    write_old(path, "s", [{"n": 1}])
    run(SQLiteSession("s", path).clear_session)
    daemon.restart()
    assert items_of(SQLiteSession("s", path)) == []


def test_texts_are_brought_over_byte_for_byte_and_damaged_rows_are_skipped_and_reported(
    daemon: Any, files: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = files / "c.db"
    write_old(path, "s", [{"n": 1}])
    odd = ['{ "b" : 1e400, "a": 1, "a": 2}', '{"big": 36893488147419103232}', '{"s": "\\ud800"}']
    damaged: list[Any] = ["{", "", "[1]", '"text"', '{"x": NaN}', b"\xff\xfe", 17, "{" * 2000]
    deep = '{"d":' * 600 + "{}" + "}" * 600
    insert = "INSERT INTO agent_messages (session_id, message_data) VALUES ('s', ?)"
    execute(path, *((insert, (text,)) for text in [odd[0], *damaged, odd[1], deep, odd[2], '{\n "lines": 1\n}']))
    execute(path, ("UPDATE agent_messages SET message_data = CAST(x'7b22ff227d' AS TEXT) WHERE id = 1",))
    with caplog.at_level(logging.INFO, "sessiond"):
        items_of(SQLiteSession("s", path))
    with Client() as client:
        (store,) = client.list_stores().stores
        assert client.get_items("s", store=store.name).items == [*odd, '{"lines":1}']
    assert f"skipped {len(damaged) + 2} damaged messages" in caplog.text
    assert "brought over 4 messages" in caplog.text
    assert "\\xff" not in caplog.text and "NaN" not in caplog.text


def test_a_file_that_is_in_use_is_read_as_it_stands(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    live = SdkSQLiteSession("s", path)
    run(lambda: live.add_items([{"n": 1}]))
    assert (files / "c.db-wal").exists()
    assert items_of(SQLiteSession("s", path)) == [{"n": 1}]
    run(lambda: live.add_items([{"n": 2}]))
    live.close()


def test_a_file_that_was_left_in_the_middle_of_a_change_is_not_read_as_if_it_were_whole(
    daemon: Any, files: pathlib.Path
) -> None:
    """The journal of a writer that died says how to undo its change: without that, the file is half changed."""
    path = files / "c.db"
    write_old(path, "s", [{"n": n, "t": "x" * 3000} for n in range(50)])
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=DELETE")
    writer.execute("PRAGMA cache_size=1")
    writer.execute("BEGIN")
    writer.execute("""UPDATE agent_messages SET message_data = '{"half":' || id || '}'""")
    for name in ("c.db", "c.db-journal"):
        shutil.copy(files / name, files / name.replace("c.db", "died.db"))
    writer.execute("ROLLBACK")
    writer.close()
    with pytest.raises(sqlite3.OperationalError):
        items_of(SQLiteSession("s", files / "died.db"))


def test_a_file_that_is_no_database_is_an_error_and_not_an_empty_history(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    path.write_text("this is no database, and longer than the header of one would be: " + "x" * 100)
    for _ in range(2):
        with pytest.raises(sqlite3.DatabaseError, match="not a database"):
            items_of(SQLiteSession("s", path))
        with pytest.raises(sqlite3.DatabaseError):
            run(lambda: SQLiteSession("s", path).add_items([{"n": 1}]))


def test_a_file_without_our_table_or_session_or_bytes_has_nothing_to_bring(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    path.touch()
    assert items_of(SQLiteSession("s", path)) == []
    execute(path, ("CREATE TABLE other (x)",))
    assert items_of(SQLiteSession("s", path)) == []
    write_old(path, "somebody else", [{"n": 1}])
    assert items_of(SQLiteSession("s", path)) == []
    write_old(path, "s", [{"n": 1}])
    assert items_of(SQLiteSession("s", path)) == [{"n": 1}]


def test_sessions_of_one_file_are_brought_over_each_for_itself(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    for name in ("a", "b"):
        write_old(path, name, [{"of": name}])
    run(lambda: SQLiteSession("a", path).add_items([{"new": 1}]))
    assert items_of(SQLiteSession("b", path)) == [{"of": "b"}]


OPENER = """
import asyncio, sys
from sessiond.agents import SQLiteSession
async def main():
    session = SQLiteSession("s", sys.argv[1])
    await session.add_items([{"by": sys.argv[2]}])
    assert len(await session.get_items()) > 1000
asyncio.run(main())
"""


def test_processes_that_start_at_once_bring_it_over_once(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    old = [{"n": n} for n in range(1000)]
    write_old(path, "s", old)
    openers = [subprocess.Popen([sys.executable, "-c", OPENER, str(path), str(n)]) for n in range(6)]
    assert [opener.wait(120) for opener in openers] == [0] * 6
    items = items_of(SQLiteSession("s", path))
    assert items[:1000] == old and sorted(item["by"] for item in items[1000:]) == list("012345")


def test_objects_that_start_at_once_bring_it_over_once(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    write_old(path, "s", [{"n": n} for n in range(100)])

    async def main() -> None:
        session = SQLiteSession("s", path)
        await asyncio.gather(*(session.add_items([{"more": n}]) for n in range(5)))
        assert len(await session.get_items()) == 105

    run(main)


def test_a_history_too_long_for_one_batch_is_brought_over_whole_and_in_order(
    daemon: Any, files: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "BATCH_ITEMS", 30)
    monkeypatch.setattr(agents, "BATCH_BYTES", 1000)
    path = files / "c.db"
    old = [{"n": n, "t": "x" * (n % 7 * 100)} for n in range(100)]
    write_old(path, "s", old)
    assert items_of(SQLiteSession("s", path)) == old
    assert items_of(SQLiteSession("s", path)) == old
    with ThreadPoolExecutor(4) as pool:
        write_old(path, "t", old)
        assert list(pool.map(lambda _: items_of(SQLiteSession("t", path)), range(4))) == [old] * 4


def test_a_bringing_over_that_was_cut_off_is_finished_by_the_next(
    daemon: Any, files: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "BATCH_ITEMS", 30)
    monkeypatch.setattr(agents, "BATCH_BYTES", 1000)
    path = files / "c.db"
    old = [{"n": n} for n in range(100)]
    write_old(path, "s", old)
    whole = agents.FileHistory.add_if_new

    async def once(self: Any, texts: list[str], **how: Any) -> Any:
        if how["revision"] == 2:
            raise errors.UnavailableError("the power went out")
        return await whole(self, texts, **how)

    monkeypatch.setattr(agents.FileHistory, "add_if_new", once)
    with pytest.raises(sqlite3.OperationalError, match="power"):
        items_of(SQLiteSession("s", path))
    monkeypatch.setattr(agents.FileHistory, "add_if_new", whole)
    assert items_of(SQLiteSession("s", path)) == old


def test_a_cancelled_first_change_is_made_after_the_old_messages(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    write_old(path, "s", [{"n": 1}])

    async def main() -> None:
        session = SQLiteSession("s", path)
        adding = asyncio.ensure_future(session.add_items([{"n": 2}]))
        await asyncio.sleep(0)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert await session.get_items() == [{"n": 1}, {"n": 2}]

    run(main)


def test_a_copy_of_a_file_elsewhere_is_another_history_with_the_same_past(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    write_old(path, "s", [{"n": 1}])
    run(lambda: SQLiteSession("s", path).add_items([{"n": 2}]))
    (files / "elsewhere").mkdir()
    shutil.copy(path, files / "elsewhere" / "c.db")
    assert items_of(SQLiteSession("s", files / "elsewhere" / "c.db")) == [{"n": 1}]


UNCHANGED_SCRIPT = """
import asyncio, json, os, sys
from {module} import SQLiteSession

async def main():
    session = SQLiteSession("user_123", "conversations.db")
    await session.add_items([{{"role": "user", "content": "turn " + sys.argv[1]}}])
    print(json.dumps(await session.get_items()))
    session.close()

asyncio.run(main())
"""


def test_an_unchanged_script_goes_on_where_its_old_file_ended(daemon: Any, files: pathlib.Path) -> None:
    def play(module: str, turn: int) -> Any:
        script = UNCHANGED_SCRIPT.format(module=module)
        command = [sys.executable, "-c", script, str(turn)]
        return json.loads(subprocess.run(command, cwd=files, check=True, capture_output=True, text=True).stdout)

    play("agents", 1)
    play("agents", 2)
    assert len(play("sessiond.agents", 3)) == 3
    daemon.restart()
    assert [item["content"] for item in play("sessiond.agents", 4)] == ["turn 1", "turn 2", "turn 3", "turn 4"]


def test_a_pickled_session_knows_its_file(daemon: Any, files: pathlib.Path) -> None:
    path = files / "c.db"
    write_old(path, "s", [{"n": 1}])
    session = pickle.loads(pickle.dumps(SQLiteSession("s", os.path.relpath(path))))
    assert items_of(session) == [{"n": 1}]

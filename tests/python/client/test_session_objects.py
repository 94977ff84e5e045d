"""`SessiondSession`: what the Agents SDK and its users do with a session object."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from agents.memory import Session, SessionABC, SessionSettings
from agents.memory import SQLiteSession as SdkSQLiteSession
from agents.memory.session import is_openai_responses_compaction_aware_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiond import Client, InvalidError, SessiondSession
from sessiond.agents import SQLiteSession

KINDS = {
    "daemon": lambda: SessiondSession("s", store="x"),
    "drop-in": lambda: SQLiteSession("s", "/nowhere/conversations.db"),
    "drop-in in memory": lambda: SQLiteSession("s"),
}


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(work())  # type: ignore[arg-type]


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def make_session(request: pytest.FixtureRequest, daemon: Any) -> Callable[[], Any]:
    made: Callable[[], Any] = request.param
    return made


# ---- the four methods ----


def test_the_basic_operations_of_the_documentation(make_session: Any) -> None:
    async def main() -> None:
        session = make_session()
        assert await session.get_items() == []
        await session.add_items([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there!"}])
        assert await session.pop_item() == {"role": "assistant", "content": "Hi there!"}
        assert await session.get_items() == [{"role": "user", "content": "Hello"}]
        await session.clear_session()
        assert await session.get_items() == [] and await session.pop_item() is None

    run(main)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add_items"), st.lists(st.dictionaries(st.text(max_size=3), st.integers()), max_size=3)),
        st.tuples(st.just("pop_item")),
        st.tuples(st.just("clear_session")),
        st.tuples(st.just("get_items"), st.sampled_from([None, 0, 1, 2, 3, -1, 1000])),
    ),
    max_size=15,
)


@pytest.mark.parametrize("kind", KINDS)
@given(steps=STEPS, limit=st.sampled_from([None, 0, 1, 2, -1]))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_calls_returns_what_sqlite_session_returns(
    daemon: Any, kind: str, steps: Any, limit: Any
) -> None:
    async def outcomes(session: Any) -> list[Any]:
        await session.clear_session()
        return [await getattr(session, method)(*arguments) for method, *arguments in (*steps, ("get_items",))]

    async def main() -> None:
        ours, theirs = KINDS[kind](), SdkSQLiteSession("s")
        ours.session_settings = {"limit": limit}
        theirs.session_settings = SessionSettings(limit=limit)
        assert await outcomes(ours) == await outcomes(theirs)
        theirs.close()

    run(main)


def test_items_of_every_kind_come_back(make_session: Any) -> None:
    items: list[Any] = [
        {"i": 2**70, "j": 2**53 + 1, "k": -(2**64), "f": 0.1, "g": 1.0, "h": 1e300},
        {"t": "\ud800", "u": "\0", "v": "\U0001f309", "w": "", "": "x"},
        {"t": "x" * (10 * 1024 * 1024)},
        {"l": [None, True, False, [], {}], "int keys": {1: "a"}, "tuple": (1, 2)},
    ]

    async def main() -> None:
        session = make_session()
        await session.add_items(items)
        expected = [*items[:3], {**items[3], "int keys": {"1": "a"}, "tuple": [1, 2]}]
        assert await session.get_items() == expected
        assert [await session.pop_item() for _ in items] == expected[::-1]

    run(main)


def test_each_reading_gives_fresh_objects(make_session: Any) -> None:
    async def main() -> None:
        session = make_session()
        item: dict[str, Any] = {"l": []}
        await session.add_items([item])
        item["l"].append("after")
        (first,) = await session.get_items()
        first["l"].append("changed")
        assert await session.get_items() == [{"l": []}]

    run(main)


@pytest.mark.parametrize(
    "bad",
    [{"x": float("nan")}, {"x": b""}, {"x": object()}, "text", ["list"]],
    ids=["nan", "bytes", "obj", "str", "list"],
)
def test_what_cannot_be_stored_is_named_and_nothing_of_the_batch_is_stored(make_session: Any, bad: Any) -> None:
    async def main() -> None:
        session = make_session()
        with pytest.raises((TypeError, ValueError), match=r"items\[1\]"):
            await session.add_items([{"a": 1}, bad, {"c": 3}])
        assert await session.get_items() == []
        await session.add_items([{"a": 1}])
        assert await session.get_items() == [{"a": 1}]

    run(main)


def test_what_only_the_daemon_refuses_is_named_by_it(daemon: Any) -> None:
    item: dict[str, Any] = {}
    for _ in range(600):
        item = {"d": item}

    async def main() -> None:
        session = SessiondSession("s")
        with pytest.raises(InvalidError) as caught:
            await session.add_items([{}, item])
        assert caught.value.item == 1
        assert await session.get_items() == []

    run(main)


def test_a_batch_is_written_down_before_anything_is_awaited(daemon: Any) -> None:
    async def main() -> None:
        connected = SessiondSession("s")
        await connected.get_items()
        daemon.pause()
        item: dict[str, Any] = {"n": 1}
        adding = asyncio.ensure_future(connected.add_items([item]))
        await asyncio.sleep(0)
        item["n"] = 2
        daemon.resume()
        await adding
        assert await connected.get_items() == [{"n": 1}]

    run(main)


# ---- limits and settings ----


def test_explicit_limit_wins_over_settings(make_session: Any) -> None:
    async def main() -> None:
        session = make_session()
        await session.add_items([{"n": n} for n in range(5)])
        session.session_settings = SessionSettings(limit=2)
        assert [i["n"] for i in await session.get_items()] == [3, 4]
        assert [i["n"] for i in await session.get_items(limit=3)] == [2, 3, 4]
        assert await session.get_items(0) == []
        assert len(await session.get_items(-1)) == len(await session.get_items(2**70)) == 5
        session.session_settings = {"limit": 1}
        assert [i["n"] for i in await session.get_items()] == [4]
        session.session_settings = None
        assert len(await session.get_items()) == 5

    run(main)


def test_settings_are_the_sdks_own_class_and_stay_what_they_were_made(make_session: Any) -> None:
    session = make_session()
    assert session.session_settings == SessionSettings()
    session.session_settings = {"limit": 3}
    assert type(session.session_settings) is SessionSettings and session.session_settings.limit == 3
    mine = SessionSettings(limit=7)
    session.session_settings = mine
    assert session.session_settings is mine
    session.session_settings.limit = 8
    assert session.session_settings.limit == 8
    session.session_settings = None
    assert session.session_settings is None


@pytest.mark.parametrize("make", [SessiondSession, SQLiteSession])
def test_settings_may_come_with_construction(make: Any) -> None:
    assert make("s", session_settings={"limit": 3}).session_settings == SessionSettings(limit=3)
    assert make("s", session_settings=SessionSettings(limit=4)).session_settings.limit == 4
    with pytest.raises(TypeError, match="Unknown session settings: limits"):
        make("s", session_settings={"limits": 3})
    with pytest.raises(TypeError, match="SessionSettings instance or a dict"):
        make("s", session_settings=[3])
    with pytest.raises(TypeError, match="Unknown session settings"):
        make("s").session_settings = {"limits": 3}


WITHOUT_SDK = """
import sys
from sessiond import SessiondSession, SessionSettings
session = SessiondSession("s", session_settings={"limit": 3})
assert not any(name == "agents" or name.startswith("agents.") for name in sys.modules)
settings = session.session_settings
assert type(settings) is SessionSettings and settings.limit == 3
assert settings.resolve({"limit": 5}).limit == 5 and settings.resolve(None) is settings
assert settings.resolve(SessionSettings()).limit == 3 and settings.to_dict() == {"limit": 3}
try:
    settings.resolve({"limits": 5})
except TypeError as error:
    assert "limits" in str(error)
else:
    raise AssertionError

import agents.memory
assert type(session.session_settings) is agents.memory.SessionSettings
assert session.session_settings.limit == 3
assert isinstance(session, agents.memory.SessionABC)
assert isinstance(SessiondSession("t"), agents.memory.SessionABC)
"""


def test_the_sdk_is_used_once_it_is_there_and_never_imported() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_SDK], check=True)


# ---- what the SDK detects ----


def test_it_is_a_session_in_every_way_the_sdk_asks(make_session: Any) -> None:
    session = make_session()
    assert isinstance(session, SessionABC) and isinstance(session, Session)
    assert not is_openai_responses_compaction_aware_session(session)
    for name in ("run_compaction", "_defer_compaction", "_ignore_ids_for_matching", "anything_else"):
        assert not hasattr(session, name)
    for name in ("get_items", "add_items", "pop_item", "clear_session"):
        assert "wrapper" not in inspect.signature(getattr(session, name)).parameters
        assert inspect.iscoroutinefunction(getattr(session, name))
    assert list(inspect.signature(session.get_items).parameters) == ["limit"]
    assert list(inspect.signature(session.add_items).parameters) == ["items"]


def test_the_session_id_cannot_be_changed_in_silence(make_session: Any) -> None:
    session = make_session()
    assert session.session_id == "s"
    with pytest.raises(AttributeError, match="make another"):
        session.session_id = "other"


# ---- compaction replaces a tail in one step ----


def test_a_tail_is_replaced_in_one_step(make_session: Any) -> None:
    async def main() -> None:
        session = make_session()
        await session.add_items([{"n": n} for n in range(6)])
        await session.pop_item()
        await session.add_items([{"n": 6}])
        snapshot = await session._get_compaction_snapshot(4)
        assert [i["n"] for i in snapshot.items] == [2, 3, 4, 6] and not snapshot.complete
        assert await snapshot.replace_suffix(2, [{"n": "compacted"}])
        assert [i["n"] for i in await session.get_items()] == [0, 1, 2, 3, "compacted"]
        whole = await session._get_compaction_snapshot(6)
        assert whole.complete and len(whole.items) == 5
        assert not await whole.replace_suffix(5, [{"n": "nothing to replace"}])
        exact = await session._get_compaction_snapshot(5)
        assert exact.complete and await exact.replace_suffix(0, [])
        assert await session.get_items() == []

    run(main)


@pytest.mark.parametrize("interference", ["add", "pop", "clear"])
def test_a_tail_is_not_replaced_if_somebody_wrote_meanwhile(make_session: Any, interference: str) -> None:
    async def main() -> None:
        session = make_session()
        await session.add_items([{"n": n} for n in range(3)])
        snapshot = await session._get_compaction_snapshot(10)
        if interference == "add":
            await session.add_items([{"n": 3}])
        elif interference == "pop":
            await session.pop_item()
        else:
            await session.clear_session()
        left = await session.get_items()
        assert not await snapshot.replace_suffix(1, [{"n": "compacted"}])
        assert await session.get_items() == left

    run(main)


@pytest.mark.parametrize("base", [SessiondSession, SQLiteSession])
def test_a_subclass_is_not_bypassed_by_compaction(base: Any) -> None:
    subclass = type("Subclass", (base,), {})
    assert run(lambda: subclass("s")._get_compaction_snapshot(1)) is None


# ---- the life of an object ----


def test_a_closed_session_says_so_on_every_call(make_session: Any) -> None:
    async def main() -> None:
        session = make_session()
        await session.add_items([{"a": 1}])
        other = make_session()
        session.close()
        session.close()
        await session.aclose()
        message = f"{type(session).__name__} is closed"
        for call in (session.get_items, session.pop_item, session.clear_session):
            with pytest.raises(RuntimeError, match=message):
                await call()
        for items in ([], [{"a": 1}]):
            with pytest.raises(RuntimeError, match=message):
                await session.add_items(items)
        await other.add_items([{"b": 2}])

    run(main)


def test_a_session_is_its_own_context(make_session: Any) -> None:
    async def main() -> None:
        async with make_session() as session:
            await session.add_items([{"a": 1}])
        with pytest.raises(RuntimeError, match="closed"):
            await session.get_items()

    run(main)


def test_closing_one_object_does_not_disturb_another_that_is_saving(daemon: Any) -> None:
    async def main() -> None:
        saving, closing = SessiondSession("s"), SessiondSession("s")
        await closing.get_items()
        daemon.pause()
        added = asyncio.ensure_future(saving.add_items([{"a": 1}]))
        await asyncio.sleep(0)
        await closing.aclose()
        daemon.resume()
        await added
        assert await saving.get_items() == [{"a": 1}]

    run(main)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_are_sessions_of_the_same_history(daemon: Any, duplicate: Any) -> None:
    async def main() -> None:
        session = SessiondSession("s", store="x", session_settings={"limit": 2})
        await session.add_items([{"n": n} for n in range(3)])
        twin = duplicate(session)
        assert (twin.session_id, twin.store, twin.session_settings) == ("s", "x", SessionSettings(limit=2))
        assert await twin.get_items() == [{"n": 1}, {"n": 2}]
        session.close()
        await twin.add_items([{"n": 3}])
        closed = duplicate(session)
        with pytest.raises(RuntimeError, match="closed"):
            await closed.get_items()

    run(main)


def test_a_copy_of_an_in_memory_session_has_a_history_of_its_own() -> None:
    async def main() -> None:
        session = SQLiteSession("s")
        await session.add_items([{"n": 1}])
        twin = copy.deepcopy(session)
        await twin.add_items([{"n": 2}])
        assert await session.get_items() == [{"n": 1}] and len(await twin.get_items()) == 2

    run(main)


def test_sessions_of_one_id_meet_in_one_store_only(daemon: Any) -> None:
    async def main() -> None:
        await SessiondSession("user_123", store="a").add_items([{"in": "a"}])
        await SessiondSession("user_123").add_items([{"in": "default"}])
        assert await SessiondSession("user_123", store="a").get_items() == [{"in": "a"}]
        assert await SessiondSession("user_123", store="default").get_items() == [{"in": "default"}]

    run(main)


# ---- cancellation ----


def test_a_cancelled_change_is_waited_for_and_then_the_cancellation_is_raised(daemon: Any) -> None:
    async def main() -> None:
        session = SessiondSession("s")
        await session.get_items()
        daemon.pause()
        adding = asyncio.ensure_future(session.add_items([{"a": 1}]))
        for _ in range(3):
            await asyncio.sleep(0)
            adding.cancel()
        await asyncio.sleep(0)
        assert not adding.done()
        daemon.resume()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert await session.get_items() == [{"a": 1}]

    run(main)


def test_a_change_that_is_cancelled_while_it_connects_is_made_all_the_same(daemon: Any) -> None:
    async def main() -> None:
        daemon.pause()
        session = SessiondSession("s")
        adding = asyncio.ensure_future(session.add_items([{"a": 1}]))
        await asyncio.sleep(0)
        adding.cancel()
        await asyncio.sleep(0)
        assert not adding.done()
        daemon.resume()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert await session.get_items() == [{"a": 1}]

    run(main)


def test_a_change_that_is_cancelled_while_the_daemon_dies_is_made_once(daemon: Any) -> None:
    async def main() -> None:
        session = SessiondSession("s")
        await session.get_items()
        daemon.pause()
        adding = asyncio.ensure_future(session.add_items([{"a": 1}]))
        await asyncio.sleep(0)
        adding.cancel()
        await asyncio.to_thread(daemon.restart)
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert await session.get_items() == [{"a": 1}]

    run(main)


def test_a_cancelled_read_ends_at_once_and_the_connection_stays_good(daemon: Any) -> None:
    async def main() -> None:
        session = SessiondSession("s")
        await session.add_items([{"a": 1}])
        daemon.pause()
        reading = asyncio.ensure_future(session.get_items())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        daemon.resume()
        assert await session.get_items() == [{"a": 1}]
        assert daemon.connections() == 1

    run(main)


def test_a_timeout_around_a_change_tells_of_itself_after_the_change(daemon: Any) -> None:
    async def main() -> None:
        session = SessiondSession("s")
        await session.get_items()
        daemon.pause()
        asyncio.get_running_loop().call_later(0.05, daemon.resume)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(session.add_items([{"a": 1}]), 0.001)
        assert await session.get_items() == [{"a": 1}]

    run(main)


# ---- many at once ----


def test_many_sessions_of_one_loop_share_one_connection(daemon: Any) -> None:
    async def main() -> None:
        sessions = [SessiondSession(f"s{n}", store="x") for n in range(300)]
        await asyncio.gather(*(session.add_items([{"n": n}]) for n, session in enumerate(sessions)))
        assert daemon.connections() == 1
        assert await asyncio.gather(*(s.get_items() for s in sessions)) == [[{"n": n}] for n in range(300)]
        await asyncio.gather(*(session.aclose() for session in sessions))

    run(main)


def test_concurrent_large_batches_on_one_connection_arrive_whole(daemon: Any) -> None:
    async def main() -> None:
        sessions = [SessiondSession(f"s{n}") for n in range(6)]
        batches = [[{"s": n, "t": "x" * 500_000}] * 3 for n in range(6)]
        await asyncio.gather(*(s.add_items(b) for s, b in zip(sessions, batches, strict=True)))
        assert await asyncio.gather(*(session.get_items() for session in sessions)) == batches

    run(main)


def test_pops_at_once_return_each_item_once(daemon: Any) -> None:
    async def main() -> None:
        session = SessiondSession("s")
        await session.add_items([{"n": n} for n in range(40)])
        popped = await asyncio.gather(*(session.pop_item() for _ in range(60)))
        assert sorted(item["n"] for item in popped if item) == list(range(40)) and popped.count(None) == 20

    run(main)


def test_what_a_session_stores_is_plain_json_for_everybody_else(daemon: Any) -> None:
    run(lambda: SessiondSession("s").add_items([{"role": "user", "content": "Grüße"}]))
    with Client() as client:
        assert client.get_items("s").items == ['{"role":"user","content":"Grüße"}']

"""What happens when the connection breaks, the daemon is busy, or another daemon answers: both clients alike."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from scripted import INSTANCE, OTHER_INSTANCE, Peer, Received, ScriptedServer

from sessiond import (
    BusyError,
    ConflictError,
    InternalError,
    InvalidError,
    NotRunningError,
    SessiondError,
    SessiondSession,
    TooLargeError,
    UncertainError,
    UnreachableError,
)

MakeClient = Callable[..., Any]
ADDED = {"first_seq": 1, "last_seq": 1, "revision": 1, "epoch": 1}
ITEMS = ['{"a":1}']


@pytest.fixture
def path(short_dir: pathlib.Path) -> str:
    return str(short_dir / "s")


def serve_add(peer: Peer) -> Received:
    peer.hello()
    request = peer.request("add_items")
    peer.answer(request, **ADDED)
    return request


def take_add_and_cut(seen: list[Received]) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.hello()
        seen.append(peer.request("add_items"))

    return script


# ---- the connection breaks ----


def test_an_unanswered_change_is_repeated_with_the_same_bytes(make_client: MakeClient, path: str) -> None:
    seen: list[Received] = []
    with ScriptedServer(path, [take_add_and_cut(seen), lambda peer: seen.append(serve_add(peer))]):
        added = make_client(path).add_items("s", ITEMS)
    assert added.revision == 1
    first, second = seen
    assert first.after_msgid == second.after_msgid
    assert len(first.params["key"]) == 32


def test_each_change_has_a_key_of_its_own_and_keys_begin_with_the_time(make_client: MakeClient, path: str) -> None:
    keys: list[str] = []

    def script(peer: Peer) -> None:
        peer.hello()
        for _ in range(3):
            request = peer.request("add_items")
            keys.append(request.params["key"])
            peer.answer(request, **ADDED)

    before = time.time_ns() // 1_000_000
    with ScriptedServer(path, [script]):
        client = make_client(path)
        for _ in range(3):
            client.add_items("s", ITEMS)
        client.close()
    after = time.time_ns() // 1_000_000
    assert len(set(keys)) == 3
    assert all(before <= int(key[:12], 16) <= after for key in keys)


def test_a_change_is_never_repeated_to_another_instance(make_client: MakeClient, path: str) -> None:
    seen: list[Received] = []

    def other(peer: Peer) -> None:
        peer.hello(OTHER_INSTANCE)
        peer.answer(peer.request("ping"))

    with ScriptedServer(path, [take_add_and_cut(seen), other]):
        client = make_client(path)
        with pytest.raises(UncertainError, match="add_items") as caught:
            client.add_items("s", ITEMS)
        client.ping()  # the other instance is as good as any for what is new
    assert caught.value.key == seen[0].params["key"]
    assert INSTANCE in str(caught.value) and OTHER_INSTANCE in str(caught.value)


def test_a_read_is_repeated_to_any_instance(make_client: MakeClient, path: str) -> None:
    page = {"items": [], "first_seq": None, "last_seq": None, "head_seq": 0, "revision": 0, "epoch": 0, "more": False}

    def cut(peer: Peer) -> None:
        peer.hello()
        peer.request("get_items")

    def other(peer: Peer) -> None:
        peer.hello(OTHER_INSTANCE)
        peer.answer(peer.request("get_items"), **page)

    with ScriptedServer(path, [cut, other]):
        assert make_client(path).get_items("s").items == []


def test_a_change_that_was_refused_as_busy_may_go_to_another_instance(make_client: MakeClient, path: str) -> None:
    def busy(peer: Peer) -> None:
        peer.hello()
        peer.refuse(peer.request("add_items"), "busy", retry_after_ms=1)

    def other(peer: Peer) -> None:
        peer.hello(OTHER_INSTANCE)
        peer.answer(peer.request("add_items"), **ADDED)

    with ScriptedServer(path, [busy, other]):
        assert make_client(path).add_items("s", ITEMS).revision == 1


def test_a_daemon_that_stays_away_leaves_a_sent_change_uncertain_with_its_key(
    make_client: MakeClient, path: str
) -> None:
    seen: list[Received] = []

    def script(peer: Peer) -> None:
        take_add_and_cut(seen)(peer)
        os.unlink(path)

    with ScriptedServer(path, [script]), pytest.raises(UncertainError) as caught:
        make_client(path, retry_seconds=0.1).add_items("s", ITEMS)
    assert caught.value.key == seen[0].params["key"]
    assert isinstance(caught.value, ConnectionError) and isinstance(caught.value, TimeoutError)


def test_the_key_of_the_error_settles_an_uncertain_change(make_client: MakeClient, path: str) -> None:
    seen: list[Received] = []
    client = make_client(path, retry_seconds=0)
    with ScriptedServer(path, [take_add_and_cut(seen), lambda peer: seen.append(serve_add(peer))]):
        with pytest.raises(UncertainError) as caught:
            client.add_items("s", ITEMS)
        assert client.add_items("s", ITEMS, key=caught.value.key).revision == 1
    assert seen[0].after_msgid == seen[1].after_msgid


def test_what_was_never_sent_is_not_uncertain(make_client: MakeClient, path: str) -> None:
    def once(peer: Peer) -> None:
        peer.hello()
        peer.answer(peer.request("ping"))

    client = make_client(path, retry_seconds=0.05)
    with ScriptedServer(path, [once]):
        client.ping()
    os.unlink(path)
    with pytest.raises(UnreachableError) as caught:
        client.add_items("s", ITEMS)
    assert not isinstance(caught.value, UncertainError)
    assert caught.value.key


def test_what_was_not_sent_whole_is_not_uncertain(make_client: MakeClient, path: str) -> None:
    def hang_up_in_the_middle(peer: Peer) -> None:
        peer.hello()
        assert peer.some_bytes()

    big = '{"t":"' + "x" * (8 * 1024 * 1024) + '"}'
    with ScriptedServer(path, [hang_up_in_the_middle]), pytest.raises(UnreachableError) as caught:
        make_client(path, retry_seconds=0).add_items("s", [big])
    assert not isinstance(caught.value, UncertainError)


def test_a_daemon_that_was_there_before_is_waited_for(make_client: MakeClient, path: str) -> None:
    client = make_client(path)
    with ScriptedServer(path, [lambda peer: serve_add(peer) and None]):
        client.add_items("s", ITEMS)
    os.unlink(path)
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(client.add_items("s", ITEMS)))
    thread.start()
    with ScriptedServer(path, [lambda peer: serve_add(peer) and None]):
        thread.join(30)
    assert result[0].revision == 1


def test_a_half_answer_is_no_answer(make_client: MakeClient, path: str) -> None:
    seen: list[Received] = []

    def half(peer: Peer) -> None:
        take_add_and_cut(seen)(peer)
        peer.send(b"\x94\x01" + bytes([seen[0].msgid]) + b"\xc0\x84\xa9first_s")

    with ScriptedServer(path, [half, lambda peer: serve_add(peer) and None]):
        assert make_client(path).add_items("s", ITEMS).revision == 1


def test_bytes_that_are_no_answer_end_the_connection(make_client: MakeClient, path: str) -> None:
    def garbage(peer: Peer) -> None:
        peer.hello()
        peer.request("ping")
        peer.send(b"\xc1")
        assert peer.hung_up()

    def good(peer: Peer) -> None:
        peer.hello()
        peer.answer(peer.request("ping"))

    with ScriptedServer(path, [garbage, good]):
        make_client(path).ping()


def test_a_silent_daemon_counts_as_broken(make_client: MakeClient, path: str) -> None:
    seen: list[Received] = []

    def silent(peer: Peer) -> None:
        take_add_and_cut(seen)(peer)
        assert peer.hung_up()

    with ScriptedServer(path, [silent]), pytest.raises(UncertainError, match=r"silent for 0\.05 s") as caught:
        make_client(path, retry_seconds=0, silence_seconds=0.05).add_items("s", ITEMS)
    assert isinstance(caught.value, TimeoutError)


def test_the_reason_that_the_daemon_gave_is_told(make_client: MakeClient, path: str) -> None:
    def farewell(peer: Peer) -> None:
        peer.hello()
        peer.request("ping")
        peer.send(b"\x93\x02\xa5error\x91\x82\xa4code\xa4busy\xa7message\xb4too many connections")

    with ScriptedServer(path, [farewell]), pytest.raises(UnreachableError, match="too many connections"):
        make_client(path, retry_seconds=0).ping()


def test_a_full_backlog_is_waited_for(make_client: MakeClient, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            result: list[Any] = []
            client = make_client(path)
            thread = threading.Thread(target=lambda: result.append(client.add_items("s", ITEMS)))
            thread.start()
            with pytest.raises(UnreachableError, match="waiting to be let in"):
                make_client(path, retry_seconds=0).ping()
            listener.accept()[0].close()
            accepted, _ = listener.accept()
        with accepted:
            serve_add(Peer(accepted))
            thread.join(30)
    assert result[0].revision == 1


def test_a_stale_socket_fails_at_once(make_client: MakeClient, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(path)
    with pytest.raises(NotRunningError, match="Connection refused"):
        make_client(path).ping()


# ---- the daemon refuses ----


def test_busy_is_waited_out_as_long_as_the_daemon_says(make_client: MakeClient, path: str) -> None:
    times: list[float] = []

    def script(peer: Peer) -> None:
        peer.hello()
        request = peer.request("add_items")
        times.append(time.monotonic())
        peer.refuse(request, "busy", retry_after_ms=40)
        again = peer.request("add_items")
        times.append(time.monotonic())
        assert again.after_msgid == request.after_msgid
        peer.answer(again, **ADDED)

    with ScriptedServer(path, [script]):
        assert make_client(path).add_items("s", ITEMS).revision == 1
    assert times[1] - times[0] >= 0.040


def test_busy_for_too_long_is_an_error_and_nothing_was_made(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        peer.refuse(peer.request("add_items"), "busy", retry_after_ms=10_000)

    with ScriptedServer(path, [script]), pytest.raises(BusyError) as caught:
        make_client(path, retry_seconds=0).add_items("s", ITEMS)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.details == {"retry_after_ms": 10_000}


def test_uncertain_is_settled_by_repeating(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        request = peer.request("add_items")
        peer.refuse(request, "uncertain")
        again = peer.request("add_items")
        assert again.after_msgid == request.after_msgid
        peer.answer(again, **ADDED)

    with ScriptedServer(path, [script]):
        assert make_client(path).add_items("s", ITEMS).revision == 1


def test_uncertain_stays_uncertain_when_its_repetition_is_only_busy(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        peer.refuse(peer.request("add_items"), "uncertain")
        while not peer.refused_or_gone("add_items", "busy"):
            pass

    with ScriptedServer(path, [script]):
        client = make_client(path, retry_seconds=0.1)
        with pytest.raises(UncertainError):
            client.add_items("s", ITEMS)
        client.close()


def test_uncertain_stays_uncertain_when_its_repetition_fails_in_the_daemon(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        peer.refuse(peer.request("add_items"), "uncertain")
        peer.refuse(peer.request("add_items"), "internal")

    with ScriptedServer(path, [script]), pytest.raises(UncertainError) as caught:
        make_client(path).add_items("s", ITEMS)
    assert isinstance(caught.value.__cause__, InternalError)


def test_a_repetition_that_meets_a_conflict_was_not_made(make_client: MakeClient, path: str) -> None:
    seen: list[Received] = []

    def conflict(peer: Peer) -> None:
        peer.hello()
        peer.refuse(peer.request("add_items"), "conflict", revision=7, epoch=3)

    with ScriptedServer(path, [take_add_and_cut(seen), conflict]), pytest.raises(ConflictError) as caught:
        make_client(path).add_items("s", ITEMS, if_revision=1)
    assert (caught.value.revision, caught.value.epoch) == (7, 3)


@pytest.mark.parametrize("code", ["invalid", "not_found", "denied", "key_reused", "full", "unavailable", "rolled_back"])
def test_other_refusals_are_final(make_client: MakeClient, path: str, code: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        peer.refuse(peer.request("add_items"), code)
        peer.answer(peer.request("ping"))

    with ScriptedServer(path, [script]):
        client = make_client(path)
        with pytest.raises(SessiondError, match="as scripted") as caught:
            client.add_items("s", ITEMS)
        client.ping()
    assert caught.value.code == code and caught.value.key


def test_a_code_of_a_newer_daemon_keeps_its_name(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        peer.refuse(peer.request("ping"), "on_holiday", until=8)

    with ScriptedServer(path, [script]), pytest.raises(SessiondError) as caught:
        make_client(path).ping()
    assert (caught.value.code, caught.value.details) == ("on_holiday", {"until": 8})


def test_a_daemon_that_speaks_no_common_version_is_named(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        request = peer.request("hello")
        assert request.params["protocol"] == [1, 1] and request.params["client"]
        peer.refuse(request, "invalid")

    with ScriptedServer(path, [script]), pytest.raises(InvalidError):
        make_client(path).ping()


def test_an_answer_without_its_fields_is_an_error_of_the_protocol(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        peer.answer(peer.request("add_items"), revision=1)

    with ScriptedServer(path, [script]), pytest.raises(SessiondError, match=r"protocol: .*add_items"):
        make_client(path).add_items("s", ITEMS)


def test_a_request_over_the_limit_is_not_sent(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello(frame_bytes=1000)
        peer.answer(peer.request("ping"))
        peer.answer(peer.request("ping"))

    with ScriptedServer(path, [script]):
        client = make_client(path)
        client.ping()
        with pytest.raises(TooLargeError) as caught:
            client.add_items("s", ['{"a":"' + "x" * 1000 + '"}'])
        client.ping()
    assert caught.value.limit == 1000


def test_more_items_than_one_request_may_carry_are_not_sent(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello(items=3)
        peer.answer(peer.request("ping"))

    with ScriptedServer(path, [script]):
        client = make_client(path)
        with pytest.raises(TooLargeError, match="4 items") as caught:
            client.add_items("s", ["{}"] * 4)
        client.ping()
    assert caught.value.limit == 3


def test_the_program_introduces_itself(make_client: MakeClient, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def script(peer: Peer) -> None:
        request = peer.request("hello")
        names.append(request.params["client"])
        peer.refuse(request, "denied")

    for program in ("/usr/bin/agent.py", "\udcff" * 300, ""):
        monkeypatch.setattr("sys.argv", [program])
        with ScriptedServer(path, [script]), pytest.raises(SessiondError, match="denied"):
            make_client(path).ping()
        os.unlink(path)
    assert names[0].startswith("agent.py (sessiond-python ")
    assert names[1].startswith("?" * 100 + " (") and names[2].startswith("python (")


# ---- long histories ----


def page(items: list[str], first: int, *, head: int, epoch: int = 1, more: bool) -> dict[str, Any]:
    last = first + len(items) - 1
    return {
        "items": items, "first_seq": first, "last_seq": last, "head_seq": head, "revision": head, "epoch": epoch,
        "more": more,
    }  # fmt: skip


def test_pages_are_read_as_the_history_stood_at_first(make_client: MakeClient, path: str) -> None:
    asked: list[dict[str, Any]] = []

    def script(peer: Peer) -> None:
        peer.hello()
        for answer in (
            page(["1", "2"], 11, head=15, more=True),
            page(["3"], 13, head=16, more=True),
            page(["4", "5"], 14, head=17, more=False),
        ):
            request = peer.request("get_items")
            asked.append(request.params)
            peer.answer(request, **answer)

    with ScriptedServer(path, [script]):
        read = make_client(path).get_items("s", limit=5, store="x")
    assert read == (["1", "2", "3", "4", "5"], 11, 15, 15, 15, 1, False, 0, None)
    assert asked == [
        {"session": "s", "limit": 5, "store": "x"},
        {"session": "s", "after": 12, "before": 16, "if_epoch": 1, "store": "x"},
        {"session": "s", "after": 13, "before": 16, "if_epoch": 1, "store": "x"},
    ]


def test_a_removal_between_pages_starts_the_reading_over(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        peer.answer(peer.request("get_items"), **page(["1"], 1, head=3, more=True))
        peer.refuse(peer.request("get_items"), "conflict", revision=4, epoch=2)
        again = peer.request("get_items")
        assert again.params == {"session": "s"}
        peer.answer(again, **page(["new"], 4, head=4, epoch=2, more=False))

    with ScriptedServer(path, [script]):
        assert make_client(path).get_items("s").items == ["new"]


def test_the_callers_own_condition_is_not_mistaken_for_a_removal(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        peer.refuse(peer.request("get_items"), "conflict", revision=4, epoch=2)

    with ScriptedServer(path, [script]), pytest.raises(ConflictError):
        make_client(path).get_items("s", if_epoch=1)


def test_a_reading_that_is_disturbed_for_ever_ends(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        for _ in range(101):
            peer.answer(peer.request("get_items"), **page(["1"], 1, head=3, more=True))
            peer.refuse(peer.request("get_items"), "conflict", revision=4, epoch=2)

    with ScriptedServer(path, [script]), pytest.raises(ConflictError):
        make_client(path).get_items("s")


def test_before_of_the_caller_holds_on_every_page(make_client: MakeClient, path: str) -> None:
    asked: list[dict[str, Any]] = []

    def script(peer: Peer) -> None:
        peer.hello()
        for answer in (page(["1"], 1, head=9, more=True), page(["2"], 2, head=9, more=False)):
            request = peer.request("get_items")
            asked.append(request.params)
            peer.answer(request, **answer)

    with ScriptedServer(path, [script]):
        make_client(path).get_items("s", before=3)
    assert [params["before"] for params in asked] == [3, 3]


def test_max_bytes_asks_for_one_page(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        request = peer.request("get_items")
        assert request.params == {"session": "s", "max_bytes": 100}
        peer.answer(request, **page(["1"], 1, head=3, more=True))

    with ScriptedServer(path, [script]):
        read = make_client(path).get_items("s", max_bytes=100)
    assert read.more and read.items == ["1"]


def test_all_sessions_are_listed_page_by_page(make_client: MakeClient, path: str) -> None:
    def entry(name: str) -> dict[str, Any]:
        numbers = dict.fromkeys(("count", "bytes", "head_seq", "revision", "epoch", "created_us", "updated_us"), 1)
        return {"id": name, **numbers}

    def script(peer: Peer) -> None:
        peer.hello()
        first = peer.request("list_sessions")
        assert first.params == {"prefix": "u"}
        peer.answer(first, sessions=[entry("u1"), entry("u2")], more=True)
        second = peer.request("list_sessions")
        assert second.params == {"after": "u2", "prefix": "u"}
        peer.answer(second, sessions=[entry("u3")], more=False)

    with ScriptedServer(path, [script]):
        listed = make_client(path).list_sessions(prefix="u")
    assert [session.id for session in listed.sessions] == ["u1", "u2", "u3"] and not listed.more


def test_a_loss_in_the_store_is_told_with_the_history(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        peer.answer(peer.request("get_items"), **page(["{}"], 1, head=2, more=True), missing=3)
        peer.answer(peer.request("get_items"), **page(["{}"], 2, head=2, more=False), missing=3)

    with ScriptedServer(path, [script]):
        read = make_client(path).get_items("s")
    assert (read.items, read.missing) == (["{}", "{}"], 3)


def test_a_session_warns_once_of_a_loss_in_its_store(path: str, caplog: pytest.LogCaptureFixture) -> None:
    def script(peer: Peer) -> None:
        peer.hello()
        for _ in range(2):
            peer.answer(peer.request("get_items"), **page(["{}"], 1, head=2, more=False), missing=3)

    async def main() -> None:
        session = SessiondSession("s", socket=path)
        assert await session.get_items() == await session.get_items() == [{}]

    with ScriptedServer(path, [script]):
        asyncio.run(main())
    assert caplog.text.count("lost 3 acknowledged") == 1


# ---- use after close ----


def test_a_closed_client_says_so_and_may_be_closed_again(make_client: MakeClient, path: str) -> None:
    client = make_client(path)
    with ScriptedServer(path, [lambda peer: serve_add(peer) and None]):
        client.add_items("s", ITEMS)
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.ping()


def test_the_connection_of_a_closed_client_is_closed(make_client: MakeClient, path: str) -> None:
    def script(peer: Peer) -> None:
        serve_add(peer)
        assert peer.hung_up()

    with ScriptedServer(path, [script]):
        client = make_client(path)
        client.add_items("s", ITEMS)
        client.close()

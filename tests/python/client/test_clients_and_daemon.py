"""`Client` and `AsyncClient` against the real daemon."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cutting_proxy import CuttingProxy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiond import (
    Client,
    ConflictError,
    InvalidError,
    KeyReusedError,
    NotFoundError,
    TooLargeError,
    UncertainError,
)

MakeClient = Callable[..., Any]


def deep(levels: int) -> str:
    return '{"d":' * (levels - 1) + "{}" + "}" * (levels - 1)


ODD_TEXTS = [
    "{}",
    '  { "a" : 1 ,"a":2 }  ',
    '{"n":9007199254740993,"m":18446744073709551616,"k":' + "9" * 5000 + "}",
    '{"f":0.1,"g":1E400,"h":-0.0,"i":1.0,"j":1e-9}',
    '{"s":"\\ud800 \\u0000 \\/ \\ud83c\\udf09"}',
    '{"":"","\U0001f309":"こんにちは\u2028\x7f"}',
    '{"t":true,"f":false,"n":null,"l":[],"o":{}}',
    deep(500),
]


# ---- the methods ----


def test_every_method_answers_with_its_type(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    hello = client.hello(client="a test", protocol=[1, 9])
    assert (hello.server, hello.protocol) == ("sessiond", 1) and len(hello.instance) == 32
    assert client.ping() is None
    assert client.add_items("s", ['{"a":1}', '{"b":2}', '{"c":3}'], store="x") == (1, 3, 1, 1)
    assert client.get_items("s", store="x") == (['{"a":1}', '{"b":2}', '{"c":3}'], 1, 3, 3, 1, 1, False, 0, None)
    popped = client.pop_item("s", store="x")
    assert popped[:3] == ('{"c":3}', 3, 2) and popped.epoch > 1 and not popped.erased
    replaced = client.replace_items("s", ['{"d":4}'], from_seq=2, store="x")
    assert replaced[:4] == (1, 4, 4, 3) and replaced.epoch > popped.epoch
    (entry,) = client.list_sessions(store="x").sessions
    assert (entry.id, entry.count, entry.bytes, entry.head_seq, entry.revision) == ("s", 2, 14, 4, 3)
    assert 0 < entry.created_us <= entry.updated_us
    (store,) = client.list_stores().stores
    assert store[:4] == ("x", "sqlite", "full", 1) and store.bytes > 0 and store.missing == 0
    assert client.clear_session("s", store="x")[:2] == (2, 4)
    info = client.info()
    assert info.pid == daemon.pid and info.stores[0].name == "x"
    assert client.delete_session("s", store="x").removed == 0
    assert client.list_sessions(store="x").sessions == []


def test_what_stands_beside_items_is_given_to_who_asks(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    client.add_items("s", ['{"a":1}', '{"b":2}', '{"c":3}'], meta=[None, '{"x": 1}', '{"y":"\\ud800"}'])
    assert client.get_items("s").meta is None
    assert client.get_items("s", with_meta=True).meta == [None, '{"x": 1}', '{"y":"\\ud800"}']
    assert client.pop_item("s", with_meta=True)[-1] == '{"y":"\\ud800"}'
    assert client.pop_item("s").meta is None
    client.replace_items("s", ['{"d":4}', '{"e":5}'], from_seq=1, meta=['{"z":1}', None])
    assert client.get_items("s", with_meta=True).meta == ['{"z":1}', None]
    for n in range(3):
        texts = ['{"pad":"' + "x" * 1_000_000 + '"}'] * 3
        client.add_items("long", texts, meta=[f'{{"n":{n}}}', None, None])
    kept = [text for n in range(3) for text in (f'{{"n":{n}}}', None, None)]
    assert client.get_items("long", with_meta=True).meta == kept
    with pytest.raises(ValueError, match="as long as items"):
        client.add_items("s", ["{}"], meta=[])
    with pytest.raises(InvalidError) as refused:
        client.add_items("s", ["{}", "{}"], meta=[None, "[]"])
    assert refused.value.item == 1


def test_what_never_existed_is_empty_and_reading_creates_nothing(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    assert client.get_items("nobody") == ([], None, None, 0, 0, 0, False, 0, None)
    assert client.pop_item("nobody")[:4] == (None, None, 0, 0)
    assert client.clear_session("nobody") == (0, 0, 0)
    assert client.add_items("nobody", []) == (None, None, 0, 0)
    assert client.list_sessions().sessions == []


def test_limits_are_the_latest_in_their_order(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    texts = [f'{{"n":{n}}}' for n in range(5)]
    client.add_items("s", texts)
    for limit, expected in ((0, []), (1, texts[4:]), (3, texts[2:]), (5, texts), (6, texts), (2**53 - 1, texts)):
        assert client.get_items("s", limit=limit).items == expected
    assert client.get_items("s", after=1, before=5).items == texts[1:4]
    assert client.get_items("s", limit=2, before=4).items == texts[1:3]
    with pytest.raises(InvalidError):
        client.get_items("s", limit=-1)


def test_conditions_and_keys(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    first = client.add_items("s", ['{"a":1}'], key="k", if_revision=0)
    assert client.add_items("s", ['{"a":1}'], key="k", if_revision=0) == first
    with pytest.raises(KeyReusedError) as reused:
        client.add_items("s", ['{"a":2}'], key="k", if_revision=0)
    assert reused.value.key == "k" and isinstance(reused.value, ValueError)
    with pytest.raises(ConflictError) as conflict:
        client.add_items("s", ['{"a":2}'], if_revision=0)
    assert (conflict.value.revision, conflict.value.epoch) == (1, first.epoch)
    assert client.add_items("s", ['{"b":2}'], key="d", digest="same").revision == 2
    assert client.add_items("s", ['{"something":"else"}'], key="d", digest="same").revision == 2
    assert client.get_items("s").items == ['{"a":1}', '{"b":2}']


def test_a_repeated_pop_tells_when_its_item_was_erased(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    client.add_items("s", ['{"a":1}'])
    popped = client.pop_item("s", key="k")
    assert client.pop_item("s", key="k") == popped and popped.item == '{"a":1}'
    client.clear_session("s")
    again = client.pop_item("s", key="k")
    assert again.item is None and again.erased


def test_all_sessions_are_listed_in_the_order_of_their_ids(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    names = sorted([f"u{n:04}" for n in range(1200)] + ["ä", "\U0001f309"], key=str.encode)
    with ThreadPoolExecutor(8) as pool, Client() as filler:
        list(pool.map(lambda name: filler.add_items(name, ["{}"]), names))
    assert [session.id for session in client.list_sessions().sessions] == names
    page = client.list_sessions(limit=3, after="u0005", prefix="u00")
    assert [session.id for session in page.sessions] == ["u0006", "u0007", "u0008"] and page.more


# ---- items come back byte for byte, or not at all ----


def test_odd_texts_come_back_byte_for_byte(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    client.add_items("s", ODD_TEXTS)
    assert client.get_items("s").items == ODD_TEXTS
    daemon.restart()
    assert client.get_items("s").items == ODD_TEXTS
    assert [client.pop_item("s").item for _ in ODD_TEXTS] == ODD_TEXTS[::-1]


def test_ten_mebibytes_of_text_come_back(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    text = json.dumps({"t": "ä\U0001f309" * (10 * 1024 * 1024 // 6)}, ensure_ascii=False)
    client.add_items("s", ["{}", text, "{}"])
    assert client.get_items("s").items == ["{}", text, "{}"]
    assert client.get_items("s", limit=2).items == [text, "{}"]


def test_more_than_one_answer_holds_is_read_whole(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    texts = [f'{{"n":{n}}}' for n in range(150_000)]
    for start in range(0, len(texts), 50_000):
        client.add_items("s", texts[start : start + 50_000])
    read = client.get_items("s")
    assert read.items == texts and (read.first_seq, read.last_seq, read.more) == (1, 150_000, False)
    first = client.get_items("s", max_bytes=1)
    assert first.items == texts[:1] and first.more


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "[]",
        '"text"',
        "{",
        "{} {}",
        '{"x":NaN}',
        "{'x':1}",
        "{\n}",
        '{"x":"\x01"}',
        '{"x":01}',
        deep(513),
        "\ufeff{}",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_no_valid_item_is_refused_with_its_index_and_the_batch_with_it(
    make_client: MakeClient, daemon: Any, bad: str
) -> None:
    client = make_client()
    with pytest.raises(InvalidError) as caught:
        client.add_items("s", ["{}", "{}", bad, "{}"])
    assert caught.value.item == 2 and caught.value.details["item"] == 2 and isinstance(caught.value, ValueError)
    assert client.get_items("s") == ([], None, None, 0, 0, 0, False, 0, None)
    assert client.add_items("s", ["{}"]).revision == 1


@pytest.mark.parametrize(
    ("items", "kind", "match"),
    [
        ("{}", TypeError, "list of JSON texts"),
        (["{}", {}], TypeError, r"items\[1\]"),
        (["{}", b"{}"], TypeError, r"items\[1\]"),
        (["{}", '{"x":"\ud800"}'], ValueError, r"items\[1\]"),
    ],
    ids=["one text", "a dict", "bytes", "a surrogate"],
)
def test_what_is_no_text_is_not_even_sent(
    make_client: MakeClient, items: Any, kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        make_client("/nowhere").add_items("s", items)


def test_a_request_over_the_limit_is_refused_and_the_next_call_works(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    huge = '{"t":"' + "x" * (70 * 1024 * 1024) + '"}'
    with pytest.raises(TooLargeError) as item:
        client.add_items("s", ["{}", huge])
    assert item.value.item == 1 and item.value.limit == 64 * 1024 * 1024
    with pytest.raises(TooLargeError) as frame:
        client.add_items("s", [huge, huge])
    assert frame.value.limit == 128 * 1024 * 1024
    assert client.get_items("s").items == []


def test_a_shared_store_that_is_not_declared_is_not_found(make_client: MakeClient, daemon: Any) -> None:
    with pytest.raises(NotFoundError):
        make_client().get_items("s", store="@team")


@given(texts=st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none()).map(json.dumps), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_comes_back(daemon: Any, texts: list[str]) -> None:
    with Client() as client:
        client.clear_session("s")
        client.add_items("s", texts)
        assert client.get_items("s").items == texts


# ---- the daemon dies, the connection breaks ----


def test_a_change_that_is_under_way_when_the_daemon_dies_happens_once(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    client.add_items("s", ['{"n":0}'])
    for n in range(1, 6):
        daemon.pause()
        with ThreadPoolExecutor(1) as pool:
            added = pool.submit(client.add_items, "s", [f'{{"n":{n}}}'])
            daemon.restart()
            assert added.result(60).last_seq == n + 1
    assert client.get_items("s").items == [f'{{"n":{n}}}' for n in range(6)]


def test_an_answer_that_is_lost_does_not_double_the_change(
    make_client: MakeClient, daemon: Any, short_dir: pathlib.Path
) -> None:
    path = str(short_dir / "proxy")
    with CuttingProxy(path, daemon.socket, swallow={1, 3, 5, 6, 8}) as proxy:
        client = make_client(path)
        assert client.add_items("s", ['{"a":1}', '{"b":2}']) == (1, 2, 1, 1)
        assert client.add_items("s", ['{"c":3}']).last_seq == 3
        assert client.pop_item("s").item == '{"c":3}'
        assert client.clear_session("s").removed == 2
        client.close()
    assert proxy.swallowed == 5
    with Client() as direct:
        assert direct.get_items("s")[:5] == ([], None, None, 3, 4)


def test_the_key_of_an_uncertain_change_settles_it_after_a_restart(
    make_client: MakeClient, daemon: Any, short_dir: pathlib.Path
) -> None:
    path = str(short_dir / "proxy")
    with CuttingProxy(path, daemon.socket, swallow={1}):
        client = make_client(path, retry_seconds=0)
        with pytest.raises(UncertainError) as caught:
            client.add_items("s", ["{}"])
        client.close()
    daemon.restart()
    settled = make_client()
    assert settled.add_items("s", ["{}"], key=caught.value.key) == (1, 1, 1, 1)
    assert settled.get_items("s").items == ["{}"]


def test_idle_connections_survive_a_restart(make_client: MakeClient, daemon: Any) -> None:
    client = make_client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.add_items(f"s{n}", ["{}"]), range(100)))
        daemon.restart()
        list(pool.map(lambda n: client.add_items(f"s{n}", ["{}"]), range(100)))
    assert {session.count for session in client.list_sessions().sessions} == {2}


def waiting_for_answers() -> int:
    """How many threads of this process wait for the daemon."""
    frames = sys._current_frames().values()
    return sum(entry.name == "_receive" for frame in frames for entry in traceback.extract_stack(frame))


def test_all_idle_connections_are_given_up_when_one_is_found_broken(
    daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client() as client:
        daemon.pause()
        with ThreadPoolExecutor(8) as pool:
            pings = [pool.submit(client.ping) for _ in range(8)]
            while waiting_for_answers() < len(pings):
                time.sleep(0.001)
            daemon.resume()
            for ping in pings:
                ping.result(60)
        assert len(client._idle) == 8
        daemon.restart()
        pauses: list[float] = []
        monkeypatch.setattr("sessiond.client.time.sleep", pauses.append)
        client.ping()
        assert len(pauses) == 1


def test_another_daemon_on_the_same_socket_never_gets_an_unanswered_change(
    make_client: MakeClient, daemon_factory: Any
) -> None:
    daemon = daemon_factory()
    client = make_client(daemon.socket)
    client.ping()
    daemon.pause()
    with ThreadPoolExecutor(1) as pool:
        added = pool.submit(client.add_items, "s", ["{}"])
        daemon.kill()
        daemon.state_dir += "-other"
        daemon.start()
        outcome = added.exception(60)
    if outcome is not None:  # else it was sent to the other daemon first: there it is new
        assert isinstance(outcome, UncertainError)
        assert client.get_items("s").items == []


# ---- threads and processes ----


def test_threads_share_a_client(daemon: Any) -> None:
    with Client() as client:
        barrier = threading.Barrier(16)

        def work(number: int) -> None:
            barrier.wait()
            for n in range(50):
                client.add_items("all", [f'{{"t":{number},"n":{n}}}'])
                client.add_items(f"s{number}", [f'{{"n":{n}}}'])
                assert client.get_items(f"s{number}", limit=1).items == [f'{{"n":{n}}}']

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))
        assert 0 < daemon.connections() <= 8
        together = [json.loads(text) for text in client.get_items("all").items]
        for number in range(16):
            assert [item["n"] for item in together if item["t"] == number] == list(range(50))


def test_pops_of_many_threads_are_all_different(daemon: Any) -> None:
    with Client() as client, ThreadPoolExecutor(16) as pool:
        client.add_items("s", [f'{{"n":{n}}}' for n in range(40)])
        popped = [p.item for p in pool.map(lambda _: client.pop_item("s"), range(60))]
    assert sorted(filter(None, popped)) == sorted(f'{{"n":{n}}}' for n in range(40))
    assert popped.count(None) == 20


WRITER = """
import sys
from sessiond import Client
with Client() as client:
    for n in range(100):
        client.add_items("all", ['{"w":%s,"n":%d}' % (sys.argv[1], n)])
"""


def test_processes_share_a_session(daemon: Any) -> None:
    writers = [subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER, str(w)]) for w in range(8)]
    assert [writer.wait(120) for writer in writers] == [0] * 8
    with Client() as client:
        read = client.get_items("all")
    assert (len(read.items), read.first_seq, read.last_seq, read.revision) == (800, 1, 800, 800)
    items = [json.loads(text) for text in read.items]
    for w in range(8):
        assert [item["n"] for item in items if item["w"] == w] == list(range(100))

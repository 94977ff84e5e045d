"""Reads from memory and reads from the store must not differ in one byte of meaning.

Two daemons get the same requests, one of them with nothing kept in memory; all their answers must be equal. SEED=n in
the environment repeats a run.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest
from raw import Raw

SESSIONS = ["a", "b", "ü", "x" * 255]


def item(rng: random.Random) -> str:
    return json.dumps({"n": rng.randrange(10**9), "text": "y" * rng.choice([0, 1, 20, 200, 3000])})


def precondition(rng: random.Random, known: dict[str, Any]) -> dict[str, Any]:
    """Sometimes one that fits, sometimes one that does not."""
    choice = rng.random()
    if choice < 0.05:
        return {"if_epoch": rng.choice([0, known.get("epoch", 0), 7])}
    if choice < 0.1:
        return {"if_revision": rng.choice([0, known.get("revision", 0)])}
    return {}


def change(rng: random.Random, known: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    params = precondition(rng, known)
    if rng.random() < 0.5:
        keys.append(f"k{len(keys)}")
        params["key"] = keys[-1]
    return params


def reading(rng: random.Random, known: dict[str, Any]) -> dict[str, Any]:
    head = known.get("head_seq", 5)
    params: dict[str, Any] = {}
    if rng.random() < 0.4:
        params["limit"] = rng.choice([0, 1, 2, 5, 1000, 2**53 - 1])
    if rng.random() < 0.3:
        params["after"] = rng.choice([0, 1, head, max(0, head - 3), 2**53 - 1])
    if rng.random() < 0.3:
        params["before"] = rng.choice([0, 1, head, head + 1, max(0, head - 2), 2**53 - 1])
    if rng.random() < 0.3:
        params["max_bytes"] = rng.choice([1, 40, 500, 4000, 4 * 1024 * 1024])
    if rng.random() < 0.1:
        params["if_epoch"] = rng.choice([0, known.get("epoch", 0), 3])
    return params


def random_call(rng: random.Random, known: dict[str, Any], keys: list[str]) -> tuple[str, dict[str, Any]]:
    method = rng.choices(
        ["get_items", "add_items", "pop_item", "clear_session", "replace_items", "delete_session"],
        [50, 30, 8, 3, 5, 2],
    )[0]
    if method == "get_items":
        return method, reading(rng, known)
    params = change(rng, known, keys)
    if method in ("add_items", "replace_items"):
        params["items"] = [item(rng) for _ in range(rng.choice([0, 1, 1, 2, 5]))]
    if method == "replace_items" and rng.random() < 0.6:
        params["from_seq"] = max(1, known.get("head_seq", 1) - rng.randrange(4))
    return method, params


@pytest.mark.parametrize("history_bytes", [128 * 1024 * 1024, 60000], ids=["whole_histories", "ends_of_histories"])
def test_memory_and_store_give_the_same_answers(daemon_factory, short_dir, history_bytes):
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print("SEED =", seed)
    rng = random.Random(seed)
    settings = [short_dir / "some.json", short_dir / "none.json"]
    for path, bytes_kept in zip(settings, [history_bytes, 0]):
        path.write_text(json.dumps({"history_bytes": bytes_kept}))
    with_memory, without = (daemon_factory("--config", str(path)) for path in settings)
    known: dict[str, dict[str, Any]] = {}
    keys: list[str] = []

    with Raw(with_memory.socket) as one, Raw(with_memory.socket) as other, Raw(without.socket) as plain:
        for _ in range(1500):
            session = rng.choice(SESSIONS)
            calls = []
            for _ in range(rng.choice([1, 1, 1, 2, 7])):
                method, params = random_call(rng, known.get(session, {}), keys)
                calls.append((method, {"session": session, **params}))
                if "key" in params and rng.random() < 0.1:
                    calls.append(calls[-1])  # a repetition, which must change nothing
            answers = rng.choice([one, other]).burst(calls)
            assert answers == plain.burst(calls), calls
            for error, result in answers:
                if result and "revision" in result:
                    known[session] = {**known.get(session, {}), **result}
        histories = one.call("info")[1]["histories"]
        assert histories["hits"] > 200, "the memory was hardly asked, so this run proves nothing"
        assert plain.call("info")[1]["histories"]["hits"] == 0


def test_the_end_of_a_long_history_is_answered_from_memory(daemon_factory, short_dir):
    settings = short_dir / "config.json"
    settings.write_text('{"history_bytes": 1000000}')
    daemon = daemon_factory("--config", str(settings))
    texts = [json.dumps({"n": n, "text": "z" * 500}) for n in range(1000)]
    with Raw(daemon.socket) as raw:

        def last(n: int) -> tuple[list[str], int]:
            answer = raw.call("get_items", session="s", limit=n)[1]
            return answer["items"], raw.call("info")[1]["histories"]["hits"]

        for n in range(0, 1000, 50):
            assert raw.call("add_items", session="s", items=texts[n : n + 50])[0] is None
        assert last(100) == (texts[-100:], 1)
        assert last(900) == (texts[-900:], 1), "so much of it cannot be in memory"
        assert last(100) == (texts[-100:], 2)
        daemon.restart()
    with Raw(daemon.socket) as raw:
        assert last(100) == (texts[-100:], 0)
        assert last(100) == (texts[-100:], 1)
        assert raw.call("add_items", session="s", items=["{}"])[0] is None
        assert last(101) == ([*texts[-100:], "{}"], 2)
        assert raw.call("get_items", session="s", after=1001)[1]["items"] == []
        assert last(102)[1] == 3, "what follows the last item is known, and what is before the end is not"


def test_memory_stays_within_its_bound(daemon_factory, short_dir):
    settings = short_dir / "config.json"
    settings.write_text('{"history_bytes": 1000000}')
    daemon = daemon_factory("--config", str(settings))
    text = json.dumps({"text": "z" * 2000})
    with Raw(daemon.socket) as raw:
        for n in range(200):
            assert raw.call("add_items", session=f"s{n}", items=[text] * 10)[0] is None
            assert len(raw.call("get_items", session=f"s{n}")[1]["items"]) == 10
            assert raw.call("info")[1]["histories"]["bytes"] <= 1000000
        assert 0 < raw.call("info")[1]["histories"]["sessions"] < 200
        for n in range(200):
            assert len(raw.call("get_items", session=f"s{n}")[1]["items"]) == 10


@pytest.mark.parametrize("adds", [False, True], ids=["from_memory", "from_the_store_between_changes"])
def test_long_answers_that_are_read_late_are_whole_and_as_of_their_turn(daemon, adds):
    """More than the socket takes: some leave from where the history is, some in part, some are copied to wait."""
    texts = [json.dumps({"n": n, "text": "z" * 900}) for n in range(400)]
    with Raw(daemon.socket) as raw:
        assert raw.call("add_items", session="s", items=texts[:200])[0] is None
        assert len(raw.call("get_items", session="s")[1]["items"]) == 200
        calls: list[tuple[str, dict[str, Any]]] = []
        expected = []
        n = 200
        while n < 400:
            calls.append(("get_items", {"session": "s"}))
            expected.append(texts[: n if adds else 200])
            if adds:
                calls.append(("add_items", {"session": "s", "items": texts[n : n + 2]}))
            n += 2
        answers = raw.burst(calls)
    assert all(error is None for error, _ in answers)
    assert [result["items"] for _, result in answers if "items" in result] == expected


def test_a_change_whose_sender_hung_up_is_seen_by_the_next_reader(daemon):
    with Raw(daemon.socket) as reader:
        for n in range(50):
            assert len(reader.call("get_items", session="s")[1]["items"]) == n
            hasty = Raw(daemon.socket)
            hasty._socket.sendall(b"\x94\x00\x01\xa9add_items\x91\x82\xa7session\xa1s\xa5items\x91\xa2{}")
            hasty._socket.close()
            while reader.call("list_sessions")[1]["sessions"][:1] == [] or (
                reader.call("list_sessions")[1]["sessions"][0]["count"] <= n
            ):
                pass

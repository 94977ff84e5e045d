"""The golden messages of proto/vectors: meaning to bytes, bytes to meaning."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from sessiond import _msgpack, _requests, errors
from sessiond._requests import Request
from sessiond._wire import Inbox

VECTORS = pathlib.Path(__file__).resolve().parents[3] / "proto" / "vectors"
ALL = [json.loads(path.read_text()) for path in sorted(VECTORS.glob("*.json"))]
REQUESTS = [vector for vector in ALL if vector["direction"] == "request"]
RESPONSES = [vector for vector in ALL if vector["direction"] == "response"]
NOTIFICATIONS = [vector for vector in ALL if vector["direction"] == "notification"]

OURS = {
    name: getattr(_requests, name)
    for name in (
        "hello ping info get_items list_sessions list_stores "
        "add_items pop_item clear_session replace_items delete_session"
    ).split()
}
POSITIONAL = ("session", "items")


def by_name(vectors: list[Any]) -> Any:
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


def unescape(value: Any) -> Any:
    """{"$bytes": hex} stands for bytes."""
    if isinstance(value, dict):
        if value.keys() == {"$bytes"}:
            return bytes.fromhex(value["$bytes"])
        return {name: unescape(member) for name, member in value.items()}
    return [unescape(member) for member in value] if isinstance(value, list) else value


def test_there_are_vectors_of_every_kind_and_method() -> None:
    assert len(REQUESTS) > 20 and len(RESPONSES) > 20 and NOTIFICATIONS
    assert {vector["meaning"]["method"] for vector in REQUESTS} >= OURS.keys()


@by_name([vector for vector in REQUESTS if vector["meaning"]["params"] is not None])
def test_request_has_the_golden_bytes(vector: Any) -> None:
    meaning = vector["meaning"]
    request: Request[Any] = Request(meaning["method"], unescape(meaning["params"]), lambda result: result)
    frame = request.frame(meaning["msgid"])
    assert frame.hex() == vector["bytes"]
    assert len(frame) <= request.size


@by_name(
    [
        v
        for v in REQUESTS
        if v["name"].endswith("_all_params") or v["name"] in ("request_ping", "request_info", "request_list_stores")
    ]
)
def test_our_methods_make_the_golden_bytes(vector: Any) -> None:
    meaning = vector["meaning"]
    named = dict(meaning["params"])
    positional = [named.pop(name) for name in POSITIONAL if name in named]
    request = OURS[meaning["method"]](*positional, **named)
    assert request.frame(meaning["msgid"]).hex() == vector["bytes"]
    assert request.key == named.get("key")


@by_name(RESPONSES)
def test_response_is_understood_however_it_arrives(vector: Any) -> None:
    data, meaning = bytes.fromhex(vector["bytes"]), vector["meaning"]
    expected = (meaning["msgid"], meaning["error"], unescape(meaning["result"]))
    for step in (1, 7, len(data)):
        inbox = Inbox()
        answers = [a for start in range(0, len(data), step) for a in inbox.feed(data[start : start + step])]
        assert [tuple(answer) for answer in answers] == [expected]


OPERATORS = ("answer_backup", "answer_recover", "answer_stats")
"""Answers to methods that are left to sessionctl."""

OURS_BY_LENGTH = sorted(OURS, key=len, reverse=True)


@by_name([v for v in RESPONSES if v["meaning"]["error"] is None and not v["name"].startswith(OPERATORS)])
def test_results_become_our_types(vector: Any) -> None:
    name = vector["name"].replace("unknown_keys", "get_items")
    method = next(method for method in OURS_BY_LENGTH if name.startswith(f"answer_{method}"))
    own: tuple[Any, ...] = {"add_items": ("s", []), "replace_items": ("s", []), "list_sessions": ()}.get(
        method, ("s",) if "session" in method or "item" in method else ()
    )
    result = vector["meaning"]["result"]
    typed = OURS[method](*own).result(result)
    if method == "ping":
        assert typed is None
        return
    for field in typed._fields:
        if field == "erased":
            assert typed.erased is bool(result.get("erased"))
        elif field == "sessions":
            assert [dataclasses.asdict(session) for session in typed.sessions] == result["sessions"]
        elif field == "stores":
            assert [store._asdict() for store in typed.stores] == result["stores"]
        else:
            absent: Any = {"missing": 0, "histories": {}}
            assert getattr(typed, field) == result.get(field, absent.get(field))


@by_name([v for v in RESPONSES if v["meaning"]["error"] is not None])
def test_errors_become_our_classes(vector: Any) -> None:
    meaning = vector["meaning"]["error"]
    error = errors.from_wire(meaning, "the-key")
    assert type(error) is errors.BY_CODE.get(meaning["code"], errors.SessiondError)
    assert (error.code, error.message, error.key) == (meaning["code"], meaning["message"], "the-key")
    assert error.details == {k: v for k, v in meaning.items() if k not in ("code", "message")}
    if meaning["code"] == "conflict":
        assert isinstance(error, errors.ConflictError)
        assert (error.revision, error.epoch) == (meaning.get("revision"), meaning.get("epoch"))


@by_name(NOTIFICATIONS)
def test_a_farewell_is_kept_for_the_error_message(vector: Any) -> None:
    inbox = Inbox()
    assert inbox.feed(bytes.fromhex(vector["bytes"])) == []
    assert vector["meaning"]["params"]["message"] in inbox.ended()


def test_every_code_of_the_protocol_has_a_class() -> None:
    header = VECTORS.parent / "sessiond-codes.h"
    codes = [line.split('"')[1] for line in header.read_text().splitlines() if line.strip().startswith("X(")]
    assert len(codes) == 13
    assert sorted(codes) == sorted(errors.BY_CODE)


def test_unpack_is_the_inverse_of_pack() -> None:
    value = {"a": [1, None, True, 2**53 - 1, "\U0001f309", b"\0\xff"]}
    assert _msgpack.unpack(_msgpack.pack(value)) == value


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, 65535, 65536, 2**31, 2**32 - 1])
def test_a_msgid_is_packed_as_any_number(number: int) -> None:
    assert _msgpack.pack_uint(number) == _msgpack.pack(number)


def test_messages_are_told_apart_wherever_the_bytes_are_cut() -> None:
    messages = [[1, n, None, {"text": "x" * n}] for n in range(40)]
    stream = b"".join(map(_msgpack.pack, messages))
    for size in (1, 2, 7, 50, 333, len(stream)):
        inbox = Inbox()
        pieces = [inbox.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
        assert [[1, *answer] for piece in pieces for answer in piece] == messages

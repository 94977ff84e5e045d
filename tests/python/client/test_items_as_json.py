"""Python objects to item texts and back."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sessiond import UnreadableItemError
from sessiond._items import decode_items, encode_items

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.characters(codec=None)), children),
    max_leaves=20,
)
items = st.dictionaries(st.text(st.characters(codec=None)), values)


def as_sqlite_session_would(batch: list[Any]) -> list[Any]:
    return [json.loads(json.dumps(item)) for item in batch]


@given(st.lists(items))
def test_any_batch_comes_back_as_it_would_from_sqlite_session(batch: list[dict[str, Any]]) -> None:
    texts = encode_items(batch)
    assert decode_items(texts) == as_sqlite_session_would(batch)
    for text in texts:
        assert text.encode()
        assert min(text) >= " "


@given(st.lists(items))
def test_reading_in_one_go_equals_reading_one_by_one(batch: list[dict[str, Any]]) -> None:
    texts = [json.dumps(item, indent=None) for item in batch]
    assert decode_items(texts) == [json.loads(text) for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '  { "a" : [ ] }  ',
        '{"n":9007199254740993,"m":36893488147419103232}',
        '{"f":0.1,"g":1e400,"h":-0.0,"i":1.0}',
        '{"s":"\\ud800 \\u0000 \\/"}',
        '{"\U0001f309":""}',
        "{}",
    ],
)
def test_odd_texts_read_in_one_go_as_alone(text: str) -> None:
    alone = json.loads(text)
    assert repr(decode_items([text, "{}", text])) == repr([alone, {}, alone])


# ---- pydantic's decoder, which is used where it is loaded ----

numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
escapes = st.sampled_from(
    ["\\ud800", "\\udfff", "\\uD83D\\uDE00", "\\u0000", "\\/", "\\n", "\\u00e4", "ä", "\U0001f309", "x"]
)
strings = st.lists(escapes, max_size=4).map(lambda parts: f'"{"".join(parts)}"')
texts_of_any_kind = st.recursive(
    numbers | strings | st.sampled_from(["true", "false", "null", "-0", "1e400", "9" * 4301]),
    lambda children: (
        st.lists(children).map(lambda values: f"[ {' , '.join(values)} ]")
        | st.lists(st.tuples(strings, children)).map(
            lambda pairs: "{" + ",".join(f"{name} :\t{value}" for name, value in pairs) + "}"
        )
    ),
    max_leaves=10,
)


def read_by(decode: Any, text: str) -> str:
    try:
        return repr(decode(text))
    except ValueError:
        return "refused"


@settings(max_examples=200)
@given(texts_of_any_kind)
def test_every_text_is_read_as_the_standard_library_reads_it(text: str) -> None:
    assert "pydantic_core" in sys.modules
    assert read_by(lambda t: decode_items(["{}", t]), text) == read_by(lambda t: [{}, json.loads(t)], text)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What json.loads is given."""
    seen: list[str] = []
    loads = json.loads
    monkeypatch.setattr("json.loads", lambda text: seen.append(text) or loads(text))
    yield seen


def test_pydantics_decoder_is_used_if_it_is_there(counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    decode_items(["{}"])
    counted.clear()
    assert decode_items(['{"a":1}', "{}"]) == [{"a": 1}, {}] and counted == []
    monkeypatch.delitem(sys.modules, "pydantic_core")
    assert decode_items(['{"a":1}', "{}"]) == [{"a": 1}, {}] and counted == ['[{"a":1},{}]']
    assert "pydantic_core" not in sys.modules


@pytest.mark.parametrize(
    "text", ['{"s":"\\ud800"}', '{"deep":' + "[" * 300 + "]" * 300 + "}"], ids=["surrogate", "deep"]
)
def test_what_it_refuses_is_read_by_json(counted: list[str], text: str) -> None:
    alone = json.loads(text)
    assert decode_items(["{}", text]) == [{}, alone]
    assert f"[{{}},{text}]" in counted


def test_a_decoder_that_reads_numbers_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lossy:
        @staticmethod
        def from_json(text: str) -> Any:
            return json.loads(text, parse_int=float)

    monkeypatch.setitem(sys.modules, "pydantic_core", Lossy)  # type: ignore[arg-type]
    assert repr(decode_items(['{"n":36893488147419103232}'])) == "[{'n': 36893488147419103232}]"


def test_each_reading_gives_fresh_objects() -> None:
    texts = encode_items([{"a": {"b": []}}] * 2)
    one, two = decode_items(texts), decode_items(texts)
    one[0]["a"]["b"].append(1)
    assert two == [{"a": {"b": []}}] * 2 and one[1] == two[1]


def test_text_is_not_inflated_to_escapes() -> None:
    assert encode_items([{"t": "こんにちは \U0001f309"}]) == ['{"t":"こんにちは \U0001f309"}']


def test_a_lone_surrogate_is_escaped_and_comes_back() -> None:
    item = {"t": "ä\ud800ü"}
    assert encode_items([item]) == ['{"t":"\\u00e4\\ud800\\u00fc"}']
    assert decode_items(encode_items([item])) == [item]


def test_big_integers_and_float_kinds_survive() -> None:
    item = {"i": 2**70, "f": 1.0, "n": -(2**63), "e": 5e-324}
    (back,) = decode_items(encode_items([item]))
    assert back == item and isinstance(back["f"], float) and isinstance(back["i"], int)


class Message(BaseModel):
    role: str = "user"


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ({"x": math.nan}, ValueError),
        ({"x": [math.inf]}, ValueError),
        ({"x": b"bytes"}, TypeError),
        ({"x": Message()}, TypeError),
        ({"x": {1, 2}}, TypeError),
        ({(1, 2): "x"}, TypeError),
        (Message(), TypeError),
        ("text", TypeError),
        (["list"], TypeError),
        (None, TypeError),
    ],
    ids=repr,
)
def test_what_is_no_json_is_refused_with_its_index(bad: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"items\[2\]"):
        encode_items([{}, {}, bad, {}])


def test_a_pydantic_object_is_told_how_to_become_a_dict() -> None:
    with pytest.raises(TypeError, match="model_dump"):
        encode_items([Message()])


def test_an_item_that_contains_itself_is_refused_with_its_index() -> None:
    item: dict[str, Any] = {}
    item["self"] = item
    with pytest.raises(ValueError, match=r"items\[0\]"):
        encode_items([item])


def test_bottomless_nesting_is_refused_with_its_index() -> None:
    item: dict[str, Any] = {}
    for _ in range(200_000):
        item = {"x": item}
    with pytest.raises(ValueError, match=r"items\[1\]"):
        encode_items([{}, item])
    while item:  # taken apart by hand: the interpreter would do it recursively
        item = item["x"]


def test_an_item_that_python_cannot_represent_is_named_and_kept() -> None:
    huge = '{"n":' + "9" * 5000 + "}"
    with pytest.raises(UnreadableItemError) as caught:
        decode_items(["{}", huge])
    assert (caught.value.item, caught.value.text) == (1, huge)
    assert isinstance(caught.value, ValueError)

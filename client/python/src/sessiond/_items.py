"""Python objects to item texts and back. No state, any thread.

The standard library's json decides what a value looks like. Texts are compact UTF-8; a text with a lone surrogate,
which UTF-8 cannot carry, is written with ASCII escapes instead, and reads back as the same Python string.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from .errors import UnreadableItemError

Item = dict[str, Any]
Decoder = Callable[[str], Any]

NUMBERS = "[-0, -0.0, 1.0, 36893488147419103232, 1e400, 5e-324, 0.1, 2.2250738585072011e-308, 9007199254740993.0]"

_compact = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_escaped = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def encode_items(items: Sequence[Any]) -> list[str]:
    """The texts of a batch. Raises TypeError or ValueError, naming the index, and then none of the batch is sent."""
    return [_encode(index, item) for index, item in enumerate(items)]


def _encode(index: int, item: Any) -> str:
    if not isinstance(item, dict):
        hint = "; use its model_dump(exclude_unset=True)" if hasattr(item, "model_dump") else ""
        raise TypeError(f"items[{index}] must be a dict, not {type(item).__name__}{hint}")
    try:
        text = _compact(item)
        return text if _is_utf8(text) else _escaped(item)
    except TypeError as error:
        raise TypeError(f"items[{index}] cannot be stored as JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"items[{index}] cannot be stored as JSON: {error}") from error


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode_items(texts: list[str]) -> list[Any]:
    """Fresh objects for stored texts. Raises UnreadableItemError for the first that Python cannot represent."""
    whole = f"[{','.join(texts)}]"
    quick = _quick_decoder()
    if quick is not None:
        with contextlib.suppress(ValueError, TypeError):
            return quick(whole)  # type: ignore[no-any-return]
    try:
        return json.loads(whole)  # type: ignore[no-any-return]
    except (ValueError, RecursionError):
        return [decode_item(text, index) for index, text in enumerate(texts)]


def _quick_decoder() -> Decoder | None:
    """pydantic's, where it is loaded anyway: the SDK needs it. It reads as json.loads does, or refuses: a lone surrogate,
    deep nesting."""
    decoder = cast("Decoder | None", getattr(sys.modules.get("pydantic_core"), "from_json", None))
    return decoder if decoder is not None and _reads_alike(decoder) else None


@functools.cache
def _reads_alike(decoder: Decoder) -> bool:
    """Early versions round numbers otherwise."""
    try:
        return repr(decoder(NUMBERS)) == repr(json.loads(NUMBERS))
    except (ValueError, TypeError):
        return False


def decode_item(text: str, index: int = 0) -> Any:
    """The same for one text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        details = {"text": text, "item": index}
        raise UnreadableItemError(f"Python cannot represent this item: {error}", details=details) from error

"""The only module that knows msgpack: values to bytes and back, with types.

No state; any thread, except that one `Unpacker` belongs to one connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import msgpack  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

BUFFER_MAX = 256 * 1024 * 1024
"""More than any answer: one item of 64 MiB, or 4 MiB of items."""

Incomplete = cast("type[Exception]", msgpack.OutOfData)


class Unpacker(Protocol):
    """Bytes in as they come, whole values out."""

    def feed(self, next_bytes: bytes | bytearray | memoryview) -> None: ...
    def unpack(self) -> Any:
        """The next value. Raises Incomplete if it is not there yet."""
        ...

    def tell(self) -> int:
        """How many of the bytes were read."""
        ...


pack = cast(Callable[[object], bytes], msgpack.packb)
"""The one canonical encoding: shortest integers, `str` in strict UTF-8, maps in the order of the dict."""


def pack_uint(number: int) -> bytes:
    """The same of a number of up to 32 bits, for less than half: there is one in every message."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x100:
        return bytes((0xCC, number))
    if number < 0x10000:
        return b"\xcd" + number.to_bytes(2, "big")
    return b"\xce" + number.to_bytes(4, "big")


def unpacker() -> Unpacker:
    """A new reader of one connection's bytes. It raises ValueError or a subclass for what is no MessagePack."""
    make = cast(Callable[..., Unpacker], msgpack.Unpacker)  # pyright: ignore[reportUnknownMemberType]
    return make(max_buffer_size=BUFFER_MAX)


unpack = cast(Callable[[bytes], Any], msgpack.unpackb)
"""One whole value (tests use it; connections use `unpacker`)."""

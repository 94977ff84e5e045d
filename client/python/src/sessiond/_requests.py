"""The methods of the protocol as requests: parameters to bytes, results to types. No sockets, no state, any thread.

One function per method, under the method's name; `Client` and `AsyncClient` both send what these make. A request is
encoded once: when it has to be repeated, the very same bytes go out again.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _msgpack
from ._version import __version__
from .errors import ProtocolError
from .types import (
    Added,
    Change,
    Cleared,
    Deleted,
    Hello,
    Info,
    Items,
    Popped,
    Replaced,
    SessionInfo,
    SessionList,
    StoreInfo,
    StoreList,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")

PROTOCOL = [1, 1]
"""The versions that this package speaks: from, to."""

FRAME_HEAD_MAX = 7
"""Bytes before the method's name: an array of four, a zero, a msgid of 32 bits."""

INFO_PLAIN = [name for name in Info._fields if name not in ("histories", "stores")]
SESSION_FIELDS = [field.name for field in dataclasses.fields(SessionInfo)]

PROGRAM_NAME_MAX = 100


class Request(Generic[T]):
    """One call, ready to be sent on any connection. Immutable."""

    __slots__ = ("_body", "decode", "items", "key", "method", "size")

    def __init__(
        self, method: str, params: dict[str, Any], decode: Callable[[dict[str, Any]], T], key: str | None = None
    ) -> None:
        self.method = method
        self.key = key
        """Of a change; None for what may be repeated freely."""
        self.decode = decode
        self.items = len(params.get("items", ()))
        """How many it carries."""
        self._body = _msgpack.pack([method, [params]])[1:]
        self.size = FRAME_HEAD_MAX + len(self._body)
        """Bytes of the longest frame that `frame` makes."""

    def frame(self, msgid: int) -> bytes:
        """The bytes to send: the message [0, msgid, method, params]."""
        return b"\x94\x00" + _msgpack.pack_uint(msgid) + self._body

    def result(self, result: Any) -> T:
        """The typed answer. Raises ProtocolError where the daemon's is not what the protocol says."""
        try:
            return self.decode(result)
        except (KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(f"the answer to {self.method} is not understood: {error!r}", key=self.key) from error


def new_key() -> str:
    """A fresh name for one change: 48 bits of milliseconds, then 80 random bits, so that keys arrive nearly sorted."""
    return (time.time_ns() // 1_000_000).to_bytes(6, "big").hex() + os.urandom(10).hex()


def _params(own: dict[str, Any] | None = None, /, **optional: Any) -> dict[str, Any]:
    """The parameters that were given, in the order of the protocol. Takes `own`."""
    params: dict[str, Any] = {} if own is None else own
    for name, value in optional.items():
        if value is not None:
            params[name] = value
    return params


def _texts(items: Sequence[str]) -> list[str]:
    """`items` as the list of texts that the wire wants. Raises TypeError or ValueError naming the first wrong one."""
    if isinstance(items, str):
        raise TypeError("items must be a list of JSON texts, not one text")
    texts = list(items)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"items[{index}] must be a JSON text (str), not {type(text).__name__}")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"items[{index}] is no valid Unicode: {error}") from error
    return texts


# ---- reading ----


def get_items(
    session: str,
    *,
    limit: int | None = None,
    after: int | None = None,
    before: int | None = None,
    max_bytes: int | None = None,
    if_epoch: int | None = None,
    with_meta: bool = False,
    store: str | None = None,
) -> Request[Items]:
    params = _params(
        {"session": session},
        limit=limit,
        after=after,
        before=before,
        max_bytes=max_bytes,
        if_epoch=if_epoch,
        with_meta=with_meta or None,
        store=store,
    )
    return Request("get_items", params, _items)


def _items(r: dict[str, Any]) -> Items:
    return Items(
        r["items"],
        r["first_seq"],
        r["last_seq"],
        r["head_seq"],
        r["revision"],
        r["epoch"],
        r["more"],
        r.get("missing", 0),
        r.get("meta"),
    )


def list_sessions(
    *, after: str | None = None, limit: int | None = None, prefix: str | None = None, store: str | None = None
) -> Request[SessionList]:
    return Request("list_sessions", _params(after=after, limit=limit, prefix=prefix, store=store), _session_list)


def _session_list(r: dict[str, Any]) -> SessionList:
    return SessionList([SessionInfo(*(s[name] for name in SESSION_FIELDS)) for s in r["sessions"]], r["more"])


def list_stores() -> Request[StoreList]:
    return Request("list_stores", {}, _store_list)


def _store_list(r: dict[str, Any]) -> StoreList:
    return StoreList(_stores(r))


def _stores(r: dict[str, Any]) -> list[StoreInfo]:
    return [StoreInfo(*(s[name] for name in StoreInfo._fields)) for s in r["stores"]]


# ---- the daemon ----


def hello(*, client: str | None = None, protocol: Sequence[int] | None = None) -> Request[Hello]:
    versions = list(protocol) if protocol is not None else None
    return Request("hello", _params(client=client, protocol=versions), _hello)


def _hello(r: dict[str, Any]) -> Hello:
    return Hello(r["server"], r["version"], r["protocol"], r["instance"], r["uid"], r["limits"])


def introduction() -> Request[Hello]:
    """The hello that opens a connection: the program's name, for the daemon's log, and what we speak."""
    program = os.path.basename(sys.argv[0] if getattr(sys, "argv", None) else "") or "python"
    readable = program[:PROGRAM_NAME_MAX].encode("ascii", "replace").decode()
    return hello(client=f"{readable} (sessiond-python {__version__})", protocol=PROTOCOL)


def ping() -> Request[None]:
    return Request("ping", {}, _nothing)


def _nothing(_result: dict[str, Any]) -> None:
    return None


def info() -> Request[Info]:
    return Request("info", {}, _info)


def _info(r: dict[str, Any]) -> Info:
    plain = {name: r[name] for name in INFO_PLAIN}
    return Info(**plain, histories=r.get("histories", {}), stores=_stores(r))


# ---- changes ----


def _change(
    method: str,
    decode: Callable[[dict[str, Any]], T],
    own: dict[str, Any],
    *,
    key: str | None = None,
    digest: str | None = None,
    if_revision: int | None = None,
    if_epoch: int | None = None,
    store: str | None = None,
) -> Request[T]:
    if key is None:
        key = new_key()
    params = _params(own, key=key, digest=digest, if_revision=if_revision, if_epoch=if_epoch, store=store)
    return Request(method, params, decode, key)


def _besides(items: Sequence[str], meta: Sequence[str | None] | None) -> dict[str, Any]:
    """The items and what to keep beside them. A list of nothing is left out."""
    texts = _texts(items)
    if meta is None:
        return {"items": texts}
    if isinstance(meta, str) or len(meta) != len(texts):
        raise ValueError("meta must be a list as long as items")
    _texts([text for text in meta if text is not None])
    return {"items": texts} | ({"meta": list(meta)} if any(text is not None for text in meta) else {})


def add_items(
    session: str, items: Sequence[str], *, meta: Sequence[str | None] | None = None, **change: Unpack[Change]
) -> Request[Added]:
    own = {"session": session} | _besides(items, meta)
    return _change("add_items", _added, own, **change)


def _added(r: dict[str, Any]) -> Added:
    return Added(r["first_seq"], r["last_seq"], r["revision"], r["epoch"])


def pop_item(session: str, *, with_meta: bool = False, **change: Unpack[Change]) -> Request[Popped]:
    return _change("pop_item", _popped, _params({"session": session}, with_meta=with_meta or None), **change)


def _popped(r: dict[str, Any]) -> Popped:
    return Popped(r["item"], r["seq"], r["revision"], r["epoch"], bool(r.get("erased")), r.get("meta"))


def clear_session(session: str, **change: Unpack[Change]) -> Request[Cleared]:
    return _change("clear_session", _cleared, {"session": session}, **change)


def _cleared(r: dict[str, Any]) -> Cleared:
    return Cleared(r["removed"], r["revision"], r["epoch"])


def replace_items(
    session: str,
    items: Sequence[str],
    *,
    from_seq: int | None = None,
    meta: Sequence[str | None] | None = None,
    **change: Unpack[Change],
) -> Request[Replaced]:
    own = _params({"session": session}, from_seq=from_seq) | _besides(items, meta)
    return _change("replace_items", _replaced, own, **change)


def _replaced(r: dict[str, Any]) -> Replaced:
    return Replaced(r["removed"], r["first_seq"], r["last_seq"], r["revision"], r["epoch"])


def delete_session(session: str, **change: Unpack[Change]) -> Request[Deleted]:
    return _change("delete_session", _deleted, {"session": session}, **change)


def _deleted(r: dict[str, Any]) -> Deleted:
    return Deleted(r["removed"])

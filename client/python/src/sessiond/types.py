"""What the calls of `Client` and `AsyncClient` return.

All are immutable, comparable and safe to share between threads. Items are JSON texts, exactly as stored.
Numbers are integers from 0 to 2**53-1; times are microseconds since 1970 UTC, sizes are bytes.

    revision  of a session: one more after every change; 0: the session never existed
    epoch     of a session: larger after every change that removed items; the same epoch: what you have read still holds
    seq       of an item: grows by one per item, never used twice, pops leave gaps
    head_seq  of a session: the highest seq it ever gave
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

__all__ = [
    "Added",
    "Change",
    "Cleared",
    "Deleted",
    "Hello",
    "Info",
    "Items",
    "Popped",
    "Replaced",
    "SessionInfo",
    "SessionList",
    "StoreInfo",
    "StoreList",
]


class Change(TypedDict, total=False):
    """The keyword arguments that every change takes besides its own."""

    key: str | None
    """Names this change once and for all, 1 to 255 bytes. Repeated with the same key it happens once, for a day, across
    restarts of the daemon. Default: a fresh one for each call."""
    digest: str | None
    """What makes two requests with this key the same change, 1 to 255 bytes. Default: the request itself."""
    if_revision: int | None
    """ConflictError unless the session's revision is this. 0: the session must not exist yet."""
    if_epoch: int | None
    """ConflictError unless the session's epoch is this."""
    store: str | None
    """Default: "default"."""


class Items(NamedTuple):
    """Of get_items: a piece of the history, oldest first, as it stood at one moment."""

    items: list[str]
    first_seq: int | None
    """Of items[0]; None if there are none."""
    last_seq: int | None
    head_seq: int
    revision: int
    epoch: int
    more: bool
    """The selection goes on after last_seq. Only where max_bytes asked for one page."""
    missing: int = 0
    """How many rows of the store's log (an item or a removal each) were acknowledged and are not there: damage, or an
    old copy in its place. Changes raise RolledBackError until somebody has looked at it."""
    meta: list[str | None] | None = None
    """Only with_meta: what stands beside each of the items."""


class Added(NamedTuple):
    """Of add_items."""

    first_seq: int | None
    """None if no items were given."""
    last_seq: int | None
    revision: int
    epoch: int


class Popped(NamedTuple):
    """Of pop_item."""

    item: str | None
    """None: there was none."""
    seq: int | None
    revision: int
    epoch: int
    erased: bool
    """The pop was repeated by key, and a clear has erased the item since."""
    meta: str | None = None
    """Only with_meta: what stood beside it."""


class Cleared(NamedTuple):
    """Of clear_session."""

    removed: int
    revision: int
    epoch: int


class Replaced(NamedTuple):
    """Of replace_items."""

    removed: int
    first_seq: int | None
    last_seq: int | None
    revision: int
    epoch: int


class Deleted(NamedTuple):
    """Of delete_session."""

    removed: int


@dataclass(frozen=True)
class SessionInfo:
    """One entry of list_sessions."""

    id: str
    count: int
    bytes: int
    head_seq: int
    revision: int
    epoch: int
    created_us: int
    updated_us: int


class SessionList(NamedTuple):
    """Of list_sessions: one page, in the order of ids."""

    sessions: list[SessionInfo]
    more: bool
    """There are more after the last id."""


class StoreInfo(NamedTuple):
    """One entry of list_stores."""

    name: str
    engine: str
    durability: str
    """Either full, or volatile: ends with the daemon."""
    sessions: int | None
    """None, as the next three: the store cannot be opened at the moment."""
    bytes: int | None
    """Of the database."""
    log_bytes: int | None
    """In its write-ahead log."""
    missing: int | None
    """Rows that were acknowledged and are not there; 0: nothing is missing."""


class StoreList(NamedTuple):
    """Of list_stores."""

    stores: list[StoreInfo]


class Hello(NamedTuple):
    """Of hello: who is at the other end."""

    server: str
    version: str
    protocol: int
    instance: str
    """32 hex digits, kept with the daemon's data. An unanswered change is never repeated to another instance."""
    uid: int
    """The owner that this connection acts as."""
    limits: Mapping[str, int]
    """frame_bytes, item_bytes, items, json_depth, session_bytes, key_bytes, answer_bytes, answer_items, in_flight, …"""


class Info(NamedTuple):
    """Of info. A program must not depend on more than this."""

    version: str
    protocol: int
    instance: str
    pid: int
    uid: int
    uptime_us: int
    connections: int
    libraries: Mapping[str, str]
    settings: Mapping[str, Any]
    histories: Mapping[str, int]
    """What is kept in memory for reading: bytes, sessions, hits, misses."""
    stores: list[StoreInfo]
    """As list_stores tells them."""

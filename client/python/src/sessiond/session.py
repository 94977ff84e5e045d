"""`SessiondSession`: a session for the Agents SDK whose history is kept by sessiond.

    from agents import Agent, Runner
    from sessiond import SessiondSession

    session = SessiondSession("user_123", store="myapp")
    result = await Runner.run(Agent(name="Assistant"), "Hello", session=session)

The parts: `AgentSession` is what the SDK sees (settings, limits, Python objects, close); a `History` is where the item
texts are. `SessiondSession` joins the two by a `DaemonHistory`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from . import _paths, _requests, _sdk
from ._items import decode_item, decode_items, encode_items
from ._paging import Reading
from ._requests import Request
from ._retry import RETRY_SECONDS
from .async_client import AsyncClient
from .errors import ConflictError
from .types import Added, Items

if TYPE_CHECKING:
    from agents.items import TResponseInputItem
    from agents.memory import SessionABC, SessionSettings
else:
    SessionABC = object  # at run time our classes are registered with it once the SDK is there: see _sdk.register

__all__ = ["SessiondSession"]

T = TypeVar("T")
Self = TypeVar("Self", bound="AgentSession")

NUMBER_MAX = 2**53 - 1

logger = logging.getLogger("sessiond")


# ---- where histories are ----


class Tail(NamedTuple):
    """The end of a history, and the means to replace a part of it."""

    texts: list[str]
    complete: bool
    """Nothing stands before it."""
    replace: Callable[[int, list[str]], Awaitable[bool]]
    """replace(start, texts): texts[start:] of this tail give way to `texts` in one step. False, and nothing is done,
    if the history has changed meanwhile."""


class History(Protocol):
    """Where the item texts of one session are. Each method is one step: all or nothing."""

    async def read(self, limit: int | None) -> list[str]:
        """The latest `limit` items (None: all), oldest first."""
        ...

    async def add(self, texts: list[str]) -> None: ...

    async def pop(self) -> str | None:
        """Take the newest."""
        ...

    async def clear(self) -> None: ...

    async def tail(self, limit: int) -> Tail:
        """The latest `limit` items, at least one, to be replaced perhaps."""
        ...


class DaemonHistory:
    """A session in a store of the daemon. Cheap: the connection is the process's, one per event loop."""

    def __init__(self, session: str, store: str | None, socket: str | None, retry_seconds: float) -> None:
        self.session = session
        self.store = store
        self._socket = socket
        self._retry_seconds = retry_seconds
        self._client = shared_client(socket)
        self._told_missing = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.session, self.store, self._socket, self._retry_seconds)

    def _call(self, request: Request[T]) -> Coroutine[Any, Any, T]:
        return self._client._call(request, self._retry_seconds)

    def _select(self, *, limit: int | None) -> Coroutine[Any, Any, Items]:
        return self._client._read(Reading(self.session, limit=limit, store=self.store), self._retry_seconds)

    async def read(self, limit: int | None) -> list[str]:
        read = await self._select(limit=limit)
        if read.missing and not self._told_missing:
            self._told_missing = True
            logger.warning("%s: the store %s has lost %d acknowledged changes", self.session, self.store, read.missing)
        return read.items

    async def add(self, texts: list[str]) -> None:
        await self._call(_requests.add_items(self.session, texts, store=self.store))

    async def add_if_new(self, texts: list[str], *, key: str, revision: int) -> Added:
        """Append if the session still has this revision; by `key`, so that a repetition adds nothing."""
        return await self._call(
            _requests.add_items(self.session, texts, key=key, if_revision=revision, store=self.store)
        )

    async def pop(self) -> str | None:
        return (await self._call(_requests.pop_item(self.session, store=self.store))).item

    async def clear(self) -> None:
        await self._call(_requests.clear_session(self.session, store=self.store))

    async def state(self) -> Items:
        """The session's numbers, without its items."""
        return await self._call(_requests.get_items(self.session, limit=0, store=self.store))

    async def tail(self, limit: int) -> Tail:
        read = await self._select(limit=limit + 1)  # one more tells, in the same look, whether something stands before
        latest = read.items[-limit:]

        async def replace(start: int, texts: list[str]) -> bool:
            try:
                first = await self._seq_from_end(len(latest) - start, read)
                change = _requests.replace_items(
                    self.session, texts, from_seq=first, if_revision=read.revision, store=self.store
                )
                await self._call(change)
            except ConflictError:
                return False
            return True

        return Tail(latest, len(read.items) <= limit, replace)

    async def _seq_from_end(self, count: int, read: Items) -> int | None:
        """The seq of the item that has `count - 1` behind it in what was read. Pops leave gaps, so we have to ask."""
        page = await self._call(
            _requests.get_items(
                self.session,
                limit=count,
                before=read.head_seq + 1,
                max_bytes=1,
                if_epoch=read.epoch,
                store=self.store,
            )
        )
        return page.first_seq


_shared: dict[tuple[str, ...], AsyncClient] = {}
_shared_lock = threading.Lock()


def shared_client(socket: str | None) -> AsyncClient:
    """This process's one client for a socket."""
    paths = _paths.candidates(socket)
    with _shared_lock:
        client = _shared.get(paths)
        if client is None:
            client = _shared[paths] = AsyncClient(socket)
        return client


def _renew_lock() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


# ---- what the Agents SDK sees ----


class AgentSession(SessionABC):
    """The four methods of a session, for any History. Not for direct use.

    The SDK detects abilities by name: no `run_compaction`, no parameter called `wrapper`, no `__getattr__` here.
    """

    def __init__(self, session_id: str, history: History, session_settings: Any, name: str) -> None:
        _sdk.register(type(self))
        self._session_id = session_id
        self._history = history
        self._name = name
        self._closed = False
        self._settings: Any = _sdk.coerce_settings(session_settings if session_settings is not None else {})

    # The SDK declares both as plain attributes, and type checkers insist on that.
    if not TYPE_CHECKING:

        @property
        def session_id(self):
            """As it was given. It cannot be changed: make another session object."""
            return self._session_id

        @session_id.setter
        def session_id(self, value):
            raise AttributeError(f"the session_id of {self!r} cannot be changed: make another session object")

        @property
        def session_settings(self):
            """How many items get_items returns by default. Assign settings, a dict such as {"limit": 50}, or None."""
            _sdk.register(type(self))
            if self._settings is not None:
                self._settings = _sdk.coerce_settings(self._settings)
            return self._settings

        @session_settings.setter
        def session_settings(self, value):
            self._settings = None if value is None else _sdk.coerce_settings(value)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"{self._name} is closed")

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The history, oldest first; new objects with every call.

        limit  only the latest that many. None: what session_settings says, else all; 0: none; negative: all
        """
        self._check_open()
        if limit is None and self._settings is not None:
            limit = self._settings.limit
        if limit is not None and not 0 <= limit <= NUMBER_MAX:
            limit = None
        return decode_items(await self._history.read(limit)) if limit != 0 else []

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append items, all or none of them. When this returns they are stored durably.

        Raises TypeError or ValueError, naming the index, for what cannot be JSON; then nothing was stored.
        """
        self._check_open()
        texts = encode_items(items)
        if texts:
            await self._history.add(texts)

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the newest item and return it; None if there is none. No two pops return the same."""
        self._check_open()
        text = await self._history.pop()
        return None if text is None else decode_item(text)

    async def clear_session(self) -> None:
        """Remove all items."""
        self._check_open()
        await self._history.clear()

    def close(self) -> None:
        """End the use of this object; others with the same session go on. Any number of times."""
        self._closed = True

    async def aclose(self) -> None:
        """The same."""
        self.close()

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._session_id!r}>"

    def _replaces_tails(self) -> bool:
        """Whether `_get_compaction_snapshot` may go past this object's methods: not if a subclass changed them."""
        return type(self) is AgentSession

    async def _get_compaction_snapshot(self, limit: int, *, prune_prefix: object = None) -> Any:
        """The SDK's compaction (0.24 and later) asks for this by name. It lets the compacted items take the place of
        the old ones in one step, and only if nobody wrote meanwhile; without it, it clears and adds.

        prune_prefix  the SDK's wish to drop expired items of EncryptedSession on the way. They stay, unread
        """
        self._check_open()
        snapshot_class = _sdk.compaction_snapshot_class()
        if snapshot_class is None or not self._replaces_tails():
            return None
        tail = await self._history.tail(limit)

        async def replace_suffix(start: int, items: list[TResponseInputItem]) -> bool:
            return start < len(tail.texts) and await tail.replace(start, encode_items(items))

        return snapshot_class(decode_items(tail.texts), tail.complete, replace_suffix)


class SessiondSession(AgentSession):
    """A session of the Agents SDK, stored durably by sessiond and shared by every process that names it.

    session_id        1 to 255 bytes in UTF-8
    store             keeps applications apart: two that both say "user_123" meet in the same store only. Default:
                      $SESSIOND_STORE, else "default". "memory" ends with the daemon
    socket            of the daemon. Default: $SESSIOND_SOCKET, else the usual places (see `Client`)
    session_settings  of the SDK, or a dict: {"limit": 50} reads only the latest 50 items
    retry_seconds     how long a call goes on after its connection broke or the daemon was busy

    Nothing is connected before the first call. All session objects of a process share one connection per event loop;
    it ends with the loop. Objects can be used from several loops and threads, pickled and copied; after a fork the
    child has a connection of its own. A change that was begun is finished even if its caller is cancelled: then
    CancelledError comes when the outcome is known.

    Errors are those of `sessiond.errors`. After all but UncertainError the change was not made.
    """

    def __init__(
        self,
        session_id: str,
        *,
        store: str | None = None,
        socket: str | os.PathLike[str] | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        path = None if socket is None else os.fspath(socket)
        history = DaemonHistory(_paths.session_name(session_id), _paths.store_name(store), path, retry_seconds)
        super().__init__(session_id, history, session_settings, "SessiondSession")
        self.store = history.store or "default"

    def _replaces_tails(self) -> bool:
        return type(self) is SessiondSession


_sdk.register(SessiondSession)

"""`AsyncClient`: the daemon's methods as coroutines, for any number of event loops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import _paths, _requests
from ._link import Link, Waiter
from ._paging import Reading
from ._requests import Request
from ._retry import RETRY_SECONDS, SILENCE_SECONDS, Lost, Retry
from ._wire import Door
from .errors import ConflictError
from .types import Added, Change, Cleared, Deleted, Hello, Info, Items, Popped, Replaced, SessionList, StoreList

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AsyncClient"]

T = TypeVar("T")


async def outlast(work: Coroutine[Any, Any, T], cancellation: asyncio.CancelledError | None = None) -> T:
    """Run `work` to its end although the caller may be cancelled, then re-raise the cancellation.

    cancellation  one that came before
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancellation = cancellation or error
    if cancellation is not None:
        if not task.cancelled():
            task.exception()  # seen; otherwise asyncio would report that nobody asked for it
        raise cancellation
    return task.result()


class AsyncClient:
    """An asyncio client of sessiond.

        async with AsyncClient() as client:
            await client.add_items("user_123", ['{"role":"user","content":"hello"}'], store="myapp")
            history = (await client.get_items("user_123", store="myapp")).items

    Parameters, methods, results and errors are those of `Client`, whose docstrings are the manual of both.

    One client serves any number of event loops, in any threads: each loop gets one connection, on which its calls
    share the way, and which ends with the loop. Calls that overlap have no order of their own.

    Cancellation: a read ends at once. A change that was begun is waited for, because a change whose outcome nobody
    knows is worse than a late CancelledError; then CancelledError is raised, whether the change was made or not.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        retry_seconds: float = RETRY_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        if silence_seconds <= 0 or retry_seconds < 0:
            raise ValueError("silence_seconds must be positive, retry_seconds not negative")
        self._door = Door(_paths.candidates(socket))
        self._retry_seconds = retry_seconds
        self._silence_seconds = silence_seconds
        self._closed = False
        self._lock = threading.Lock()
        self._links: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Link] = weakref.WeakKeyDictionary()
        _clients.add(self)

    def _after_fork(self) -> None:
        """In the child: the parent's connections are the parent's, and so is whoever held the lock."""
        self._lock = threading.Lock()
        links, self._links = self._links, weakref.WeakKeyDictionary()
        for link in list(links.values()):
            link.abandon()

    async def aclose(self) -> None:
        """Close the connections of all loops, each as soon as no call is under way on it. Any number of times."""
        self._closed = True
        with self._lock:
            links = list(self._links.items())
        for loop, link in links:
            if loop.is_closed():
                link.abandon()
            elif loop is asyncio.get_running_loop():
                link.retire()
            else:
                with contextlib.suppress(RuntimeError):  # closed just now
                    loop.call_soon_threadsafe(link.retire)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # ---- one call ----

    async def _call(self, request: Request[T], retry_seconds: float | None = None) -> T:
        """Send a request and return its result. The usual case takes one send and one future, and no task."""
        if self._closed:
            raise RuntimeError("AsyncClient is closed")
        loop = asyncio.get_running_loop()
        link = self._links.get(loop) or self._new_link(loop)
        waiter: Waiter | None = None
        cancellation: asyncio.CancelledError | None = None
        if link.ready:
            self._door.check(request)
            waiter = link.send(request, loop)
            try:
                await waiter.future
            except asyncio.CancelledError as error:
                if request.key is None:
                    raise
                cancellation = error
                await waiter.last()
            answer = waiter.answer
            if answer is not None and answer.error is None:
                if cancellation is not None:
                    raise cancellation
                return request.result(answer.result)
        work = self._persist(link, request, waiter, self._retry_seconds if retry_seconds is None else retry_seconds)
        return await (work if request.key is None else outlast(work, cancellation))

    async def _persist(self, link: Link, request: Request[T], waiter: Waiter | None, retry_seconds: float) -> T:
        """Go on with a request after a mishap or without a connection. `waiter`: it was sent already."""
        retry: Retry | None = None
        while True:
            try:
                if waiter is None:
                    await link.open()
                    self._door.check(request)
                    if retry is not None:
                        retry.sending_to(link.instance or "")
                    waiter = link.send(request, asyncio.get_running_loop())
                answer = await waiter.outcome()
            except Lost as loss:
                retry = retry or Retry(request, retry_seconds)
                pause = retry.lost(loss)
            else:
                if answer.error is None:
                    return request.result(answer.result)
                retry = retry or Retry(request, retry_seconds)
                pause = retry.refused(answer.error, waiter.instance or "")
            waiter = None
            await asyncio.sleep(pause)

    def _new_link(self, loop: asyncio.AbstractEventLoop) -> Link:
        with self._lock:
            for other, link in list(self._links.items()):
                if other.is_closed():
                    link.abandon()
                    del self._links[other]
            return self._links.setdefault(loop, Link(self._door, self._silence_seconds))

    # ---- reading ----

    async def get_items(
        self,
        session: str,
        *,
        limit: int | None = None,
        after: int | None = None,
        before: int | None = None,
        max_bytes: int | None = None,
        if_epoch: int | None = None,
        with_meta: bool = False,
        store: str | None = None,
    ) -> Items:
        """As `Client.get_items`."""
        if max_bytes is not None:
            page = _requests.get_items(
                session,
                limit=limit,
                after=after,
                before=before,
                max_bytes=max_bytes,
                if_epoch=if_epoch,
                with_meta=with_meta,
                store=store,
            )
            return await self._call(page)
        reading = Reading(
            session, limit=limit, after=after, before=before, if_epoch=if_epoch, with_meta=with_meta, store=store
        )
        return await self._read(reading)

    async def _read(self, reading: Reading, retry_seconds: float | None = None) -> Items:
        while reading.unfinished:
            try:
                reading.take(await self._call(reading.request(), retry_seconds))
            except ConflictError as conflict:
                reading.start_over(conflict)
        return reading.result()

    async def list_sessions(
        self, *, after: str | None = None, limit: int | None = None, prefix: str | None = None, store: str | None = None
    ) -> SessionList:
        """As `Client.list_sessions`."""
        page = await self._call(_requests.list_sessions(after=after, limit=limit, prefix=prefix, store=store))
        if limit is not None:
            return page
        sessions = page.sessions
        while page.more:
            page = await self._call(_requests.list_sessions(after=sessions[-1].id, prefix=prefix, store=store))
            sessions += page.sessions
        return SessionList(sessions, False)

    async def list_stores(self) -> StoreList:
        """As `Client.list_stores`."""
        return await self._call(_requests.list_stores())

    # ---- changes ----

    async def add_items(
        self, session: str, items: Sequence[str], *, meta: Sequence[str | None] | None = None, **change: Unpack[Change]
    ) -> Added:
        """As `Client.add_items`."""
        return await self._call(_requests.add_items(session, items, meta=meta, **change))

    async def pop_item(self, session: str, *, with_meta: bool = False, **change: Unpack[Change]) -> Popped:
        """As `Client.pop_item`."""
        return await self._call(_requests.pop_item(session, with_meta=with_meta, **change))

    async def clear_session(self, session: str, **change: Unpack[Change]) -> Cleared:
        """As `Client.clear_session`."""
        return await self._call(_requests.clear_session(session, **change))

    async def replace_items(
        self,
        session: str,
        items: Sequence[str],
        *,
        from_seq: int | None = None,
        meta: Sequence[str | None] | None = None,
        **change: Unpack[Change],
    ) -> Replaced:
        """As `Client.replace_items`."""
        return await self._call(_requests.replace_items(session, items, from_seq=from_seq, meta=meta, **change))

    async def delete_session(self, session: str, **change: Unpack[Change]) -> Deleted:
        """As `Client.delete_session`."""
        return await self._call(_requests.delete_session(session, **change))

    # ---- the daemon ----

    async def hello(self, *, client: str | None = None, protocol: Sequence[int] | None = None) -> Hello:
        """As `Client.hello`."""
        return await self._call(_requests.hello(client=client, protocol=protocol))

    async def ping(self) -> None:
        """As `Client.ping`."""
        await self._call(_requests.ping())

    async def info(self) -> Info:
        """As `Client.info`."""
        return await self._call(_requests.info())


_clients: weakref.WeakSet[AsyncClient] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork)

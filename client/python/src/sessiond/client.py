"""`Client`: the daemon's methods as blocking calls, for any number of threads."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import _paths, _requests
from ._paging import Reading
from ._requests import Request
from ._retry import RETRY_SECONDS, SILENCE_SECONDS, Lost, Retry
from ._wire import Answer, Door, Inbox
from .errors import ConflictError, SessiondError, from_wire
from .types import Added, Change, Cleared, Deleted, Hello, Info, Items, Popped, Replaced, SessionList, StoreList

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Client"]

T = TypeVar("T")

CONNECTIONS_MAX = 8
"""Of one client. With that many calls under way, further threads wait for their turn."""

RECEIVE_BYTES = 128 * 1024


class Connection:
    """One socket, used by one call at a time."""

    def __init__(self, door: Door, silence_seconds: float) -> None:
        self._pid = os.getpid()
        self._inbox = Inbox()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._msgid = 0
        self._silence_seconds = silence_seconds
        self._sock, path = door.knock()
        try:
            self._arm(silence_seconds)
            self.hello = self._introduce()
        except BaseException:
            self._sock.close()
            raise
        door.opened(path, self.hello)

    def _arm(self, seconds: float) -> None:
        """Let the kernel watch over silence: cheaper than a poll() before each call."""
        self._sock.setblocking(True)
        whole, fraction = divmod(seconds, 1)
        timeval = struct.pack("@ll", int(whole), int(fraction * 1_000_000))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def _introduce(self) -> Hello:
        request = _requests.introduction()
        answer = self.exchange(request)
        if answer.error is not None:
            raise from_wire(answer.error)
        return request.result(answer.result)

    def exchange(self, request: Request[Any]) -> Answer:
        """Send it and wait for the answer. Raises Lost; then the connection is of no more use."""
        self._msgid = (self._msgid + 1) % 2**32
        doubt: str | None = None
        try:
            self._sock.sendall(request.frame(self._msgid))
            doubt = self.hello.instance if request.key is not None else None
            return self._receive()
        except BlockingIOError as error:
            why = f"the daemon was silent for {self._silence_seconds:g} seconds"
            raise Lost(why, doubt=doubt, pid=self._pid) from error
        except OSError as error:
            raise Lost(f"the connection broke: {error}", doubt=doubt, pid=self._pid) from error
        except Lost as loss:
            loss.doubt, loss.pid = doubt, self._pid
            raise

    def _receive(self) -> Answer:
        while True:
            size = self._sock.recv_into(self._buffer)
            if size == 0:
                raise Lost(self._inbox.ended())
            for answer in self._inbox.feed(self._buffer[:size]):
                if answer.msgid == self._msgid:
                    return answer

    def close(self) -> None:
        self._sock.close()


class Client:
    """A blocking client of sessiond.

        with Client() as client:
            client.add_items("user_123", ['{"role":"user","content":"hello"}'], store="myapp")
            history = client.get_items("user_123", store="myapp").items

    socket           the path of the daemon's socket. Default: $SESSIOND_SOCKET if that is set; else the first that
                     exists of $XDG_RUNTIME_DIR/sessiond/sessiond.sock, /run/user/UID/sessiond/sessiond.sock and
                     /run/sessiond/sessiond.sock
    retry_seconds    how long a call goes on after its connection broke or the daemon was busy
    silence_seconds  how long the daemon may neither take nor send a byte while a call waits

    Items are JSON texts, exactly: what is added comes back byte for byte. Every change takes `key`, `digest`,
    `if_revision`, `if_epoch` and `store`. Without a key it gets a fresh one; repeated with the same key it happens
    once, across restarts of the daemon, for a day.

    The first call connects. If no daemon was ever reached it raises NotRunningError at once; later, broken connections
    are replaced and calls repeated unseen for `retry_seconds`. All errors are subclasses of SessiondError, and after
    all but UncertainError the change was not made.

    Threads may share a client: calls that overlap use connections of their own, at most eight. After a fork the child
    opens new ones. `close` ends them; a closed client raises RuntimeError.
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
        self._idle: list[Connection] = []
        self._renew_locks()
        _clients.add(self)

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(CONNECTIONS_MAX)

    def _after_fork(self) -> None:
        """In the child: the parent's connections are the parent's, and so is whoever held the locks."""
        self._renew_locks()
        self._drop_idle()

    def close(self) -> None:
        """Close the connections. Calls under way in other threads still end properly. Any number of times."""
        self._closed = True
        self._drop_idle()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        for connection in getattr(self, "_idle", ()):
            connection.close()

    # ---- one call ----

    def _call(self, request: Request[T]) -> T:
        if self._closed:
            raise RuntimeError("Client is closed")
        retry: Retry | None = None
        with self._turns:
            while True:
                try:
                    answer, instance = self._try(request, retry)
                except Lost as loss:
                    retry = retry or Retry(request, self._retry_seconds)
                    pause = retry.lost(loss)
                else:
                    if answer.error is None:
                        return request.result(answer.result)
                    retry = retry or Retry(request, self._retry_seconds)
                    pause = retry.refused(answer.error, instance)
                time.sleep(pause)

    def _try(self, request: Request[Any], retry: Retry | None) -> tuple[Answer, str]:
        """Send it once. Returns the answer and the instance that gave it."""
        connection = self._take()
        try:
            self._door.check(request)
            if retry is not None:
                retry.sending_to(connection.hello.instance)
        except SessiondError:
            self._give_back(connection)
            raise
        try:
            answer = connection.exchange(request)
        except BaseException:
            connection.close()
            self._drop_idle()
            raise
        self._give_back(connection)
        return answer, connection.hello.instance

    def _take(self) -> Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Connection(self._door, self._silence_seconds)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _drop_idle(self) -> None:
        """Where one connection broke, the others have most likely broken as well."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # ---- reading ----

    def get_items(
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
        """A session's items, oldest first, as they stood at one moment.

        limit          only the latest that many; 0: none. Negative: InvalidError
        after, before  only items with after < seq < before
        max_bytes      one page of at most that many bytes (1 to 4,194,304; at least one item), `more` tells whether
                       there is a next. Without it all pages are read, unseen, while others may append
        if_epoch       ConflictError unless the session's epoch is this
        with_meta      give what stands beside the items as well, in `.meta`

        A session that does not exist has no items, and reading creates nothing.
        """
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
            return self._call(page)
        reading = Reading(
            session, limit=limit, after=after, before=before, if_epoch=if_epoch, with_meta=with_meta, store=store
        )
        while reading.unfinished:
            try:
                reading.take(self._call(reading.request()))
            except ConflictError as conflict:
                reading.start_over(conflict)
        return reading.result()

    def list_sessions(
        self, *, after: str | None = None, limit: int | None = None, prefix: str | None = None, store: str | None = None
    ) -> SessionList:
        """The sessions of a store, in the order of their ids (by bytes).

        after   only ids greater than this
        limit   one page of that many, 1 to 1,000; `more` tells whether there is a next. Without it: all
        prefix  only ids that begin with it
        """
        page = self._call(_requests.list_sessions(after=after, limit=limit, prefix=prefix, store=store))
        if limit is not None:
            return page
        sessions = page.sessions
        while page.more:
            page = self._call(_requests.list_sessions(after=sessions[-1].id, prefix=prefix, store=store))
            sessions += page.sessions
        return SessionList(sessions, False)

    def list_stores(self) -> StoreList:
        """The stores of this owner."""
        return self._call(_requests.list_stores())

    # ---- changes ----

    def add_items(
        self, session: str, items: Sequence[str], *, meta: Sequence[str | None] | None = None, **change: Unpack[Change]
    ) -> Added:
        """Append items (JSON texts, each one object), side by side and in order, or none of them.

        An item that is no valid one: InvalidError with its index in `.item`; nothing of the batch is stored. An empty
        list changes nothing and succeeds. `if_revision=0`: the session must not exist yet.

        meta  what to keep beside each of the items: a JSON object of up to 1 MiB, or None. Only who asks is given it
        """
        return self._call(_requests.add_items(session, items, meta=meta, **change))

    def pop_item(self, session: str, *, with_meta: bool = False, **change: Unpack[Change]) -> Popped:
        """Take the newest item, in one step. No two pops return the same; a pop of nothing changes nothing."""
        return self._call(_requests.pop_item(session, with_meta=with_meta, **change))

    def clear_session(self, session: str, **change: Unpack[Change]) -> Cleared:
        """Remove all items. The session keeps its numbers: revision and epoch grow, no seq is used again."""
        return self._call(_requests.clear_session(session, **change))

    def replace_items(
        self,
        session: str,
        items: Sequence[str],
        *,
        from_seq: int | None = None,
        meta: Sequence[str | None] | None = None,
        **change: Unpack[Change],
    ) -> Replaced:
        """The items with seq >= from_seq (default: all) give way to these, in one step. They get new numbers."""
        return self._call(_requests.replace_items(session, items, from_seq=from_seq, meta=meta, **change))

    def delete_session(self, session: str, **change: Unpack[Change]) -> Deleted:
        """Remove a session with everything that is known of it. Used again, the id is a new session."""
        return self._call(_requests.delete_session(session, **change))

    # ---- the daemon ----

    def hello(self, *, client: str | None = None, protocol: Sequence[int] | None = None) -> Hello:
        """Who is at the other end.

        client    a name for the daemon's log, 1 to 255 bytes
        protocol  the versions (from, to) that the caller would speak. None in common: InvalidError
        """
        return self._call(_requests.hello(client=client, protocol=protocol))

    def ping(self) -> None:
        """Return as soon as the daemon's event loop answers, whatever its stores are doing."""
        self._call(_requests.ping())

    def info(self) -> Info:
        """Versions, settings in force, and the state of the open stores, for people and monitoring."""
        return self._call(_requests.info())


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork)

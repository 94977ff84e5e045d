"""The connection of one event loop: many calls under way on one socket.

A `Link` belongs to one event loop and is used on its thread only. It refers to its loop by no means, so that a loop
which is dropped takes its link along. While it is connected it is among the loop's readers; it is closed
  - by the loop's own shutdown (`asyncio.run` and `Runner` end with shutdown_asyncgens; a link registers as an
    asynchronous generator does),
  - else when the loop has been closed and the next link is made, or the garbage collector comes by.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from . import _requests
from ._requests import Request
from ._retry import Lost
from ._wire import Answer, Door, Inbox
from .errors import from_wire

RECEIVE_BYTES = 128 * 1024


class Waiter:
    """One request that was handed to a link: who waits, and for what."""

    __slots__ = ("_loss", "answer", "future", "instance", "is_change", "sent")

    def __init__(self, future: asyncio.Future[None], is_change: bool, instance: str | None) -> None:
        self.future = future
        """Done when the outcome is there. A cancelled caller leaves it cancelled, and the methods make another."""
        self.is_change = is_change
        self.instance = instance
        self.sent = False
        """The whole of it: the daemon may have carried it out."""
        self.answer: Answer | None = None
        self._loss: Lost | None = None

    def settle(self, answer: Answer | None, loss: Lost | None) -> None:
        self.answer, self._loss = answer, loss
        if not self.future.done():
            self.future.set_result(None)

    async def outcome(self) -> Answer:
        """The answer; raises Lost if there will be none. May be cancelled, and then awaited again."""
        while self.answer is None:
            if self._loss is not None:
                raise self._loss
            await self._undone()
        return self.answer

    async def last(self) -> None:
        """Wait until the outcome is there, however often the caller is cancelled."""
        while self.answer is None and self._loss is None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._undone()

    def _undone(self) -> asyncio.Future[None]:
        if self.future.done():
            self.future = asyncio.get_running_loop().create_future()
        return self.future


class Link:
    """See the top of this file."""

    def __init__(self, door: Door, silence_seconds: float) -> None:
        self.ready = False
        """Connected and introduced: `send` may be called."""
        self.instance: str | None = None
        self._door = door
        self._silence_seconds = silence_seconds
        self._pid = os.getpid()
        self._opening = asyncio.Lock()
        self._sock: socket.socket | None = None
        self._inbox = Inbox()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._outbox: deque[tuple[memoryview, Waiter]] = deque()
        self._waiting: dict[int, Waiter] = {}
        self._msgid = 0
        self._heard = 0.0
        self._watched = False
        self._guard: AsyncGenerator[None, None] | None = None
        self._retired = False

    def __del__(self) -> None:
        self.abandon()

    # ---- opening ----

    async def open(self) -> None:
        """Connect, unless that is done. Raises NotRunningError, Lost, or what the daemon has against us."""
        async with self._opening:
            if self.ready:
                return
            sock, path = self._door.knock()
            self._sock, self._inbox, self.instance = sock, Inbox(), None
            loop = asyncio.get_running_loop()
            loop.add_reader(sock.fileno(), self._on_readable)
            try:
                request = _requests.introduction()
                answer = await self.send(request, loop).outcome()
                if answer.error is not None:
                    raise from_wire(answer.error)
                hello = request.result(answer.result)
            except BaseException as error:
                self.close(f"no introduction: {error!r}")
                raise
            self._door.opened(path, hello)
            self.instance = hello.instance
            self.ready = True
            if self._guard is None:
                self._guard = _enrol(self)

    # ---- sending ----

    def send(self, request: Request[Any], loop: asyncio.AbstractEventLoop) -> Waiter:
        """Hand a request to the socket, at once as far as it takes it. `loop`: the running one, ours."""
        self._msgid = msgid = (self._msgid + 1) % 2**32
        waiter = Waiter(loop.create_future(), request.key is not None, self.instance)
        if not self._waiting:
            self._heard = time.monotonic()
        if not self._watched:
            self._look_in(loop, self._silence_seconds)
        self._waiting[msgid] = waiter
        frame = request.frame(msgid)
        rest = memoryview(frame) if self._outbox else self._push(frame, waiter)
        if rest is not None:
            self._outbox.append((rest, waiter))
            if len(self._outbox) == 1 and self._sock is not None:
                loop.add_writer(self._sock.fileno(), self._on_writable)
        return waiter

    def _push(self, frame: bytes | memoryview, waiter: Waiter) -> memoryview | None:
        """Give the socket as much of a frame as it takes. Return the rest; None: it has all, or the link was closed."""
        assert self._sock is not None
        try:
            sent = self._sock.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.close(f"the connection broke: {error}")
            return None
        if sent < len(frame):
            return memoryview(frame)[sent:]
        waiter.sent = True
        return None

    def _on_writable(self) -> None:
        self._heard = time.monotonic()
        while self._outbox:
            frame, waiter = self._outbox.popleft()
            rest = self._push(frame, waiter)
            if rest is not None:
                self._outbox.appendleft((rest, waiter))
                return
        if self._sock is not None:
            asyncio.get_running_loop().remove_writer(self._sock.fileno())

    # ---- receiving ----

    def _on_readable(self) -> None:
        assert self._sock is not None
        try:
            size = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(f"the connection broke: {error}")
            return
        if size == 0:
            self.close(self._inbox.ended())
            return
        self._heard = time.monotonic()
        try:
            answers = self._inbox.feed(self._buffer[:size])
        except Lost as loss:
            self.close(str(loss))
            return
        for answer in answers:
            waiter = self._waiting.pop(answer.msgid, None)
            if waiter is not None:
                waiter.settle(answer, None)
        if self._retired:
            self._close_if_retired()

    # ---- silence ----

    def _look_in(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """One timer per link, not per call: it looks now and then whether calls wait and no byte comes or goes.

        The timer's handle is not kept: it would refer to the loop. Where nothing waits when it fires, it ends.
        """
        self._watched = True
        loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._watched = False
        if not self._waiting:
            return
        left = self._heard + self._silence_seconds - time.monotonic()
        if left <= 0:
            self.close(f"the daemon was silent for {self._silence_seconds:g} seconds")
        else:
            self._look_in(asyncio.get_running_loop(), left)

    # ---- closing ----

    def close(self, why: str) -> None:
        """Disconnect. Calls under way learn that their answer is lost. The link may be opened again."""
        sock, self._sock, self.ready = self._sock, None, False
        if sock is not None:
            with contextlib.suppress(RuntimeError):  # no loop runs here: then its readers are gone as well
                loop = asyncio.get_running_loop()
                loop.remove_reader(sock.fileno())
                loop.remove_writer(sock.fileno())
            sock.close()
        self._outbox.clear()
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            doubt = waiter.instance if waiter.sent and waiter.is_change else None
            waiter.settle(None, Lost(why, doubt=doubt, pid=self._pid))

    def retire(self) -> None:
        """Disconnect once no call is under way."""
        self._retired = True
        self._close_if_retired()

    def _close_if_retired(self) -> None:
        if self._retired and not self._waiting:
            self.close("the client was closed")

    def abandon(self) -> None:
        """Give back the descriptor and nothing else: for a loop that is closed, or another process's."""
        sock, self._sock, self.ready = self._sock, None, False
        if sock is not None:
            sock.close()


def _enrol(link: Link) -> AsyncGenerator[None, None]:
    """Let the running loop's shutdown_asyncgens close the link, by an asynchronous generator that waits for it.

    Its finalizer would be a method of the loop and keep the loop alive, so it gets none.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=None)
    try:
        guard = _close_at_shutdown(weakref.ref(link))
        # ResourceWarning, where warnings are errors: the shutdown is under way, so the link ends with the loop itself.
        with contextlib.suppress(StopIteration, ResourceWarning):
            guard.__anext__().__await__().__next__()
        return guard
    finally:
        sys.set_asyncgen_hooks(finalizer=hooks.finalizer)


async def _close_at_shutdown(ref: weakref.ref[Link]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        link = ref()
        if link is not None:
            link.close("the event loop ends")

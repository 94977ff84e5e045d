"""What both clients know of sockets: how to get one, and how bytes become answers.

A `Door` is shared by all connections of one client and may be used from any thread; an `Inbox` belongs to one
connection.
"""

from __future__ import annotations

import math
import socket
from typing import Any, NamedTuple

from . import _msgpack, _paths
from ._requests import Request
from ._retry import Lost
from .errors import TooLargeError, from_wire
from .types import Hello


NO_LIMIT = math.inf


class Answer(NamedTuple):
    """A response: one of error and result is None."""

    msgid: int
    error: dict[str, Any] | None
    result: dict[str, Any] | None


class Inbox:
    """The bytes that a connection brings, as answers."""

    def __init__(self) -> None:
        self._unpacker = _msgpack.unpacker()
        self._fed = 0
        self._farewell: str | None = None

    def feed(self, data: bytes | memoryview) -> list[Answer]:
        """The answers that are complete with these bytes. Raises Lost for bytes that are no answer."""
        answers: list[Answer] = []
        unpacker = self._unpacker
        self._fed += len(data)
        try:
            unpacker.feed(data)
            while unpacker.tell() < self._fed:
                message = unpacker.unpack()
                if message[0] == 1:
                    _, msgid, error, result = message
                    answers.append(Answer(msgid, error, result))
                elif message[0] == 2 and message[1] == "error":
                    self._farewell = str(from_wire(message[2][0]))
        except _msgpack.Incomplete:
            pass
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise Lost(f"the daemon sent something else than an answer: {error!r}") from error
        return answers

    def ended(self) -> str:
        """Why the stream ended, for people."""
        return f"the daemon closed the connection: {self._farewell or 'it gave no reason'}"


class Door:
    """The way to one daemon: which path, and whether it was ever open."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.paths = paths
        self.path: str | None = None
        """The path that worked first. It stays the only one: one history must not become two."""
        self.hello: Hello | None = None
        """What the daemon said when it was reached last."""
        self._items_max = self._bytes_max = NO_LIMIT

    def knock(self) -> tuple[socket.socket, str]:
        """A connected, non-blocking socket, and its path.

        Raises NotRunningError at once if there is nobody and never was; Lost where trying again may help.
        """
        path = self.path or _paths.choose(self.paths)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
        except BlockingIOError as error:
            sock.close()
            raise Lost(f"{path}: too many clients are waiting to be let in") from error
        except OSError as error:
            sock.close()
            why = f"{path}: {error.strerror or error}"
            if self.path is None:
                raise _paths.not_running(self.paths, why) from error
            raise Lost(why) from error
        return sock, path

    def opened(self, path: str, hello: Hello) -> None:
        """The daemon there has introduced itself."""
        self.path = path
        self.hello = hello
        self._items_max = hello.limits.get("items", NO_LIMIT)
        self._bytes_max = hello.limits.get("frame_bytes", NO_LIMIT)

    def check(self, request: Request[Any]) -> None:
        """Raises TooLargeError for a request that the daemon would not even read: it would close the connection."""
        if request.items > self._items_max:
            raise _too_large(request, f"{request.items} items", self._items_max)
        if request.size > self._bytes_max:
            raise _too_large(request, f"{request.size} bytes", self._bytes_max)


def _too_large(request: Request[Any], what: str, limit: float) -> TooLargeError:
    message = f"{request.method} with {what} is over the limit of {limit} for one request"
    return TooLargeError(message, details={"limit": limit}, key=request.key)

"""What both clients know of sockets: how to get one, and how bytes become answers.

A `Door` is shared by all connections of one client and may be used from any thread; an `Inbox` belongs to one
connection.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import _msgpack, _paths
from ._requests import Request
from ._retry import Lost
from .errors import TooLargeError, from_wire
from .types import Hello


class Answer(NamedTuple):
    """A response: one of error and result is None."""

    msgid: int
    error: dict[str, Any] | None
    result: dict[str, Any] | None


class Inbox:
    """The bytes that a connection brings, as answers."""

    def __init__(self) -> None:
        self._unpacker = _msgpack.unpacker()
        self._farewell: str | None = None

    def feed(self, data: bytes | memoryview) -> list[Answer]:
        """The answers that are complete with these bytes. Raises Lost for bytes that are no answer."""
        answers: list[Answer] = []
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                if message[0] == 1:
                    _, msgid, error, result = message
                    answers.append(Answer(msgid, error, result))
                elif message[0] == 2 and message[1] == "error":
                    self._farewell = str(from_wire(message[2][0]))
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

    def check(self, request: Request[Any]) -> None:
        """Raises TooLargeError for a request that the daemon would not even read: it would close the connection."""
        limits: Mapping[str, int] = self.hello.limits if self.hello is not None else {}
        for name, value, unit in (("items", request.items, "items"), ("frame_bytes", request.size, "bytes")):
            limit = limits.get(name)
            if limit is not None and value > limit:
                raise TooLargeError(
                    f"{request.method} with {value} {unit} is over the limit of {limit} for one request",
                    details={"limit": limit},
                    key=request.key,
                )

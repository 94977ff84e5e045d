"""A server that does what a test says, connection by connection: it cuts, delays, refuses, or is another instance.

    with ScriptedServer(path, [first, second]) as server: ...

`first` and `second` are functions of a `Peer`; they play the daemon of the first and the second connection. The server
ends with the block; whatever went wrong in a script is raised there, and so is a script that was never played.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

DEADLINE_S = 30.0

INSTANCE = "a" * 32
OTHER_INSTANCE = "b" * 32
LIMITS = {"frame_bytes": 128 * 1024 * 1024, "items": 1048576}


class Received(NamedTuple):
    """A request as it came."""

    msgid: int
    method: str
    params: dict[str, Any]
    after_msgid: bytes
    """Its bytes without the msgid: a repetition has the same."""


class Peer:
    """The daemon's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unread = b""
        self._sock.settimeout(DEADLINE_S)

    def request(self, method: str) -> Received:
        """The next request, which must be of this method."""
        unpacker = msgpack.Unpacker()
        unpacker.feed(self._unread)
        while True:
            try:
                message = unpacker.unpack()
                break
            except msgpack.OutOfData:
                data = self._sock.recv(65536)
                assert data, f"the client hung up instead of calling {method}"
                self._unread += data
                unpacker.feed(data)
        size = unpacker.tell()
        raw, self._unread = self._unread[:size], self._unread[size:]
        kind, msgid, name, (params,) = message
        assert (kind, name) == (0, method)
        return Received(msgid, name, params, raw[2 + len(msgpack.packb(msgid)) :])

    def answer(self, request: Received, **result: Any) -> None:
        self._sock.sendall(msgpack.packb([1, request.msgid, None, result]))

    def refuse(self, request: Received, code: str, **details: Any) -> None:
        self._sock.sendall(msgpack.packb([1, request.msgid, {"code": code, "message": "as scripted", **details}, None]))

    def refused_or_gone(self, method: str, code: str) -> bool:
        """Refuse the next request; False. True: the client has hung up instead."""
        if not self._unread:
            self._unread = self._sock.recv(65536)
        if self._unread:
            self.refuse(self.request(method), code)
            return False
        return True

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def hello(self, instance: str = INSTANCE, **limits: int) -> None:
        """Answer the introduction."""
        result = {"server": "sessiond", "version": "0.1.0", "protocol": 1, "instance": instance, "uid": 0}
        self.answer(self.request("hello"), **result, limits={**LIMITS, **limits})

    def some_bytes(self) -> bytes:
        """The first of whatever comes next; the rest is left unread."""
        return self._sock.recv(1)

    def hung_up(self) -> bool:
        """Wait until the client hangs up. False: it sent something."""
        return not self._unread and self._sock.recv(1) == b""


Script = Callable[[Peer], None]


class ScriptedServer:
    """See the top of this file. A connection ends when its script returns."""

    def __init__(self, path: str, scripts: list[Script]) -> None:
        self.path = path
        self._scripts = scripts
        self._played = 0
        self._failure: BaseException | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(16)
        self._listener.settimeout(DEADLINE_S)
        self._thread = threading.Thread(target=self._play)

    def _play(self) -> None:
        try:
            for script in self._scripts:
                sock, _ = self._listener.accept()
                with sock:
                    script(Peer(sock))
                self._played += 1
        except BaseException as failure:
            self._failure = failure

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._listener.close()
        self._thread.join(DEADLINE_S if error is None else 1)
        self._listener.close()
        if error is None:
            if self._failure is not None:
                raise self._failure
            assert self._played == len(self._scripts), (
                f"only {self._played} of {len(self._scripts)} scripts were played"
            )

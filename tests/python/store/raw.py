"""A connection without a client library: requests as they are written, answers as they come."""

from __future__ import annotations

import socket
from typing import Any

import msgpack


class Raw:
    """One connection. `call` sends one request and gives back (error, result); `burst` sends many at once."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(path)
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=1 << 30)
        self._msgid = 0

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, method: str, **params: Any) -> tuple[Any, Any]:
        return self.burst([(method, params)])[0]

    def burst(self, calls: list[tuple[str, dict[str, Any]]]) -> list[tuple[Any, Any]]:
        first = self._msgid
        frames = []
        for method, params in calls:
            frames.append(msgpack.packb([0, self._msgid, method, [params] if params else []]))
            self._msgid += 1
        self._socket.sendall(b"".join(frames))
        answers: dict[int, tuple[Any, Any]] = {}
        while len(answers) < len(calls):
            for message in self._unpacker:
                assert message[0] == 1, message
                answers[message[1]] = (message[2], message[3])
            if len(answers) < len(calls):
                data = self._socket.recv(1 << 20)
                assert data, "the daemon closed the connection"
                self._unpacker.feed(data)
        return [answers[first + i] for i in range(len(calls))]

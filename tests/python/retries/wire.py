"""Requests as plain bytes: a client that retries nothing, so that the test does."""

from __future__ import annotations

import socket
from typing import Any

import msgpack

DEADLINE_S = 60.0

Answer = tuple[str, dict[str, Any]]
"""("done", the result) or (a code, the error)"""


class Wire:
    """One connection."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect(path)
        self._unpacker = msgpack.Unpacker(max_buffer_size=0)
        self._msgid = 0

    def send(self, method: str, parameters: dict[str, Any]) -> None:
        self._msgid += 1
        self._socket.sendall(msgpack.packb([0, self._msgid, method, [parameters]]))

    def receive(self) -> Answer:
        while True:
            for kind, msgid, error, result in self._unpacker:
                assert (kind, msgid) == (1, self._msgid)
                return (error["code"], error) if error else ("done", result)
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("the daemon hung up")
            self._unpacker.feed(data)

    def ask(self, method: str, **parameters: Any) -> Answer:
        self.send(method, parameters)
        return self.receive()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask(path: str, method: str, **parameters: Any) -> Answer:
    """On a connection of its own."""
    with Wire(path) as wire:
        return wire.ask(method, **parameters)


def items_of(path: str, session: str) -> list[str]:
    code, result = ask(path, "get_items", session=session)
    assert code == "done"
    items: list[str] = result["items"]
    return items

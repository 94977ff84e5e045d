"""A proxy between a client and the real daemon that swallows answers: the daemon did it, the client never hears.

    with CuttingProxy(path, daemon.socket, swallow={2}) as proxy: ...

The answers of all connections are counted from 1, introductions left out; instead of one in `swallow` the client gets a
closed connection.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Any

import msgpack


class CuttingProxy:
    """See the top of this file."""

    def __init__(self, path: str, daemon: str, swallow: set[int]) -> None:
        self.answers = 0
        self.swallowed = 0
        self._daemon = daemon
        self._swallow = swallow
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(16)
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> CuttingProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self._listener.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as open_sockets:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._stopped:
                        return
                    if key.fileobj is self._listener:
                        self._pair(selector, open_sockets)
                    elif not key.data():
                        selector.unregister(key.fileobj)

    def _pair(self, selector: selectors.BaseSelector, open_sockets: contextlib.ExitStack) -> None:
        client, _ = self._listener.accept()
        daemon = socket.socket(socket.AF_UNIX)
        daemon.connect(self._daemon)
        open_sockets.enter_context(client)
        open_sockets.enter_context(daemon)
        unpacker = msgpack.Unpacker()

        def to_daemon() -> bool:
            data = client.recv(65536)
            if not data:
                daemon.shutdown(socket.SHUT_WR)
                return False
            daemon.sendall(data)
            return True

        def to_client() -> bool:
            data = daemon.recv(65536)
            unpacker.feed(data)
            for message in unpacker:
                if self._is_swallowed(message):
                    client.shutdown(socket.SHUT_RDWR)
                    return False
                client.sendall(msgpack.packb(message))
            return bool(data)

        selector.register(client, selectors.EVENT_READ, to_daemon)
        selector.register(daemon, selectors.EVENT_READ, to_client)

    def _is_swallowed(self, message: list[Any]) -> bool:
        if "server" in (message[3] or {}):
            return False
        self.answers += 1
        if self.answers in self._swallow:
            self.swallowed += 1
            return True
        return False

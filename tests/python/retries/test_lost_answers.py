"""The connection ends after the commit and before the answer, and the change is repeated by its key: at once, to a
daemon that was killed meanwhile, or to one that was stopped. What is not repeated by key happens twice; that is the
control."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from conftest import build_dir, wait_until
from wire import Wire, ask, items_of

CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "add": ("add_items", {"session": "s", "items": ['{"new": 1}', '{"new": 2}']}),
    "add nothing": ("add_items", {"session": "s", "items": []}),
    "begin a session": ("add_items", {"session": "new", "items": ['{"new": 1}'], "if_revision": 0}),
    "begin a store": ("add_items", {"session": "new", "items": ['{"new": 1}'], "store": "another"}),
    "pop": ("pop_item", {"session": "s"}),
    "pop nothing": ("pop_item", {"session": "empty"}),
    "clear": ("clear_session", {"session": "s"}),
    "clear nothing": ("clear_session", {"session": "never"}),
    "replace all": ("replace_items", {"session": "s", "items": ['{"new": 1}']}),
    "replace a tail": ("replace_items", {"session": "s", "items": ['{"new": 1}'], "from_seq": 2}),
    "delete": ("delete_session", {"session": "s"}),
}


def stop_and_start(daemon: Any) -> None:
    daemon.stop()
    daemon.start()


BETWEEN: dict[str, Callable[[Any], None]] = {
    "at once": lambda daemon: None,
    "killed": lambda daemon: daemon.restart(),
    "stopped": stop_and_start,
}


def prepare(path: str) -> None:
    assert ask(path, "add_items", session="s", items=[f'{{"n": {n}}}' for n in range(3)])[0] == "done"
    assert ask(path, "add_items", session="empty", items=["{}"])[0] == "done"
    assert ask(path, "pop_item", session="empty")[0] == "done"


def everything(path: str) -> Any:
    """All sessions of all stores, with their items; without the times of the wall clock."""
    stores = [store["name"] for store in ask(path, "list_stores")[1]["stores"]]
    sessions = {store: ask(path, "list_sessions", store=store)[1]["sessions"] for store in stores}
    return {
        (store, session["id"]): ask(path, "get_items", session=session["id"], store=store)
        for store in stores
        for session in sessions[store]
    }


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_whose_answer_was_lost_is_made_once(daemon: Any, change: str, between: str) -> None:
    method, parameters = CHANGES[change]
    prepare(daemon.socket)
    lost = ask(daemon.socket, method, key="key-1", **parameters)
    assert lost[0] == "done"
    made = everything(daemon.socket)
    BETWEEN[between](daemon)
    assert ask(daemon.socket, method, key="key-1", **parameters) == lost
    assert everything(daemon.socket) == made
    assert ask(daemon.socket, method, key="key-1", **parameters) == lost


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_whose_connection_ended_before_the_answer_is_made_once(daemon: Any, change: str) -> None:
    """Nobody reads the answer: the client is gone when it comes."""
    method, parameters = CHANGES[change]
    prepare(daemon.socket)
    before = everything(daemon.socket)
    with Wire(daemon.socket) as wire:
        wire.send(method, {"key": "key-1", **parameters})
    wait_until("the daemon has seen the last of it", lambda: daemon.connections() == 0)
    after = everything(daemon.socket)
    daemon.restart()
    code, _ = ask(daemon.socket, method, key="key-1", **parameters)
    assert code == "done"
    made = everything(daemon.socket)
    assert after in (before, made)
    daemon.restart()
    assert ask(daemon.socket, method, key="key-1", **parameters)[0] == "done"
    assert everything(daemon.socket) == made


def test_without_a_key_a_repetition_happens_twice(daemon: Any) -> None:
    """The control: else the tests above could not fail."""
    for _ in range(2):
        assert ask(daemon.socket, "add_items", session="s", items=["{}"])[0] == "done"
    assert items_of(daemon.socket, "s") == ["{}", "{}"]


class ByteCutter:
    """A proxy that passes on so many bytes of the first answer to an add_items, and then hangs up."""

    def __init__(self, path: str, daemon: str, n_bytes: int) -> None:
        self._daemon = daemon
        self._left: int | None = n_bytes
        self.cut = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(4)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> ByteCutter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.socket(socket.AF_UNIX) as daemon:
                daemon.connect(self._daemon)
                while self._exchange(client, daemon):
                    pass

    def _exchange(self, client: socket.socket, daemon: socket.socket) -> bool:
        """One request and its answer; both are smaller than what one read takes."""
        request = client.recv(65536)
        if not request:
            return False
        daemon.sendall(request)
        answer = daemon.recv(65536)
        if self._left is None or b"add_items" not in request:
            client.sendall(answer)
            return True
        self.cut = self._left < len(answer)
        client.sendall(answer[: self._left])
        self._left = None
        return not self.cut


def test_an_answer_that_is_cut_at_any_byte_does_not_double_the_change(daemon: Any, short_dir: pathlib.Path) -> None:
    """Through the C library: sessionctl repeats by itself."""
    n_bytes = 0
    while True:
        path = str(short_dir / f"p{n_bytes}")
        command = [build_dir() / "sessionctl", "--socket", path, "add", f"s{n_bytes}"]
        with ByteCutter(path, daemon.socket, n_bytes) as proxy:
            subprocess.run(command, input=b'{"n": 1}\n', check=True, timeout=60)
        assert items_of(daemon.socket, f"s{n_bytes}") == ['{"n": 1}']
        if not proxy.cut:
            break
        n_bytes += 1
    assert n_bytes > 10

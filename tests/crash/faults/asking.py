"""A client that asks one thing at a time, knows what it was told, and writes it down for verify.py. It hides nothing:
every answer is the caller's business, and what has no certain answer is repeated, by its key, when the caller says
so."""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import msgpack

from harness import DEADLINE_S, Broken, now_us

UNSETTLED = frozenset({"uncertain", "unavailable", "full", "busy"})
"""Told to a repetition, these say nothing of the first try."""
_MASK = 2**64 - 1


def make_item(client: int, op: int, index: int, of: int) -> str:
    """As item.h makes it; `histories` compares every byte."""
    chance = (((client * 2654435761 + op) & _MASK) * 0x9E3779B97F4A7C15 + index) & _MASK
    chance ^= chance >> 29
    size = 4000 + chance % 8000 if chance % 64 == 0 else 20 + chance % 500
    text = "".join(chr(ord("a") + (op + index + i) % 26) for i in range(26))
    text = (text * (size // 26 + 1))[:size]
    return f'{{"client":{client},"op":{op},"index":{index},"of":{of},"text":"{text}"}}'


def identify(item: str) -> str:
    """The name of an item, or "altered"."""
    try:
        parts = [int(part.partition(":")[2]) for part in item.split(",", 4)[:4]]
    except ValueError:
        return "altered"
    client, op, index, of = parts
    return f"{client}.{op}.{index}/{of}" if make_item(client, op, index, of) == item else "altered"


class Connection:
    """Requests and answers, one at a time."""

    def __init__(self, path: pathlib.Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect(str(path))
        self._unpacker = msgpack.Unpacker(max_buffer_size=0)
        self._msgid = 0

    def send(self, method: str, parameters: dict[str, Any]) -> None:
        self._msgid += 1
        params = [parameters] if parameters else []
        self._socket.sendall(msgpack.packb([0, self._msgid, method, params]))

    def receive(self) -> tuple[str, dict[str, Any]]:
        """Return "done" and the result, or a code and the error."""
        while True:
            for message in self._unpacker:
                if message[:2] != [1, self._msgid]:
                    raise Broken(f"the daemon said {message}")
                return (message[2]["code"], message[2]) if message[2] else ("done", message[3])
            try:
                data = self._socket.recv(1 << 20)
            except TimeoutError:
                raise Broken(f"no answer in {DEADLINE_S:.0f} s") from None
            if not data:
                raise Broken("the daemon hung up")
            self._unpacker.feed(data)

    def ask(self, method: str, **parameters: Any) -> tuple[str, dict[str, Any]]:
        self.send(method, {name: value for name, value in parameters.items() if value is not None})
        return self.receive()

    def close(self) -> None:
        self._socket.close()


class Asker:
    """Client 0 of a log, on the default store."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._log = path.open("a+")
        self._log.seek(0)
        self._next = 1 + sum(line.startswith("sent") for line in self._log)
        self._open: dict[int, tuple[str, dict[str, Any]]] = {}
        self.head_seq: dict[str, int] = {}
        self.connection: Connection | None = None
        self.told: list[str] = []
        """All codes, in their order."""

    def connect(self, path: pathlib.Path) -> None:
        """Also: again, to a daemon that was started again."""
        if self.connection:
            self.connection.close()
        self.connection = Connection(path)

    def _write(self, what: str, op: int, *words: object) -> None:
        self._log.write(" ".join(map(str, (what, f"0.{op}", now_us(), *words))) + "\n")
        self._log.flush()

    def _ask(self, method: str, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        assert self.connection
        code, answer = self.connection.ask(method, **parameters)
        self.told.append(code)
        return code, answer

    # ---- reading ----

    def read(self, session: str) -> str:
        """Return "done" or a code; what was read is in the log."""
        op = self._next
        self._next += 1
        self._write("sent", op, "get_items", session, "-", 0, "-", "-", "-")
        code, answer = self._ask("get_items", {"session": session})
        if code != "done":
            self._write("failed", op, code)
            return code
        names = [identify(item) for item in answer["items"][-5:]]
        numbers = [answer[name] or 0 for name in ("revision", "epoch", "head_seq", "first_seq", "last_seq")]
        self._write("read", op, *numbers, len(answer["items"]), *names)
        self.head_seq[session] = answer["head_seq"]
        return code

    # ---- changing ----

    def change(self, method: str, session: str, n_items: int = 0, from_seq: int | None = None) -> str:
        """Ask for a new change. Return "done" or a code; one that is `uncertain` stays open until `settle`."""
        op = self._next
        self._next += 1
        parameters: dict[str, Any] = {"session": session, "key": f"{os.getpid():08x}-{op:08x}"}
        if method in ("add_items", "replace_items"):
            parameters["items"] = [make_item(0, op, index, n_items) for index in range(n_items)]
        if from_seq:
            parameters["from_seq"] = from_seq
        self._write("sent", op, method, session, parameters["key"], n_items, from_seq or "-", "-", "-")
        code, answer = self._ask(method, parameters)
        if code == "done":
            self._done(op, session, answer)
        elif code == "uncertain":
            self._open[op] = method, parameters
        else:
            self._write("failed", op, code)
        return code

    def _done(self, op: int, session: str, answer: dict[str, Any]) -> None:
        first, last = answer.get("first_seq"), answer.get("last_seq")
        words: list[object] = []
        removed = answer.get("removed", 0)
        if "seq" in answer:
            first = last = answer["seq"]
            removed = int(last is not None)
            words = ["erased" if answer.get("erased") else identify(answer["item"]) if answer["item"] else "-"]
        self._write("done", op, answer["revision"], answer["epoch"], first or 0, last or 0, removed, *words)
        if "seq" not in answer and last:
            self.head_seq[session] = last

    def settle(self) -> Iterator[str]:
        """Repeat what is open, until it is not; after each answer that settles nothing, its code."""
        while self._open:
            op, (method, parameters) = next(iter(self._open.items()))
            self._write("again", op)
            code, answer = self._ask(method, parameters)
            if code == "done":
                self._done(op, parameters["session"], answer)
            elif code in UNSETTLED:
                yield code
                continue
            else:
                raise Broken(f"the repetition of an uncertain change was told {code}: {answer}")
            del self._open[op]

    @property
    def n_open(self) -> int:
        return len(self._open)

    def close(self) -> None:
        if self.connection:
            self.connection.close()
        self._log.close()

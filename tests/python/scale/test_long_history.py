"""A history far larger than what one answer holds, and larger than what the daemon may hold: read while it grows."""

from __future__ import annotations

import os
import pathlib
import re
import select
import subprocess
from collections.abc import Iterable
from typing import Any, NoReturn

from sessiond import Client

ITEMS = 300_000
ITEM_BYTES = 1049
"""300,000 of them are a little more than 300 MiB."""
APPENDED = 10_000
BATCH = 1000
MEMORY_MIB = 160
"""What the daemon may use at its worst, from its start on: the page cache of the store (64 MiB), a batch of changes
with its frames (8 MiB each), the answers that wait for its readers (8 MiB each), and what it has to begin with; with
some air. It is half of the history."""


def item(number: int) -> str:
    head = f'{{"number":{number},"text":"'
    return head + "x" * (ITEM_BYTES - len(head) - 2) + '"}'


class Appender:
    """A process that appends single items: APPENDED of them, and on until it is told that the readers are done."""

    def __init__(self) -> None:
        self._from_child, to_parent = os.pipe()
        from_parent, self._to_child = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._to_child)
            self._work(from_parent, to_parent)
        os.close(from_parent)
        os.close(to_parent)

    @staticmethod
    def _work(from_parent: int, to_parent: int) -> NoReturn:
        status, number = 1, ITEMS
        try:
            with Client() as client:
                while number < ITEMS + APPENDED or not select.select([from_parent], [], [], 0)[0]:
                    client.add_items("long", [item(number)])
                    if number == ITEMS:
                        os.write(to_parent, b"begun")
                    number += 1
            os.write(to_parent, str(number).encode())
            status = 0
        finally:
            os._exit(status)

    def await_first(self) -> None:
        assert os.read(self._from_child, 16) == b"begun"

    def end(self) -> int:
        """Let it finish. Return how many items the history has."""
        os.close(self._to_child)
        with os.fdopen(self._from_child) as from_child:
            total = from_child.read()
        _, status = os.waitpid(self._pid, 0)
        assert status == 0, "the appending process failed"
        return int(total)


def expect_beginning(texts: Iterable[str]) -> int:
    """They are the history from its first item on, without a hole. Return how many."""
    count = 0
    for text in texts:
        assert text == item(count), f"item {count} is another: {text[:60]}"
        count += 1
    return count


def start_reading_with_c() -> subprocess.Popen[str]:
    """sessionctl reads through libsessiond."""
    top = pathlib.Path(__file__).resolve().parents[3]
    program = pathlib.Path(os.environ.get("SESSIOND_BUILD") or top / "build" / "release", "sessionctl")
    return subprocess.Popen([str(program), "get", "long"], stdout=subprocess.PIPE, text=True)


def end_reading_with_c(process: subprocess.Popen[str]) -> int:
    with process:
        assert process.stdout is not None
        count = expect_beginning(line.rstrip("\n") for line in process.stdout)
    assert process.returncode == 0
    return count


def read_with_python() -> int:
    with Client() as client:
        history = client.get_items("long")
    assert (history.first_seq, history.last_seq) == (1, len(history.items))
    return expect_beginning(history.items)


def is_sanitized(program: pathlib.Path) -> bool:
    return re.search(rb"__[at]san_init", program.read_bytes()) is not None


def most_memory_mib(pid: int) -> float:
    """VmHWM: the most that was ever resident."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def test_a_long_history_is_read_as_it_stood_while_another_process_appends(daemon: Any) -> None:
    with Client() as client:
        for first in range(0, ITEMS, BATCH):
            client.add_items("long", [item(number) for number in range(first, first + BATCH)])

    appender = Appender()
    try:
        appender.await_first()
        reading = start_reading_with_c()
        by_python = read_with_python()
        by_c = end_reading_with_c(reading)
    finally:
        total = appender.end()
    assert total >= ITEMS + APPENDED
    assert ITEMS < by_python < total
    assert ITEMS < by_c < total
    assert read_with_python() == total
    if not is_sanitized(pathlib.Path(f"/proc/{daemon.pid}/exe")):
        assert most_memory_mib(daemon.pid) <= MEMORY_MIB

"""One key, and several processes that send it at the same moment: a client that died and its successor, or two workers
that took up the same job."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from wire import ask, items_of

PROCESSES = 4
ROUNDS = 25
SENDER = """
import json, sys
sys.path.insert(0, {directory!r})
from wire import Wire

connection = Wire({socket!r})
for line in sys.stdin:
    method, parameters = json.loads(line)
    connection.send(method, parameters)
    print(json.dumps(connection.receive()), flush=True)
"""


class Senders:
    """Processes that are connected and wait for what to send."""

    def __init__(self, path: str) -> None:
        program = SENDER.format(directory=str(pathlib.Path(__file__).parent), socket=path)
        command, pipe = [sys.executable, "-c", program], subprocess.PIPE
        self._processes = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(PROCESSES)
        ]

    def send(self, requests: list[tuple[str, dict[str, Any]]]) -> list[list[Any]]:
        """One request each, all at once; return the answers."""
        for process, request in zip(self._processes, requests, strict=True):
            assert process.stdin
            process.stdin.write(json.dumps(request) + "\n")
        for process in self._processes:
            assert process.stdin
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self._processes if process.stdout]

    def close(self) -> None:
        for process in self._processes:
            process.communicate(timeout=60)


@pytest.fixture
def senders(daemon: Any) -> Any:
    made = Senders(daemon.socket)
    yield made
    made.close()


def same(method: str, **parameters: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(method, parameters)] * PROCESSES


def test_the_same_change_of_many_is_made_once_and_all_get_its_answer(daemon: Any, senders: Senders) -> None:
    for n in range(ROUNDS):
        answers = senders.send(same("add_items", session="s", items=[f'{{"n": {n}}}'], key=f"key-{n}"))
        assert answers[0][0] == "done"
        assert answers == [answers[0]] * PROCESSES
    assert items_of(daemon.socket, "s") == [f'{{"n": {n}}}' for n in range(ROUNDS)]


def test_a_pop_of_many_with_one_key_takes_one_item_and_all_get_it(daemon: Any, senders: Senders) -> None:
    items = [f'{{"n": {n}}}' for n in range(ROUNDS)]
    ask(daemon.socket, "add_items", session="s", items=items)
    for n in reversed(range(ROUNDS)):
        answers = senders.send(same("pop_item", session="s", key=f"key-{n}"))
        assert answers[0][1]["item"] == items[n]
        assert answers == [answers[0]] * PROCESSES
    assert items_of(daemon.socket, "s") == []


def test_of_different_changes_with_one_key_one_is_made_and_the_others_are_told(daemon: Any, senders: Senders) -> None:
    for n in range(ROUNDS):
        requests = [
            ("add_items", {"session": "s", "items": [f'{{"n": {n}, "by": {i}}}'], "key": f"key-{n}"})
            for i in range(PROCESSES)
        ]
        answers = senders.send(requests)
        assert sorted(code for code, _ in answers) == ["done"] + ["key_reused"] * (PROCESSES - 1)
        winner = next(i for i, (code, _) in enumerate(answers) if code == "done")
        assert items_of(daemon.socket, "s")[n:] == requests[winner][1]["items"]


def test_with_a_digest_different_requests_are_the_same_change(daemon: Any, senders: Senders) -> None:
    for n in range(ROUNDS):
        requests = [
            ("add_items", {"session": "s", "items": [f'{{"by": {i}}}'], "key": f"key-{n}", "digest": f"job {n}"})
            for i in range(PROCESSES)
        ]
        answers = senders.send(requests)
        assert answers == [["done", answers[0][1]]] * PROCESSES
    assert len(items_of(daemon.socket, "s")) == ROUNDS


def test_a_precondition_that_no_longer_fits_does_not_hide_the_first_answer(daemon: Any, senders: Senders) -> None:
    """The key is looked up before the precondition: for all but the first, the revision is another one by then."""
    for n in range(ROUNDS):
        answers = senders.send(same("add_items", session="s", items=["{}"], if_revision=n, key=f"key-{n}"))
        assert answers == [["done", answers[0][1]]] * PROCESSES
    assert len(items_of(daemon.socket, "s")) == ROUNDS


def test_without_a_key_each_of_many_makes_its_change(daemon: Any, senders: Senders) -> None:
    """The control: else the tests above could not fail."""
    senders.send(same("add_items", session="s", items=["{}"]))
    assert len(items_of(daemon.socket, "s")) == PROCESSES

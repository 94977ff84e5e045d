"""Many processes that use one daemon at the same time, each through a client of its own."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from sessiond import Client, NotRunningError

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from processes import run_together  # noqa: E402

PROCESSES = 64
ITEMS = 1000
ROUNDS = 20
CLIENTS = 8
DEADLINE_S = 60.0


def item(writer: int, number: int) -> str:
    return f'{{"writer":{writer},"number":{number}}}'


def append(session: str, writer: int, count: int) -> list[int]:
    """The work of one process: single items. Return the seqs that it was told."""
    with Client() as client:
        return [client.add_items(session, [item(writer, number)]).first_seq or 0 for number in range(count)]


# ---- 64 processes, 1,000 single items each ----


@pytest.mark.usefixtures("daemon")
def test_many_processes_append_to_a_session_each() -> None:
    told = run_together(append, [(f"own-{i}", i, ITEMS) for i in range(PROCESSES)])
    with Client() as client:
        for writer in range(PROCESSES):
            history = client.get_items(f"own-{writer}")
            assert list(history.items) == [item(writer, number) for number in range(ITEMS)]
            assert (history.first_seq, history.last_seq, history.head_seq, history.revision) == (1, ITEMS, ITEMS, ITEMS)
            assert told[writer] == list(range(1, ITEMS + 1))


@pytest.mark.usefixtures("daemon")
def test_many_processes_append_to_one_session() -> None:
    told = run_together(append, [("all", i, ITEMS) for i in range(PROCESSES)])
    with Client() as client:
        history = client.get_items("all")
    total = PROCESSES * ITEMS
    assert len(history.items) == total
    assert (history.first_seq, history.last_seq, history.head_seq, history.revision) == (1, total, total, total)

    numbers: collections.defaultdict[int, list[int]] = collections.defaultdict(list)
    for seq, text in enumerate(history.items, 1):
        found = json.loads(text)
        numbers[found["writer"]].append(found["number"])
        assert told[found["writer"]][found["number"]] == seq
    assert numbers == {writer: list(range(ITEMS)) for writer in range(PROCESSES)}, "each in its own order"


# ---- eight clients open a fresh state directory at the same instant ----


def expect_eight_items() -> None:
    with Client() as client:
        history = client.get_items("first")
    assert sorted(history.items) == [item(writer, 0) for writer in range(CLIENTS)]
    assert (history.first_seq, history.last_seq) == (1, CLIENTS)


def test_eight_clients_use_a_fresh_daemon_at_the_same_instant(
    daemon_factory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(ROUNDS):
        daemon = daemon_factory()
        monkeypatch.setenv("SESSIOND_SOCKET", daemon.socket)
        run_together(append, [("first", i, 1) for i in range(CLIENTS)])
        expect_eight_items()
        daemon.stop()


def use_or_start_daemon(state_dir: str, writer: int) -> tuple[int | None, int | None]:
    """What a program does that needs a daemon and finds none: it starts one, and uses whichever is there in the end.
    Return the pid of its daemon if that one runs, and the status with which it ended if not."""
    daemon = None
    with Client() as client:
        try:
            client.ping()
        except NotRunningError:
            daemon = start_daemon(os.environ["SESSIOND_SOCKET"], state_dir, writer)
        add_when_there_is_one(client, writer)
    status = daemon.poll() if daemon else None
    return (daemon.pid if daemon and status is None else None), status


def start_daemon(socket_path: str, state_dir: str, writer: int) -> subprocess.Popen[bytes]:
    """Return when it is ready, or has ended. It goes on when this process has ended."""
    top = pathlib.Path(__file__).resolve().parents[3]
    program = pathlib.Path(os.environ.get("SESSIOND_BUILD") or top / "build" / "release", "sessiond")
    notify_path = f"{socket_path}.{writer}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(notify_path)
        daemon = subprocess.Popen(
            [str(program), "--socket", socket_path, "--state-dir", state_dir, "--log-level", "error"],
            env={**os.environ, "NOTIFY_SOCKET": notify_path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while daemon.poll() is None:
            if select.select([notify], [], [], 0.005)[0] and b"READY=1" in notify.recv(4096):
                break
    return daemon


def add_when_there_is_one(client: Client, writer: int) -> None:
    """Where another program's daemon won, it may still be on its way."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            client.add_items("first", [item(writer, 0)])
            return
        except NotRunningError:
            if time.monotonic() > end:
                raise
            select.select([], [], [], 0.005)


def end_daemon(pid: int) -> None:
    """It is not our child."""
    fd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        assert select.select([fd], [], [], DEADLINE_S)[0], "the daemon does not stop"
    finally:
        os.close(fd)


def test_eight_programs_that_find_no_daemon_each_start_one(
    short_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One daemon wins; the others end with status 4 and harm nothing, and all programs find the winner."""
    n_refused = 0
    for number in range(ROUNDS):
        directory = short_dir / str(number)
        directory.mkdir()
        monkeypatch.setenv("SESSIOND_SOCKET", str(directory / "s"))
        ended = run_together(use_or_start_daemon, [(str(directory / "state"), i) for i in range(CLIENTS)])
        pids = [pid for pid, _ in ended if pid is not None]
        try:
            assert len(pids) == 1
            assert {status for _, status in ended} <= {None, 4}
            n_refused += [status for _, status in ended].count(4)
            expect_eight_items()
        finally:
            for pid in pids:
                end_daemon(pid)
    assert n_refused > 0, "they never raced"

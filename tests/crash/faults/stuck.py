"""A disk that does not answer at all: it holds up what needs it, and nothing else."""

from __future__ import annotations

import errno
import pathlib
import time

from asking import Connection
from disk import Broken, Call, Fault, Way
from harness import wait_until
from sweep import SETTINGS, Run

ROUNDS = 20
QUEUE = 8
"""Requests that a lane may hold."""


def await_hanging(run: Run) -> None:
    wait_until("a call hangs", lambda: run.daemon.disk.hanging > 0, run.daemon.pause)


def expect(told: str, wanted: str, what: str) -> None:
    if told != wanted:
        raise Broken(f"{what} was told {told} and not {wanted}")


def in_the_infirmary(directory: pathlib.Path) -> str:
    """A commit fails, and then the store hangs while it is opened again: the stores of its lane go on without it, its
    changes are refused at once, and when the disk answers it comes back."""
    run = Run(directory)
    try:
        run.start()
        run.change("add_items", "a", 2)
        run.evict()
        run.change("add_items", "a", 2)
        run.fault = Fault(Call.SYNC, errno.EIO, Way.UNDONE, Way.HANG)
        run.daemon.disk.arm(run.fault, 1)
        expect(run.asker.change("add_items", "a", 1), "uncertain", "the change whose commit failed")
        await_hanging(run)
        for _ in range(ROUNDS):
            run.neighbours.go_on("other")
            run.neighbours.go_on("third")
            expect(run.asker.change("add_items", "a", 1), "unavailable", "a change of a store that hangs")
        run.daemon.disk.heal()
        run.recover()
        run.finish()
        return f"{ROUNDS} rounds of its neighbours while it hung; changes again after {run.recovery_s:.2f} s"
    finally:
        run.close()


def in_a_commit(directory: pathlib.Path) -> str:
    """A commit hangs: other lanes and the loop go on; when the disk answers, so does the commit, with success."""
    run = Run(directory)
    waiting: Connection | None = None
    try:
        run.start()
        run.change("add_items", "a", 2)
        run.fault = Fault(Call.SYNC, errno.EIO, Way.HANG)
        run.daemon.disk.arm(run.fault, 1)
        waiting = Connection(run.daemon.socket)
        waiting.send("add_items", {"session": "b", "items": ["{}"]})
        await_hanging(run)
        for _ in range(ROUNDS):
            run.neighbours.go_on("other")
            expect(Connection(run.daemon.socket).ask("ping")[0], "done", "a ping")
        run.daemon.disk.heal()
        expect(waiting.receive()[0], "done", "the change whose commit hung")
        expect(run.asker.change("add_items", "a", 1), "done", "a change after it")
        expect(waiting.ask("delete_session", session="b")[0], "done", "its removal")
        run.finish()
        return f"{ROUNDS} rounds of other lanes while a commit hung"
    finally:
        if waiting:
            waiting.close()
        run.close()


def behind_a_full_queue(directory: pathlib.Path) -> str:
    """A commit hangs, and more comes than its lane may hold: that is told to come again, and when; the other lane goes on;
    what waited is done when the disk answers."""
    run = Run(directory, settings={**SETTINGS, "lane_requests": QUEUE})
    waiting: list[Connection] = []
    try:
        run.start()
        run.change("add_items", "a", 2)
        run.daemon.disk.arm(Fault(Call.SYNC, errno.EIO, Way.HANG), 1)
        for i in range(1 + QUEUE):  # the one that hangs, and as many as wait for it
            waiting.append(Connection(run.daemon.socket))
            waiting[i].send("add_items", {"session": "b", "items": ["{}"]})
            if i == 0:
                await_hanging(run)
            expect(Connection(run.daemon.socket).ask("ping")[0], "done", "a ping behind it")
        for _ in range(ROUNDS):
            code, told = Connection(run.daemon.socket).ask("add_items", session="b", items=["{}"])
            expect(code, "busy", "a change that the queue has no room for")
            if not 20 <= told["retry_after_ms"] <= 2000:
                raise Broken(f"it was told to come again after {told['retry_after_ms']} ms")
            run.neighbours.go_on("other")
        run.daemon.disk.heal()
        for each in waiting:
            expect(each.receive()[0], "done", "what waited")
        expect(waiting[0].ask("delete_session", session="b")[0], "done", "its removal")
        run.finish()
        return f"{ROUNDS} changes were told to come again; {1 + QUEUE} that were taken were done"
    finally:
        for each in waiting:
            each.close()
        run.close()


def while_it_is_stopped(directory: pathlib.Path) -> str:
    """SIGTERM while a commit hangs: it ends within its grace, says that it ended hard, and has lost nothing."""
    run = Run(directory)
    waiting: Connection | None = None
    try:
        run.start()
        run.change("add_items", "a", 2)
        run.daemon.disk.arm(Fault(Call.SYNC, errno.EIO, Way.HANG), 1)
        waiting = Connection(run.daemon.socket)
        waiting.send("add_items", {"session": "a", "items": []})
        waiting.send("add_items", {"session": "b", "items": ["{}"]})
        await_hanging(run)
        begun = time.monotonic()
        run.daemon.running.terminate()
        wait_until("it ends", lambda: run.daemon.ended(0), run.daemon.ended)
        took_s = time.monotonic() - begun
        expect(str(run.daemon.running.returncode), "1", "the status of an end without a clean stop")
        if b"stopped_hard" not in run.daemon.log.read_bytes():
            raise Broken("it does not say that it ended hard")
        run.daemon.disk.heal()
        run.daemon.spawn()
        run.daemon.await_ready()
        run.neighbours.check_all()
        run.asker.connect(run.daemon.socket)
        expect(run.asker.change("add_items", "a", 1), "done", "a change after it was started again")
        waiting.close()
        waiting = Connection(run.daemon.socket)
        expect(waiting.ask("delete_session", session="b")[0], "done", "the removal of what hung")
        run.finish()
        return f"ended hard after {took_s:.1f} s"
    finally:
        if waiting:
            waiting.close()
        run.close()


SCENES = (in_the_infirmary, in_a_commit, behind_a_full_queue, while_it_is_stopped)


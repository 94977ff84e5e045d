"""Runs that must fail, so that a verdict is known to be able to."""

from __future__ import annotations

import errno
import pathlib
import shutil

from disk import Broken, Call, Fault, Way
from sweep import Run, fresh

STORE_LOG = "*/items.db-wal"


def swallows_a_write(directory: pathlib.Path) -> str | None:
    """A disk that says that it has written, and has not: something acknowledged must be found missing."""
    for k in range(3, 16):
        run = Run(directory / f"lies-{k}")
        try:
            run.start()
            run.daemon.disk.arm(Fault(Call.WRITE, errno.EIO, Way.SWALLOW), k, STORE_LOG)
            fresh(run)
            run.daemon.kill()
            run.daemon.reap()
            run.daemon.disk.heal()
            run.daemon.spawn()
            run.daemon.await_ready()
            lost = run.judge([]).violations.get("lost", ())
        finally:
            run.close()
        shutil.rmtree(run.directory)
        if lost:
            return f"{len(lost)} acknowledged changes or items missing with k = {k}"
    return None


def stays_away(directory: pathlib.Path) -> str | None:
    """A disk that is never well again: waiting for it must end in a complaint."""
    run = Run(directory / "away")
    try:
        run.start()
        run.change("add_items", "a", 1)
        run.daemon.disk.arm(Fault(Call.SYNC, errno.EIO, Way.UNDONE, Way.UNDONE), 1)
        run.asker.change("add_items", "a", 1)
        run.recover(patience_s=3)
    except Broken as broken:
        return str(broken)
    finally:
        run.close()
    return None


CONTROLS = (swallows_a_write, stays_away)

"""A disk that is full: a small tmpfs of its own, and files that may not grow (RLIMIT_FSIZE). Changes are refused with a
code that is true, reads go on, what is removed makes room, and changes are made again by themselves when there is
room."""

from __future__ import annotations

import contextlib
import pathlib
import resource
import signal
import subprocess
from collections.abc import Iterator

from disk import STORE, Broken
from harness import NotRun, wait_until
from sweep import FORGETFUL, READS_GO_ON, REFUSALS, Run

MIB = 1 << 20
DISK_MIB = 48
BALLAST_BYTES = 8 * MIB
"""More than the log has before a checkpoint: what follows a removal has to be written back."""
CHANGES_MAX = 2000
"""So many changes must be enough to notice that no file can grow."""


@contextlib.contextmanager
def small_disk(directory: pathlib.Path, settings: dict[str, int]) -> Iterator[tuple[Run, pathlib.Path]]:
    """A run whose state is on a tmpfs of its own, and that tmpfs; gone afterwards."""
    run = Run(directory, settings=settings)
    run.watch_neighbours = False
    place = directory / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "sessiond-full", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            raise NotRun(mounted.stderr.strip())
        run.daemon.state = place / "state"
        try:
            yield run, place
        finally:
            run.close()
            subprocess.run(["umount", place], check=True)
    except OSError as error:
        raise NotRun(str(error)) from error


def fill(path: pathlib.Path) -> None:
    """Somebody else takes all the room."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def change_until_refused(run: Run) -> str:
    """Return the code. Whoever is not told anything else was told "done", and verify.py holds the daemon to it."""
    for _ in range(CHANGES_MAX):
        code = run.asker.change("add_items", "grows", 20)
        if code != "done":
            return code
    raise Broken(f"{CHANGES_MAX} changes were made where there is no room")


def expect(told: str, wanted: frozenset[str], what: str) -> None:
    if told not in wanted:
        raise Broken(f"{what} was told {told}")


def check_full(run: Run, code: str) -> None:
    """As long as it is full."""
    for _ in range(3):
        expect(code, frozenset({"full"}), "a change on a full disk")
        expect(run.asker.read("a"), READS_GO_ON, "a read on a full disk")
        expect(run.asker.read("grows"), READS_GO_ON, "a read on a full disk")
        code = change_until_refused(run)
    run.neighbours.check("other")


def by_somebody_else(directory: pathlib.Path) -> str:
    """Full, cleared thanks to the ballast, full again, killed, started on the full disk, and then there is room."""
    with small_disk(directory, {"ballast_bytes": BALLAST_BYTES, **FORGETFUL}) as (run, place):
        ballast = run.daemon.state / "ballast"
        run.start()
        run.change("add_items", "a", 50)
        run.change("add_items", "grows", 50)
        run.neighbours.go_on("other")
        if not ballast.exists():
            raise Broken("there is no ballast")
        fill(place / "filler")
        check_full(run, change_until_refused(run))
        expect(run.asker.change("clear_session", "a"), READS_GO_ON, "clear_session on a full disk")
        if ballast.exists():
            raise Broken("a clear on a full disk did not need the ballast: the disk was not full")
        fill(place / "more")
        check_full(run, change_until_refused(run))

        run.daemon.kill()
        run.daemon.reap()
        run.daemon.spawn()
        run.daemon.await_ready()
        run.neighbours.check_all()
        run.asker.connect(run.daemon.socket)
        check_full(run, change_until_refused(run))

        (place / "filler").unlink()
        run.recover()
        wait_until("the ballast is made again", ballast.exists, run.daemon.pause)
        run.neighbours.go_on("other")
        run.finish()
        return f"{DISK_MIB} MiB; changes again after {run.recovery_s:.2f} s"


def by_itself(directory: pathlib.Path) -> str:
    """Sessions grow until the disk is full; what is cleared makes room for more."""
    with small_disk(directory, {"ballast_bytes": BALLAST_BYTES}) as (run, _):
        run.start()
        n_sessions = 0
        while (code := run.asker.change("add_items", f"b{n_sessions}", 400)) == "done":
            n_sessions += 1
        expect(code, frozenset({"full"}), "a change on a full disk")
        for i in range(n_sessions):
            expect(run.asker.read(f"b{i}"), READS_GO_ON, "a read on a full disk")
            expect(run.asker.change("clear_session", f"b{i}"), READS_GO_ON, "clear_session on a full disk")
        run.recover()
        for i in range(n_sessions // 4):
            expect(run.asker.change("add_items", f"b{i}", 400), READS_GO_ON, "a change where there is room")
        run.finish()
        return f"{n_sessions} sessions until it was full, all of them cleared, and a quarter filled again"


def by_a_limit(directory: pathlib.Path) -> str:
    """A file may not grow: SIGXFSZ must not end the daemon. The kernel says EFBIG, which is no full disk to SQLite."""
    run = Run(directory)
    try:
        run.start()
        run.change("add_items", "a", 20)
        ignored = signal_set(run.daemon.running.pid, "SigIgn")
        if not ignored & 1 << (signal.SIGXFSZ - 1):
            raise Broken("SIGXFSZ is not ignored")
        limit = run.log.stat().st_size + 64 * 1024
        limit_files(run.daemon.running.pid, limit)
        code = change_until_refused(run)
        expect(code, REFUSALS, "a change of a file that may not grow")
        expect(run.asker.read("a"), READS_GO_ON | {"unavailable"}, "a read of a file that may not grow")
        run.neighbours.go_on("other")
        limit_files(run.daemon.running.pid, resource.RLIM_INFINITY)
        run.recover()
        run.finish()
        return f"told {code}; changes again after {run.recovery_s:.2f} s"
    finally:
        run.close()


def limit_files(pid: int, size: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def signal_set(pid: int, name: str) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith(f"{name}:"))


SCENES = (by_somebody_else, by_itself, by_a_limit)


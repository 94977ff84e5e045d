"""One fault after another: a fixed workload, whose k-th call to the disk fails, for k = 1, 2, 3, … until the workload
is done before the fault would come. All of it on the files of the store `default`; the store `other`, of another lane, and
`third`, of the same one, must not notice.

After each fault, with the same daemon: changes are refused with a code that is true, or made; the other stores go on;
once the disk is well again (a fault that lasts is lifted when it has been seen to be noticed) changes are made again by
themselves; then the daemon is killed (or stopped, where the fault did not come before) and started again on a disk that
is well, and verify.py judges what was told against what is there.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import itertools
import pathlib
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from asking import Asker, Connection
from disk import STORE, Broken, Call, Fault, FaultyDaemon, Way
from harness import now_us, write_histories
from verify import Verdict, verify

SETTINGS = {"lanes": 2, "open_stores": 1, "ballast_bytes": 0}
"""One open store a lane: to use `third` closes `default`."""
FORGETFUL = {"history_bytes": 0}
"""Every read is the lane's."""
RECOVERY_S = 30.0
TURN_S = 0.01
READS_GO_ON = frozenset({"done"})
REFUSALS = frozenset({"uncertain", "unavailable", "full"})


@dataclass
class Outcome:
    """What became of one run."""

    came: bool
    """The fault did."""
    told: collections.Counter[str]
    recovery_s: float


class Neighbours:
    """The stores that must not notice: each gets an item, and is read, whenever it is asked to."""

    def __init__(self, daemon: FaultyDaemon) -> None:
        self._daemon = daemon
        self._stored: dict[str, list[str]] = {}
        self._connection = Connection(daemon.socket)
        self._session = f"since-{now_us()}"  # of this run: there are others in what a killed daemon left

    def go_on(self, store: str = "other") -> None:
        items = self._stored.setdefault(store, [])
        items.append(f'{{"n": {len(items)}}}')
        code, answer = self._connection.ask("add_items", session=self._session, items=items[-1:], store=store)
        if code != "done":
            raise Broken(f"a change of the store {store} was told {code}: {answer}")
        self.check(store)

    def check(self, store: str) -> None:
        code, answer = self._connection.ask("get_items", session=self._session, store=store)
        if code != "done" or answer["items"] != self._stored[store]:
            raise Broken(f"the store {store} was told {self._stored[store]} and holds {code} {answer}")

    def check_all(self) -> None:
        """With a daemon that was started again."""
        self._connection.close()
        self._connection = Connection(self._daemon.socket)
        for store in self._stored:
            self.check(store)

    def close(self) -> None:
        self._connection.close()


class Run:
    """A daemon on a disk that fails once or lasting, and its client."""

    def __init__(
        self, directory: pathlib.Path, template: pathlib.Path | None = None, settings: dict[str, int] = SETTINGS
    ) -> None:
        self.on_what_was_killed = template is not None
        directory.mkdir()
        if template:
            shutil.copytree(template / "state", directory / "state")
            shutil.copyfile(template / "0.log", directory / "0.log")
        self.directory = directory
        self.daemon = FaultyDaemon(directory, settings)
        self.asker = Asker(directory / "0.log")
        self.fault: Fault | None = None
        self.watch_neighbours = True
        self.recovery_s = 0.0

    def start(self) -> None:
        self.daemon.spawn()
        self.daemon.await_ready()
        self.asker.connect(self.daemon.socket)
        self.neighbours = Neighbours(self.daemon)

    def close(self) -> None:
        self.asker.close()
        with contextlib.suppress(AttributeError):
            self.neighbours.close()
        self.daemon.close()

    # ---- what the workloads are made of ----

    def change(self, method: str, session: str, n_items: int = 0, tail: int | None = None) -> None:
        """Ask until it is made; `tail`: replace that many of the last seqs."""
        while True:
            head = self.asker.head_seq.get(session, 0)
            from_seq = max(head - tail + 1, 1) if tail else None
            code = self.asker.change(method, session, n_items, from_seq)
            if self.watch_neighbours:
                self.neighbours.go_on()
            if code == "done":
                return
            self._refused(code)
            if code == "uncertain":
                return

    def read(self, session: str) -> None:
        code = self.asker.read(session)
        self.neighbours.go_on()
        if code != "done":
            self._refused(code)

    def evict(self) -> None:
        """`default` is closed, and opened again by what comes next."""
        self.neighbours.go_on("third")

    # ---- what must hold ----

    @property
    def log(self) -> pathlib.Path:
        """The write-ahead log of the store that meets the fault."""
        return self.daemon.state / STORE.with_name(f"{STORE.name}-wal")

    @property
    def stored(self) -> bool:
        """Whether there is something to read."""
        return self.on_what_was_killed or any(self.asker.head_seq.values())

    @property
    def refusals(self) -> frozenset[str]:
        """What may be told. A page that cannot be read is damage to SQLite, as one that makes no sense."""
        assert self.fault
        return REFUSALS | {"rolled_back"} if self.fault.call is Call.READ else REFUSALS

    def _refused(self, code: str) -> None:
        if not self.fault or not self.daemon.disk.failed:
            raise Broken(f"without a fault, the store was told {code}")
        if code not in self.refusals:
            raise Broken(f"told {code}, which is not what a bad disk is told by")
        if self.fault.lasts:
            self._outage()
        self.daemon.disk.heal()
        self.recover()

    def _outage(self) -> None:
        """While the fault lasts."""
        assert self.fault
        no_change_can_be_made = bool(self.fault.call & (Call.SYNC | Call.WRITE))
        only_full = self.fault.call is Call.WRITE and self.fault.error == errno.ENOSPC
        for _ in range(3):
            code = self.asker.change("add_items", "a", 1)
            if code not in self.refusals and (code != "done" or no_change_can_be_made):
                raise Broken(f"on a disk that fails for ever, a change was told {code}")
            code = self.asker.read("a")
            if code not in (READS_GO_ON if only_full and self.stored else self.refusals - {"uncertain"} | {"done"}):
                raise Broken(f"on a disk that fails for ever, a read was told {code}")
            self.neighbours.go_on()
            self.daemon.pause(TURN_S)

    def recover(self, patience_s: float = RECOVERY_S) -> None:
        """By itself, and in time; what was uncertain is settled first."""
        begun = time.monotonic()

        def wait(what: str) -> None:
            if time.monotonic() - begun > patience_s:
                raise Broken(f"{patience_s:.0f} s after the disk was well again, {what}")
            if self.watch_neighbours:
                self.neighbours.go_on()
            self.daemon.pause(TURN_S)

        for code in self.asker.settle():
            wait(f"repetitions are told {code}")
        while (code := self.asker.change("add_items", "a", 1)) != "done":
            if code not in REFUSALS - {"uncertain"}:
                raise Broken(f"on a disk that is well again, a change was told {code}")
            wait(f"changes are told {code}")
        self.recovery_s = max(self.recovery_s, time.monotonic() - begun)

    def finish(self) -> None:
        """After the workload: the daemon that met the fault says what is there, then one started anew does."""
        if self.fault and self.fault.lasts and self.daemon.disk.failed:
            self.daemon.disk.heal()
            self.recover()
        at = now_us()
        live = write_histories(self.daemon, self.directory / "live")
        self._end()
        check_files(self.daemon.state / STORE, self.directory / "copy")

        self.daemon.spawn()
        self.daemon.await_ready()
        self.neighbours.check_all()
        self.asker.connect(self.daemon.socket)
        for code in (self.asker.read("a"), self.asker.change("add_items", "a", 1)):
            if code != "done":
                raise Broken(f"after a restart, told {code}")
        verdict = self.judge([(str(live), at)])
        if not verdict.good:
            raise Broken("\n".join(verdict.lines()))
        self.daemon.stop()

    def judge(self, snapshots: list[tuple[str, int]]) -> Verdict:
        """What the daemon holds now, by all that it ever said."""
        histories = write_histories(self.daemon, self.directory / "histories")
        return verify([str(self.asker.path)], str(histories), snapshots)

    def _end(self) -> None:
        """Killed, so that nothing is tidied up; but where the fault is still to come, stopping may meet it."""
        if self.daemon.disk.failed:
            self.daemon.disk.heal()
            self.daemon.kill()
            self.daemon.reap()
        else:
            self.daemon.stop()
            self.daemon.disk.heal()


def check_files(store: pathlib.Path, copy: pathlib.Path) -> None:
    """SQLite's own check, of a copy of the database and its log."""
    copy.mkdir()
    for path in store.parent.glob(f"{store.name}*"):
        shutil.copyfile(path, copy / path.name)
    with contextlib.closing(sqlite3.connect(copy / store.name)) as database:
        found = database.execute("PRAGMA integrity_check").fetchall()
    if found != [("ok",)]:
        raise Broken(f"integrity_check: {found}")


# ---- workloads ----


def fresh(run: Run) -> None:
    """A store from its making on: all kinds of changes, closed and opened again in between."""
    run.read("a")
    run.change("add_items", "a", 1)
    run.change("add_items", "a", 3)
    run.read("a")
    run.change("add_items", "grows", 2)
    run.change("pop_item", "a")
    run.change("replace_items", "a", 2, tail=2)
    run.change("clear_session", "a")
    run.change("add_items", "a", 4)
    run.evict()
    run.read("a")
    run.change("pop_item", "a")
    run.change("add_items", "grows", 1)
    run.change("replace_items", "a", 3)
    run.read("grows")
    run.read("a")


def unclean(run: Run) -> None:
    """A store that a killed daemon left, with a log that was not checkpointed."""
    run.read("a")
    run.read("grows")
    run.change("add_items", "a", 1)
    run.change("pop_item", "a")
    run.change("add_items", "grows", 5)
    run.change("clear_session", "a")
    run.evict()
    run.change("add_items", "a", 2)
    run.read("a")


def fill_log(run: Run) -> None:
    """Until a few changes more make the log large enough for a checkpoint."""
    run.watch_neighbours = False
    run.change("add_items", "grows", 1)
    header = read_log_header(run)
    while run.log.stat().st_size < FULL_LOG_BYTES - NEARLY_FULL_BYTES:
        run.change("add_items", "grows", 1)
        if read_log_header(run) != header:
            raise Broken("there was a checkpoint before FULL_LOG_BYTES: what is that of the daemon's now?")
    run.watch_neighbours = True


def checkpoint(run: Run) -> None:
    """A checkpoint while the store is at work, and the log from its beginning again."""
    header = read_log_header(run)
    for _ in range(12):
        run.change("add_items", "grows", 2)
    run.change("pop_item", "a")
    run.read("a")
    if not run.daemon.disk.failed and read_log_header(run) == header:
        raise Broken("there was no checkpoint")


def read_log_header(run: Run) -> bytes:
    """Each round of the log has another."""
    with run.log.open("rb") as log:
        return log.read(32)


@dataclass(frozen=True)
class Workload:
    """What is done before the calls are counted, and while."""

    run: Callable[[Run], None]
    before: Callable[[Run], None] | None = None
    on_what_was_killed: bool = False
    settings: dict[str, int] = field(default_factory=lambda: SETTINGS | FORGETFUL)

    @property
    def name(self) -> str:
        return self.run.__name__


FULL_LOG_BYTES = 256 * (24 + 4096)
"""CHECKPOINT_PAGES of daemon/store/sqlite_upkeep.c."""
NEARLY_FULL_BYTES = 8 * (24 + 4096)
"""Less than the changes of `checkpoint` add."""
WORKLOADS = (
    Workload(fresh, settings=SETTINGS),
    Workload(unclean, on_what_was_killed=True),
    Workload(checkpoint, before=fill_log),
)

ONCE, EVER = Way.NONE, Way.UNDONE
FAULTS = (
    Fault(Call.SYNC, errno.EIO),
    Fault(Call.SYNC, errno.EIO, Way.DONE),
    Fault(Call.SYNC, errno.EIO, Way.UNDONE, EVER),
    Fault(Call.SYNC, errno.ENOSPC),
    Fault(Call.SYNC, errno.ENOSPC, Way.UNDONE, EVER),
    Fault(Call.WRITE, errno.EIO),
    Fault(Call.WRITE, errno.EIO, Way.HALF),
    Fault(Call.WRITE, errno.EIO, Way.UNDONE, EVER),
    Fault(Call.WRITE, errno.ENOSPC),
    Fault(Call.WRITE, errno.ENOSPC, Way.HALF),
    Fault(Call.WRITE, errno.ENOSPC, Way.UNDONE, EVER),
    Fault(Call.TRUNCATE, errno.EIO),
    Fault(Call.TRUNCATE, errno.EIO, Way.UNDONE, EVER),
    Fault(Call.TRUNCATE, errno.ENOSPC),
    Fault(Call.READ, errno.EIO),
    Fault(Call.READ, errno.EIO, Way.UNDONE, EVER),
    Fault(Call.OPEN, errno.EIO),
    Fault(Call.OPEN, errno.EMFILE, Way.UNDONE, EVER),
    Fault(Call.UNLINK, errno.EIO),
    Fault(Call.UNLINK, errno.EIO, Way.UNDONE, EVER),
)


def make_template(directory: pathlib.Path) -> pathlib.Path:
    """A state directory, and the log of what was done in it, as a killed daemon left it."""
    run = Run(directory)
    try:
        run.start()
        fresh(run)
        run.change("add_items", "a", 5)
        run.daemon.kill()
        run.daemon.reap()
    finally:
        run.close()
    return directory


def run_one(
    directory: pathlib.Path, template: pathlib.Path, workload: Workload, fault: Fault, k: int
) -> Outcome:
    run = Run(directory, template if workload.on_what_was_killed else None, workload.settings)
    try:
        run.start()
        if workload.before:
            workload.before(run)
        run.fault = fault
        run.daemon.disk.arm(fault, k)
        workload.run(run)
        run.finish()
        came = run.daemon.disk.failed > 0
        return Outcome(came, collections.Counter(run.asker.told), run.recovery_s)
    finally:
        run.close()


@dataclass
class Swept:
    """What came of a sweep."""

    name: str
    runs: int = 0
    last_k: int = 0
    told: collections.Counter[str] = field(default_factory=collections.Counter)
    slowest_recovery_s: float = 0.0

    def add(self, other: Swept) -> None:
        self.runs += other.runs
        self.last_k = max(self.last_k, other.last_k)
        self.told += other.told
        self.slowest_recovery_s = max(self.slowest_recovery_s, other.slowest_recovery_s)

    def __str__(self) -> str:
        told = ", ".join(f"{count:,} {code}" for code, count in sorted(self.told.items()))
        return (
            f"{self.name}: {self.runs:,} runs, up to k = {self.last_k}; told {told or 'nothing'};"
            f" changes again after {self.slowest_recovery_s:.2f} s at most"
        )


def sweep(
    scratch: pathlib.Path, template: pathlib.Path, workload: Workload, fault: Fault, first: int, every: int
) -> Swept:
    """Until the workload is done untouched. Raise Broken, naming k, if a promise was broken; the directory is kept."""
    swept = Swept(f"{workload.name}: {fault}")
    for k in itertools.count(1 + first % every, every):
        directory = scratch / f"{workload.name[0]}{FAULTS.index(fault)}-{k}"
        try:
            outcome = run_one(directory, template, workload, fault, k)
        except (Broken, OSError) as broken:
            raise Broken(f"{workload.name}, {fault}, k = {k}, in {directory}: {broken}") from broken
        shutil.rmtree(directory)
        if not outcome.came:
            return swept
        swept.add(Swept("", 1, k, outcome.told, outcome.recovery_s))
    raise AssertionError("unreachable")

"""What crash harnesses are made of: how each begins and ends, a daemon that may die, the load programs, the plan that
they share, and a watch on the files of the store. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SESSIOND_BUILD") or TOP / "build" / "release").resolve()
LOAD = BUILD / "tests" / "crash" / "load"
HISTORIES = BUILD / "tests" / "crash" / "histories"
STORE = pathlib.Path("u", str(os.getuid()), b"default".hex(), "items.db")
"""Where the default store is, in a state directory."""
DEADLINE_S = 120.0
"""For anything that must happen; a sanitizer's build on a busy machine is slow."""
TURN_S = 0.05
PASSED, FAILED, NOT_RUN = 0, 1, 77
"""Exit statuses of a harness."""


class Broken(Exception):
    """The daemon, a load program or the harness did what it must not."""


class NotRun(Exception):
    """What this needs is not to be had here."""


Body = Callable[[pathlib.Path, random.Random, int], bool]


def run_harness(name: str, figure: str, default: int, body: Body, *, at: str = "/tmp") -> int:
    """Give `body` a directory of its own, what the seed chooses, and the size of the whole, which the environment may
    name; say in the last line what came of it, and return the exit status."""
    size = int(os.environ.get(figure) or default)
    seed = int(os.environ.get("SEED") or int.from_bytes(os.urandom(4)))
    print(f"{name}: {figure}={size} SEED={seed}", flush=True)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=f"sd-{name}-", dir=at))
    begun = time.monotonic()
    try:
        good = body(scratch, random.Random(seed), size)
    except NotRun as why:
        shutil.rmtree(scratch)
        print(f"{name}: not run: {why}")
        return NOT_RUN
    except Broken as broken:
        print(f"{name}: {broken}")
        good = False
    if not good:
        print(f"{name}: failed with {figure}={size} SEED={seed}; everything is kept in {scratch}")
        return FAILED
    shutil.rmtree(scratch)
    print(f"{name}: passed in {time.monotonic() - begun:.0f} s")
    return PASSED


def now_us() -> int:
    """The clock of the logs."""
    return time.monotonic_ns() // 1000


def wait_until(what: str, condition: Callable[[], bool], turn: Callable[[float], object]) -> None:
    """`turn` waits for something to happen, for so many seconds at most; then the condition is looked at again. Only
    time in which this process ran counts: where all of us were stopped for minutes, nobody else was slow."""
    left = DEADLINE_S
    while not condition():
        if left <= 0:
            raise Broken(f"waited {DEADLINE_S:.0f} s in vain: {what}")
        begun = time.monotonic()
        turn(TURN_S)
        left -= min(time.monotonic() - begun, 2 * TURN_S)


class Daemon:
    """A sessiond in `directory`: its socket, its log and its state."""

    def __init__(self, directory: pathlib.Path) -> None:
        directory.mkdir(exist_ok=True)
        self.socket = directory / "s"
        self.state = directory / "state"
        self.log = directory / "daemon.log"
        self.arguments: list[str] = []
        self.own_environment: dict[str, str] = {}
        """Beside what all programs have; so are the arguments."""
        self._notify_path = directory / "notify"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(self._notify_path))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What its clients find it by."""
        return {**os.environ, "SESSIOND_SOCKET": str(self.socket)}

    def spawn(self) -> None:
        """Start it; whether it comes up is another matter."""
        self._forget_what_was_said()
        command = [str(BUILD / "sessiond"), "--socket", str(self.socket), "--state-dir", str(self.state)]
        environment = {**os.environ, **self.own_environment, "NOTIFY_SOCKET": str(self._notify_path)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *self.arguments], env=environment, stdout=log, stderr=log)

    def _forget_what_was_said(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._notify.recv(4096, socket.MSG_DONTWAIT)

    def await_ready(self) -> None:
        said: list[bytes] = []

        def listen(seconds: float) -> None:
            if self.ended(0):
                raise Broken(f"sessiond ended with status {self.running.returncode}; see {self.log}")
            if select.select([self._notify], [], [], seconds)[0]:
                said.extend(self._notify.recv(4096).split(b"\n"))

        wait_until("sessiond says READY=1", lambda: b"READY=1" in said, listen)

    @property
    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "the daemon was not started"
        return self.process

    def ended(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        try:
            self.running.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        self.running.kill()

    def reap(self) -> None:
        """Wait for the end that was planned; any other is a failure."""
        try:
            wait_until("the daemon is killed", lambda: self.ended(0), self.ended)
        except Broken as broken:
            raise Broken(f"{broken}; its threads: {self._threads()}") from None
        if self.running.returncode != -signal.SIGKILL:
            raise Broken(f"sessiond ended with status {self.running.returncode}; see {self.log}")

    def _threads(self) -> str:
        """What each thread of a daemon that hangs is doing: its name, its state, and where in the kernel it waits."""
        found = []
        for task in sorted(pathlib.Path(f"/proc/{self.running.pid}/task").iterdir()):
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            found.append(f"{(task / 'comm').read_text().strip()} {state} {(task / 'wchan').read_text() or '-'}")
        return ", ".join(found)

    def stop(self) -> None:
        """Let it end as an administrator would."""
        self.running.send_signal(signal.SIGTERM)
        wait_until("sessiond stops on SIGTERM", lambda: self.ended(0), self.ended)
        if self.running.returncode != 0:
            raise Broken(f"sessiond stopped with status {self.running.returncode}; see {self.log}")

    def close(self) -> None:
        """End it in any case."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._notify.close()


class Plan:
    """When the load programs kill the daemon. plan.h has the layout."""

    NOTHING, SENT, ANSWERED = range(3)
    _LAYOUT = struct.Struct("=iiqiiq")
    _EVENT, _STOP, _COUNTDOWN, _PID, _ANSWERED = 0, 4, 8, 16, 24

    def __init__(self, path: pathlib.Path) -> None:
        path.write_bytes(bytes(self._LAYOUT.size))
        self.path = path
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), self._LAYOUT.size)

    def arm(self, event: int, countdown: int, pid: int) -> None:
        """The `countdown`-th event from now on is the daemon's last."""
        struct.pack_into("=q", self._memory, self._COUNTDOWN, countdown)
        struct.pack_into("=i", self._memory, self._PID, pid)
        struct.pack_into("=i", self._memory, self._EVENT, event)

    def disarm(self) -> None:
        struct.pack_into("=i", self._memory, self._EVENT, self.NOTHING)

    def stop(self) -> None:
        struct.pack_into("=i", self._memory, self._STOP, 1)

    @property
    def answered(self) -> int:
        """Changes answered so far, by all clients."""
        count: int = struct.unpack_from("=q", self._memory, self._ANSWERED)[0]
        return count


class Client:
    """One load program with its log; it may be killed and started again."""

    def __init__(self, number: int, directory: pathlib.Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.log = directory / f"{number}.log"
        self._errors = directory / f"{number}.err"
        self._number = number
        self._arguments = arguments
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seed: int) -> None:
        client = ["--log", str(self.log), "--client", str(self._number), "--seed", str(seed)]
        command = [str(LOAD), *client, *self._arguments]
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stderr=errors)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """It has not given up."""
        if self._process and self._process.poll() not in (None, 0):
            raise Broken(f"client {self._number} ended: {self._errors.read_text()}")

    def await_end(self) -> None:
        process = self._process
        assert process is not None

        def turn(seconds: float) -> None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)

        wait_until(f"client {self._number} finishes", lambda: process.poll() is not None, turn)
        self.check()


class FileWatch:
    """Tells when files in a directory are written to (inotify)."""

    _IN_MODIFY, _IN_CLOEXEC = 0x2, 0o2000000
    _EVENT = struct.Struct("=iIII")

    def __init__(self, directory: pathlib.Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(self._IN_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(directory), self._IN_MODIFY) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))

    def await_writes(self, name: str, count: int) -> None:
        """Return right after the file was written to for the `count`-th time. Writes in a row may count as one."""
        left = count

        def turn(seconds: float) -> None:
            nonlocal left
            if select.select([self._fd], [], [], seconds)[0]:
                left -= self._names(os.read(self._fd, 4096)).count(name)

        wait_until(f"{name} is written to", lambda: left <= 0, turn)

    def _names(self, events: bytes) -> list[str]:
        names, offset = [], 0
        while offset < len(events):
            size = self._EVENT.unpack_from(events, offset)[3]
            offset += self._EVENT.size
            names.append(os.fsdecode(events[offset : offset + size].rstrip(b"\0")))
            offset += size
        return names

    def close(self) -> None:
        os.close(self._fd)


def write_histories(daemon: Daemon, path: pathlib.Path) -> pathlib.Path:
    """What the daemon holds, for verify.py."""
    with path.open("wb") as file:
        subprocess.run([HISTORIES], env=daemon.environment, stdout=file, check=True, timeout=10 * DEADLINE_S)
    return path


def restore(backup: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
    """Put a backup in the place of a store, start a daemon on it, and return its histories."""
    daemon = Daemon(directory)
    (daemon.state / STORE).parent.mkdir(parents=True, mode=0o700)
    for made in (daemon.state, *(daemon.state / part for part in STORE.parents)):
        made.chmod(0o700)
    shutil.copyfile(backup, daemon.state / STORE)
    try:
        daemon.spawn()
        daemon.await_ready()
        histories = write_histories(daemon, directory / "histories")
        daemon.stop()
        return histories
    finally:
        daemon.close()

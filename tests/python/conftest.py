"""Starts the real daemon for the Python tests and looks after it.

    def test_something(daemon):             one daemon of its own for this test
        Client(daemon.socket)               (SESSIOND_SOCKET is set as well)
    def test_two(daemon_factory):           as many as the test wants
        a = daemon_factory(); b = daemon_factory("--log-level", "debug")

The binary is $SESSIOND_BUILD/sessiond (build/release by default). Readiness is the daemon's own word
(READY=1 on NOTIFY_SOCKET), never a pause. When a test is over, its daemon must be alive, must have given back every
descriptor that the test made it open, and must end with status 0 on SIGTERM; it is killed in any case.
"""

from __future__ import annotations

import collections
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = TOP / "client" / "python" / "src"
DEADLINE_S = 60.0
"""How long a state may take to arrive, on a machine that is busy with a sanitizer build."""

PING = b"\x94\x00\x01\xa4ping\x90"

sys.path.insert(0, str(PACKAGE))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH")]))


def build_dir() -> pathlib.Path:
    """Where the programs under test are."""
    return pathlib.Path(os.environ.get("SESSIOND_BUILD") or TOP / "build" / "release").resolve()


def wait_until(what: str | Callable[[], str], condition: Callable[[], bool]) -> None:
    """Return as soon as `condition` holds; fail, naming `what`, if it does not within DEADLINE_S."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {DEADLINE_S:.0f} s in vain: {what if isinstance(what, str) else what()}")
        time.sleep(0.002)


class Daemon:
    """One sessiond in a directory of its own. `restart` and `kill` keep the directory: same socket, same history."""

    def __init__(self, directory: pathlib.Path, arguments: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.socket = str(directory / "s")
        self.state_dir = str(directory / "state")
        self.log = directory / "log"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._fds: collections.Counter[str] = collections.Counter()

    @property
    def pid(self) -> int:
        assert self._process is not None, "the daemon is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return once it says that it is ready."""
        assert self._process is None, "the daemon is running already"
        notify_path = self.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, self.log.open("ab") as log:
            notify.bind(str(notify_path))
            notify.settimeout(0.05)
            environment = {**os.environ, "NOTIFY_SOCKET": str(notify_path)}
            environment.pop("SESSIOND_SOCKET", None)
            command = [str(build_dir() / "sessiond"), "--socket", self.socket, "--state-dir", self.state_dir]
            if os.geteuid() != 0:  # else we could not count its descriptors
                command.append("--dumpable")
            self._process = subprocess.Popen([*command, *self._arguments], env=environment, stderr=log, stdout=log)
            try:
                self._await_ready(notify)
            finally:
                notify_path.unlink()
        if not self._fds:  # later, clients may be back before we can count
            self._fds = self._descriptors_at_rest()

    def _await_ready(self, notify: socket.socket) -> None:
        def ready() -> bool:
            if not self.running:
                pytest.fail(f"sessiond did not start:\n{self.read_log()}")
            try:
                return b"READY=1" in notify.recv(4096).split(b"\n")
            except TimeoutError:
                return False

        wait_until("sessiond says READY=1", ready)

    def stop(self) -> None:
        """Stop it as an administrator would, and insist on a clean end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"sessiond does not stop on SIGTERM:\n{self.read_log()}")
        self._process = None
        assert status == 0, f"sessiond ended with status {status}:\n{self.read_log()}"

    def kill(self) -> None:
        """End it as a crash would. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it if it runs, and start it again on the same directory."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop its clock (SIGSTOP): it is there, but does not answer. `resume` lets it go on."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def read_log(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else "(no log)"

    def _descriptors_at_rest(self) -> collections.Counter[str]:
        """What it holds when it serves and nobody is connected: its loop has answered us, so its start is over."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(DEADLINE_S)
            probe.connect(self.socket)
            probe.sendall(PING)
            assert probe.recv(1), "the daemon hung up on a ping"
            return self._descriptors() - collections.Counter(socket=1)

    def connections(self) -> int:
        """How many sockets it holds beyond those it had when it was ready."""
        return self._descriptors()["socket"] - self._fds["socket"]

    def _descriptors(self) -> collections.Counter[str]:
        """Its descriptors by kind, without the files of its stores: those it may open when they are first used."""
        kinds: collections.Counter[str] = collections.Counter()
        directory = f"/proc/{self.pid}/fd"
        for name in os.listdir(directory):
            try:
                target = os.readlink(f"{directory}/{name}")
            except FileNotFoundError:
                continue
            if not target.startswith(self.state_dir):
                kinds[target.split(":")[0]] += 1
        return kinds

    def check(self) -> None:
        """It is alive and has given back what the test made it open."""
        if self._process is None:
            return
        assert self.running, f"sessiond died:\n{self.read_log()}"
        wait_until(
            lambda: f"descriptors are what they were: {dict(self._fds)}, but they are {dict(self._descriptors())}",
            lambda: self._descriptors() == self._fds,
        )


@pytest.fixture(autouse=True)
def _environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds a daemon or a store that its user happens to have."""
    for name in ("SESSIOND_SOCKET", "SESSIOND_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def short_dir() -> Iterator[pathlib.Path]:
    """A directory with a path short enough for sockets (107 bytes), removed afterwards."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sd-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def daemon_factory(short_dir: pathlib.Path) -> Iterator[Callable[..., Daemon]]:
    """Call it with arguments for sessiond to get a running `Daemon`."""
    daemons: list[Daemon] = []

    def make(*arguments: str) -> Daemon:
        directory = short_dir / str(len(daemons))
        directory.mkdir()
        daemon = Daemon(directory, arguments)
        daemons.append(daemon)
        daemon.start()
        return daemon

    try:
        yield make
        for daemon in daemons:
            daemon.check()
            if daemon.running:
                daemon.stop()
    finally:
        for daemon in daemons:
            daemon.kill()


@pytest.fixture
def daemon(daemon_factory: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """A running sessiond, found by every client of the test through SESSIOND_SOCKET."""
    made = daemon_factory()
    monkeypatch.setenv("SESSIOND_SOCKET", made.socket)
    return made

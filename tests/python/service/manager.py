"""A stand-in for systemd: it holds the listening socket and passes it on, keeps the notify socket open and says what
came, and sets the environment of a unit. What it starts is the real daemon.

    from manager import Service, service_factory
    def test_something(service_factory):
        service = service_factory(arguments=[...], environment={...}, passes_socket=False)
        service.start()
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import socket
from collections.abc import Callable, Iterator

import pytest
from conftest import build_dir, wait_until

FIRST_PASSED_FD = 3


def spawn(command: list[str], environment: dict[str, str], log: int, passed: list[int], uid: int) -> int:
    """Start a program as systemd does: descriptors from 3 on, LISTEN_PID its own number. Return that number."""
    assert all(fd >= FIRST_PASSED_FD + len(passed) for fd in passed), "what is passed must not be in its own way"
    pid = os.fork()
    if pid:
        return pid
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        for i, fd in enumerate(passed):
            os.dup2(fd, FIRST_PASSED_FD + i)
        os.closerange(FIRST_PASSED_FD + len(passed), 1024)
        if passed:
            environment = {**environment, "LISTEN_FDS": str(len(passed)), "LISTEN_PID": str(os.getpid())}
        if uid != os.geteuid():
            os.setgid(uid)
            os.setuid(uid)
        os.execve(command[0], command, environment)
    finally:
        os._exit(127)


class Service:
    def __init__(
        self,
        directory: pathlib.Path,
        arguments: list[str],
        environment: dict[str, str],
        passes_socket: bool,
        uid: int,
    ) -> None:
        self.directory = directory
        self.socket = str(directory / "s")
        self.state_dir = str(directory / "state")
        self.states: list[str] = []
        self._arguments = arguments
        self._environment = environment
        self._uid = uid
        self._pid = 0
        self._status: int | None = None
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(directory / "notify"))
        self._notify.setblocking(False)
        self._listener: socket.socket | None = None
        if passes_socket:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(self.socket)
            self._listener.listen(4096)

    @property
    def pid(self) -> int:
        assert self._pid, "the service is not running"
        return self._pid

    def launch(self, fds: list[int] | None = None) -> None:
        """Start it, and do not wait. `fds`: the descriptors that are passed, instead of the socket."""
        if fds is None:
            fds = [self._listener.fileno()] if self._listener else []
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.directory / "notify"), **self._environment}
        command = [self._program(), "--socket", self.socket, "--state-dir", self.state_dir]
        with (self.directory / "log").open("ab") as log:
            self._pid = spawn([*command, *self._arguments], environment, log.fileno(), fds, self._uid)

    def _program(self) -> str:
        """Another user may not reach the directory that it was built in."""
        built = build_dir() / "sessiond"
        if self._uid == os.geteuid():
            return str(built)
        return str(shutil.copy(built, self.directory / "sessiond"))

    def start(self, fds: list[int] | None = None) -> None:
        n = self.count("READY=1")
        self.launch(fds)
        self.wait_for("READY=1", n)

    def count(self, state: str) -> int:
        """How often it has said this so far."""
        while True:
            try:
                self.states += self._notify.recv(4096).decode().split("\n")
            except BlockingIOError:
                return self.states.count(state)

    def wait_for(self, state: str, after: int) -> None:
        """Wait until it has said this more than `after` times."""

        def said() -> bool:
            assert not self.has_ended(), self.read_log()
            return self.count(state) > after

        wait_until(f"the service says {state}", said)

    def reload(self) -> None:
        n = self.count("READY=1")
        os.kill(self.pid, signal.SIGHUP)
        self.wait_for("READY=1", n)

    def has_ended(self) -> bool:
        if self._pid:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._pid = 0
                self._status = os.waitstatus_to_exitcode(status)
        return self._pid == 0

    def wait(self) -> int:
        """Wait for its end. Return its status, or that of a signal, negative."""
        wait_until("the service has ended", self.has_ended)
        assert self._status is not None
        return self._status

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        assert self.wait() == 0, self.read_log()

    def end(self) -> None:
        """At the end of a test: nothing is left."""
        if not self.has_ended():
            os.kill(self._pid, signal.SIGKILL)
            self.wait()
        self._notify.close()
        if self._listener is not None:
            self._listener.close()

    def read_log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")


@pytest.fixture
def service_factory(short_dir: pathlib.Path) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def make(
        arguments: list[str] | None = None,
        environment: dict[str, str] | None = None,
        passes_socket: bool = True,
        as_uid: int | None = None,
    ) -> Service:
        directory = short_dir / str(len(services))
        directory.mkdir()
        uid = os.geteuid() if as_uid is None else as_uid
        services.append(Service(directory, arguments or [], environment or {}, passes_socket, uid))
        if as_uid is not None:
            for path in (short_dir, directory, directory / "notify"):
                os.chown(path, uid, uid)
        return services[-1]

    try:
        yield make
    finally:
        for each in services:
            each.end()


"""What the daemon does with what systemd hands it, with a stand-in for systemd."""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import Callable, Iterator

import pytest
from conftest import wait_until
from manager import Service, service_factory  # noqa: F401
from sessiond import Client

INVALID = 2


@pytest.fixture
def passed(short_dir: pathlib.Path) -> Iterator[dict[str, socket.socket]]:
    """Descriptors that somebody might pass: one that is right, and others."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(short_dir / "p"))
    listening.listen()
    sockets = {
        "listening": listening,
        "deaf": socket.socket(socket.AF_UNIX),
        "datagrams": socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        "network": socket.create_server(("127.0.0.1", 0)),
    }
    for i, name in enumerate(sockets):  # away from the numbers under which they are passed
        number = 100 + i
        os.dup2(sockets[name].fileno(), number)
        sockets[name].close()
        sockets[name] = socket.socket(fileno=number)
    yield sockets
    for each in sockets.values():
        each.close()


def test_a_passed_socket_is_served_and_stays(service_factory: Callable[..., Service]) -> None:
    service = service_factory()
    service.start()
    with Client(service.socket) as client:
        client.add_items("s", ['{"n": 1}'])
    before = os.stat(service.socket)
    service.stop()
    assert os.stat(service.socket).st_ino == before.st_ino
    service.start()
    with Client(service.socket) as client:
        assert client.get_items("s").items == ['{"n": 1}']
    service.stop()


def test_who_connects_while_nobody_serves_is_answered_by_the_next(service_factory: Callable[..., Service]) -> None:
    service = service_factory()
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(service.socket)
    waiting.sendall(b"\x94\x00\x01\xa4ping\x90")
    service.start()
    assert waiting.recv(16).startswith(b"\x94\x01\x01\xc0")
    waiting.close()
    service.stop()


@pytest.mark.parametrize(
    "names", [["deaf"], ["datagrams"], ["network"], ["listening", "listening"], ["listening", "datagrams"]]
)
def test_anything_else_is_refused(
    service_factory: Callable[..., Service], passed: dict[str, socket.socket], names: list[str]
) -> None:
    service = service_factory(passes_socket=False)
    service.launch([passed[name].fileno() for name in names])
    assert service.wait() == INVALID
    assert "passed_socket_refused" in service.read_log()


def test_what_was_passed_to_another_process_is_left_alone(
    service_factory: Callable[..., Service], passed: dict[str, socket.socket]
) -> None:
    service = service_factory(passes_socket=False, environment={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    service.start()
    with Client(service.socket) as client:
        client.ping()
    service.stop()


def test_the_watchdog_is_told_while_it_asks(service_factory: Callable[..., Service]) -> None:
    service = service_factory(environment={"WATCHDOG_USEC": "30000"})
    service.start()
    for _ in range(3):
        service.wait_for("WATCHDOG=1", service.count("WATCHDOG=1"))
    service.stop()


def test_without_a_watchdog_nobody_is_told(service_factory: Callable[..., Service]) -> None:
    for environment in [{}, {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"}]:
        service = service_factory(environment=environment)
        service.start()
        service.stop()
        assert service.count("WATCHDOG=1") == 0
        assert "STOPPING=1" in service.states


def status_of(service: Service, name: str) -> str:
    lines = pathlib.Path(f"/proc/{service.pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can tell")
def test_its_memory_and_files_are_its_own(service_factory: Callable[..., Service]) -> None:
    def belongs_to_root() -> bool:
        """The kernel gives /proc/PID of what is not dumpable to root; here, to a user that is mapped to nobody."""
        return os.stat(f"/proc/{service.pid}/maps").st_uid == 0

    service = service_factory(as_uid=12345)
    service.start()
    assert belongs_to_root()
    assert status_of(service, "Umask") == "0077"
    service.stop()

    service = service_factory(as_uid=12345, arguments=["--dumpable"])
    service.start()
    assert not belongs_to_root()
    service.stop()

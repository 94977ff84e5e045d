"""The socket for a scraper: what `stats` tells, over HTTP, to whom it would tell it; and no harm by who asks badly."""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator

import msgpack
import pytest
from conftest import DEADLINE_S, PING, Daemon, build_dir, wait_until
from prometheus_client.parser import text_string_to_metric_families
from sessiond import Client

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD_MAX = 8192
PLACES = 16
PLACES_OF_ONE = 4

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


class Scraped(Daemon):
    """A daemon with a metrics socket."""

    metrics: str


@pytest.fixture
def scraped(
    daemon_factory: Callable[..., Daemon], short_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Scraped]:
    def make(*arguments: str) -> Scraped:
        conf, metrics = short_dir / "conf", short_dir / "m"
        conf.write_text(f'{{"metrics_socket": "{metrics}"}}')
        daemon = daemon_factory("--config", str(conf), *arguments)
        daemon.__class__ = Scraped
        assert isinstance(daemon, Scraped)
        daemon.metrics = str(metrics)
        monkeypatch.setenv("SESSIOND_SOCKET", daemon.socket)
        if "--system" in arguments:
            os.chmod(short_dir, 0o755)
            os.chmod(daemon.socket, 0o666)
            os.chmod(metrics, 0o666)
        return daemon

    return make


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path)


@contextlib.contextmanager
def being(uid: int) -> Iterator[None]:
    """What connects meanwhile is that user's."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def connect(path: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)  # which waits while the kernel's queue is full
    link.settimeout(DEADLINE_S)
    return link


def answer(path: str, method: str = "GET", target: str = "/metrics") -> tuple[int, http.client.HTTPMessage, str]:
    connection = UnixConnection(path)
    connection.request(method, target)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, response.headers, text


def read_all(link: socket.socket) -> bytes:
    """Until the daemon hangs up."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := link.recv(65536):
            data += part
    return data


def raw(path: str, request: bytes) -> bytes:
    with connect(path) as link:
        link.sendall(request)
        return read_all(link)


def status_of(reply: bytes) -> int:
    return int(reply.split(b" ")[1])


def names_in(text: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def uids_in(text: str) -> set[str]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.labels["uid"] for sample in samples if "uid" in sample.labels}


def stats(path: str) -> str:
    with connect(path) as link:
        link.sendall(msgpack.packb([0, 1, "stats", [{}]]))
        unpacker = msgpack.Unpacker()
        while data := link.recv(65536):
            unpacker.feed(data)
            for _, _, error, result in unpacker:
                assert error is None
                return str(result["text"])
    raise AssertionError("the daemon hung up")


def ping(path: str) -> None:
    with connect(path) as link:
        link.sendall(PING)
        assert link.recv(64)


# ---- what is told ----


def test_a_scraper_is_told_what_stats_tells(scraped: Callable[..., Scraped]) -> None:
    daemon = scraped()
    with Client(daemon.socket) as client:
        client.add_items("s", ['{"n": 1}'])
    status, headers, text = answer(daemon.metrics)
    assert (status, headers["Content-Type"], headers["Connection"]) == (200, CONTENT_TYPE, "close")
    assert int(headers["Content-Length"]) == len(text.encode())
    assert names_in(text) == names_in(stats(daemon.socket))
    assert 'sessiond_requests_total{method="add_items",outcome="done"} 1\n' in text
    assert 'session="' not in text


def test_head_tells_how_long_it_would_be(scraped: Callable[..., Scraped]) -> None:
    status, headers, text = answer(scraped().metrics, "HEAD")
    assert (status, headers["Content-Type"], text) == (200, CONTENT_TYPE, "")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl_is_content(scraped: Callable[..., Scraped]) -> None:
    command = ["curl", "--silent", "--show-error", "--fail", "--unix-socket", scraped().metrics, "http://localhost/metrics"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "sessiond_connections" in names_in(printed.stdout)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (REQUEST, 200),
        (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\nHost: x\n\n", 200),
        (b"GET /metrics?collect[]=all HTTP/1.1\r\n\r\n", 200),
        (b"GET http://somewhere:9100/metrics HTTP/1.1\r\n\r\n", 200),
        (REQUEST + b"and a body", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET http://somewhere HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /metric HTTP/1.1\r\n\r\n", 404),
        (b"POST /other HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"get /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\n\n", 400),
        (b"\0\xff \xfe HTTP\r\n\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /metrics HTTP/1.1 \r\n\r\n", 505),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (HEAD_MAX - 30) + b"\r\n\r\n", 200),
        (b"x" * HEAD_MAX, 431),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * HEAD_MAX * 3 + b"\r\n\r\n", 431),
    ],
)
def test_requests_of_every_kind(scraped: Callable[..., Scraped], request_: bytes, status: int) -> None:
    daemon = scraped()
    reply = raw(daemon.metrics, request_)
    assert status_of(reply) == status
    head, _, body = reply.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert (b"\r\nAllow: GET, HEAD\r\n" in head) == (status == 405)
    assert body.endswith(b"\n")
    ping(daemon.socket)


def test_a_request_may_come_byte_by_byte(scraped: Callable[..., Scraped]) -> None:
    with connect(scraped().metrics) as link:
        for byte in REQUEST:
            link.sendall(bytes([byte]))
        assert status_of(read_all(link)) == 200


# ---- to whom ----


@as_root
def test_a_user_sees_his_own_use_and_an_administrator_all(scraped: Callable[..., Scraped]) -> None:
    daemon = scraped("--system")
    with being(12345):
        ping(daemon.socket)
    with being(12346):
        ping(daemon.socket)
        status, _, own = answer(daemon.metrics)
    assert (status, uids_in(own)) == (200, {"12346"})
    assert "sessiond_requests_total" not in names_in(own)
    _, _, all_of_it = answer(daemon.metrics)
    assert uids_in(all_of_it) >= {"12345", "12346"}
    assert "sessiond_requests_total" in names_in(all_of_it)


@as_root
def test_another_user_is_told_nothing_by_a_users_daemon(
    scraped: Callable[..., Scraped], short_dir: pathlib.Path
) -> None:
    daemon = scraped()
    os.chmod(short_dir, 0o755)
    os.chmod(daemon.metrics, 0o666)
    with being(12345):
        status, _, text = answer(daemon.metrics)
    assert (status, text) == (403, "this daemon serves another user\n")


@pytest.mark.parametrize(("arguments", "mode"), [((), 0o600), (("--system",), 0o660)])
def test_its_mode_is_that_of_the_other_socket(
    daemon_factory: Callable[..., Daemon], short_dir: pathlib.Path, arguments: tuple[str, ...], mode: int
) -> None:
    (short_dir / "conf").write_text(f'{{"metrics_socket": "{short_dir}/sub/m"}}')
    daemon = daemon_factory("--config", str(short_dir / "conf"), *arguments)
    assert stat.S_IMODE(os.stat(short_dir / "sub" / "m").st_mode) == mode
    assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == mode


# ---- who asks badly ----


def test_half_a_request_is_given_up(scraped: Callable[..., Scraped]) -> None:
    daemon = scraped()
    with connect(daemon.metrics) as silent, connect(daemon.metrics) as half:
        half.sendall(REQUEST[:-1])
        assert status_of(read_all(half)) == 408
        assert status_of(read_all(silent)) == 408
    assert answer(daemon.metrics)[0] == 200
    assert "scrape_stalled" in daemon.read_log()


def test_who_hangs_up_is_forgotten(scraped: Callable[..., Scraped]) -> None:
    daemon = scraped()
    wait_until("nobody is connected", lambda: daemon.connections() == 0)
    charged = bytes_of_mine(daemon)
    for _ in range(PLACES):
        for part in (b"", REQUEST[:20], REQUEST):
            with connect(daemon.metrics) as link, contextlib.suppress(BrokenPipeError):  # there may be no place yet
                link.sendall(part)
    wait_until("they have left their places", lambda: is_served(daemon))
    wait_until("nobody is connected", lambda: daemon.connections() == 0)
    wait_until("nothing is charged for them", lambda: bytes_of_mine(daemon) == charged)


def is_served(daemon: Scraped) -> bool:
    with contextlib.suppress(BrokenPipeError):
        return raw(daemon.metrics, REQUEST).startswith(b"HTTP/1.1 200 ")
    return False


def bytes_of_mine(daemon: Daemon) -> str:
    return re.findall(rf'^sessiond_uid_bytes{{uid="{os.getuid()}"}} (\d+)$', stats(daemon.socket), re.M)[0]


def test_one_uid_has_so_many_connections_and_no_more(scraped: Callable[..., Scraped]) -> None:
    daemon = scraped()
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(connect(daemon.metrics)) for _ in range(PLACES_OF_ONE)]
        wait_until("they are there", lambda: daemon.connections() == PLACES_OF_ONE)
        for _ in range(50):
            with connect(daemon.metrics) as more:
                assert status_of(read_all(more)) == 503
        ping(daemon.socket)
        for link in links:
            link.sendall(REQUEST)
            assert status_of(read_all(link)) == 200
    assert answer(daemon.metrics)[0] == 200


def take_all_places(daemon: Scraped, stack: contextlib.ExitStack) -> list[socket.socket]:
    links = []
    for uid in range(20001, 20001 + PLACES // PLACES_OF_ONE):
        with being(uid):
            links += [stack.enter_context(connect(daemon.metrics)) for _ in range(PLACES_OF_ONE)]
    wait_until("all places are taken", lambda: daemon.connections() == PLACES)
    return links


@as_root
def test_who_comes_when_all_places_are_taken_waits(scraped: Callable[..., Scraped]) -> None:
    daemon = scraped("--system")
    with contextlib.ExitStack() as stack:
        links = take_all_places(daemon, stack)
        waiting = [stack.enter_context(connect(daemon.metrics)) for _ in range(2)]
        for link in waiting:
            link.sendall(REQUEST)
        ping(daemon.socket)
        links.pop().close()
        for link in waiting:
            assert status_of(read_all(link)) == 200
        links.pop().sendall(REQUEST)


@as_root
def test_an_answer_that_nobody_takes_is_given_up(scraped: Callable[..., Scraped]) -> None:
    daemon = scraped("--system")
    for uid in range(30001, 31001):  # so that it is larger than what the kernel keeps
        with being(uid):
            ping(daemon.socket)
    with connect(daemon.metrics) as link:
        link.sendall(REQUEST)
        wait_until("it is given up", lambda: "scrape_stalled" in daemon.read_log())
        wait_until("it is closed", lambda: daemon.connections() == 0)
        text = read_all(link)
        assert status_of(text) == 200 and len(text) > 100_000
    _, headers, text_ = answer(daemon.metrics)
    assert int(headers["Content-Length"]) == len(text_) > len(text)


def test_where_descriptors_are_few_some_are_kept_for_it(
    scraped: Callable[..., Scraped], short_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short_dir / "few").mkdir()
    program = short_dir / "few" / "sessiond"
    program.write_text(f'#!/bin/sh\nulimit -n 200\nexec {build_dir()}/sessiond "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("SESSIOND_BUILD", str(program.parent))
    daemon = scraped()
    n = int(re.findall(r"descriptors_are_few .*connections=(\d+)", daemon.read_log())[0])
    wait_until("nobody is connected", lambda: daemon.connections() == 0)
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(connect(daemon.socket)) for _ in range(n)]
        for link in links:
            link.sendall(PING)
            assert link.recv(64)
        with connect(daemon.socket) as more:
            assert b"busy" in read_all(more)
        for _ in range(PLACES_OF_ONE - 1):
            stack.enter_context(connect(daemon.metrics))
        assert answer(daemon.metrics)[0] == 200


def test_a_stop_does_not_wait_for_scrapers(scraped: Callable[..., Scraped]) -> None:
    daemon = scraped()
    with connect(daemon.metrics) as silent, connect(daemon.metrics) as half:
        half.sendall(REQUEST[:10])
        wait_until("they are there", lambda: daemon.connections() == 2)
        daemon.stop()
        assert (read_all(silent), read_all(half)) == (b"", b"")
    assert not os.path.exists(daemon.metrics)


@as_root
def test_a_stop_closes_those_that_wait_as_well(scraped: Callable[..., Scraped]) -> None:
    daemon = scraped("--system")
    with contextlib.ExitStack() as stack:
        links = take_all_places(daemon, stack)
        links += [stack.enter_context(connect(daemon.metrics)) for _ in range(3)]
        links[-1].sendall(REQUEST)
        ping(daemon.socket)
        daemon.stop()
        assert {read_all(link) for link in links} == {b""}


def test_after_a_crash_the_socket_is_made_anew(scraped: Callable[..., Scraped]) -> None:
    daemon = scraped()
    daemon.restart()
    assert answer(daemon.metrics)[0] == 200


# ---- the setting ----


def started(directory: pathlib.Path, metrics: str) -> tuple[int, str]:
    (directory / "conf").write_text(f'{{"metrics_socket": "{metrics}"}}')
    command = [build_dir() / "sessiond", "--socket", directory / "s", "--state-dir", directory / "state"]
    ended = subprocess.run([*command, "--config", directory / "conf"], capture_output=True, text=True, timeout=DEADLINE_S)
    return ended.returncode, ended.stderr


def test_a_path_that_cannot_be_is_refused(scraped: Callable[..., Scraped], short_dir: pathlib.Path) -> None:
    daemon = scraped()
    (short_dir / "other").mkdir()
    (short_dir / "file").write_text("mine")
    for metrics, status, words in [
        (daemon.metrics, 4, "socket_in_use"),
        (str(short_dir / "other" / "s"), 2, "it is the daemon's own socket"),
        (str(short_dir / "file"), 2, "there is something that is no socket"),
        ("/" + "x" * 107, 2, "107 bytes"),
    ]:
        ended = started(short_dir / "other", metrics)
        assert ended[0] == status and words in ended[1], ended
    assert (short_dir / "file").read_text() == "mine"
    assert answer(daemon.metrics)[0] == 200


def test_without_the_setting_there_is_none(daemon: Daemon) -> None:
    with Client(daemon.socket) as client:
        assert client.info().settings["metrics_socket"] == ""
    assert "metrics socket" not in daemon.read_log()


def test_another_path_needs_a_restart(scraped: Callable[..., Scraped], short_dir: pathlib.Path) -> None:
    daemon = scraped()
    (short_dir / "conf").write_text("{}")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until("it says so", lambda: 'setting_needs_restart key="metrics_socket"' in daemon.read_log())
    assert answer(daemon.metrics)[0] == 200

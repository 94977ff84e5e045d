"""sessionctl top: what it shows, and that a terminal is what it was when it ends, however that comes about."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import DEADLINE_S, Daemon, build_dir, wait_until
from sessiond import Client

DONE, REFUSED, USAGE, NO_DAEMON = range(4)
OTHER_SCREEN, FIRST_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
HOME = b"\x1b[H"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def top(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(build_dir() / "sessionctl"), "top", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, **options)


def fill(daemon: Daemon) -> None:
    with Client(daemon.socket) as client:
        for n in range(9):
            client.add_items("user_9", [f'{{"n": {n}}}'])
        client.add_items("user_1", ["{}"], store="myapp")


# ---- pages ----


def test_elsewhere_than_on_a_terminal_it_is_one_page(daemon: Daemon) -> None:
    fill(daemon)
    page = top()
    assert (page.returncode, page.stderr) == (DONE, "")
    assert "\x1b" not in page.stdout
    assert page.stdout.startswith("sessiond 0.1.0, up 0 d 00:00:")
    assert ", 1 connections; in " in page.stdout
    assert re.search(r"^ +\S+ +0 +\S+ (us|ms) +\S+ (us|ms)  stats$", page.stdout, re.M)
    assert re.search(rf" {os.getuid()}$", page.stdout, re.M)
    assert re.search(rf"^ +9 +{os.getuid()}  default user_9\n +1 +{os.getuid()}  myapp user_1$", page.stdout, re.M)


def test_as_many_pages_as_are_wanted(daemon: Daemon) -> None:
    pages = [json.loads(line) for line in top("--json", "--times", "2").stdout.splitlines()]
    assert len(pages) == 2
    assert top("--times=2").stdout.count("METHOD") == 2
    assert pages[1]["uptime_seconds"] - pages[0]["uptime_seconds"] == pytest.approx(pages[1]["seconds"], rel=1e-6)


def test_what_is_done_meanwhile_is_in_its_rates(daemon: Daemon) -> None:
    """Each request is in one page, and in no other."""
    n_adds = 200
    with contextlib.ExitStack() as stack:
        command = [build_dir() / "sessionctl", "top", "--json", "--times", "0"]
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        assert process.stdout
        pages = [json.loads(process.stdout.readline())]
        with Client(daemon.socket) as client:
            for n in range(n_adds):
                client.add_items("s", [f'{{"n": {n}}}'])
        while round(sum(of_method(page, "add_items")["per_s"] * page["seconds"] for page in pages)) < n_adds:
            pages.append(json.loads(process.stdout.readline()))
    assert round(sum(page["commit_seconds"]["per_s"] * page["seconds"] for page in pages)) == n_adds
    busy = [page for page in pages if of_method(page, "add_items")["per_s"]]
    for page in busy:
        add = of_method(page, "add_items")
        assert 0 < add["seconds"]["p50"] <= add["seconds"]["p99"]
        assert page["wal_bytes"] > 0 and page["history_sessions"] == 1
    for page in pages:
        if page["commit_seconds"]["per_s"]:
            assert 0 < page["commit_seconds"]["p50"] <= page["commit_seconds"]["p99"]
            assert page["batch_requests"]["mean"] == 1
    assert [page["uids"][0]["uid"] for page in pages] == [os.getuid()] * len(pages)
    assert pages[-1]["sessions"][0]["session"] == "s"


def of_method(page: Any, name: str) -> Any:
    return next(method for method in page["methods"] if method["method"] == name)


def test_ids_do_not_steer_the_terminal(daemon: Daemon) -> None:
    session = 'odd "\u00e9" \x1b[2J \u009b2J \u00a0'
    with Client(daemon.socket) as client:
        client.add_items(session, ["{}"])
    assert 'odd \\"\u00e9\\" \\u001b[2J \\u009b2J \u00a0' in top().stdout
    assert json.loads(top("--json").stdout)["sessions"][0]["session"] == session


@as_root
def test_a_user_sees_what_is_his(
    daemon_factory: Callable[..., Daemon], short_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short_dir / "conf").write_text('{"shared_stores": {"team": {"change": [12345, 12346]}}}')
    daemon = daemon_factory("--system", "--config", str(short_dir / "conf"))
    monkeypatch.setenv("SESSIOND_SOCKET", daemon.socket)
    os.chmod(daemon.directory.parent, 0o755)
    os.chmod(daemon.socket, 0o666)
    for uid in (12345, 12346):
        os.seteuid(uid)
        with Client(daemon.socket) as client:
            client.add_items(f"of {uid}", ["{}"])
            client.add_items(f"shared by {uid}", ["{}"], store="@team")
        os.seteuid(0)
    sessionctl = short_dir / "sessionctl"
    sessionctl.write_bytes((build_dir() / "sessionctl").read_bytes())  # where another user can run it
    sessionctl.chmod(0o755)
    as_user = {"user": 12345, "group": 12345, "extra_groups": [], "capture_output": True, "text": True}
    own = subprocess.run([sessionctl, "top", "--json"], **as_user)  # type: ignore[call-overload]
    page = json.loads(own.stdout)
    assert [uid["uid"] for uid in page["uids"]] == [12345]
    assert "methods" not in page and "connections" not in page
    assert {(s["uid"], s["store"], s["session"]) for s in page["sessions"]} == {
        (12345, "default", "of 12345"),
        (12345, "@team", "shared by 12345"),
    }
    shown = subprocess.run([sessionctl, "top"], **as_user)  # type: ignore[call-overload]
    assert "what concerns you; administrators see all" in shown.stdout
    assert len(json.loads(top("--json").stdout)["sessions"]) == 4


@pytest.mark.parametrize(
    "arguments", [["--every", "0"], ["--every", "86401"], ["--every", "x"], ["--times", "-1"], ["--owner", "1"], ["x"]]
)
def test_usage(daemon: Daemon, arguments: list[str]) -> None:
    ended = top(*arguments)
    assert (ended.returncode, ended.stdout) == (USAGE, "")
    assert ended.stderr.startswith("sessionctl: ")


def test_without_a_daemon(short_dir: pathlib.Path) -> None:
    assert top("--socket", str(short_dir / "s")).returncode == NO_DAEMON


def test_output_that_cannot_be_written_is_an_error(daemon: Daemon) -> None:
    with open("/dev/full", "w") as full:
        command = [build_dir() / "sessionctl", "top", "--times", "0"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S)
    assert ended.returncode == REFUSED and "could not be written" in ended.stderr


# ---- on a terminal ----


class Terminal:
    """`sessionctl top` on a terminal of its own."""

    def __init__(self, *arguments: str, rows: int = 40, **environment: str) -> None:
        self._ours, self._theirs = pty.openpty()
        self.before = self.mode()
        self.resize(rows)
        self.process = subprocess.Popen(
            [build_dir() / "sessionctl", "top", *arguments],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**os.environ, "TERM": "xterm", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.set_blocking(self._ours, False)
        self.shown = b""

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self._theirs)

    def resize(self, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read(self) -> bytes:
        """All that was shown so far."""
        with contextlib.suppress(BlockingIOError, OSError):
            while part := os.read(self._ours, 65536):
                self.shown += part
        return self.shown

    def await_shown(self, what: bytes, since: int = 0) -> None:
        wait_until(lambda: f"{what!r} in {self.shown[since:]!r}", lambda: what in self.read()[since:])

    def last_page(self) -> bytes:
        """The last that was drawn to its end."""
        pages = self.read().split(HOME)
        return pages[-1] if b"\x1b[J" in pages[-1] else pages[-2]

    def expect_end(self, status: int) -> None:
        """It ends so, and the terminal is what it was."""
        wait_until("it ends", lambda: (self.read(), self.process.poll())[1] is not None)
        assert self.process.returncode == status
        assert self.mode() == self.before
        assert self.read().count(OTHER_SCREEN) == self.shown.count(FIRST_SCREEN)
        assert self.shown.endswith(b"\x1b[?7h\x1b[?25h" + FIRST_SCREEN)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def terminal(daemon: Daemon) -> Iterator[Callable[..., Terminal]]:
    with contextlib.ExitStack() as stack:

        def make(*arguments: str, rows: int = 40, **environment: str) -> Terminal:
            made = Terminal(*arguments, rows=rows, **environment)
            stack.callback(made.close)
            return made

        yield make


def test_the_screen_shows_at_once_what_was_and_then_what_is(daemon: Daemon, terminal: Callable[..., Terminal]) -> None:
    fill(daemon)
    screen = terminal()
    screen.await_shown(b"; since its start")
    screen.await_shown(b"default user_9")
    screen.await_shown(b"; in ")
    assert screen.mode() != screen.before
    screen.press(b"x")  # means nothing
    screen.press(b"q")
    screen.expect_end(DONE)


def test_a_dumb_terminal_is_none(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(TERM="dumb")
    wait_until("it ends", lambda: (screen.read(), screen.process.poll())[1] is not None)
    assert b"METHOD" in screen.read() and b"\x1b" not in screen.shown


def test_ctrl_c_ends_it(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.await_shown(b"METHOD")
    screen.press(b"\x03")
    screen.expect_end(DONE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was(
    terminal: Callable[..., Terminal], number: signal.Signals
) -> None:
    screen = terminal()
    screen.await_shown(b"METHOD")
    screen.process.send_signal(number)
    screen.expect_end(-number)


def test_it_can_be_stopped_and_go_on(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("--every", "3600")
    screen.await_shown(b"METHOD")
    screen.press(b"\x1a")
    assert os.WIFSTOPPED(os.waitpid(screen.process.pid, os.WUNTRACED)[1])
    assert screen.mode() == screen.before
    shown = len(screen.read())
    assert screen.shown.endswith(FIRST_SCREEN)
    screen.process.send_signal(signal.SIGCONT)
    screen.await_shown(OTHER_SCREEN, since=shown)
    screen.await_shown(b"METHOD", since=shown)
    wait_until("keys are not shown", lambda: screen.mode() != screen.before)
    screen.press(b"q")
    wait_until("it ends", lambda: (screen.read(), screen.process.poll())[1] is not None)
    assert screen.process.returncode == DONE
    assert screen.mode() == screen.before


def test_it_fits_into_the_terminal_whatever_its_size(daemon: Daemon, terminal: Callable[..., Terminal]) -> None:
    with Client(daemon.socket) as client:
        for n in range(15):
            client.add_items(f"user_{n}", ["{}"])
    screen = terminal("--every", "3600")
    screen.await_shown(b"user_14")
    assert screen.last_page().count(b"\n") < 40
    for rows in (12, 3, 1, 60):
        shown = len(screen.read())
        screen.resize(rows)
        screen.await_shown(HOME, since=shown)
        screen.await_shown(b"\x1b[J", since=shown)
        wait_until("it fits", lambda: screen.last_page().count(b"\n") < rows)
        assert b"sessiond 0.1.0" in screen.last_page()
    wait_until("all of it is there again", lambda: b"user_14" in screen.last_page())
    screen.press(b"q")
    screen.expect_end(DONE)


def test_it_goes_on_with_the_next_daemon(daemon: Daemon, terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.await_shown(b"; in ")
    shown = len(screen.read())
    daemon.restart()
    screen.await_shown(b"; since its start", since=shown)
    screen.press(b"q")
    screen.expect_end(DONE)


def test_a_daemon_that_does_not_answer_does_not_hold_it(daemon: Daemon, terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.await_shown(b"; in ")
    daemon.pause()
    screen.press(b"q")
    screen.expect_end(DONE)
    daemon.resume()


def test_a_terminal_that_is_gone_ends_it(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.await_shown(b"METHOD")
    ours, screen._ours = screen._ours, os.open("/dev/null", os.O_RDWR)
    theirs, screen._theirs = screen._theirs, os.open("/dev/null", os.O_RDWR)
    os.close(theirs)
    os.close(ours)
    wait_until("it ends", lambda: screen.process.poll() is not None)

"""sessionctl: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
from collections.abc import Sequence

import pytest
from conftest import Daemon, build_dir, wait_until

DONE, REFUSED, USAGE, NO_DAEMON = range(4)

ODD_ITEMS = [
    b'{"n": 9007199254740993, "m": 18446744073709551616, "x": 1e400, "y": 1.0}',
    b'{"surrogate": "\\ud800", "nul": "\\u0000"}',
    '{"emoji": "🌉", "empty": "", "é": "\u2028"}'.encode(),
    b'  { "spaces" :  [ 1 ,2,  3 ] }  ',
    b'{"twice": 1, "twice": 2}',
    b'{"a":' * 499 + b"{}" + b"}" * 499,
]


def sessionctl(*arguments: str | bytes, given: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [build_dir() / "sessionctl", *arguments],
        input=given,
        capture_output=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def done(*arguments: str | bytes, given: bytes = b"") -> bytes:
    result = sessionctl(*arguments, given=given)
    assert result.returncode == DONE, result.stderr
    assert result.stderr == b""
    return result.stdout


def answer(*arguments: str, given: bytes = b"") -> dict[str, object]:
    found = json.loads(done(*arguments, "--json", given=given))
    assert isinstance(found, dict)
    return found


def expect(status: int, *arguments: str, given: bytes = b"", words: Sequence[str] = ()) -> None:
    result = sessionctl(*arguments, given=given)
    assert result.returncode == status, result
    assert result.stdout == b""
    for word in words:
        assert word in result.stderr.decode(), result.stderr


# --- items -------------------------------------------------------------------------------------


def test_items_come_back_byte_for_byte(daemon: Daemon) -> None:
    lines = b"".join(item + b"\n" for item in ODD_ITEMS)
    assert done("add", "s", given=lines) == b"added 6\n"
    assert done("get", "s") == lines


def test_the_last_line_needs_no_newline(daemon: Daemon) -> None:
    done("add", "s", given=b'{"a": 1}\n{"b": 2}')
    assert done("get", "s") == b'{"a": 1}\n{"b": 2}\n'


def test_a_file_of_ten_mebibytes_in_one_line(daemon: Daemon, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "items"
    file.write_bytes(b'{"a": "' + b"x" * (10 << 20) + b'"}\n')
    done("add", "s", str(file))
    assert done("get", "s") == file.read_bytes()


def test_nothing_to_add_is_a_success(daemon: Daemon) -> None:
    assert done("add", "s", given=b"") == b"added 0\n"
    assert answer("list") == {"sessions": []}


@pytest.mark.parametrize("bad", [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": 1}\r', b'{"a": "\xff"}', b"{}{}", b"\x00"])
def test_a_bad_line_refuses_the_batch_and_is_named(daemon: Daemon, bad: bytes) -> None:
    given = b'{"a": 1}\n' + bad + b'\n{"b": 2}\n'
    expect(REFUSED, "add", "s", given=given, words=["line 2", "invalid"])
    assert done("get", "s") == b""


def test_a_file_that_is_not_there(daemon: Daemon) -> None:
    expect(REFUSED, "add", "s", "/no/such/file", words=["/no/such/file", "No such file"])


def test_get_with_a_limit_and_as_json(daemon: Daemon) -> None:
    done("add", "s", given=b'{"i": 1}\n{"i": 2}\n{"i": 3}\n')
    assert done("get", "s", "--limit", "2") == b'{"i": 2}\n{"i": 3}\n'
    assert done("get", "s", "--limit=0") == b""
    found = answer("get", "s", "--limit", "1")
    assert found["items"] == [{"i": 3}]
    assert (found["first_seq"], found["last_seq"], found["head_seq"], found["revision"]) == (3, 3, 3, 1)
    assert answer("get", "nobody")["first_seq"] is None


def test_pop_clear_and_delete(daemon: Daemon) -> None:
    added = answer("add", "s", given=b'{"i": 1}\n{"i": 2}\n{"i": 3}\n')
    assert (added["first_seq"], added["last_seq"], added["revision"]) == (1, 3, 1)
    assert done("pop", "s") == b'{"i": 3}\n'
    assert answer("pop", "s")["item"] == {"i": 2}
    assert done("clear", "s") == b"removed 1\n"
    assert done("pop", "s") == b""
    assert answer("pop", "s")["item"] is None
    assert answer("clear", "s")["removed"] == 0
    assert done("delete", "s") == b"removed 0\n"
    assert answer("list") == {"sessions": []}


def test_stores_are_apart(daemon: Daemon) -> None:
    done("--store", "myapp", "add", "s", given=b'{"in": "myapp"}\n')
    assert done("get", "s") == b""
    assert done("get", "s", "--store=myapp") == b'{"in": "myapp"}\n'
    result = sessionctl("get", "s", SESSIOND_STORE="myapp")
    assert result.stdout == b'{"in": "myapp"}\n'
    stores = answer("stores")["stores"]
    assert isinstance(stores, list)
    assert [store["name"] for store in stores if store["sessions"]] == ["myapp"]
    assert b"myapp" in done("stores")


def test_list_by_prefix(daemon: Daemon) -> None:
    for session in ("user_1", "user_2", "other", 'odd "\u00e9" \x1b[2J'):
        done("add", session, given=b"{}\n")
    sessions = answer("list", "user_")["sessions"]
    assert isinstance(sessions, list)
    assert [(s["id"], s["count"], s["bytes"]) for s in sessions] == [("user_1", 1, 2), ("user_2", 1, 2)]
    ids = answer("list")["sessions"]
    assert isinstance(ids, list)
    assert 'odd "\u00e9" \x1b[2J' in [s["id"] for s in ids]
    assert b"\x1b" not in done("list")  # an id does not steer the terminal


def test_ids_that_begin_with_a_dash(daemon: Daemon) -> None:
    done("add", "--", "--help", given=b"{}\n")
    assert done("get", "--", "--help") == b"{}\n"


def test_what_the_daemon_refuses(daemon: Daemon) -> None:
    expect(REFUSED, "get", "", words=["invalid"])
    expect(REFUSED, "get", "x" * 256, words=["too_large"])
    expect(REFUSED, "--store", "@nobody", "get", "s", words=["not_found"])
    expect(REFUSED, "--store", "../up", "get", "s", words=["invalid"])


# --- the daemon --------------------------------------------------------------------------------


def test_ping_and_info(daemon: Daemon) -> None:
    assert daemon.socket.encode() in done("ping")
    found = answer("ping")
    assert found["socket"] == daemon.socket
    info = answer("info")
    assert info["instance"] == found["instance"]
    assert json.loads(done("info"))["version"] == info["version"]  # indented, and JSON all the same


def test_no_daemon(short_dir: pathlib.Path) -> None:
    path = str(short_dir / "nobody")
    for command in (["ping"], ["get", "s"], ["list"], ["backup", str(short_dir / "b")]):
        expect(NO_DAEMON, "--socket", path, *command, words=[path, "start it"])


def test_backup_and_verify(daemon: Daemon, tmp_path: pathlib.Path) -> None:
    done("add", "s", given=b'{"a": 1}\n')
    file = tmp_path / "backup.db"
    assert str(file).encode() in done("backup", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert sessionctl("verify", str(file)).returncode == DONE
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert sessionctl("verify", str(file)).returncode == REFUSED
    file.write_bytes(b"")
    assert sessionctl("verify", str(file)).returncode == REFUSED
    expect(REFUSED, "backup", "/no/such/directory/b", words=["/no/such/directory"])
    expect(REFUSED, "--store", "memory", "backup", str(file), words=["not_found"])


def test_output_that_cannot_be_written_is_an_error(daemon: Daemon) -> None:
    done("add", "s", given=b'{"a": 1}\n')
    with open("/dev/full", "wb") as full:
        result = subprocess.run([build_dir() / "sessionctl", "get", "s"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert result.returncode == REFUSED
    assert b"could not be written" in result.stderr


# --- usage -------------------------------------------------------------------------------------

COMMANDS = "get add pop clear delete list stores ping info metrics top recover backup verify run".split()


def test_help() -> None:
    text = done("--help").decode()
    for word in [*COMMANDS, "--socket", "--store", "--json", "--limit", "--every", "--times"]:
        assert word in text
    for command in COMMANDS:
        text = done(command, "--help").decode()
        assert text.startswith(f"sessionctl {command} ")
        assert ("--owner" in text) == (command not in "metrics top verify run".split())
        assert ("--store" in text) == (command in "get add pop clear delete list recover backup".split())
    assert done("--version").startswith(b"sessionctl ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["get"],
        ["get", "s", "t"],
        ["add"],
        ["pop"],
        ["ping", "x"],
        ["backup"],
        ["verify"],
        ["run"],
        ["run", "--"],
        ["get", "s", "--colour"],
        ["get", "s", "--limit"],
        ["get", "s", "--limit", "-1"],
        ["get", "s", "--limit", "1x"],
        ["get", "s", "--limit", ""],
        ["get", "s", "--limit", "9007199254740992"],
        ["ping", "--limit", "1"],
        ["metrics", "--times", "1"],
        ["stores", "--store", "x"],
        ["verify", "x", "--owner", "1"],
        ["list", "--owner", "alice"],
        ["get", "s", "--json=yes"],
        ["--socket", "", "ping"],
    ],
)
def test_usage(arguments: list[str]) -> None:
    expect(USAGE, *arguments, words=["sessionctl: "])


# --- run ---------------------------------------------------------------------------------------


def places() -> set[str]:
    return {name for name in os.listdir("/tmp") if name.startswith("sessionctl-")}


def is_running(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def hear_all_signals() -> None:
    """A shell cannot trap a signal that was ignored when it began, as SIGHUP is under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Running:
    """`sessionctl run` with a command that says its socket and waits until its standard input ends."""

    def __init__(self, script: str = "") -> None:
        command = f'echo "$SESSIOND_SOCKET"; {script} read -r line; exit 3'
        self.process = subprocess.Popen(
            [build_dir() / "sessionctl", "run", "--", "bash", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=hear_all_signals,
        )
        assert self.process.stdout
        self.socket = self.process.stdout.readline().decode().strip()
        self.place = pathlib.Path(self.socket).parent
        self.daemon = next(pid for pid in self.processes() if self.command_of(pid)[0].endswith(b"sessiond"))

    @staticmethod
    def command_of(pid: int) -> list[bytes]:
        try:
            return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return [b""]

    def processes(self) -> list[int]:
        """Those whose command line names the socket."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in pids if self.socket.encode() in self.command_of(pid)]

    def end(self) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(60)

    def expect_nothing_left(self) -> None:
        wait_until("the daemon has ended", lambda: not is_running(self.daemon))
        wait_until("the directory is gone", lambda: not self.place.exists())


def test_run_gives_a_command_a_daemon_and_its_exit_status() -> None:
    running = Running()
    assert running.place.stat().st_mode & 0o777 == 0o700
    assert done("--socket", running.socket, "add", "s", given=b"{}\n") == b"added 1\n"
    assert running.end() == 3
    running.expect_nothing_left()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["/no/such/program"], 127),
        (["/dev/null"], 126),
    ],
)
def test_run_ends_with_the_status_of_the_command(command: list[str], status: int) -> None:
    before = places()
    assert sessionctl("run", "--", *command).returncode == status
    assert places() <= before


def test_run_hands_everything_on() -> None:
    result = sessionctl("run", "--", "sh", "-c", 'cat; echo "$1 $2" >&2', "x", "--help", "--", given=b"given")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"given", b"--help --\n")


def test_run_twice_at_once_is_two_daemons() -> None:
    first, second = Running(), Running()
    assert first.socket != second.socket
    done("--socket", first.socket, "add", "s", given=b'{"in": "first"}\n')
    assert done("--socket", second.socket, "get", "s") == b""
    assert (first.end(), second.end()) == (3, 3)
    first.expect_nothing_left()
    second.expect_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_run_hands_signals_on_to_the_command(number: signal.Signals) -> None:
    running = Running(f"trap 'exit 7' {number.name[3:]}; echo armed;")
    assert running.process.stdout
    assert running.process.stdout.readline() == b"armed\n"
    running.process.send_signal(number)
    assert running.process.wait(60) == 7
    running.end()
    running.expect_nothing_left()


def test_run_that_is_killed_leaves_no_daemon_and_no_directory() -> None:
    running = Running()
    running.process.kill()
    running.end()
    running.expect_nothing_left()


def test_run_whose_daemon_dies_says_so_and_cleans_up() -> None:
    running = Running()
    os.kill(running.daemon, signal.SIGKILL)
    assert running.end() == 3
    running.expect_nothing_left()


def test_run_does_not_disturb_the_users_daemon(daemon: Daemon) -> None:
    done("add", "s", given=b'{"in": "the real one"}\n')
    result = sessionctl("run", "--", str(build_dir() / "sessionctl"), "get", "s")
    assert (result.returncode, result.stdout) == (0, b"")


def test_run_hides_what_systemd_gave_to_its_caller(short_dir: pathlib.Path) -> None:
    path = str(short_dir / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        result = sessionctl("run", "--", "true", NOTIFY_SOCKET=path, LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        assert result.returncode == 0
        notify.setblocking(False)
        with pytest.raises(BlockingIOError):
            notify.recv(1024)

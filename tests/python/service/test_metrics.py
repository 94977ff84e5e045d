"""Seeing the daemon work: what it tells in numbers, to whom, and that no item is ever told."""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator

import msgpack
import pytest
from conftest import DEADLINE_S, Daemon, build_dir, wait_until
from prometheus_client.parser import text_string_to_metric_families
from sessiond import Client, SessiondError

MARK = "canary-5e0c1a77"
Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def stats(path: str) -> str:
    """Asks as whoever this process is."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(DEADLINE_S)
        link.connect(path)
        link.sendall(msgpack.packb([0, 1, "stats", [{}]]))
        unpacker = msgpack.Unpacker()
        while data := link.recv(65536):
            unpacker.feed(data)
            for _, _, error, result in unpacker:
                assert error is None
                return str(result["text"])
    raise AssertionError("the daemon hung up")


def read(text: str) -> Numbers:
    """By name and labels, as Prometheus' own parser reads them; each is there once."""
    found: Numbers = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def number(numbers: Numbers, name: str, **labels: str) -> float:
    return numbers[name, frozenset(labels.items())]


def total(numbers: Numbers, name: str) -> float:
    return sum(value for (each, _), value in numbers.items() if each == name)


def test_each_answer_is_counted_by_method_and_outcome(daemon: Daemon) -> None:
    with Client(daemon.socket) as client:
        for _ in range(3):
            client.add_items("s", ['{"n": 1}'])
        client.get_items("s")
        with pytest.raises(SessiondError):
            client.add_items("s", ["no item"])
        numbers = read(stats(daemon.socket))
    assert number(numbers, "sessiond_requests_total", method="add_items", outcome="done") == 3
    assert number(numbers, "sessiond_requests_total", method="add_items", outcome="invalid") == 1
    assert number(numbers, "sessiond_requests_total", method="get_items", outcome="done") == 1
    assert number(numbers, "sessiond_requests_total", method="pop_item", outcome="done") == 0
    assert number(numbers, "sessiond_request_duration_seconds_count", method="add_items") == 4
    assert number(numbers, "sessiond_request_duration_seconds_sum", method="add_items") > 0
    assert number(numbers, "sessiond_connections") == 2
    assert total(numbers, "sessiond_batch_requests_sum") >= 3
    assert total(numbers, "sessiond_commit_duration_seconds_count") == 3
    assert total(numbers, "sessiond_wal_bytes") > 0
    uid = str(os.getuid())
    assert number(numbers, "sessiond_uid_refusals_total", uid=uid) == 1
    assert number(numbers, "sessiond_uid_answers_total", uid=uid) == total(numbers, "sessiond_requests_total")
    assert number(numbers, "sessiond_uid_connections", uid=uid) == 2


def test_each_commit_to_the_disk_is_synced_and_none_to_memory(daemon: Daemon) -> None:
    with Client(daemon.socket) as client:
        for _ in range(3):
            client.add_items("s", ['{"n": 1}'], store="memory")
        numbers = read(stats(daemon.socket))
        assert total(numbers, "sessiond_commit_duration_seconds_count") == 3
        assert total(numbers, "sessiond_sync_duration_seconds_count") == 0
        for _ in range(3):
            client.add_items("s", ['{"n": 1}'])
        numbers = read(stats(daemon.socket))
        assert total(numbers, "sessiond_sync_duration_seconds_count") >= 3
        assert total(numbers, "sessiond_sync_duration_seconds_sum") > 0


def test_histograms_grow_from_bucket_to_bucket(daemon: Daemon) -> None:
    with Client(daemon.socket) as client:
        client.add_items("s", ['{"n": 1}'])
    found: dict[tuple[str, frozenset[tuple[str, str]]], list[tuple[float, float]]] = {}
    numbers = read(stats(daemon.socket))
    for (name, labels), value in numbers.items():
        bounds = [bound for label, bound in labels if label == "le"]
        if bounds:
            rest = frozenset(label for label in labels if label[0] != "le")
            found.setdefault((name.removesuffix("_bucket"), rest), []).append((float(bounds[0]), value))
    assert found
    for (name, labels), buckets in found.items():
        counts = [count for _, count in sorted(buckets)]
        assert counts == sorted(counts)
        assert counts[-1] == numbers[f"{name}_count", labels]


def test_sessionctl_prints_what_prometheus_reads(daemon: Daemon) -> None:
    printed = subprocess.run(
        [build_dir() / "sessionctl", "metrics"], capture_output=True, text=True, check=True, timeout=DEADLINE_S
    )
    assert number(read(printed.stdout), "sessiond_info", version="0.1.0", instance=instance_of(daemon)) == 1


def instance_of(daemon: Daemon) -> str:
    return (pathlib.Path(daemon.state_dir) / "instance").read_text().strip()


def as_uid(uid: int, ask: Callable[[], str]) -> str:
    """What `ask` returns in a process of that uid."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            with os.fdopen(theirs, "w") as pipe:
                pipe.write(ask())
            os._exit(0)
        os._exit(1)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        text = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_user_sees_his_own_use_and_an_administrator_all(daemon_factory: Callable[..., Daemon]) -> None:
    daemon = daemon_factory("--system")
    os.chmod(daemon.directory.parent, 0o755)
    os.chmod(daemon.socket, 0o666)
    as_uid(12345, lambda: stats(daemon.socket))
    own = read(as_uid(12346, lambda: stats(daemon.socket)))
    assert {labels for _, labels in own if dict(labels).get("uid")} == {frozenset({("uid", "12346")})}
    assert not total(own, "sessiond_requests_total")
    assert not [name for name, _ in own if name not in ("sessiond_info", "sessiond_uptime_seconds") and "_uid_" not in name]
    all_of_it = read(stats(daemon.socket))
    assert number(all_of_it, "sessiond_uid_answers_total", uid="12345") == 1
    assert number(all_of_it, "sessiond_uid_answers_total", uid="12346") == 1
    assert number(all_of_it, "sessiond_requests_total", method="stats", outcome="done") == 2


# ---- the canary ----


def item(text: str) -> str:
    return '{"content": "' + text + '"}'


def send_raw(daemon: Daemon, frame: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(DEADLINE_S)
        link.connect(daemon.socket)
        link.sendall(frame)
        return link.recv(65536)


def walk_all_paths(daemon: Daemon) -> None:
    """Items, session ids and keys with the mark: taken, refused, and in frames that are none."""
    with Client(daemon.socket) as client:
        for store in ("default", "memory"):
            client.add_items(MARK, [item(MARK), item(f"two {MARK}")], store=store, key=f"key-{MARK}-{store}")
            client.get_items(MARK, store=store)
            client.pop_item(MARK, store=store)
            client.replace_items(MARK, [item(MARK)], store=store)
        for bad in (f'{{"content": "{MARK}"', f'["{MARK}"]', item(MARK * 10_000), f'{{"a": "{MARK}\x01"}}'):
            with pytest.raises(SessiondError):
                client.add_items(MARK, [bad])
        with pytest.raises(SessiondError):
            client.add_items(MARK, [item(MARK)], if_revision=77)
        with pytest.raises(SessiondError):
            client.add_items("another", [item(MARK)], key=f"key-{MARK}-default")
        with pytest.raises(SessiondError):
            client.add_items(MARK, [item(MARK)], store="@none")
    send_raw(daemon, msgpack.packb([0, 1, "no_method", [{"items": [MARK]}]]))
    send_raw(daemon, msgpack.packb([0, 1, "add_items", [{"session": "s", "items": [MARK.encode()]}]]))
    send_raw(daemon, msgpack.packb([2, "notify", [{"items": [MARK]}]]))
    send_raw(daemon, b"\xc1" + MARK.encode())


def told_by_the_kernel(pid: int) -> Iterator[tuple[str, bytes]]:
    """What /proc shows of a process besides its memory."""
    for name in ("cmdline", "comm", "environ", "io", "limits", "maps", "mountinfo", "stat", "status", "syscall", "wchan"):
        with contextlib.suppress(OSError):
            yield name, pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            yield f"fd/{name}", os.readlink(f"/proc/{pid}/fd/{name}").encode()
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            yield f"task/{task}", pathlib.Path(f"/proc/{pid}/task/{task}/comm").read_bytes()


def test_no_mark_of_an_item_shows_outside_of_memory_and_stores(
    daemon_factory: Callable[..., Daemon], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "conf").write_text('{"item_bytes": 65536}')
    daemon = daemon_factory("--log-level", "debug", "--config", str(tmp_path / "conf"))
    walk_all_paths(daemon)
    assert MARK not in stats(daemon.socket)
    told = dict(told_by_the_kernel(daemon.pid))
    assert b"sessiond" in told["comm"]
    assert [name for name, bytes_ in told.items() if MARK.encode() in bytes_] == []
    daemon.restart()  # after a crash, what was not finished is read again
    with Client(daemon.socket) as client:
        assert MARK in client.get_items(MARK).items[0]
    daemon.stop()
    damage(daemon)
    daemon.start()
    with Client(daemon.socket) as client, pytest.raises(SessiondError):
        client.add_items(MARK, [item(MARK)])
    assert MARK not in daemon.read_log()
    assert "store_gone" in daemon.read_log()  # it had something to say


def damage(daemon: Daemon) -> None:
    """The store's file is gone: the daemon notices, and says so."""
    for database in pathlib.Path(daemon.state_dir).rglob("items.db*"):
        database.unlink()


def test_the_search_finds_a_mark_where_one_is_planted(
    daemon_factory: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("PLANTED", MARK)
    configuration = tmp_path / f"conf-{MARK}"
    configuration.write_text("{}")
    daemon = daemon_factory("--config", str(configuration))
    found = [name for name, bytes_ in told_by_the_kernel(daemon.pid) if MARK.encode() in bytes_]
    assert found == ["cmdline", "environ"]
    configuration.write_text("{")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until("the log names the file", lambda: MARK in daemon.read_log())


def is_listening(path: pathlib.Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        return link.connect_ex(str(path)) == 0


def dies_with_a_core(directory: pathlib.Path, *arguments: str) -> bool:
    """Kills a daemon by SIGSEGV, with cores allowed. Whether the kernel says that it left one."""
    command = [build_dir() / "sessiond", "--socket", directory / "s", "--state-dir", directory / "state", *arguments]
    process = subprocess.Popen(
        command,
        cwd=directory,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2),
    )
    wait_until("it listens", lambda: is_listening(directory / "s"))  # the socket is there a moment before
    with Client(str(directory / "s")) as client:
        client.add_items(MARK, [item(MARK)])
    process.send_signal(signal.SIGSEGV)
    return os.WCOREDUMP(os.waitpid(process.pid, 0)[1])


def can_leave_cores() -> bool:
    pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()
    return os.geteuid() == 0 and pattern == "core" and "asan" not in str(build_dir()) and "tsan" not in str(build_dir())


@pytest.mark.skipif(not can_leave_cores(), reason="no core would be left here by anything")
def test_a_crash_leaves_no_core(short_dir: pathlib.Path) -> None:
    (short_dir / "hidden").mkdir()
    (short_dir / "shown").mkdir()
    assert not dies_with_a_core(short_dir / "hidden")
    assert list((short_dir / "hidden").glob("core*")) == []
    assert dies_with_a_core(short_dir / "shown", "--dumpable")  # the control: there would have been one,
    cores = list((short_dir / "shown").glob("core*"))
    assert any(MARK.encode() in core.read_bytes() for core in cores)  # with histories in it

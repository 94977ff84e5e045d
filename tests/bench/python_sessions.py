"""The load of the benchmark through Python: the session classes of the Agents SDK, and SessiondSession beside them.

A client is a task with a session object of its own, and 50 clients are 50 tasks of one asyncio loop; with several
processes each has so many. It reads orders as JSON lines and answers each with what `generate` prints.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, cast

RUNS_OF_A_CONVERSATION = 25

Item = dict[str, Any]


class Session(Protocol):
    """What all classes are."""

    async def get_items(self, limit: int | None = None) -> list[Any]: ...
    async def add_items(self, items: list[Any]) -> None: ...


class Order(NamedTuple):
    workload: str
    prefix: str
    clients: int
    items: int
    bytes: int
    seconds: float
    processes: int = 1


def sqlite_session(db_path: str) -> Callable[[str], Session]:
    from agents import SQLiteSession

    return lambda session_id: cast(Session, SQLiteSession(session_id, db_path))


def sessiond_session(socket: str) -> Callable[[str], Session]:
    """With the SDK loaded, as it is beside the other classes and in every process that runs an agent."""
    import agents  # noqa: F401
    from sessiond import SessiondSession

    return lambda session_id: cast(Session, SessiondSession(session_id, socket=socket, store="python"))


def redis_session(path: str) -> Callable[[str], Session]:
    """One Redis client, so one pool of connections, for all sessions of a loop: as its documents have it."""
    from agents.extensions.memory import RedisSession
    from redis.asyncio import Redis

    clients: dict[asyncio.AbstractEventLoop, Any] = {}

    def make(session_id: str) -> Session:
        loop = asyncio.get_running_loop()
        if loop not in clients:
            clients.clear()
            clients[loop] = Redis(unix_socket_path=path)
        return cast(Session, RedisSession(session_id, redis_client=clients[loop]))

    return make


KINDS = {"sqlite": sqlite_session, "sessiond": sessiond_session, "redis": redis_session}


async def close(session: Session) -> None:
    ended = session.close()  # type: ignore[attr-defined]
    if ended is not None:
        await ended


# ---- what is asked ----


def make_item(size: int) -> Item:
    """An item whose JSON text, as json.dumps writes it, has so many bytes."""
    blank = {"role": "user", "content": ""}
    return {**blank, "content": "x" * (size - len(json.dumps(blank)))}


# What one run of an agent stores that calls one tool: three appends. The shapes are those of the SDK, the sizes the
# medians of recorded answers of the API; an id has 53 characters, a call's 29.
USER = [{"content": "Where is my order 4711, and can I still change the address? " * 2, "role": "user"}]
CALL = [
    {
        "arguments": '{"order_id":"4711"}',
        "call_id": "call_" + "c" * 24,
        "name": "look_up_order",
        "type": "function_call",
        "id": "fc_" + "f" * 50,
        "status": "completed",
    },
    {
        "call_id": "call_" + "c" * 24,
        "output": json.dumps({"order": 4711, "state": "packed", "lines": ["a line of the order"] * 16}),
        "type": "function_call_output",
    },
]
ANSWER = [
    {
        "id": "msg_" + "m" * 50,
        "content": [{"annotations": [], "text": "It is packed. " * 5, "type": "output_text", "logprobs": []}],
        "role": "assistant",
        "status": "completed",
        "type": "message",
    }
]


async def one_run(session: Session) -> None:
    """The calls that the SDK's runner makes, and their order: each is awaited before the next."""
    await session.get_items()
    await session.add_items(USER)
    await session.add_items(CALL)
    await session.add_items(ANSWER)


# ---- clients ----


class Figures:
    """What is counted, and how long each took; `busy_ns` without the time between requests."""

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self.start_ns, self.end_ns = start_ns, end_ns
        self.samples: list[int] = []
        self.all = self.failed = 0
        self.errors: set[str] = set()

    def going_on(self) -> bool:
        return time.monotonic_ns() < self.end_ns

    async def measure(self, request: Callable[[], Any]) -> None:
        begun = time.monotonic_ns()
        try:
            await request()
        except Exception as error:
            self.failed += 1
            self.errors.add(f"{type(error).__name__}: {error}")
        self.all += 1
        if begun >= self.start_ns:
            self.samples.append(time.monotonic_ns() - begun)


async def ask(session: Session, order: Order, figures: Figures) -> None:
    items = [make_item(order.bytes) for _ in range(order.items)]

    async def get() -> None:
        got = await session.get_items()
        assert len(got) == order.items

    request = get if order.workload == "get" else lambda: session.add_items(items)
    while figures.going_on():
        await figures.measure(request)


async def converse(make: Callable[[str], Session], name: str, order: Order, figures: Figures) -> None:
    """Conversations that begin with so many items and grow by 100, one after the other. To open one is not measured."""
    number = 0
    while figures.going_on():
        session = make(f"{name}-{number}")
        number += 1
        if order.items:
            await session.add_items([make_item(order.bytes)] * order.items)
        for _ in range(RUNS_OF_A_CONVERSATION):
            if figures.going_on():
                await figures.measure(lambda: one_run(session))
        await close(session)


async def work(make: Callable[[str], Session], order: Order, process: int, figures: Figures) -> dict[str, Any]:
    if order.workload == "turn":
        names = [f"{order.prefix}-{time.time_ns()}-{process}-{i}" for i in range(order.clients)]
        await asyncio.gather(*(converse(make, name, order, figures) for name in names))
    else:
        sessions = [make(f"{order.prefix}-{process}-{i}") for i in range(order.clients)]
        await asyncio.gather(*(ask(session, order, figures) for session in sessions))
        for session in sessions:
            await close(session)
    return {"samples": figures.samples, "all": figures.all, "failed": figures.failed, "errors": sorted(figures.errors)}


# ---- processes ----


def child(work: Callable[[int], Any], process: int, start_fd: int, out_fd: int) -> None:
    """In the forked process: wait for the common start, work, write the result."""
    os.read(start_fd, 1)
    result = work(process)
    with os.fdopen(out_fd, "w") as out:
        json.dump(result, out)


def fork_all(work: Callable[[int], Any], processes: int) -> Iterator[Any]:
    """Start them at the same instant: all wait on one pipe, whose end is closed. Yields the start, then each result."""
    start_read, start_write = os.pipe()
    pipes = []
    for process in range(processes):
        out_read, out_write = os.pipe()
        if os.fork() == 0:
            status = 1
            try:
                os.close(start_write)
                child(work, process, start_read, out_write)
                status = 0
            finally:
                os._exit(status)
        os.close(out_write)
        pipes.append(out_read)
    started = time.monotonic_ns()
    os.close(start_write)
    os.close(start_read)
    yield started
    for pipe in pipes:
        with os.fdopen(pipe) as file:
            yield json.load(file)
    for _ in range(processes):
        os.wait()


def run(make: Callable[[str], Session], order: Order) -> dict[str, Any]:
    """A tenth of the time is for warming up. The rate is that at which the clients got what they asked for."""
    length = int(order.seconds * 1e9)
    start = time.monotonic_ns() + length // 10
    figures = Figures(start, start + length)

    def in_process(process: int) -> dict[str, Any]:
        return asyncio.run(work(make, order, process, figures))

    results = list(fork_all(in_process, order.processes))[1:] if order.processes > 1 else [in_process(0)]
    samples = sorted(ns for result in results for ns in result["samples"])
    n = len(samples)
    times = {"median_ns": samples[n // 2], "p99_ns": samples[n * 99 // 100], "worst_ns": samples[-1]} if n else {}
    return {
        "requests": n,
        "all": sum(result["all"] for result in results),
        "failed": sum(result["failed"] for result in results),
        "errors": sorted({text for result in results for text in result["errors"]})[:3],
        "seconds": sum(samples) / 1e9 / (order.processes * order.clients),
        **times,
    }


async def prepare(make: Callable[[str], Session], order: Order) -> dict[str, Any]:
    for i in range(order.clients):
        session = make(f"{order.prefix}-0-{i}")
        await session.add_items([make_item(order.bytes)] * order.items)
        await close(session)
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("where", help="the database's file, or the server's socket")
    arguments = parser.parse_args()
    make = KINDS[arguments.kind](arguments.where)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        result = asyncio.run(prepare(make, order)) if order.workload == "prepare" else run(make, order)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

"""The load of the benchmark through Python: the Agents SDK's SQLiteSession, and SessiondSession beside it.

One process, one asyncio loop; a client is a task with a session object of its own, and 50 clients are 50 tasks. It
reads orders as JSON lines and answers each with the line that `generate` prints.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

Item = dict[str, str]


class Session(Protocol):
    """What both classes are."""

    async def get_items(self, limit: int | None = None) -> list[Any]: ...
    async def add_items(self, items: list[Any]) -> None: ...
    def close(self) -> None: ...


class Order(NamedTuple):
    workload: str
    prefix: str
    clients: int
    items: int
    bytes: int
    seconds: float


def sqlite_session(db_path: str) -> Callable[[str], Session]:
    from agents import SQLiteSession

    return lambda session_id: cast(Session, SQLiteSession(session_id, db_path))


def sessiond_session(socket: str) -> Callable[[str], Session]:
    from sessiond import SessiondSession

    return lambda session_id: cast(Session, SessiondSession(session_id, socket=socket, store="python"))


KINDS = {"sqlite": sqlite_session, "sessiond": sessiond_session}


def make_item(size: int) -> Item:
    """An item whose JSON text, as json.dumps writes it, has so many bytes."""
    blank = {"role": "user", "content": ""}
    return {**blank, "content": "x" * (size - len(json.dumps(blank)))}


async def client(session: Session, order: Order, start_ns: int, end_ns: int, samples: list[int]) -> None:
    items = [make_item(order.bytes) for _ in range(order.items)]
    while (begun := time.monotonic_ns()) < end_ns:
        if order.workload == "get":
            got = await session.get_items()
            assert len(got) == order.items
        else:
            await session.add_items(items)
        if begun >= start_ns:
            samples.append(time.monotonic_ns() - begun)


async def run(order: Order, make: Callable[[str], Session]) -> str:
    sessions = [make(f"{order.prefix}-{i}") for i in range(order.clients)]
    try:
        if order.workload == "prepare":
            for session in sessions:
                await session.add_items([make_item(order.bytes)] * order.items)
            return "prepared"
        length = int(order.seconds * 1e9)
        start = time.monotonic_ns() + length // 10
        samples: list[int] = []
        await asyncio.gather(*(client(session, order, start, start + length, samples) for session in sessions))
        seconds = (time.monotonic_ns() - start) / 1e9
        samples.sort()
        n = len(samples)
        return f"{n} {seconds:.6f} {samples[n // 2]} {samples[n * 99 // 100]} {samples[-1]}"
    finally:
        for session in sessions:
            session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("where", help="the database's file, or the daemon's socket")
    arguments = parser.parse_args()
    make = KINDS[arguments.kind](arguments.where)
    for line in sys.stdin:
        print(asyncio.run(run(Order(**json.loads(line)), make)), flush=True)


if __name__ == "__main__":
    main()

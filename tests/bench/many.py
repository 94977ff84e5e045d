#!/usr/bin/env python3
"""Many processes that append at the same time: 64 of them, 1,000 single items each, through the Python client of
sessiond and through the Agents SDK's SQLiteSession, first to a session each, then all to one.

    many.py [--processes 64] [--items 1000] sessiond SOCKET | sqlite FILE | redis SOCKET

Prints a JSON object a case: how long it took from the common start to the last end, calls a second, the median and the
worst call, the calls that failed, by error, and how many acknowledged items are lost, and how many doubled. A process
that is not through after LIMIT_S stops, and its calls that are left count as not made.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import time
from collections.abc import Callable
from typing import Any

from python_sessions import KINDS, Session, close, fork_all

LIMIT_S = 600


async def append(make: Callable[[str], Session], name: str, process: int, items: int) -> dict[str, Any]:
    """What one process does. An error is counted, and the next item is tried: as a program that logs and goes on."""
    session = make(name)
    acknowledged: list[int] = []
    took_ns: list[int] = []
    errors: collections.Counter[str] = collections.Counter()
    end_ns = time.monotonic_ns() + LIMIT_S * 1_000_000_000
    for i in range(items):
        if time.monotonic_ns() > end_ns:
            break
        item = {"role": "user", "content": "x" * 400, "process": process, "number": i}
        begun = time.monotonic_ns()
        try:
            await session.add_items([item])
        except Exception as error:
            errors[f"{type(error).__name__}: {error}"] += 1
        else:
            acknowledged.append(i)
        took_ns.append(time.monotonic_ns() - begun)
    await close(session)
    return {"acknowledged": acknowledged, "took_ns": took_ns, "errors": errors, "ended_ns": time.monotonic_ns()}


async def stored_items(make: Callable[[str], Session], session_ids: set[str]) -> collections.Counter[tuple[int, int]]:
    stored: collections.Counter[tuple[int, int]] = collections.Counter()
    for session_id in sorted(session_ids):
        session = make(session_id)
        stored.update((item["process"], item["number"]) for item in await session.get_items())
        await close(session)
    return stored


def run_case(case: str, make: Callable[[str], Session], processes: int, items: int) -> dict[str, Any]:
    def name(process: int) -> str:
        return "all" if case == "all to one session" else f"own-{process}"

    def work(process: int) -> dict[str, Any]:
        return asyncio.run(append(make, name(process), process, items))

    started, *results = fork_all(work, processes)
    seconds = (max(result["ended_ns"] for result in results) - started) / 1e9
    took = sorted(ns for result in results for ns in result["took_ns"])
    acknowledged = {(process, i) for process, result in enumerate(results) for i in result["acknowledged"]}
    errors = sum((collections.Counter(result["errors"]) for result in results), collections.Counter[str]())
    stored = asyncio.run(stored_items(make, {name(process) for process in range(processes)}))
    return {
        "case": case,
        "calls": len(took),
        "not_made": processes * items - len(took),
        "seconds": round(seconds, 2),
        "rate": round(len(took) / seconds),
        "median_ms": round(took[len(took) // 2] / 1e6, 2),
        "worst_ms": round(took[-1] / 1e6, 1),
        "errors": errors.total(),
        "error_texts": dict(errors.most_common(3)),
        "lost": len(acknowledged - set(stored)),
        "doubled": sum(count - 1 for count in stored.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("where", help="the database's file, or the daemon's socket")
    arguments = parser.parse_args()
    make = KINDS[arguments.kind](arguments.where)
    for case in ("a session each", "all to one session"):
        print(json.dumps(run_case(case, make, arguments.processes, arguments.items)), flush=True)


if __name__ == "__main__":
    main()

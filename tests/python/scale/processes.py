"""Work that many processes begin at the same instant."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Any


def run_together(work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call `work` with each of the arguments in a process of its own, all from one instant on. Return what they
    returned, as far as JSON can say it; fail with all of their tracebacks if any raised."""
    start_read, start_write = os.pipe()
    with tempfile.TemporaryDirectory() as directory:
        reports = [pathlib.Path(directory, str(i)) for i in range(len(arguments))]
        pids = [_fork(work, words, report, start_read, start_write) for words, report in zip(arguments, reports)]
        os.close(start_read)
        os.close(start_write)
        for pid in pids:
            os.waitpid(pid, 0)
        results = [json.loads(report.read_text()) if report.exists() else {"error": "killed"} for report in reports]
    errors = [result["error"] for result in results if "error" in result]
    assert not errors, f"{len(errors)} of {len(results)} failed:\n" + "\n".join(errors)
    return [result["result"] for result in results]


def _fork(
    work: Callable[..., Any], arguments: tuple[Any, ...], report: pathlib.Path, start_read: int, start_write: int
) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.close(start_write)
        os.read(start_read, 1)  # ends when the last end for writing is closed
        result = {"result": work(*arguments)}
    except BaseException:
        result = {"error": traceback.format_exc()}
    try:
        report.write_text(json.dumps(result))
    finally:
        os._exit(0)

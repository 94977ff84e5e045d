"""A share of `make crash PARTS=kill`: a few kills under load, and the two control runs that must fail."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[3]


def test_kill_9_under_load_loses_and_doubles_nothing() -> None:
    environment = {**os.environ, "KILLS": "8"}
    done = subprocess.run(
        [sys.executable, str(TOP / "tests" / "crash" / "kill" / "run")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

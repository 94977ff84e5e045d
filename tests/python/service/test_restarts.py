"""A share of tests/integration/restarts: a few restarts under load, with the socket held by a stand-in for systemd."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import TOP


def test_restarts_under_load_refuse_nobody_lose_and_double_nothing() -> None:
    script = TOP / "tests" / "integration" / "restarts"
    environment = {**os.environ, "RESTARTS": "5"}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""sessionctl recover: what an operator does about a loss."""

from __future__ import annotations

import os
import pathlib
import subprocess

TOP = pathlib.Path(__file__).resolve().parents[3]
SESSIONCTL = pathlib.Path(os.environ.get("SESSIOND_BUILD") or TOP / "build" / "release").resolve() / "sessionctl"


def sessionctl(daemon, *arguments, text=None):
    command = [str(SESSIONCTL), "--socket", daemon.socket, *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)


def test_recover_lets_a_store_with_a_loss_go_on(daemon):
    for n in range(3):
        assert sessionctl(daemon, "add", "s", text=f'{{"n":{n}}}\n').returncode == 0
    assert sessionctl(daemon, "recover").stdout == "nothing was missing\n"
    daemon.kill()
    (log,) = pathlib.Path(daemon.state_dir).glob("u/*/*/items.db-wal")
    log.unlink()
    daemon.start()

    refused = sessionctl(daemon, "add", "s", text='{"n":4}\n')
    assert refused.returncode == 1 and "rolled_back" in refused.stderr
    marked = sessionctl(daemon, "get", "s")
    assert marked.returncode == 0 and "has lost" in marked.stderr
    accepted = sessionctl(daemon, "recover")
    assert accepted.returncode == 0 and "are missing" in accepted.stdout
    assert sessionctl(daemon, "add", "s", text='{"n":5}\n').returncode == 0
    assert '{"n":5}' in sessionctl(daemon, "get", "s").stdout.splitlines()

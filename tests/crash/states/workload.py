"""A load on a real daemon whose calls on its files are recorded."""

from __future__ import annotations

import json
import pathlib
import random
import time

from harness import BUILD, Client, Daemon, Plan, wait_until, write_histories

RECORDER = BUILD / "tests" / "crash" / "states" / "preload_record.so"
LIVES = 3
CALLS_OF_A_LIFE = 2500, 4500
"""Enough for a checkpoint in most lives."""
ANSWERS_OF_THE_LAST_LIFE = 300


class Workload:
    """A daemon that starts on nothing, is killed in the midst of it twice, and comes to a good end."""

    def __init__(self, directory: pathlib.Path, rng: random.Random, *, clients: int) -> None:
        directory.mkdir()
        self.record = directory / "record"
        self.histories = directory / "histories"
        self.daemon = Daemon(directory)
        self._plan = Plan(directory / "plan")
        self._rng = rng
        config = directory / "config"
        config.write_text(json.dumps({"ballast_bytes": 0}))
        self.daemon.arguments = ["--config", str(config)]
        arguments = ["--plan", str(self._plan.path), "--window", "2"]
        self._clients = [Client(i, directory, arguments, self.daemon.environment) for i in range(clients)]

    @property
    def logs(self) -> list[str]:
        return [str(client.log) for client in self._clients]

    def run(self) -> None:
        try:
            self._launch(dies=True)
            for client in self._clients:
                client.start(self._rng.randint(1, 2**60))
            for life in range(1, LIVES):
                self.daemon.reap()
                self._launch(dies=life < LIVES - 1)
            enough = self._plan.answered + ANSWERS_OF_THE_LAST_LIFE
            wait_until("the clients are answered", lambda: self._plan.answered >= enough, time.sleep)
            self._plan.stop()
            for client in self._clients:
                client.await_end()
            write_histories(self.daemon, self.histories)
            self.daemon.stop()
        finally:
            for client in self._clients:
                client.kill()
            self.daemon.close()

    def _launch(self, *, dies: bool) -> None:
        self.daemon.own_environment = {
            "LD_PRELOAD": str(RECORDER),
            "SESSIOND_RECORD": str(self.record),
            "SESSIOND_RECORD_ROOT": str(self.daemon.state),
            "SESSIOND_RECORD_END": str(self._rng.randint(*CALLS_OF_A_LIFE) if dies else 0),
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }
        self.daemon.spawn()
        self.daemon.await_ready()

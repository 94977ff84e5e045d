"""What a scenario plays on: sessions of one backend, with every call on them recorded.

A scenario gets its sessions from a Stage and does not know which backend they belong to. Played
once on the SDK's SQLiteSession and once on ours, it leaves two records to compare: the calls that
the Runner made (method, arguments, outcome), what the scenario observed, and the stored history.

A recorded session is an instance of a subclass of the real class, with the real signatures: the
Runner finds out what a session can do by looking at its methods, and must see the same here.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

METHODS = ("get_items", "add_items", "pop_item", "clear_session")

SDK = "SQLiteSession"

# Backend, the class, and how the class is told where its history lives.
BACKENDS: dict[str, tuple[str, str, Callable[[Path, str], dict[str, Any]]]] = {
    SDK: ("agents", "SQLiteSession", lambda where, store: {"db_path": str(where / "history.db")}),
    "SessiondSession": ("sessiond", "SessiondSession", lambda where, store: {"store": store}),
    "drop-in": (
        "sessiond.agents",
        "SQLiteSession",
        lambda where, store: {"db_path": str(where / "history.db")},
    ),
}
OURS = [name for name in BACKENDS if name != SDK]


@contextmanager
def loop_of_run_sync() -> Iterator[None]:
    """Runner.run_sync keeps the thread's default event loop open for its next call: here is one that ends."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


class InjectedFailure(Exception):
    """Raised in place of a call that a scenario wants to fail."""


class Stage:
    """One play of a scenario on one backend.

    calls      every call made on its sessions, in the order in which they began
    fail_at    (method, n): the n-th call of this method raises and does not reach the session
    lose_at    (method, n): the n-th call of this method is made, but its answer is lost: it raises
    reveal     applied to each item before it is compared (to look into an encrypted one)
    """

    def __init__(self, backend: str, where: Path, store: str, base_url: str, recorded: bool = True):
        self.backend = backend
        self.where = where
        self.store = store
        self.base_url = base_url
        self.recorded = recorded
        self.calls: list[dict[str, Any]] = []
        self.session_ids: set[str] = set()
        self.fail_at: tuple[str, int] | None = None
        self.lose_at: tuple[str, int] | None = None
        self.reveal: Callable[[Any], Any] = lambda item: item

    def session(self, session_id: str = "talk", **settings: Any) -> Any:
        self.session_ids.add(session_id)
        session_class = self._class()
        if self.recorded:
            session_class = recording_class(session_class, self)
        return session_class(session_id, **self._place(), **settings)

    async def histories(self) -> dict[str, list[Any]]:
        """What is stored, read through fresh and unrecorded session objects."""
        histories = {}
        for session_id in sorted(self.session_ids):
            session = self._class()(session_id, **self._place())
            histories[session_id] = [self.reveal(item) for item in await session.get_items()]
            session.close()
        return histories

    def in_another_process(self, script: str, *arguments: str) -> Any:
        """Plays a part of the scenario in a process of its own; its calls join the record."""
        path = Path(__file__).with_name(script)
        description = json.dumps([self.backend, str(self.where), self.store, self.base_url])
        done = subprocess.run(
            [sys.executable, str(path), description, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "OPENAI_BASE_URL": self.base_url},
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout.splitlines()[-1])
        self.calls += report["calls"]
        self.session_ids.update(report["session_ids"])
        return report["observed"]

    @classmethod
    def from_description(cls, description: str) -> Stage:
        """The other side of in_another_process."""
        backend, where, store, base_url = json.loads(description)
        return cls(backend, Path(where), store, base_url)

    def report(self, observed: Any) -> str:
        return json.dumps(
            {
                "calls": self.calls,
                "session_ids": sorted(self.session_ids),
                "observed": observed,
            }
        )

    def methods_called(self) -> list[str]:
        return [call["method"] for call in self.calls]

    @contextmanager
    def record_of(self, session_id: str, method: str, args: Any, kwargs: Any) -> Iterator[dict]:
        call = {
            "session": session_id,
            "method": method,
            "args": self._plain(args),
            "kwargs": self._plain(kwargs),
        }
        self.calls.append(call)
        this_call = (method, self.methods_called().count(method))
        try:
            if self.fail_at == this_call:
                raise InjectedFailure(f"{method} was told to fail")
            yield call
            if self.lose_at == this_call:
                raise InjectedFailure(f"the answer of {method} was told to be lost")
        except BaseException as error:
            call["raised"] = type(error).__name__
            raise

    def _class(self) -> type:
        module, name, _ = BACKENDS[self.backend]
        return getattr(importlib.import_module(module), name)

    def _place(self) -> dict[str, Any]:
        return BACKENDS[self.backend][2](self.where, self.store)

    def _plain(self, value: Any) -> Any:
        """A copy as JSON would carry it, with each item revealed."""
        if isinstance(value, list | tuple):
            return [self._plain(element) for element in value]
        return copy.deepcopy(self.reveal(value))


def recording_class(session_class: type, stage: Stage) -> type:
    """A subclass whose four history methods write down their calls."""

    def recorded(name: str) -> Callable[..., Any]:
        method = getattr(session_class, name)

        @functools.wraps(method)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            with stage.record_of(self.session_id, name, args, kwargs) as record:
                result = await method(self, *args, **kwargs)
                record["returned"] = stage._plain(result)
                return result

        return call

    return type(session_class.__name__, (session_class,), {m: recorded(m) for m in METHODS})

"""Both clients behind one face: a test written once runs with `Client` and with `AsyncClient`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from sessiond import AsyncClient, Client

# No deadline: a slow machine is no failure. No database: nothing is left in the directory of the caller.
settings.register_profile("sessiond", deadline=None, database=None, max_examples=50)
settings.load_profile("sessiond")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(120)

    def close(self) -> None:
        self.run(self.loop.shutdown_asyncgens())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class BlockingAsyncClient:
    """An AsyncClient whose methods block, as those of Client do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._thread = LoopThread()
        self._client = AsyncClient(*args, **kwargs)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._thread.run(method(*args, **kwargs))

    def close(self) -> None:
        self._thread.run(self._client.aclose())

    def end_thread(self) -> None:
        self._thread.close()


@pytest.fixture(params=[Client, BlockingAsyncClient], ids=["blocking", "asyncio"])
def make_client(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes clients of either kind, and closes them when the test is over, before the daemon is looked at."""
    if "daemon_factory" in request.fixturenames:
        request.getfixturevalue("daemon_factory")
    made: list[Any] = []

    def make(*args: Any, **kwargs: Any) -> Any:
        made.append(request.param(*args, **kwargs))
        return made[-1]

    yield make
    for client in made:
        client.close()
        if isinstance(client, BlockingAsyncClient):
            client.end_thread()

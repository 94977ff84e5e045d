"""When is a request repeated, and when is it given up? The one place that decides, for both clients.

What can happen to a request, and what then:

    refused: busy                     wait as long as the daemon says, send again
    refused: uncertain                send again: the key makes it happen once
    refused: anything else            the error
    connection lost, not sent whole   reconnect, send
    connection lost, no answer yet    reconnect, send the same bytes to the same instance; never to another one,
                                      which cannot know the key

All of it ends `retry_seconds` after the first mishap. Objects belong to one call.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

from ._requests import Request
from .errors import SessiondError, UncertainError, UnreachableError, from_wire

RETRY_SECONDS = 10.0
"""How long a call goes on after its first mishap."""

SILENCE_SECONDS = 60.0
"""How long the daemon may neither take nor send a byte while a call waits; then the connection counts as broken."""

FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.5

SETTLED = frozenset({"invalid", "unknown_method", "denied", "conflict", "key_reused", "too_large"})
"""Refusals that come after the look-up of the key, or would have met the first try as well: they leave no doubt."""


class Lost(Exception):
    """A connection broke, or could not be made. Never leaves this package.

    why    for people
    doubt  the request was sent whole to the daemon of this instance and may have been carried out; None: it was not
    pid    the process that the connection belonged to
    """

    def __init__(self, why: str, *, doubt: str | None = None, pid: int | None = None) -> None:
        super().__init__(why)
        self.doubt = doubt
        self.pid = pid


class Retry:
    """The mishaps of one request so far. Methods return the seconds to wait, or raise what the caller shall see."""

    def __init__(self, request: Request[Any], retry_seconds: float) -> None:
        self._request = request
        self._end = time.monotonic() + retry_seconds
        self._pause = FIRST_PAUSE
        self._doubt: str | None = None

    def refused(self, error: dict[str, Any], instance: str) -> float:
        """The daemon of `instance` answered with an error map."""
        refusal = from_wire(error, self._request.key)
        if refusal.code == "uncertain":
            self._doubt = self._doubt or instance
        elif refusal.code != "busy":
            if self._doubt is not None and refusal.code not in SETTLED:
                raise self._uncertain(
                    f"the answer to its repetition was {refusal.code}: {refusal.message}"
                ) from refusal
            raise refusal
        at_least = refusal.details.get("retry_after_ms", 0) / 1000
        return self._wait(max(at_least, self._next_pause()), refusal)

    def lost(self, loss: Lost) -> float:
        """The connection broke before an answer came, or there was none to be had."""
        if self._request.key is not None:
            self._doubt = self._doubt or loss.doubt
            if loss.pid is not None and loss.pid != os.getpid():
                raise self._uncertain("this process was forked while its parent waited for the answer") from loss
        return self._wait(self._next_pause(), UnreachableError(str(loss), key=self._request.key))

    def sending_to(self, instance: str) -> None:
        """It is about to be sent to the daemon of `instance`."""
        if self._doubt is not None and self._doubt != instance:
            raise self._uncertain(
                f"the daemon that may have made it was instance {self._doubt}, the one that answers now is {instance}"
            )

    def _next_pause(self) -> float:
        pause = self._pause
        self._pause = min(2 * pause, LONGEST_PAUSE)
        return pause * random.uniform(0.75, 1.25)

    def _wait(self, seconds: float, error: SessiondError) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            if self._doubt is not None and error.code != "uncertain":
                raise self._uncertain(error.message) from error
            raise error
        return min(seconds, left)

    def _uncertain(self, why: str) -> UncertainError:
        return UncertainError(f"it is unknown whether {self._request.method} was made: {why}", key=self._request.key)

"""A daemon whose disk fails as planned, or that is killed at a planned point: preload_faults.c in it, and the plan that
says which calls fail, and when."""

from __future__ import annotations

import enum
import errno
import json
import mmap
import os
import pathlib
import struct
import sys
from dataclasses import dataclass
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import BUILD, STORE, Broken, Daemon  # noqa: E402

PRELOAD = BUILD / "tests" / "crash" / "faults" / "preload_faults.so"


class Call(enum.IntFlag):
    """Those that may fail; the bits of plan.h."""

    SYNC = 1
    WRITE = 2
    TRUNCATE = 4
    READ = 8
    OPEN = 16
    UNLINK = 32
    HEADER = 64


class Way(enum.IntEnum):
    """How a call fails; see plan.h."""

    NONE = 0
    UNDONE = 1
    HALF = 2
    DONE = 3
    SWALLOW = 4
    HANG = 5
    KILL_BEFORE = 6
    KILL_HALF = 7
    KILL_AFTER = 8
    KILL_ANSWER = 9


@dataclass(frozen=True)
class Fault:
    """Which call fails how: once, or that one and all after it; or where the process is killed."""

    call: Call
    error: int = 0
    way: Way = Way.UNDONE
    way_then: Way = Way.NONE

    def __str__(self) -> str:
        how = {Way.UNDONE: "", Way.HALF: " half done", Way.DONE: " done all the same"}
        then = {Way.NONE: "once", self.way: "for ever"}.get(self.way_then, f"then {self.way_then.name}")
        call = ("an " if self.call is Call.OPEN else "a ") + str(self.call.name).lower()
        return f"{errno.errorcode[self.error]} at {call}{how.get(self.way, f' {self.way.name}')}, {then}"

    @property
    def lasts(self) -> bool:
        return self.way_then is not Way.NONE


def files_of_a_store(name: str) -> str:
    """A pattern of all files of that store, and of its directory."""
    return f"*/u/{os.getuid()}/{name.encode().hex()}?(/*)"


class Disk:
    """The plan. It begins well."""

    _LAYOUT = struct.Struct("=IIIiqqq512s")
    _COUNTDOWN, _FAILED, _HANGING = 16, 24, 32

    def __init__(self, path: pathlib.Path) -> None:
        path.write_bytes(bytes(self._LAYOUT.size))
        self.path = path
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), self._LAYOUT.size)

    def arm(self, fault: Fault, k: int, pattern: str = files_of_a_store("default")) -> None:
        """The k-th call from now on fails."""
        fields = (fault.way, fault.way_then, fault.error, k, 0, 0, os.fsencode(pattern))
        self._LAYOUT.pack_into(self._memory, 0, 0, *fields)
        struct.pack_into("=I", self._memory, 0, fault.call)

    def heal(self) -> None:
        struct.pack_into("=I", self._memory, 0, 0)

    @property
    def failed(self) -> int:
        """Calls that failed so far."""
        return int(struct.unpack_from("=q", self._memory, self._FAILED)[0])

    @property
    def hanging(self) -> int:
        """Calls that hang at the moment."""
        return int(struct.unpack_from("=q", self._memory, self._HANGING)[0])


class FaultyDaemon(Daemon):
    """A sessiond with settings of its own and, if wanted, on such a disk."""

    def __init__(self, directory: pathlib.Path, settings: dict[str, Any] | None = None) -> None:
        super().__init__(directory)
        self.disk = Disk(directory / "disk")
        config = directory / "config"
        config.write_text(json.dumps(settings or {}))
        self.arguments = ["--config", str(config)]
        self.own_environment = {
            "LD_PRELOAD": str(PRELOAD),
            "FAULT_PLAN": str(self.disk.path),
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }

    def pause(self, seconds: float) -> None:
        """Let some time pass, in which it must not end."""
        if self.ended(seconds):
            raise Broken(f"sessiond ended with status {self.running.returncode}; see {self.log}")


__all__ = ["STORE", "Broken", "Call", "Disk", "Fault", "FaultyDaemon", "Way", "files_of_a_store"]

"""The program that opens a store with the daemon's own code (reopen.c), and its answers."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO

from harness import BUILD, Broken

REOPEN = BUILD / "tests" / "crash" / "states" / "reopen"


@dataclass(slots=True)
class Answer:
    """All that a store holds, or why it says nothing. `r` is 0, an outcome (> 0) or a fault (< 0)."""

    opened: int | None = None
    """None: the program crashed."""
    missing: int = 0
    unlisted: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    receipts: dict[str, int] = field(default_factory=dict)
    used: int | None = None
    verified: int = 0
    why: str = ""
    histories: list[str] = field(default_factory=list)
    """The lines that verify.py reads."""

    def take(self, line: str) -> None:
        what, *words = line.split()
        if what in ("session", "item"):
            self.histories.append(line)
            if what == "session":
                self.revisions[words[0]] = int(words[3])
        elif what == "opened":
            self.opened, self.missing = int(words[0]), int(words[1])
        elif what == "unread":
            self.unread[words[0]] = int(words[1])
        elif what == "receipt":
            self.receipts[words[0]] = int(words[1])
        elif what == "verified":
            self.verified, self.why = int(words[0]), " ".join(words[1:])
        elif what == "unlisted":
            self.unlisted = int(words[0])
        elif what == "used":
            self.used = int(words[0])
        else:
            raise Broken(f"reopen said {line!r}")

    @property
    def is_loud(self) -> bool:
        """Whether somebody who works with this store is told that something is wrong with it, or with a part of it."""
        return self.opened is None or bool(self.opened or self.missing or self.unlisted or self.unread)


class Reopener:
    """A directory for the files of a store, and the program that opens it."""

    def __init__(self, directory: pathlib.Path, log: pathlib.Path) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def put(self, files: dict[str, bytes]) -> None:
        """The store has these files, and no others."""
        for path in self.directory.iterdir():
            if path.name not in files:
                path.unlink()
        for name, content in files.items():
            (self.directory / name).write_bytes(content)

    def get(self, name: str) -> bytes | None:
        """What a file of the store has now, if it is there."""
        path = self.directory / name
        return path.read_bytes() if path.exists() else None

    def ask(self, receipts: Iterable[tuple[str, str]] = (), *, use: bool = False) -> Answer:
        """Receipts are keys, with their sessions."""
        answer = Answer()
        process = self._running()
        commands, answers = streams(process)
        commands.writelines(f"receipt {key} {session}\n" for key, session in receipts)
        commands.write("use\n" if use else "reopen\n")
        commands.flush()
        while (line := answers.readline()) != "end\n":
            if not line.endswith("\n"):
                return self._crashed(answer)
            answer.take(line.rstrip("\n"))
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if not self._process:
            with self._log.open("a") as log:
                self._process = subprocess.Popen(
                    [str(REOPEN), str(self.directory)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    errors="replace",
                )
        return self._process

    def _crashed(self, answer: Answer) -> Answer:
        self.close()
        answer.opened = None
        return answer

    def close(self) -> None:
        if self._process:
            for stream in streams(self._process):
                stream.close()
            self._process.wait()
            self._process = None


def streams(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin and process.stdout
    return process.stdin, process.stdout

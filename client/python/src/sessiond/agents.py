"""`SQLiteSession` with the signature of the Agents SDK's: change the import, and nothing else.

    from sessiond.agents import SQLiteSession      # was: from agents import SQLiteSession

    session = SQLiteSession("user_123", "conversations.db")

What is the same: parameters, methods, limits, messages, `sqlite3.OperationalError` for what goes wrong in the store.
What is better: any number of processes share the history, and nothing is ever locked. What differs:

  - The history is kept by sessiond, in a store that is named after the file: its readable stem and a hash of the real
    path and the two table names. Equal names in different directories never meet; symbolic links to one file do.
    `session.store` is its name: SessiondSession("user_123", store=session.store) is the same history.
  - If the file holds messages of the session already, they are brought over once, when the session is used first. The
    file is only read and never changed. Damaged rows are skipped and reported to the logger "sessiond".
  - ":memory:", the default, is private to the object and needs no daemon, as before.
  - Items are strict JSON: NaN and Infinity are refused.
  - The errors of sessiond are raised as classes of this module (`sessiond.agents.BusyError`, …), each of which is a
    `sqlite3.OperationalError` and the class of that name in `sessiond.errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import pathlib
import re
import sqlite3
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from . import _paths, _sdk, errors
from ._old_file import OldMessages, read_messages
from ._retry import RETRY_SECONDS
from .async_client import outlast
from .session import AgentSession, DaemonHistory, History, Tail

if TYPE_CHECKING:
    from agents.memory import SessionSettings

__all__ = ["SQLiteSession"]

T = TypeVar("T")

logger = logging.getLogger("sessiond")

BATCH_BYTES = 64 * 1024 * 1024
BATCH_ITEMS = 500_000
"""Old messages are brought over in one step, unless they are more than this: then in several."""

ROWS_NAMED_MAX = 20


class SQLiteSession(AgentSession):
    """See the top of this module.

    session_id        a str, or an int as SQLite takes it; at most 255 bytes in UTF-8
    db_path           a file's path, or ":memory:"
    sessions_table    as in the SDK: other table names are another history
    messages_table    the same; and the table that old messages are read from
    session_settings  of the SDK, or a dict: {"limit": 50} reads only the latest 50 items
    """

    def __init__(
        self,
        session_id: str,
        db_path: str | pathlib.Path = ":memory:",
        sessions_table: str = "agent_sessions",
        messages_table: str = "agent_messages",
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        self.db_path = db_path
        self.sessions_table = sessions_table
        self.messages_table = messages_table
        name = wire_session_id(session_id)
        history: History
        self.store: str | None = None
        if str(db_path) == ":memory:":
            history = MemoryHistory()
        else:
            path = os.path.realpath(db_path)
            self.store = store_of_file(path, sessions_table, messages_table)
            history = FileHistory(name, self.store, OldFile(path, messages_table, str(session_id)))
        super().__init__(session_id, history, session_settings, "SQLiteSession")

    def _replaces_tails(self) -> bool:
        return type(self) is SQLiteSession


# ---- names ----


def wire_session_id(session_id: str | int) -> str:
    """The daemon's id for a session id that SQLite takes: the same text, except that "" and what begins with a tilde
    gets a tilde in front. So no two ids become one, and `sdk_session_id` undoes it.

    Raises TypeError or ValueError for ids that the daemon cannot have.
    """
    if isinstance(session_id, int):
        return str(int(session_id))
    if isinstance(session_id, str) and (not session_id or session_id.startswith("~")):
        session_id = "~" + session_id
    return _paths.session_name(session_id)


def sdk_session_id(name: str) -> str:
    """The session id that `wire_session_id` made a name of."""
    return name[1:] if name.startswith("~") else name


def store_of_file(path: str, sessions_table: str, messages_table: str) -> str:
    """The store that stands for an SDK database: `path` is its real path."""
    identity = "\0".join((path, sessions_table, messages_table))
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:20]
    stem = re.sub(r"[^a-z0-9._-]+", "-", pathlib.PurePath(path).stem.lower()).strip("._-")
    return f"{stem[:60].rstrip('._-') or 'history'}-{digest}"


# ---- in memory ----


class MemoryHistory:
    """A history in this object alone. Each step is one operation on a list, so threads may share it."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    async def read(self, limit: int | None) -> list[str]:
        texts = self._texts[:]
        return texts if limit is None else texts[len(texts) - min(limit, len(texts)) :]

    async def add(self, texts: list[str]) -> None:
        self._texts += texts

    async def pop(self) -> str | None:
        try:
            return self._texts.pop()
        except IndexError:
            return None

    async def clear(self) -> None:
        self._texts = []

    async def tail(self, limit: int) -> Tail:
        whole = self._texts[:]
        start = max(0, len(whole) - limit)

        async def replace(index: int, texts: list[str]) -> bool:
            if self._texts != whole:
                return False
            self._texts[start + index :] = texts
            return True

        return Tail(whole[start:], start == 0, replace)


# ---- in the daemon, with what an old file holds ----


def _operational(kind: type[errors.SessiondError]) -> type[errors.SessiondError]:
    """`kind` that is a sqlite3.OperationalError as well, which is what users of SQLiteSession catch today."""
    return type(kind.__name__, (kind, sqlite3.OperationalError), {"__doc__": kind.__doc__, "__module__": __name__})


_OPERATIONAL = {kind: _operational(kind) for kind in (getattr(errors, name) for name in errors.__all__)}
globals().update({kind.__name__: kind for kind in _OPERATIONAL.values()})


@contextlib.contextmanager
def _operational_errors() -> Generator[None]:
    try:
        yield
    except errors.SessiondError as error:
        kind = _OPERATIONAL[type(error)]
        raise kind(error.message, code=error.code, details=error.details, key=error.key) from error


class OldFile:
    """A session of a file that the SDK's SQLiteSession may have written."""

    def __init__(self, path: str, messages_table: str, session_id: str) -> None:
        self.path = path
        self._messages_table = messages_table
        self._session_id = session_id

    def size(self) -> int | None:
        """In bytes; None if there is no such file."""
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return None

    def read(self) -> OldMessages:
        return read_messages(self.path, self._messages_table, self._session_id)

    def key(self, texts: list[str], number: int) -> str:
        """Names the bringing over of these texts as batch `number`: the same, whoever does it."""
        digest = hashlib.sha256("\0".join((self.path, self._messages_table, self._session_id)).encode())
        for text in texts:
            digest.update(b"\0" + text.encode())
        return f"import-{number}-{digest.hexdigest()[:40]}"


class FileHistory(DaemonHistory):
    """A session in the store that stands for a file, after the messages in that file."""

    def __init__(self, session: str, store: str, old: OldFile) -> None:
        super().__init__(session, store, None, RETRY_SECONDS)
        self._old = old
        self._brought_over = False

    def __reduce__(self) -> tuple[Any, ...]:
        assert self.store is not None
        return type(self), (self.session, self.store, self._old)

    async def read(self, limit: int | None) -> list[str]:
        with _operational_errors():
            await self._bring_over()
            return await super().read(limit)

    async def add(self, texts: list[str]) -> None:
        await self._change(functools.partial(super().add, texts))

    async def pop(self) -> str | None:
        return await self._change(super().pop)

    async def clear(self) -> None:
        await self._change(super().clear)

    async def _change(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a change after the old messages; if the caller is cancelled, when both are done."""

        async def both() -> T:
            await self._bring_over()
            return await change()

        with _operational_errors():
            return await (change() if self._brought_over else outlast(both()))

    async def tail(self, limit: int) -> Tail:
        with _operational_errors():
            await self._bring_over()
            tail = await super().tail(limit)

        async def replace(start: int, texts: list[str]) -> bool:
            with _operational_errors():
                return await tail.replace(start, texts)

        return tail._replace(replace=replace)

    # ---- bringing over ----

    async def _bring_over(self) -> None:
        """Append the old messages to a session that has none of them yet.

        One batch is one change, so the session's revision tells how many batches it has. Each batch is added only at
        its revision: whoever comes second, in whatever process, adds nothing.
        """
        if self._brought_over:
            return
        size = self._old.size()
        if size is not None:
            revision = (await self.state()).revision
            if revision == 0 or size > BATCH_BYTES:
                await self._bring_batches(await asyncio.to_thread(self._old.read))
        self._brought_over = True

    async def _bring_batches(self, old: OldMessages) -> None:
        texts, added = list(old.texts), 0
        while True:
            batches = split(texts)
            state = await self.state()
            done = state.revision
            if done >= len(batches):
                break
            before = sum(map(len, batches[:done]))
            if state.head_seq != before:
                logger.warning("%s goes on in sessiond; its messages in %s stay there", self.session, self._old.path)
                break
            try:
                await self.add_if_new(batches[done], key=self._old.key(batches[done], done), revision=done)
                added += len(batches[done])
            except errors.ConflictError:
                continue  # somebody else has brought it over just now
            except (errors.InvalidError, errors.TooLargeError) as error:
                if error.item is None:
                    raise
                del texts[before + error.item]
        skipped = len(old.damaged) + len(old.texts) - len(texts)
        if added:
            logger.info("%s: brought over %d messages from %s", self.session, added, self._old.path)
        if skipped:
            rows = ", ".join(map(str, old.damaged[:ROWS_NAMED_MAX]))
            logger.warning(
                "%s: skipped %d damaged messages in %s (rows %s)", self.session, skipped, self._old.path, rows
            )


def split(texts: list[str]) -> list[list[str]]:
    """Batches that the daemon takes in one request each. The same texts always give the same batches."""
    batches: list[list[str]] = []
    room_bytes = room_items = 0
    for text in texts:
        size = len(text.encode())
        if size > room_bytes or room_items == 0:
            batches.append([])
            room_bytes, room_items = BATCH_BYTES, BATCH_ITEMS
        batches[-1].append(text)
        room_bytes -= size
        room_items -= 1
    return batches


_sdk.register(SQLiteSession)

"""Reads what SQLiteSession of the Agents SDK has written, without touching the file. Blocking; no state."""

from __future__ import annotations

import json
import os
import sqlite3
import urllib.parse
from contextlib import closing
from typing import Any, NamedTuple, NoReturn

from ._items import encode_items


class OldMessages(NamedTuple):
    """The messages of one session of an old file."""

    texts: list[str]
    """The readable ones, oldest first, as the file has them."""
    damaged: list[int]
    """The row ids of those that are no JSON objects."""


def read_messages(path: str, messages_table: str, session_id: str) -> OldMessages:
    """All messages of a session. No such table: none. Raises sqlite3.DatabaseError for what is no readable database."""
    texts: list[str] = []
    damaged: list[int] = []
    for row_id, data in _rows(path, messages_table, session_id):
        text = _item_text(data)
        if text is None:
            damaged.append(row_id)
        else:
            texts.append(text)
    return OldMessages(texts, damaged)


def _rows(path: str, messages_table: str, session_id: str) -> list[tuple[int, Any]]:
    """The rows of a session as (id, data), data being bytes where SQLite has a text.

    A file without a log beside it is in nobody's use. It is opened as immutable, because merely reading it would leave
    files beside it; should somebody begin to write at that very moment, it is read again with locks.
    """
    before = _fingerprint(path)
    if not _is_in_use(path):
        rows = _select(path, "mode=ro&immutable=1", messages_table, session_id)
        if before == _fingerprint(path) and not _is_in_use(path):
            return rows
    return _select(path, "mode=ro", messages_table, session_id)


def _is_in_use(path: str) -> bool:
    return any(os.path.exists(path + log) for log in ("-wal", "-journal"))


def _fingerprint(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _select(path: str, how: str, table: str, session_id: str) -> list[tuple[int, Any]]:
    uri = f"file:{urllib.parse.quote(path)}?{how}"
    quoted = '"' + table.replace('"', '""') + '"'
    with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        connection.text_factory = bytes
        known = "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE"
        if connection.execute(known, (table,)).fetchone() is None:
            return []
        query = f"SELECT id, message_data FROM {quoted} WHERE session_id = ? ORDER BY id"
        return connection.execute(query, (session_id,)).fetchall()


def _item_text(data: Any) -> str | None:
    """The item in a row, byte for byte where it is one; None for what sessiond would not take."""
    try:
        text: str = data.decode()
        item = json.loads(text, parse_constant=_refuse)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(item, dict):
        return None
    if any(character < " " for character in text):  # line breaks between tokens: written anew, as one line
        return encode_items([item])[0]
    return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")

"""Where is the daemon's socket, and where may a store's name come from?"""

from __future__ import annotations

import os
import re

from .errors import NotRunningError

STORE_NAME = re.compile(r"@?[a-z0-9][a-z0-9._-]{0,126}\Z")
SESSION_BYTES_MAX = 255
SOCKET_PATH_BYTES_MAX = 107

WHAT_TO_START = (
    "start it with `systemctl --user start sessiond`, run `sessiond` in a terminal, "
    "or run this program under `sessionctl run -- COMMAND`"
)


def candidates(socket: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """The paths to look at, in order: `socket` alone, or $SESSIOND_SOCKET alone, or the three usual places."""
    if socket is not None:
        return (_usable(os.fspath(socket)),)
    named = os.environ.get("SESSIOND_SOCKET")
    if named:
        return (_usable(named),)
    uid = os.getuid()
    usual = [f"/run/user/{uid}/sessiond/sessiond.sock", "/run/sessiond/sessiond.sock"]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        usual.insert(0, os.path.join(runtime, "sessiond", "sessiond.sock"))
    return tuple(dict.fromkeys(usual))


def _usable(path: str) -> str:
    if not path or len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise ValueError(f"a socket path has 1 to {SOCKET_PATH_BYTES_MAX} bytes (a limit of the system): {path!r}")
    return path


def choose(paths: tuple[str, ...]) -> str:
    """The first path that exists. It alone is tried: a refused connection never leads to the next one.

    Raises NotRunningError, naming all paths, where none exists.
    """
    for path in paths:
        if os.path.exists(path):
            return path
    raise not_running(paths, "there is no socket at " + " or ".join(paths))


def not_running(paths: tuple[str, ...], what: str) -> NotRunningError:
    return NotRunningError(f"no sessiond answers: {what}; {WHAT_TO_START}", details={"tried": list(paths)})


def store_name(store: str | None) -> str | None:
    """`store`, else $SESSIOND_STORE, else None for the default store. Raises ValueError for what is no name."""
    name = store if store is not None else os.environ.get("SESSIOND_STORE") or None
    if name is not None and not (isinstance(name, str) and STORE_NAME.match(name)):
        raise ValueError(
            f"not a store name: {name!r} (a-z, 0-9, '.', '_', '-', 127 at most, not beginning with a mark)"
        )
    return name


def session_name(session: str) -> str:
    """`session` if it can name one. Raises TypeError or ValueError if not: too early is better than too late."""
    if not isinstance(session, str):
        raise TypeError(f"session_id must be a str, not {type(session).__name__}")
    try:
        size = len(session.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"session_id {session!r} is no valid Unicode text") from error
    if not 1 <= size <= SESSION_BYTES_MAX:
        raise ValueError(f"session_id must have 1 to {SESSION_BYTES_MAX} bytes in UTF-8, this one has {size}")
    return session

"""sessiond: conversation history that many agent processes share.

    SessiondSession   a session for the Agents SDK: `Runner.run(agent, "Hello", session=SessiondSession("user_123"))`
    AsyncClient       all methods of the daemon, as coroutines
    Client            the same, blocking
    sessiond.agents   `SQLiteSession` with the SDK's signature: change the import and nothing else

Results are in `sessiond.types`, errors in `sessiond.errors`.
"""

from ._sdk import SessionSettings
from ._version import __version__
from .async_client import AsyncClient
from .client import Client
from .errors import (
    BusyError,
    ConflictError,
    DeniedError,
    FullError,
    InternalError,
    InvalidError,
    KeyReusedError,
    NotFoundError,
    NotRunningError,
    ProtocolError,
    RolledBackError,
    SessiondError,
    TooLargeError,
    UnavailableError,
    UncertainError,
    UnknownMethodError,
    UnreachableError,
    UnreadableItemError,
)
from .session import SessiondSession

__all__ = [
    "AsyncClient",
    "BusyError",
    "Client",
    "ConflictError",
    "DeniedError",
    "FullError",
    "InternalError",
    "InvalidError",
    "KeyReusedError",
    "NotFoundError",
    "NotRunningError",
    "ProtocolError",
    "RolledBackError",
    "SessionSettings",
    "SessiondError",
    "SessiondSession",
    "TooLargeError",
    "UnavailableError",
    "UncertainError",
    "UnknownMethodError",
    "UnreachableError",
    "UnreadableItemError",
    "__version__",
]

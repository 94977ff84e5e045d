"""What can go wrong, one class per code of the protocol.

Every error of this package is a `SessiondError`. Catch that, or a class below, or the built-in class that fits:

    NotRunningError     no daemon was found or it refused; nothing was sent   ConnectionError
    UnreachableError    the daemon stayed away; the change was not made       ConnectionError, TimeoutError
    UncertainError      it is unknown whether the change was made; `.key`     ConnectionError, TimeoutError
    ProtocolError       the other side does not speak this protocol           ConnectionError
    BusyError           its queues or your quota were full all the while      TimeoutError
    UnavailableError    the store is away or in quarantine                    ConnectionError
    InvalidError        the request is wrong; `.item`: index of the bad item  ValueError
    TooLargeError       over a limit; `.limit`                                ValueError
    KeyReusedError      this key named another change before                  ValueError
    UnreadableItemError Python cannot represent a stored item; `.text`        ValueError
    NotFoundError       no such thing, or none that you may see               LookupError
    DeniedError         you may read it but not do this                       PermissionError
    ConflictError       if_revision or if_epoch does not fit; both are given
    FullError           no space on the disk, in the memory store, or in what the owner may keep
    RolledBackError     the store holds less than was acknowledged
    UnknownMethodError  an older daemon; NotImplementedError
    InternalError       a fault of the daemon, in its log

After every one of them but `UncertainError` the change was not made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "BusyError",
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
    "SessiondError",
    "TooLargeError",
    "UnavailableError",
    "UncertainError",
    "UnknownMethodError",
    "UnreachableError",
    "UnreadableItemError",
]


class SessiondError(Exception):
    """Base of all errors of this package.

    code     the protocol's word for it ("invalid", "busy", …) or this package's own ("not_running", …); stable
    message  a sentence for people: what is wrong and what to do
    details  what else the daemon said, such as {"item": 3} or {"revision": 7, "epoch": 2}
    key      the key of the change that failed, None for reads. Repeating the change with this key stores it once
    """

    code: str = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.details: dict[str, Any] = dict(details or {})
        self.key = key

    def __str__(self) -> str:
        key = f" (key {self.key})" if self.key is not None else ""
        return f"{self.code}: {self.message}{key}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.code, self.details, self.key)


def _rebuild(
    kind: type[SessiondError], message: str, code: str, details: dict[str, Any], key: str | None
) -> SessiondError:
    return kind(message, code=code, details=details, key=key)


class InvalidError(SessiondError, ValueError):
    """The request is wrong. Nothing was changed."""

    code = "invalid"

    @property
    def item(self) -> int | None:
        """The index of the offending item in the batch, where it is one."""
        return self.details.get("item")


class UnknownMethodError(SessiondError, NotImplementedError):
    """The daemon is older than this call."""

    code = "unknown_method"


class NotFoundError(SessiondError, LookupError):
    """No such thing, or none that you may see: both answer alike."""

    code = "not_found"


class DeniedError(SessiondError, PermissionError):
    """You may read it but not do this."""

    code = "denied"


class ConflictError(SessiondError):
    """`if_revision` or `if_epoch` does not fit. Look again, then decide."""

    code = "conflict"

    @property
    def revision(self) -> int | None:
        """The session's revision now."""
        return self.details.get("revision")

    @property
    def epoch(self) -> int | None:
        """The session's epoch now."""
        return self.details.get("epoch")


class KeyReusedError(SessiondError, ValueError):
    """This key named another change before."""

    code = "key_reused"


class TooLargeError(SessiondError, ValueError):
    """Over a limit. Nothing was changed."""

    code = "too_large"

    @property
    def limit(self) -> int | None:
        """The value of the limit."""
        return self.details.get("limit")

    @property
    def item(self) -> int | None:
        """The index of the offending item in the batch, where it is one."""
        return self.details.get("item")


class BusyError(SessiondError, TimeoutError):
    """A queue or quota stayed full for as long as the call was willing to wait. Nothing was changed."""

    code = "busy"


class FullError(SessiondError):
    """No space on the disk, in the memory store, or in what the owner may keep: the message says which. Nothing was
    changed; it works again when there is space, and removals work all the same."""

    code = "full"


class UnavailableError(SessiondError, ConnectionError):
    """The store is away or in quarantine. Nothing was changed."""

    code = "unavailable"


class UncertainError(SessiondError, ConnectionError, TimeoutError):
    """Unknown whether the change was made: no answer came, or the commit failed half-way.

    The same call with `key=error.key` settles it: the change is then stored once, whatever happened before.
    """

    code = "uncertain"


class RolledBackError(SessiondError):
    """The store holds less than was acknowledged (damage, an old backup). Nothing was changed."""

    code = "rolled_back"


class InternalError(SessiondError, RuntimeError):
    """A fault of the daemon, which is in its log. Nothing was changed."""

    code = "internal"


class NotRunningError(SessiondError, ConnectionError):
    """There is no daemon to talk to: `.details["tried"]` lists the paths, the message says what to start."""

    code = "not_running"


class UnreachableError(SessiondError, ConnectionError, TimeoutError):
    """The daemon was there before and stayed away for `retry_seconds`. The request was not carried out."""

    code = "unreachable"


class ProtocolError(SessiondError, ConnectionError):
    """The other side of the socket does not speak this protocol."""

    code = "protocol"


class UnreadableItemError(SessiondError, ValueError):
    """A stored item that Python's json cannot represent, such as an integer of more than 4,300 digits.

    `.text` is the item as it is stored, `.item` its index in the answer. It stays in the store unless it was popped.
    """

    code = "unreadable_item"

    @property
    def text(self) -> str:
        return str(self.details.get("text"))

    @property
    def item(self) -> int | None:
        return self.details.get("item")


BY_CODE: dict[str, type[SessiondError]] = {
    kind.code: kind
    for kind in (
        InvalidError,
        UnknownMethodError,
        NotFoundError,
        DeniedError,
        ConflictError,
        KeyReusedError,
        TooLargeError,
        BusyError,
        FullError,
        UnavailableError,
        UncertainError,
        RolledBackError,
        InternalError,
    )
}
"""The class of each code of the wire."""


def from_wire(error: Mapping[str, Any], key: str | None = None) -> SessiondError:
    """The exception for an error map of the protocol. A code that this version does not know keeps its name."""
    details = dict(error)
    code, message = str(details.pop("code", "internal")), str(details.pop("message", ""))
    return BY_CODE.get(code, SessiondError)(message, code=code, details=details, key=key)

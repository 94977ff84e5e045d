"""What we know of the Agents SDK without ever importing it: it is used once the program has imported it.

`SessionSettings` here has the shape of the SDK's. It serves programs without the SDK; as soon as `agents` is there,
the SDK's own class takes its place, because the Runner calls its methods and EncryptedSession hands it on.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any, cast


@dataclass
class SessionSettings:
    """Settings of a session: how many of the latest items get_items returns. None or negative: all; 0: none."""

    limit: int | None = None

    def resolve(self, override: SessionSettings | dict[str, Any] | None) -> SessionSettings:
        """These settings with those of `override` that are not None in their place."""
        if override is None:
            return self
        given = override if isinstance(override, dict) else dataclasses.asdict(override)
        settings: SessionSettings = _from_dict(type(self), {**dataclasses.asdict(self), **_without_none(given)})
        return settings

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def settings_class() -> type[Any]:
    """The SDK's SessionSettings if the SDK has been imported (and has one), else ours."""
    return getattr(sys.modules.get("agents.memory.session_settings"), "SessionSettings", SessionSettings)


def coerce_settings(value: Any) -> Any:
    """`value` as an instance of `settings_class`. Raises TypeError for unknown keys and for what is no settings."""
    wanted = settings_class()
    if isinstance(value, wanted):
        return value
    if isinstance(value, SessionSettings):
        value = value.to_dict()
    if not isinstance(value, dict):
        raise TypeError(f"session must be a SessionSettings instance or a dict, got {type(value).__name__}")
    return _from_dict(wanted, cast(dict[str, Any], value))


def _from_dict(kind: type[Any], values: dict[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise TypeError(f"Unknown session settings: {', '.join(unknown)}")
    return kind(**values)


def register(*kinds: type[Any]) -> None:
    """Make `isinstance(session, SessionABC)` true for these classes, if the SDK has been imported."""
    abstract = getattr(sys.modules.get("agents.memory.session"), "SessionABC", None)
    for kind in kinds:
        if abstract is not None and not issubclass(kind, abstract):
            abstract.register(kind)


def compaction_snapshot_class() -> type[Any] | None:
    """What the SDK's compaction takes from stores that can replace a tail in one step. None: it takes nothing."""
    return getattr(sys.modules.get("agents.memory.session"), "_CompactionSnapshot", None)

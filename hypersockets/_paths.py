"""Fields of parsed JSON, named by paths: ``"channel"``, ``"data.type"``."""

from __future__ import annotations

from typing import Any

from ._errors import ConfigurationError
from ._redact import show

__all__ = ["Path", "as_path", "follow"]

Path = tuple[str, ...]


def as_path(field: str, value: object) -> Path:
    """Return ``"a.b"`` as ``("a", "b")``; ``field`` names the setting in the error.

    A tuple is taken as it is: the way to name a field that has a dot in its name.
    """
    if isinstance(value, tuple) and value and all(isinstance(part, str) for part in value):
        return value
    if not isinstance(value, str) or not all(value.split(".")):
        raise ConfigurationError(f"{field} is {show(value)}; it must be a field name or a path such as 'data.type'")
    return tuple(value.split("."))


def follow(value: Any, path: Path, default: Any = None) -> Any:
    """Return what stands at ``path`` in nested dicts, or ``default`` where nothing does."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return default
        value = value[name]
    return value

"""Convert and check plain values of the configuration: each error names what, where and what is allowed.

Converters only make floats of durations; validators, which know the field's name, refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs

from ._errors import ConfigurationError
from ._redact import show

__all__ = ["check_seconds", "choice", "count", "fraction", "is_number", "seconds", "to_optional_seconds", "to_seconds"]

_ENDLESS = 2**63  # nothing is counted so far, and CPython refuses to print the longest numbers
_LONGEST = 1e15  # seconds: no wait is that long, and sums of a few stay exact enough

_Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def to_seconds(value: float | timedelta) -> float:
    """Return a ``timedelta`` or a number as a float; leave the rest to the validator."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    return float(value) if is_number(value) and abs(value) < _LONGEST else value


def to_optional_seconds(value: float | timedelta | None) -> float | None:
    """As :func:`to_seconds`; ``None`` passes."""
    return None if value is None else to_seconds(value)


def is_number(value: object) -> bool:
    """Tell whether it is an int or a float; ``True`` is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_seconds(field: str, value: Any, *, positive: bool = False, or_none: bool = False) -> float:
    """Return ``value`` if it is a sensible duration (finite, not negative; ``positive``: not zero either)."""
    # NaN compares false, so it is refused too.
    if is_number(value) and 0 <= value < _LONGEST and not (positive and value == 0):
        return float(value)
    least = "more than 0" if positive else "at least 0"
    also = ", a timedelta or None" if or_none else ", or a timedelta"
    raise ConfigurationError(f"{field} is {show(value)}; it must be a finite number of seconds, {least}{also}")


def seconds(*, positive: bool = False, optional: bool = False) -> _Validator:
    """Return a validator of durations."""

    def validate(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not (optional and value is None):
            check_seconds(attribute.name, value, positive=positive, or_none=optional)

    return validate


def fraction(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuse what is not a number from 0 to 1."""
    if not (is_number(value) and 0 <= value <= 1):
        raise ConfigurationError(f"{attribute.name} is {show(value)}; it must be a number from 0 to 1")


def count(least: int = 0, *, optional: bool = True) -> _Validator:
    """Return a validator of whole numbers from ``least`` on; ``optional``: or ``None``."""

    def validate(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        if not (isinstance(value, int) and is_number(value) and least <= value < _ENDLESS):
            allowed = f"a whole number of at least {least}{', or None' if optional else ''}"
            raise ConfigurationError(f"{attribute.name} is {show(value)}; it must be {allowed}")

    return validate


def choice(*allowed: str | bool | None) -> _Validator:
    """Return a validator of what is one of ``allowed``."""

    def validate(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        # `1` equals `True`, and is none.
        if not any(value is each or (isinstance(value, str) and value == each) for each in allowed):
            raise ConfigurationError(f"{attribute.name} is {show(value)}; it must be one of {allowed}")

    return validate

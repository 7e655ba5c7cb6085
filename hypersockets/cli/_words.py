"""Events in words: one line each, whatever a server has written into its close reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypersockets as hs

from .._redact import mask_text

__all__ = ["in_words"]

_LIMIT = 400
"""Characters; a line is not longer."""


def _connected(event: hs.Connected) -> str:
    return f"epoch {event.epoch}" + (f", {event.downtime:.2f} s after the loss" if event.epoch > 1 else "")


def _disconnected(event: hs.Disconnected) -> str:
    is_said = event.code is None or str(event.code) in event.reason
    return event.reason if is_said else f"{event.reason} (code {event.code})"


def _error(event: hs.ErrorOccurred) -> str:
    times = f" ({event.count} times)" if event.count > 1 else ""
    # Our own errors are sentences.
    kind = "" if isinstance(event.error, hs.HyperSocketError) else f"{type(event.error).__name__}: "
    return f"{kind}{event.error}{times}"


_WORDS: dict[type[hs.Event], Callable[[Any], str]] = {
    hs.Connecting: lambda event: event.url,
    hs.Connected: _connected,
    hs.Disconnected: _disconnected,
    hs.Reconnecting: lambda event: f"attempt {event.attempt} in {event.delay:.2f} s",
    hs.ErrorOccurred: _error,
    hs.MessageDropped: lambda event: f"{event.count} of {event.key!r} ({event.why})",
    hs.RouteStale: lambda event: f"{event.key!r}, silent for {event.silent_for:.1f} s",
    hs.Closed: lambda event: "cleanly" if event.error is None else f"by {type(event.error).__name__}",
}


def in_words(event: hs.Event) -> tuple[str, str]:
    """Return what an event is, and what it says, on one line."""
    return type(event).__name__, mask_text(_WORDS[type(event)](event), limit=_LIMIT)

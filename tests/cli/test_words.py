"""Every event is one line, whatever a server or a handler has put into it."""

from __future__ import annotations

from typing import Any

import pytest

import hypersockets as hs
from hypersockets.cli._words import in_words

NOW: dict[str, Any] = {"at": 1.0, "epoch": 1, "name": "feed"}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (hs.Connecting(**NOW, url="ws://me:hunter2@host/?token=hunter2"), "ws://***@host/?***"),
        (hs.Connected(**NOW, url="ws://host", downtime=0.0), "epoch 1"),
        (hs.Connected(**{**NOW, "epoch": 2}, url="ws://host", downtime=1.5), "epoch 2, 1.50 s after the loss"),
        (hs.Disconnected(**NOW, reason="gone", code=1001, error=None), "gone (code 1001)"),
        (hs.Disconnected(**NOW, reason="closed with 1000", code=1000, error=None), "closed with 1000"),
        (hs.Disconnected(**NOW, reason="cut", code=None, error=None), "cut"),
        (hs.Reconnecting(**NOW, attempt=3, delay=4), "attempt 3 in 4.00 s"),
        (hs.ErrorOccurred(**NOW, error=hs.ConnectError("no\nroute")), "no\\nroute"),
        (hs.ErrorOccurred(**NOW, error=ValueError("bad"), count=2), "ValueError: bad (2 times)"),
        (hs.MessageDropped(**NOW, key="trades", count=7, why="drop_oldest"), "7 of 'trades' (drop_oldest)"),
        (hs.RouteStale(**NOW, key="trades", silent_for=3), "'trades', silent for 3.0 s"),
        (hs.Closed(**NOW, error=None), "cleanly"),
        (hs.Closed(**NOW, error=hs.ConnectError()), "by ConnectError"),
    ],
)
def test_an_event_in_words(event: hs.Event, words: str) -> None:
    """Its kind, and what it says, on one line without a secret."""
    assert in_words(event) == (type(event).__name__, words)

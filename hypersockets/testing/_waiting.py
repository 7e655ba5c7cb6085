"""Waiting for what a client tells of itself."""

from __future__ import annotations

from typing import TypeVar

import anyio

from .._client import Client
from .._events import Event

__all__ = ["wait_for_event"]

_Event = TypeVar("_Event", bound=Event)


async def wait_for_event(client: Client, kind: type[_Event], count: int = 1, *, timeout: float = 3600.0) -> _Event:
    """Wait for the ``count``-th event of a kind, and return it; at once if it has happened already.

    Args:
        client: Whose events; those of its listeners stay theirs.
        kind: For example :class:`hypersockets.Connected`.
        count: Counted from the oldest event that the client has kept, which is its first unless there were over 1024.
        timeout: Seconds, virtual ones where the clock is.

    Raises:
        AssertionError: The client ended without it, or it did not come in time: says what happened instead.
    """
    happened: list[str] = []
    missing = count
    with anyio.CancelScope(deadline=anyio.current_time() + timeout) as waiting:
        async for event in client.events():
            happened.append(type(event).__name__)
            missing -= isinstance(event, kind)
            if not missing:
                assert isinstance(event, kind)
                return event
    why = f"did not come within {timeout:g} s" if waiting.cancelled_caught else "did not come before the client ended"
    raise AssertionError(f"{kind.__name__} number {count} {why}; what happened: {', '.join(happened)}")

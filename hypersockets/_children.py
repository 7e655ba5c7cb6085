"""The tasks of one session that can be stopped one by one, before its group ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

__all__ = ["Children"]

_STOPPED_LAST = ("writer", "pings")
"""Who writes is stopped by the session alone, behind its close frame: nothing can follow half a frame."""


class Children:
    """Named tasks in a session's group."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._ended: dict[str, anyio.Event] = {}

    def start(self, name: str, child: Callable[[], Awaitable[None]]) -> None:
        """Start a task."""
        scope = self._scopes[name] = anyio.CancelScope(shield=name in _STOPPED_LAST)
        ended = self._ended[name] = anyio.Event()

        async def run() -> None:
            try:
                with scope:
                    await child()
            finally:
                ended.set()

        self._group.start_soon(run, name=f"hypersockets.{name}")

    def stop(self, *names: str) -> None:
        """Cancel the named tasks; all of them if none is named."""
        for name in names or self._scopes:
            self._scopes[name].cancel()

    async def ended(self, name: str) -> None:
        """Wait until a task is over: its cancellation may not have come to it yet."""
        await self._ended[name].wait()

"""The tasks of one session that can be stopped one by one, before its group ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import anyio.abc

from ._bell import Flag

__all__ = ["Children"]

_STOPPED_LAST = ("writer", "pings")
"""Who writes is stopped by the session alone, behind its close frame: nothing can follow half a frame."""


class Children:
    """Named tasks in a session's group; several may have the same name."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self._running: dict[Flag, tuple[str, anyio.CancelScope]] = {}
        """Names and scopes, by the flag that is set at their end."""

    def start(self, name: str, child: Callable[[], Awaitable[None]]) -> None:
        """Start a task."""
        scope, ended = anyio.CancelScope(shield=name in _STOPPED_LAST), Flag()
        self._running[ended] = name, scope
        self._group.start_soon(self._run, child, scope, ended, name=f"hypersockets.{name}")

    async def _run(self, child: Callable[[], Awaitable[None]], scope: anyio.CancelScope, ended: Flag) -> None:
        try:
            with scope:
                await child()
        finally:
            del self._running[ended]
            ended.set()

    def start_apart(self, name: str, child: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task that :meth:`stop` leaves alone: it ends by itself, or with the group."""
        self._group.start_soon(child, name=f"hypersockets.{name}")

    def stop(self, *names: str) -> None:
        """Cancel the named tasks; all of them if none is named."""
        for name, scope in list(self._running.values()):
            if name in names or not names:
                scope.cancel()

    async def ended(self, name: str) -> None:
        """Wait until the tasks of that name are over: their cancellation may not have come to them yet."""
        for ended in [ended for ended, (each, _) in self._running.items() if each == name]:
            await ended.wait()

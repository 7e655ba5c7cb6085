"""The tasks of one session that can be stopped one by one, before its group ends."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import anyio.abc
import attrs

from ._bell import Flag

__all__ = ["Children"]

_STOPPED_LAST = ("writer", "pings")
"""Who writes is stopped by the session alone, behind its close frame: nothing can follow half a frame."""


@attrs.define(eq=False, repr=False)
class _Child(Flag):
    """A task that runs, and the flag that is set at its end."""

    name: str = attrs.field(kw_only=True)
    scope: anyio.CancelScope = attrs.field(kw_only=True)


@attrs.define(eq=False, repr=False)
class Children:
    """Named tasks in a session's group; several may have the same name."""

    _group: anyio.abc.TaskGroup
    _running: list[_Child] = attrs.field(factory=list, init=False)

    def start(self, name: str, child: Callable[[], Awaitable[None]]) -> None:
        """Start a task."""
        running = _Child(name=name, scope=anyio.CancelScope(shield=name in _STOPPED_LAST))
        self._running.append(running)
        self._group.start_soon(self._run, child, running, name=_task_name(name))

    async def _run(self, child: Callable[[], Awaitable[None]], running: _Child) -> None:
        try:
            with running.scope:
                await child()
        finally:
            self._running.remove(running)
            running.set()

    def start_apart(self, name: str, child: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task that :meth:`stop` leaves alone: it ends by itself, or with the group."""
        self._group.start_soon(child, name=_task_name(name))

    def stop(self, *names: str) -> None:
        """Cancel the named tasks; all of them if none is named."""
        for child in self._running:
            if child.name in names or not names:
                child.scope.cancel()

    async def ended(self, name: str) -> None:
        """Wait until the tasks of that name are over: their cancellation may not have come to them yet."""
        for child in [child for child in self._running if child.name == name]:
            await child.wait()


def _task_name(name: str) -> str:
    """Return what debuggers show; the same for all clients, for thousands of them may be idle."""
    return sys.intern(f"hypersockets.{name}")

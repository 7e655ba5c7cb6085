"""Calls of the user's ``on_gap``: in the client's group, untouched by a loss, in nobody's way."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import anyio
import attrs

from ._calls import call
from ._events import GapDetected
from ._sequences import KEYS
from ._workers import Call, current_call

__all__ = ["GapCalls"]

logger = logging.getLogger("hypersockets")

_AT_ONCE = 1024
"""How many calls run at the same time: a server that makes up keys must not have a task for each."""


@attrs.define(eq=False, repr=False, kw_only=True)
class GapCalls:
    """Calls ``on_gap``: for one key one after the other, for different keys at the same time."""

    function: Callable[[GapDetected, Any], Any]
    """The user's."""
    client: object
    """What it is given, and what ``current_client()`` is in it."""
    start: Callable[[Callable[[], Any], str], None]
    """Starts a task in the client's group."""
    on_error: Callable[[Hashable, BaseException], bool]
    """Called with the key and what a call raised; returns whether to go on."""
    on_close: Callable[[int, str], None]
    """Called with the code and reason of an ``aclose`` from a call, when that has returned."""
    on_return: Callable[[], None]
    """Called when a call is over."""
    _waiting: OrderedDict[Hashable, GapDetected] = attrs.field(factory=OrderedDict, init=False)
    """The newest gap of each key for which no call runs; the key that waits longest comes first."""
    _running: dict[Hashable, GapDetected | None] = attrs.field(factory=dict, init=False)
    """The newest gap found while a call for its key runs. ``None``: none was."""
    _scopes: set[anyio.CancelScope] = attrs.field(factory=set, init=False)
    _has_begun: bool = attrs.field(default=False, init=False)
    _is_stopped: bool = attrs.field(default=False, init=False)
    _has_forgotten: bool = attrs.field(default=False, init=False)

    @property
    def are_over(self) -> bool:
        """Whether no call runs, and none is to come."""
        return not self._waiting and not self._running

    def found(self, gap: GapDetected) -> None:
        """Have a call made for a gap, as soon as there is none for its key."""
        if gap.key in self._running:
            self._running[gap.key] = gap
        else:
            self._wait(gap)
            self._go_on()

    def begin(self) -> None:
        """Start to call: before the first ready session gaps wait, as messages do."""
        self._has_begun = True
        self._go_on()

    def stop(self) -> None:
        """Cancel the calls, and make no more."""
        self._is_stopped = True
        for scope in self._scopes:
            scope.cancel()

    def _wait(self, gap: GapDetected) -> None:
        self._waiting[gap.key] = gap
        if len(self._waiting) > KEYS:
            self._waiting.popitem(last=False)
            if not self._has_forgotten:
                self._has_forgotten = True
                logger.warning("%s: on_gap is behind by %d keys; the oldest gaps are skipped", gap.name, KEYS)

    def _go_on(self) -> None:
        while self._waiting and self._has_begun and not self._is_stopped and len(self._running) < _AT_ONCE:
            key, gap = self._waiting.popitem(last=False)
            self._running[key] = None
            self.start(partial(self._call, gap), "hypersockets.on_gap")

    async def _call(self, gap: GapDetected) -> None:
        if self._is_stopped:
            return
        this = Call(self.client, is_running=True)
        current_call.set(this)
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await call(self.function, gap, self.client)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # comes out of the client as itself, or as the user's policy says
                if not self.on_error(gap.key, error):
                    self.stop()
            finally:
                this.is_running = False
                self._scopes.discard(scope)
        if this.close is not None:
            self.on_close(*this.close)
        newest = self._running.pop(gap.key)
        if newest is not None:
            self._wait(newest)
        self._go_on()
        self.on_return()

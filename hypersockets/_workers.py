"""The tasks that run handlers, in the client's group, untouched by a loss.

A worker takes a lane, empties it, takes the next; as long as there are lanes with messages, another worker is on
its way, so a handler that waits holds up its own lane only. Handlers that never wait are all run by one task, which
is woken once for a batch, whatever the number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from itertools import islice
from operator import length_hint
from typing import Any

import anyio
import attrs
from anyio.lowlevel import checkpoint

from ._bell import Bell
from ._calls import is_stray, stray
from ._lane import Lane
from ._turn import Turn

__all__ = ["Call", "Workers", "current_call"]

_SPARE = 4
"""How many workers wait for work; others end when they have none."""


@attrs.define(eq=False, repr=False)
class Call:
    """What a handler's task knows of itself."""

    client: object
    """What ``current_client()`` returns."""
    is_running: bool = False
    """Whether a handler is: a task that it started may outlive it, and inherits this."""
    close: tuple[int, str] | None = None
    """The code and reason with which the handler asked to close: done when it has returned."""


current_call: ContextVar[Call | None] = ContextVar("hypersockets.current_call", default=None)


@attrs.define(eq=False, repr=False, kw_only=True)
class Workers:
    """Runs the handlers of lanes: of one lane one after the other, of different lanes at the same time."""

    client: object
    """What ``current_client()`` is inside a handler."""
    start: Callable[[Callable[[], Any], str], None]
    """Starts a task in the client's group."""
    on_error: Callable[[Lane, BaseException], bool]
    """Called with what a handler raised; returns whether to go on."""
    on_close: Callable[[int, str], None]
    """Called with the code and reason of an ``aclose`` from a handler, when that has returned."""
    on_empty: Callable[[], None]
    """Called when a worker has nothing to do."""
    _ready: list[Lane] = attrs.field(factory=list, init=False)
    """Lanes with messages that no worker has."""
    _spare: list[Bell] = attrs.field(factory=list, init=False)
    """Of the workers that wait."""
    _is_coming: bool = attrs.field(default=False, init=False)
    """Whether a worker was woken or started, and has not run since."""
    _has_begun: bool = attrs.field(default=False, init=False)
    _scopes: list[anyio.CancelScope] = attrs.field(factory=list, init=False)
    _is_stopped: bool = attrs.field(default=False, init=False)

    def __len__(self) -> int:
        return len(self._scopes)

    def take_on(self, lane: Lane) -> None:
        """Have the messages of a lane handled; it was empty before, and no worker has it."""
        self._ready.append(lane)
        if self._has_begun and not self._is_coming:
            self._send_one()

    def begin(self) -> None:
        """Start to handle: before the first ready session messages wait."""
        if not self._has_begun:
            self._has_begun = True
            if self._ready:
                self._send_one()

    def stop(self) -> None:
        """Cancel the handlers, and handle no more."""
        self._is_stopped = True
        for scope in self._scopes:
            scope.cancel()

    def _send_one(self) -> None:
        self._is_coming = True
        if self._spare:
            self._spare.pop().ring()
        else:
            self.start(self._work, "hypersockets.worker")

    async def _work(self) -> None:
        """Empty lanes, one after the other, until cancelled or not needed."""
        call, bell, turn = Call(self.client), Bell(), Turn()
        current_call.set(call)
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            try:
                while not self._is_stopped:
                    self._is_coming = False
                    while self._ready:
                        lane = self._ready.pop(0)
                        if self._ready and not self._is_coming:
                            self._send_one()  # should a handler wait here, somebody else takes the next lane
                        if not await self._empty(lane, call, turn):
                            return
                    self.on_empty()
                    if len(self._spare) >= _SPARE:
                        return
                    self._spare.append(bell)
                    await bell.wait()
                    turn.ends()
            finally:
                self._scopes.remove(scope)

    async def _empty(self, lane: Lane, call: Call, turn: Turn) -> bool:
        """Handle what is in a lane; return whether to go on with other lanes."""
        handler, budget, goes_on = lane.handler, lane.budget, True
        assert handler is not None  # only such lanes are taken on
        while goes_on and lane.pick_up():
            before = length_hint(lane.hand)
            lane.is_working = call.is_running = True
            for message in islice(lane.hand, turn.left):
                try:
                    await handler(message)
                except anyio.get_cancelled_exc_class() as error:  # noqa: ASYNC103 - re-raised if it was this task
                    if not is_stray():
                        raise  # the lane keeps the message, for the count
                    goes_on = self.on_error(lane, stray(error))
                except BaseException as error:  # comes out of the client as itself, or as the user's policy says
                    goes_on = self.on_error(lane, error)
                if budget.room_wanted is not None:
                    lane.make_room()
                if call.close is not None:
                    self.on_close(*call.close)
                    call.close = None
                if not goes_on:
                    break
            lane.is_working = call.is_running = False
            after = length_hint(lane.hand)
            if not after:
                lane.settle()
            turn.left -= max(1, before - after)  # while a handler waited, the hand may have been filled again
            if turn.left <= 0 and turn.is_over():
                await checkpoint()
        lane.is_told = not goes_on
        return goes_on

"""From frames to lanes: parse, give acks to who waits for them, fill the lanes in order."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from ._calls import settle
from ._core import Core
from ._inbox import Inbox
from ._lanes import OVERHEAD, Lane, Put
from ._message import Frame
from ._subscriptions import Wanted

__all__ = ["Dispatch"]

_BURST = 256
"""How many frames are dispatched between two checkpoints."""


class Dispatch:
    """One connection's way from its inbox to the client's lanes.

    What cannot enter its lane yet (before ready, or because the lane is full) is held, and all that follows it
    behind it, so the order stands; acks are found meanwhile. Held bytes count in the inbox: held messages
    enough and the reading stops.
    """

    def __init__(
        self,
        core: Core,
        inbox: Inbox,
        *,
        on_verdict: Callable[[Wanted, bool], None],
        on_overflow: Callable[[Lane], None],
    ) -> None:
        self._core = core
        self._inbox = inbox
        self._on_verdict = on_verdict
        self._on_overflow = on_overflow
        router = core.config.router
        self._parse_many: Callable[[Frame], Iterable[Any]] | None = getattr(router, "parse_many", None)
        self._parse: Callable[[Frame], Any] | None = getattr(router, "parse", None)
        self._route_key = None if router is None else router.route_key
        self._held: deque[tuple[Lane, Any, int, int]] = deque()
        """(lane, message, its size there, bytes to release in the inbox): received, parsed, not in a lane yet."""
        self._may_parse = anyio.Event()
        self._may_fill = False
        self._is_finishing = False
        self._is_parsing = False
        """Whether a message is with an async ``parse``, or was when that was cancelled."""
        self._now = 0.0

    def start(self) -> None:
        """Begin to parse: auth is over, whatever comes now is not its answer."""
        self._may_parse.set()
        self._inbox.arrival.ring()

    def open_lanes(self) -> None:
        """Begin to fill the lanes: the session is ready."""
        self._may_fill = True
        self._now = anyio.current_time()
        self._release_held()  # here, for the dispatch may be in a slow parse of what comes after
        self._inbox.arrival.ring()

    def finish(self) -> None:
        """Empty inbox and held messages into the lanes, past their capacity if need be, then return from `run`."""
        self._is_finishing = True
        self.start()

    @property
    def held(self) -> int:
        """How many messages are parsed and not in a lane yet."""
        return len(self._held)

    async def run(self) -> None:
        """Dispatch frames until told to finish."""
        lanes, inbox = self._core.lanes, self._inbox
        await self._may_parse.wait()  # until then auth is the one who waits for arrivals
        while True:
            self._now = anyio.current_time()
            self._release_held()
            for _ in range(_BURST):
                item = inbox.take()
                if item is None:
                    break
                await self._dispatch(*item)
            if inbox.frames:
                await checkpoint()
                continue
            self._release_held()  # room may have come while a message was parsed, when nobody waited for it
            if self._is_finishing:
                return
            lanes.room_wanted = inbox.arrival if self._held else None
            await inbox.arrival.wait()

    async def _dispatch(self, frame: Frame, size: int) -> None:
        """Deliver the messages of one frame; each that one of the user's functions cannot look at is skipped."""
        core = self._core
        unreleased = size
        try:
            for message in await self._messages(frame):
                try:
                    lane = self._lane_for(message)
                    if lane is not None:
                        self._deliver(lane, message, size, unreleased)
                        size, unreleased = OVERHEAD, 0  # the frame's bytes count once
                except Exception as error:
                    core.parse_failed(error)
        except Exception as error:
            core.parse_failed(error)
        self._inbox.release(unreleased)

    async def _messages(self, frame: Frame) -> Iterable[Any]:
        if self._parse_many is not None:
            return self._parse_many(frame)
        if self._parse is None:
            return (frame,)
        message = self._parse(frame)
        if inspect.isawaitable(message):
            self._is_parsing = True
            message = await settle(message)
            self._is_parsing = False
        return (message,)

    def _lane_for(self, message: Any) -> Lane | None:
        """Return the lane that the message belongs to; ``None``: it was an ack, or nobody handles it."""
        core = self._core
        if core.subscriptions.awaited:
            verdicts = core.subscriptions.offer(message)
            if verdicts:
                for wanted, confirmed in verdicts:
                    self._on_verdict(wanted, confirmed)
                return None
        lane = core.lanes.find(None if self._route_key is None else self._route_key(message))
        if lane is None:
            core.counters.unrouted += 1
        return lane

    def _deliver(self, lane: Lane, message: Any, size: int, to_release: int) -> None:
        if self._may_fill and not self._held and self._put(lane, message, size):
            self._inbox.release(to_release)
        else:
            self._held.append((lane, message, size, to_release))

    def _put(self, lane: Lane, message: Any, size: int) -> bool:
        if lane.stale_after is not None:
            lane.last_put = self._now
            if lane.told_stale:
                lane.told_stale = False
                self._core.lanes.silence_begins()
        put = lane.put(message, size, force=self._is_finishing)
        if put is Put.OVERFLOW:
            self._on_overflow(lane)
        return put is Put.TAKEN

    def _release_held(self) -> None:
        """Move held messages to their lanes, in order, as far as they find room."""
        while self._held and (self._may_fill or self._is_finishing):
            lane, message, size, to_release = self._held[0]
            try:
                if not self._put(lane, message, size):
                    return
            except Exception as error:
                self._core.parse_failed(error)
            self._held.popleft()
            self._inbox.release(to_release)

    def abandon(self) -> int:
        """Drop what is held; return how many messages that were."""
        count = len(self._held) + len(self._inbox.frames) + self._is_parsing
        self._is_parsing = False
        self._held.clear()
        self._inbox.frames.clear()
        return count

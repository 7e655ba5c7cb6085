"""From frames to lanes: have them sorted, fill the lanes in order.

The reader itself carries each batch as far as it goes without waiting: one wake-up less on the way of every
message. A task does the rest, while there is any: what an async ``parse`` works on, what waits for room, the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Sequence
from operator import itemgetter
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from ._bell import Flag
from ._budget import Shared, Size
from ._calls import mishaps
from ._core import Core
from ._inbox import INBOX, NONE, Inbox
from ._lane import Lane, Put
from ._message import Frame
from ._sorting import Sorter
from ._subscriptions import Wanted
from ._told import Told
from ._tracking import REPEAT

__all__ = ["Dispatch"]

_BURST = 1024
"""How many frames are dispatched between two checkpoints."""
_SIZE = itemgetter(1)


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
        told: Told,
        *,
        start_task: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
        on_verdict: Callable[[Wanted, bool], None],
        on_overflow: Callable[[Lane], None],
        on_held: Callable[[bool], None],
    ) -> None:
        """Begin with nothing.

        Args:
            core: For configuration, lanes, subscriptions and numbers.
            inbox: Where the frames are.
            told: The subscriptions whose acks are awaited.
            start_task: Called with :meth:`run` whenever something has to be waited for: an idle client has no task
                for it.
            on_verdict: Called with a subscription, and whether it was confirmed.
            on_overflow: Called if a lane that costs the session overflows.
            on_held: Called, while the session is ready, when messages begin to wait for room in a lane, and when
                none waits any more.
        """
        self._core = core
        self._inbox = inbox
        self._start_task = start_task
        self._on_overflow = on_overflow
        self._on_held = on_held
        self._sorter = Sorter(core, inbox, told, deliver=self._deliver, on_verdict=on_verdict)
        self.tracker = self._sorter.tracker
        self._held: deque[tuple[Lane, Any, Size, int]] = NONE
        """(lane, message, its size there, bytes to release in the inbox): parsed, and their lanes were full."""
        self._may_parse = False
        self._is_finishing = False
        self._is_running = False
        """Whether the task is. While it is not, nothing is left from earlier batches, or nothing may be parsed yet."""
        self.finished = Flag()
        """Set when, told to :meth:`finish`, it has."""
        self._now = 0.0
        inbox.limit = max(INBOX, core.lanes.budget.limit - core.lanes.budget.used)

    def start(self) -> None:
        """Begin to parse: auth is over, whatever comes now is not its answer."""
        self._may_parse = True
        if self._inbox.frames:
            self._go_on()

    def open_lanes(self) -> None:
        """Begin to fill the lanes: the session is ready."""
        self._inbox.limit = INBOX
        self._now = anyio.current_time()
        self._sorter.open()  # here, for the dispatch may be in a slow parse of what comes after
        if self._held or self._is_running:
            self._go_on()

    def finish(self) -> None:
        """Empty inbox and held messages into the lanes, past their capacity if need be; :attr:`finished` says when."""
        self._is_finishing = self._may_parse = True
        self._now = anyio.current_time()
        self._sorter.open()
        if self._is_running or self._inbox.frames:
            self._go_on()
        else:
            self.finished.set()

    @property
    def held(self) -> int:
        """How many messages are parsed and not in a lane yet."""
        return len(self._held) + self._inbox.held

    def take(self, batch: Sequence[Frame]) -> None:
        """Take what was read, and carry it on as far as it goes without waiting; the rest is in the inbox."""
        if self._may_parse and not self._is_running and len(batch) <= _BURST:
            if self._core.lanes.are_timed:
                self._now = anyio.current_time()
            self._sorter.carry(batch)
            if not self._held and self._sorter.unparsed is None:
                return
        else:
            self._inbox.put(batch)
        self._go_on()

    def _go_on(self) -> None:
        """Have the task look at what there is to do."""
        if self._is_running or not self._may_parse:  # until it may, auth is the one who waits for arrivals
            self._inbox.arrival.ring()
        else:
            self._is_running = True
            self._start_task(self.run)

    async def run(self) -> None:
        """Dispatch what the reader left, until there is nothing left."""
        budget, inbox, sorter = self._core.lanes.budget, self._inbox, self._sorter
        while True:
            self._now = anyio.current_time()
            self._release_held()
            if sorter.unparsed is None and inbox.frames:
                # Of what is parsed asynchronously only one frame goes at a time, and the rest would come back.
                count = 1 if sorter.is_async else min(_BURST, len(inbox.frames))
                burst = [inbox.frames.popleft() for _ in range(count)]
                inbox.size -= sum(map(_SIZE, burst))
                sorter.carry([frame for frame, _ in burst])
                inbox.room.ring()
            if sorter.unparsed is not None:
                await sorter.finish_parsing()
                continue
            if inbox.frames:
                await checkpoint()
                continue
            self._release_held()  # room may have come while a message was parsed, when nobody waited for it
            if not self._held:
                break
            budget.room_wanted = inbox.arrival
            try:
                await inbox.arrival.wait()
            finally:  # here, not at the end: another connection's dispatch may wait by then
                budget.room_wanted = None
        self._is_running = False
        if self._is_finishing:
            self.finished.set()

    def _deliver(self, key: Hashable, run: list[Any], size: Size, lane: Lane | None = None) -> None:
        """Put messages of one key into their lane, or hold them, and all that follows them, until they have room.

        Args:
            key: Of each of them.
            run: In order; the list is given away.
            size: What each of them counts for.
            lane: ``None``: the one of that key, and those beside it.
        """
        if key is REPEAT:
            return
        if lane is None:
            lane = self._core.lanes.find(key)
        if lane is None:
            self._core.counters.unrouted += len(run)
            return
        if lane.beside:
            for other in lane.beside:
                self._deliver(key, run.copy(), size, other)
        if lane.stale_after is not None:
            lane.last_put = self._now
            if lane.told_stale:
                lane.told_stale = False
                self._core.silence_begins()
        if not self._held and lane.put_all(run, size):
            return
        for message in run:
            if self._held or not self._put(lane, message, size):
                self._hold(lane, message, size)

    def _hold(self, lane: Lane, message: Any, size: Size) -> None:
        if not self._held:
            self._on_held(True)
        if self._held is NONE:
            self._held = deque()
        counted = size.once() if isinstance(size, Shared) else size
        self._held.append((lane, message, size, counted))
        self._inbox.size += counted

    def _put(self, lane: Lane, message: Any, size: Size) -> bool:
        try:
            put = lane.put(message, size, force=self._is_finishing)
        except mishaps() as error:  # from the user's `conflate`
            self._core.parse_failed(error)
            return True
        if put is Put.OVERFLOW:
            self._on_overflow(lane)
        return put is Put.TAKEN

    def _release_held(self) -> None:
        """Move held messages to their lanes, in order, as far as they find room."""
        if not self._held:
            return
        released = 0
        while self._held:
            lane, message, size, counted = self._held[0]
            if not self._put(lane, message, size):
                break
            self._held.popleft()
            released += counted
        if released:
            self._inbox.release(released)
        if not self._held:
            self._on_held(False)

    def abandon(self) -> int:
        """Drop what is in no lane yet; return how many messages that were."""
        count = self._sorter.abandon() + len(self._held) + len(self._inbox.frames)
        self._held.clear()
        self._inbox.frames.clear()
        return count

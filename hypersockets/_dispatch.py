"""From frames to lanes: parse, give acks to who waits for them, fill the lanes in order.

The reader itself carries each batch as far as it goes without waiting: one wake-up less on the way of every
message. A task does the rest, while there is any: what an async ``parse`` works on, what waits for room, the end.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from ._bell import Flag
from ._budget import Shared, Size
from ._calls import mishaps, settle
from ._core import Core
from ._inbox import INBOX, NONE, Inbox
from ._lane import Lane, Put
from ._message import SMALL, Frame, counted_size
from ._subscriptions import Wanted
from ._told import Told
from ._tracking import REPEAT, Tracker

__all__ = ["Dispatch"]

_EARLY = object()
"""The key of all messages that come before the lanes are open."""

_BURST = 1024
"""How many frames are dispatched between two checkpoints."""
LARGE = 65536
"""From how many bytes or characters on a frame is carried alone."""
_SIZE = itemgetter(1)
_TYPES = 64
"""How many types of parsed messages are remembered as not awaitable."""


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
        self._on_verdict = on_verdict
        self._on_overflow = on_overflow
        self._on_held = on_held
        self._told = told
        self._acks = told.acks
        self._requests = core.requests.pending
        router = core.config.router
        self._parse_many: Callable[[Frame], Iterable[Any]] | None = getattr(router, "parse_many", None)
        self._parse: Callable[[Frame], Any] | None = getattr(router, "parse", None)
        self._route_key: Callable[[Any], Hashable] | None = None if router is None else router.route_key
        self.tracker: Tracker | None = None
        """Looks at each message on its way to the lanes. ``None`` iff the user wants to have nothing found there."""
        if core.config.sequence is not None or core.config.message_id is not None:
            self.tracker = Tracker(
                sequence=core.config.sequence,
                message_id=core.config.message_id,
                sequences=core.sequences,
                noting=core.recent,
                route_key=self._route_key,
                on_gap=core.gap_found,
            )
            self._route_key = self.tracker.key_of
        self._key_of: Callable[[Any], Hashable] | None = _early
        """Gives the key of a message: its route key once the lanes are open. ``None`` iff all have the key ``None``."""
        self._plain: set[type] = {dict, list, str, bytes}
        """Types of messages that were seen not to be awaitable: to ask that each time costs more than the rest."""
        self._early: list[tuple[list[Any], Size, int]] = []
        """(messages, size of each, bytes to release in the inbox): received, parsed, and the lanes are not open yet."""
        self._held: deque[tuple[Lane, Any, Size, int]] = NONE
        """(lane, message, its size there, bytes to release in the inbox): parsed, and their lanes were full."""
        self._may_parse = False
        self._is_finishing = False
        self._is_running = False
        """Whether the task is. While it is not, nothing is left from earlier batches, or nothing may be parsed yet."""
        self.finished = Flag()
        """Set when, told to :meth:`finish`, it has."""
        self._is_async = False
        """Whether ``parse`` has given something to await."""
        self._is_parsing = False
        """Whether a message is with an async ``parse``, or was when that was cancelled."""
        self._unparsed: tuple[Any, int] | None = None
        """What an async ``parse`` made of a frame, with the frame's size: the task has to await it."""
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
        self._release_early()  # here, for the dispatch may be in a slow parse of what comes after
        if self._held or self._is_running:
            self._go_on()

    def finish(self) -> None:
        """Empty inbox and held messages into the lanes, past their capacity if need be; :attr:`finished` says when."""
        self._is_finishing = self._may_parse = True
        self._release_early()
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
            self._carry(batch)
            if not self._held and self._unparsed is None:
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
        budget, inbox = self._core.lanes.budget, self._inbox
        while True:
            self._now = anyio.current_time()
            self._release_held()
            if self._unparsed is None and inbox.frames:
                # Of what is parsed asynchronously only one frame goes at a time, and the rest would come back.
                count = 1 if self._is_async else min(_BURST, len(inbox.frames))
                burst = [inbox.frames.popleft() for _ in range(count)]
                inbox.size -= sum(map(_SIZE, burst))
                self._carry([frame for frame, _ in burst])
                inbox.room.ring()
            if self._unparsed is not None:
                await self._finish_parsing(*self._unparsed)
                continue
            if inbox.frames:
                await checkpoint()
                continue
            self._release_held()  # room may have come while a message was parsed, when nobody waited for it
            if not self._held:
                break
            budget.room_wanted = inbox.arrival
            await inbox.arrival.wait()
        budget.room_wanted = None
        self._is_running = False
        if self._is_finishing:
            self.finished.set()

    def _carry(self, frames: Sequence[Frame]) -> None:
        """Parse frames, and deliver their messages; from one on that has to be awaited they go to the inbox."""
        if self._parse_many is not None:
            self._carry_many(self._parse_many, frames)
            return
        largest = max(map(len, frames), default=0)
        if largest <= LARGE:
            rest = iter(frames)
            self._carry_each(rest, are_small=largest <= SMALL)
        else:
            rest = iter(frames)
            for frame in rest:
                self._carry_each(iter((frame,)), are_small=False)
                if self._unparsed is not None:
                    break
        if self._unparsed is not None:
            self._inbox.put_in_front([(frame, counted_size(frame)) for frame in rest])

    def _carry_each(self, frames: Iterator[Frame], *, are_small: bool) -> None:
        """Carry frames of which each is one message, up to one that has to be awaited.

        Messages of one key count for equally many bytes each: at the most for :data:`LARGE` less than they should.
        """
        plain, parse, key_of = self._plain, self._parse, self._key_of
        # Once for all: whoever begins to wait meanwhile does not wait for what is here already.
        is_awaited = bool(self._acks or self._requests)
        runs: dict[Hashable, list[Any]] = {}
        sizes: dict[Hashable, int] = {}
        known: type = str
        for frame in frames:
            try:
                message = frame if parse is None else parse(frame)
                if type(message) is not known:
                    if type(message) not in plain and self._is_awaitable(message):
                        self._unparsed = message, counted_size(frame)
                        self._inbox.size += counted_size(frame)
                        break
                    known = type(message)
                if is_awaited and self._is_claimed(message):
                    continue
                key = None if key_of is None else key_of(message)
                try:
                    run = runs[key]
                except KeyError:
                    run = runs[key] = []
                run.append(message)
                if not are_small:
                    sizes[key] = sizes.get(key, 0) + counted_size(frame)
            except mishaps() as error:
                self._core.parse_failed(error)
        for key, run in runs.items():
            self._deliver(key, run, SMALL if are_small else sizes[key] // len(run))

    def _carry_many(self, parse_many: Callable[[Frame], Iterable[Any]], frames: Iterable[Frame]) -> None:
        """Carry frames of which each may be several messages."""
        runs: dict[Hashable, list[Any]] = {}
        for frame in frames:
            size = counted_size(frame)
            try:
                messages = parse_many(frame)
                if size == SMALL and isinstance(messages, (list, tuple)) and len(messages) == 1:
                    self._sort(messages, runs)
                    continue
            except mishaps() as error:
                self._core.parse_failed(error)
                continue
            self._deliver_all(runs, SMALL)
            runs = {}
            shared: dict[Hashable, list[Any]] = {}
            try:
                self._sort(messages, shared)
            except mishaps() as error:  # what it gave before counts
                self._core.parse_failed(error)
            self._deliver_all(shared, Shared(size))
        self._deliver_all(runs, SMALL)

    def _sort(self, messages: Iterable[Any], runs: dict[Hashable, list[Any]]) -> None:
        """Sort messages by key; each that one of the user's functions cannot look at is skipped."""
        for message in messages:
            try:
                if (self._acks or self._requests) and self._is_claimed(message):
                    continue
                runs.setdefault(self._key(message), []).append(message)
            except mishaps() as error:
                self._core.parse_failed(error)

    def _key(self, message: Any) -> Hashable:
        return None if self._key_of is None else self._key_of(message)

    def _is_awaitable(self, message: Any) -> bool:
        if inspect.isawaitable(message):
            self._is_async = True
            return True
        if len(self._plain) < _TYPES:
            self._plain.add(type(message))
        return False

    async def _finish_parsing(self, message: Awaitable[Any], size: int) -> None:
        self._unparsed, self._is_parsing = None, True
        try:
            parsed = await settle(message)
        except Exception as error:
            self._core.parse_failed(error)
        else:
            self._deliver_parsed(parsed, size)
        self._is_parsing = False
        self._inbox.release(size)

    def _deliver_parsed(self, message: Any, size: int) -> None:
        try:
            if not ((self._acks or self._requests) and self._is_claimed(message)):
                self._deliver(self._key(message), [message], size)
        except mishaps() as error:
            self._core.parse_failed(error)

    def _is_claimed(self, message: Any) -> bool:
        """Tell whether a message is an ack, or else the reply to a request, and give it to who waits for it.

        What one of the user's functions raises comes out, unless another one claims the message.
        """
        error: BaseException | None = None
        if self._acks:
            try:
                if self._is_ack(message):
                    return True
            except mishaps() as raised:
                error = raised
        if self._requests:
            try:
                if self._core.requests.offer(message, self._inbox):
                    return True
            except mishaps() as raised:
                error = raised if error is None else error
        if error is not None:
            raise error
        return False

    def _is_ack(self, message: Any) -> bool:
        verdicts = self._told.offer(message)
        for wanted, confirmed in verdicts:
            self._on_verdict(wanted, confirmed)
        return bool(verdicts)

    def _deliver_all(self, runs: dict[Hashable, list[Any]], size: Size) -> None:
        for key, run in runs.items():
            self._deliver(key, run, size)

    def _deliver(self, key: Hashable, run: list[Any], size: Size, lane: Lane | None = None) -> None:
        """Put messages of one key into their lane, or hold them, and all that follows them, until they have room.

        Args:
            key: Of each of them.
            run: In order; the list is given away.
            size: What each of them counts for.
            lane: ``None``: the one of that key, and those beside it.
        """
        if key is _EARLY:
            counted = len(run) * (size.once() if isinstance(size, Shared) else size)
            self._early.append((run, size, counted))
            self._inbox.size += counted
            self._inbox.held += len(run)
            return
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
                self._core.lanes.silence_begins()
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

    def _release_early(self) -> None:
        """Give messages that came before the lanes were open their keys, and deliver them, in order."""
        self._now = anyio.current_time()
        self._key_of = self._route_key
        early, self._early = self._early, []
        self._inbox.held = 0
        for messages, size, counted in early:
            self._inbox.release(counted)
            runs: dict[Hashable, list[Any]] = {}
            for message in messages:
                try:
                    runs.setdefault(self._key(message), []).append(message)
                except mishaps() as error:
                    self._core.parse_failed(error)
            self._deliver_all(runs, size)

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
        """Drop what is held; return how many messages that were."""
        count = self.held + len(self._inbox.frames) + self._is_parsing + (self._unparsed is not None)
        self._is_parsing = False
        if self._unparsed is not None:
            close = getattr(self._unparsed[0], "close", None)  # a coroutine that is never awaited says so, loudly
            if close is not None:
                close()
            self._unparsed = None
        self._held.clear()
        self._early.clear()
        self._inbox.held = 0
        self._inbox.frames.clear()
        return count


def _early(message: Any) -> Hashable:
    return _EARLY

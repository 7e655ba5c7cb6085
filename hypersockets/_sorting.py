"""From frames to messages, and from messages to keys: parse, give acks and replies to who waits for them, sort.

Nothing here waits. What an async ``parse`` gives is left for who can.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

from ._budget import Shared, Size
from ._calls import mishaps, settle
from ._core import Core
from ._inbox import Inbox
from ._message import SMALL, Frame, counted_size
from ._subscriptions import Wanted
from ._told import Told
from ._tracking import Tracker

__all__ = ["Sorter"]

_EARLY = object()
"""The key of all messages that come before the lanes are open."""
_NO_KEY = object()
"""No message has this key."""
LARGE = 65536
"""From how many bytes or characters on a frame is carried alone."""
_PLAIN: frozenset[type] = frozenset({dict, list, str, bytes})
_TYPES = 64
"""How many types of parsed messages are remembered as not awaitable."""


class Sorter:
    """One connection's way from frames to runs: the messages of one key, in order.

    Before the lanes are open messages are kept as they were parsed: what they are is then told by what came on the
    connection before.
    """

    def __init__(
        self,
        core: Core,
        inbox: Inbox,
        told: Told,
        *,
        deliver: Callable[[Hashable, list[Any], Size], None],
        on_verdict: Callable[[Wanted, bool], None],
    ) -> None:
        """Begin with nothing.

        Args:
            core: For configuration, requests, sequences and numbers.
            inbox: Where frames go back to that have to wait for one before.
            told: The subscriptions whose acks are awaited.
            deliver: Called with each run: its key, its messages, and what each of them counts for.
            on_verdict: Called with a subscription, and whether it was confirmed.
        """
        self._core = core
        self._inbox = inbox
        self._told = told
        self._deliver = deliver
        self._on_verdict = on_verdict
        self._acks = told.acks
        self._requests = core.requests.pending
        router = core.config.router
        self._parse_many: Callable[[Frame], Iterable[Any]] | None = getattr(router, "parse_many", None)
        self._parse: Callable[[Frame], Any] | None = getattr(router, "parse", None)
        self._route_key: Callable[[Any], Hashable] | None = None if router is None else router.route_key
        self.tracker: Tracker | None = None
        """Looks at each message on its way to the lanes. ``None`` iff the user wants to have nothing found there."""
        if core.recent is not None:
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
        self._early: list[tuple[list[Any], Size, int]] = []
        """(messages, size of each, bytes to release in the inbox): received, parsed, and the lanes are not open yet."""
        self._plain = _PLAIN
        """Types of messages that were seen not to be awaitable: to ask that each time costs more than the rest."""
        self.is_async = False
        """Whether ``parse`` has given something to await."""
        self.unparsed: tuple[Any, int] | None = None
        """What an async ``parse`` made of a frame, with the frame's size: somebody has to await it."""
        self._is_parsing = False
        """Whether a message is with an async ``parse``, or was when that was cancelled."""

    def open(self) -> None:
        """Give messages that came early their keys, and deliver them, in order; later ones at once."""
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

    def carry(self, frames: Sequence[Frame]) -> None:
        """Parse frames, and deliver their messages; from one on that has to be awaited they go to the inbox."""
        if self._parse_many is not None:
            self._carry_many(self._parse_many, frames)
            return
        is_plain = self._parse is None and self._key_of is None and not (self._acks or self._requests)
        if is_plain and frames and max(map(len, frames)) <= SMALL:
            self._deliver(None, list(frames), SMALL)
            return
        rest = iter(frames)
        self._carry_each(rest)
        if self.unparsed is not None:
            self._inbox.put_in_front([(frame, counted_size(frame)) for frame in rest])

    def _carry_each(self, frames: Iterator[Frame]) -> None:
        """Carry frames of which each is one message, up to one that has to be awaited.

        Messages of one key count for equally many bytes each: at the most for :data:`LARGE` less than they should.
        """
        plain, parse, key_of, small = self._plain, self._parse or _same, self._key_of or _no_key, SMALL
        # Once for all: whoever begins to wait meanwhile does not wait for what is here already.
        is_awaited = bool(self._acks or self._requests)
        runs: dict[Hashable, list[Any]] = {}
        more: dict[Hashable, int] = {}
        run: list[Any] = []
        last: Hashable = _NO_KEY
        known: type | None = None
        for frame in frames:
            try:
                message = parse(frame)
                if type(message) is not known:
                    if type(message) not in plain and self._is_awaitable(message):
                        self.unparsed = message, counted_size(frame)
                        self._inbox.size += counted_size(frame)
                        break
                    if not is_awaited:
                        known = type(message)
                    elif self._is_claimed(message):
                        continue
                key = key_of(message)
                if key is not last:
                    try:
                        run = runs[key]
                    except KeyError:
                        run = runs[key] = []
                    last = key
            except mishaps() as error:
                self._core.parse_failed(error)
                continue
            if len(frame) > small:
                if len(frame) > LARGE:
                    self._hand_on(runs, more)
                    self._deliver_all({key: [message]}, counted_size(frame))
                    last = _NO_KEY
                    continue
                more[key] = more.get(key, 0) + counted_size(frame) - small
            run.append(message)
        self._hand_on(runs, more)

    def _hand_on(self, runs: dict[Hashable, list[Any]], more: dict[Hashable, int]) -> None:
        """Deliver the runs, and begin new ones; of some keys the messages together count for more than if small."""
        deliver = self._keep if self._key_of is _early else self._deliver
        for key, run in runs.items():
            if run:
                deliver(key, run, SMALL + more.get(key, 0) // len(run))
        runs.clear()
        more.clear()

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
            self.is_async = True
            return True
        if len(self._plain) < _TYPES:
            self._plain |= {type(message)}
        return False

    async def finish_parsing(self) -> None:
        """Await what an async ``parse`` gave, and carry its message on."""
        assert self.unparsed is not None  # that is why this is called
        (message, size), self.unparsed, self._is_parsing = self.unparsed, None, True
        try:
            parsed = await settle(message)
        except Exception as error:  # a user's parse: its message is lost, and no other
            self._core.parse_failed(error)
        else:
            runs: dict[Hashable, list[Any]] = {}
            self._sort([parsed], runs)
            self._deliver_all(runs, size)
        self._is_parsing = False
        self._inbox.release(size)

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
        verdicts = self._told.offer(message, mishaps())
        for wanted, confirmed in verdicts:
            self._on_verdict(wanted, confirmed)
        return bool(verdicts)

    def _deliver_all(self, runs: dict[Hashable, list[Any]], size: Size) -> None:
        deliver = self._keep if self._key_of is _early else self._deliver
        for key, run in runs.items():
            deliver(key, run, size)

    def _keep(self, _: Hashable, run: list[Any], size: Size) -> None:
        """Keep messages until the lanes open."""
        counted = sum(size.once() for _ in run) if isinstance(size, Shared) else len(run) * size
        self._early.append((run, size, counted))
        self._inbox.size += counted
        self._inbox.held += len(run)

    def abandon(self) -> int:
        """Drop what is not delivered; return how many messages that were."""
        count = self._inbox.held + self._is_parsing + (self.unparsed is not None)
        self._is_parsing = False
        if self.unparsed is not None:
            close = getattr(self.unparsed[0], "close", None)  # a coroutine that is never awaited says so, loudly
            if close is not None:
                close()
            self.unparsed = None
        self._early.clear()
        self._inbox.held = 0
        return count


def _early(message: Any) -> Hashable:
    return _EARLY


def _no_key(message: Any) -> Hashable:
    return None


def _same(frame: Frame) -> Frame:
    return frame

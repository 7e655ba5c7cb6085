"""What happens to a client, as values; the log that keeps the last of them.

Events are facts in the past tense. Each has ``at`` (monotonic seconds of the event loop's clock), ``epoch``
(how many sessions had been ready) and ``name`` (the client's).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

import attrs

from ._errors import ParseError
from ._redact import mask_text, mask_url

__all__ = [
    "Closed",
    "Connected",
    "Connecting",
    "Disconnected",
    "ErrorOccurred",
    "Event",
    "EventLog",
    "GapDetected",
    "MessageDropped",
    "Reconnecting",
    "Rotated",
    "RouteStale",
]


@attrs.frozen(kw_only=True)
class Event:
    """What all events have."""

    at: float = attrs.field(repr=lambda at: f"{at:.3f}")
    """When, in seconds of the event loop's clock (``anyio.current_time()``)."""
    epoch: int
    """How many sessions had been ready, this one included."""
    name: str
    """The client's name."""


@attrs.frozen(kw_only=True)
class Connecting(Event):
    """An attempt begins."""

    url: str = attrs.field(converter=mask_url)
    """Where to, secrets masked."""


@attrs.frozen(kw_only=True)
class Connected(Event):
    """The session is ready: authenticated, subscriptions confirmed, heartbeat started."""

    url: str = attrs.field(converter=mask_url)
    """Where to, secrets masked."""
    downtime: float
    """Seconds since the last ready session was lost; 0.0 for the first."""


@attrs.frozen(kw_only=True)
class Disconnected(Event):
    """A ready session has ended."""

    reason: str = attrs.field(converter=mask_text)
    """What happened, in words."""
    code: int | None
    """The peer's close code, 1005 for an empty close frame, ``None`` without one."""
    error: BaseException | None
    """The loss; ``None`` when the client was being closed."""


@attrs.frozen(kw_only=True)
class Reconnecting(Event):
    """The wait before retry number ``attempt`` (from 1) begins."""

    attempt: int
    delay: float
    """The whole wait, in seconds."""


@attrs.frozen(kw_only=True)
class ErrorOccurred(Event):
    """An attempt failed, or something went wrong that does not end the session."""

    error: BaseException
    count: int = 1
    """How many of its kind this one stands for: errors of single messages are merged, one per key and second."""


@attrs.frozen(kw_only=True)
class MessageDropped(Event):
    """Messages were taken away, by overflow, by conflation, or by a drain that ran out."""

    key: Hashable
    count: int
    """How many: merged, one event per key and second."""
    why: str
    """``"drop_oldest"``, ``"drop_newest"``, ``"conflated"``, ``"memory"`` or ``"closed"``."""


@attrs.frozen(kw_only=True)
class RouteStale(Event):
    """No message for a key for its ``stale_after``, while connected; once per silence."""

    key: Hashable
    silent_for: float
    """Seconds."""


@attrs.frozen(kw_only=True)
class Rotated(Event):
    """Another connection has taken over from one that still worked: this event alone tells of both.

    With ``rotation="break-before-make"`` as well; only if the next connection cannot be made come ``Disconnected``,
    ``Connecting`` and ``ErrorOccurred``.
    """

    age: float
    """How many seconds the old one had been ready."""


@attrs.frozen(kw_only=True)
class GapDetected(Event):
    """Messages of a sequence are missing: those from ``expected`` up to, but not including, ``got``."""

    key: Hashable
    """The sequence: what ``ClientConfig.sequence`` gave."""
    expected: int
    """The number that was due."""
    got: int
    """The number that came; its message is handled like others."""


@attrs.frozen(kw_only=True)
class Closed(Event):
    """The client has ended; the last event."""

    error: BaseException | None
    """What ended it; ``None`` for a clean end."""


KEPT = 1024
"""How many events a client keeps."""

WHOLE = 16
"""Of how many errors of single messages it keeps the traceback too, and of a ``ParseError`` the cause: each of them may
hold a message of the largest size."""

MERGE_WINDOW = 1.0
"""Seconds for which events of the same kind and key are merged."""


@attrs.define(eq=False, repr=False)
class _Merged:
    """A kind of event of which one has been emitted; those that follow are counted."""

    until: float
    make: Callable[[int], Event]
    count: int = 0


@attrs.define(eq=False, repr=False)
class EventLog:
    """The last events, numbered; listeners hold their own place in it, so none of them can fill it."""

    kept: list[Event] = attrs.field(factory=list)  # an empty deque takes ten times the memory
    total: int = 0
    """How many events there have been: the number of the next one."""
    wakers: list[Callable[[], None]] = attrs.field(factory=list)
    """Called after each event."""
    _merged: dict[Hashable, _Merged] = attrs.field(factory=dict)
    """In the order of their ends, since each is as long as the others."""
    _whole: list[int] = attrs.field(factory=list)
    """The numbers of the newest errors of single messages."""

    @property
    def merge_until(self) -> float | None:
        """When the next merging window ends; ``None`` iff none is open."""
        return next((merged.until for merged in self._merged.values()), None)

    def emit(self, event: Event) -> None:
        """Append an event and wake the listeners."""
        self.kept.append(event)
        del self.kept[:-KEPT]
        self.total += 1
        for wake in tuple(self.wakers):
            wake()

    def emit_merged(self, now: float, kind: Hashable, make: Callable[[int], Event], count: int = 1) -> None:
        """Count towards one event per kind and window; ``make(count)`` makes it.

        The first of a quiet time comes at once, the rest when its window ends: see :meth:`flush`.
        """
        merged = self._merged.get(kind)
        if merged is not None:
            merged.count += count
            merged.make = make
            return
        # More kinds in one second than events are kept: a server makes up keys. They come, but unmerged.
        if len(self._merged) < KEPT:
            self._merged[kind] = _Merged(now + MERGE_WINDOW, make)
        self._emit_one(make(count))

    def flush(self, now: float = math.inf) -> None:
        """Emit what was counted in the windows that have ended by ``now`` (by default in all of them, for the end).

        A kind that goes on gets another window, so it comes once per window for as long as it goes on.
        """
        while (until := self.merge_until) is not None and until <= now:
            kind = next(iter(self._merged))
            merged = self._merged.pop(kind)
            if merged.count:
                if now < math.inf:
                    self._merged[kind] = _Merged(now + MERGE_WINDOW, merged.make)
                self._emit_one(merged.make(merged.count))

    def _emit_one(self, event: Event) -> None:
        """Emit an event about single messages, and let go of what an old one may hold of its own."""
        if isinstance(event, ErrorOccurred):
            self._whole.append(self.total)
            if len(self._whole) > WHOLE:
                self._lighten(self._whole.pop(0) - self.oldest)
        self.emit(event)

    def _lighten(self, index: int) -> None:
        if index < 0:  # it is gone
            return
        event = self.kept[index]
        assert isinstance(event, ErrorOccurred)  # only these are noted
        if isinstance(event.error, ParseError):
            self.kept[index] = attrs.evolve(event, error=ParseError(str(event.error)))
            return
        error: BaseException | None = event.error
        while error is not None and error.__traceback__ is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__

    @property
    def oldest(self) -> int:
        """The number of the oldest event kept."""
        return self.total - len(self.kept)

    def read(self, number: int) -> tuple[Event | None, int, int]:
        """Return the event with that number, the next number, and how many were skipped because they are gone.

        The event is ``None`` when there is none yet.
        """
        skipped = max(0, self.oldest - number)
        number += skipped
        if number >= self.total:
            return None, number, skipped
        return self.kept[number - self.oldest], number + 1, skipped

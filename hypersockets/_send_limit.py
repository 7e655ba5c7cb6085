"""A pace to keep to: never more than so many messages in any window of so many seconds.

A token bucket would not do: it lets a bucketful go, and then what has trickled in meanwhile, in one and the same
window. Here each message takes one of ``count`` slots, and its slot comes free when a window has passed since the
last moment at which the message may have been put on the wire.

Nothing in this file sleeps or reads a clock: every method is given the time.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from typing import Final

import attrs

from ._heartbeat import Beats
from ._values import count, seconds, to_seconds

__all__ = ["SendLimit", "Share", "Window"]

MARGIN: Final = 0.001
"""By which part of ``per`` a slot is taken for longer: the server's windows may be closed, and floats are rounded."""

LATE: Final = 0.05
LATE_BEAT: Final = 0.01
"""How late a heartbeat may be, as a part of the window and of its interval. If it had to be punctual and its interval
were a multiple of the window, a slot would be lost for each: three windows, and a little, do not fit into three."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Share:
    """One connection's part in a limit, while it has joined: what it waits to send, and what it must send soon."""

    window: Window
    beats: Callable[[], Beats | None]
    """Gives its next heartbeats; ``None``: there are none now."""
    keeps_room: Callable[[], bool]
    """Tells whether it may have to send something urgent at any moment."""
    waiting: Callable[[], tuple[int, int]] = lambda: (0, 0)
    """Gives how many urgent messages wait now, and how many others."""
    wake: Callable[[], None] = lambda: None
    """Called when its turn may have come sooner than it was told."""


@attrs.define(eq=False, repr=False)
class Window:
    """The slots of a limit, and who waits for one."""

    count: int
    span: float
    """Seconds for which a message takes its slot once it is written."""
    _taken: deque[float] = attrs.field(factory=deque, init=False)
    """When each slot taken comes free again, ascending."""
    _writing: int = attrs.field(default=0, init=False)
    """Slots taken by writes under way, which come free nobody knows when."""
    _shares: list[Share] = attrs.field(factory=list, init=False)
    _line: list[Share] = attrs.field(factory=list, init=False)
    """Who has to wait with what is not urgent, in the order in which the waiting began."""
    _stuck: list[Share] = attrs.field(factory=list, init=False)
    """Who waits for something whose time nobody knows."""

    # Who shares it.

    def join(self, share: Share) -> None:
        """Let a connection take part, and keep room for it."""
        self._shares.append(share)

    def leave(self, share: Share) -> None:
        """Let a connection take part no longer."""
        self._shares.remove(share)
        self._step_out(share)
        self.changed()

    def changed(self) -> None:
        """Let everybody who waits look again: room is needed no longer, or at another time."""
        for share in [*self._line, *self._stuck]:
            share.wake()
        self._stuck.clear()

    def _step_out(self, share: Share) -> None:
        if share in self._line:
            self._line.remove(share)

    # What may be sent.

    def turn(self, share: Share, now: float) -> tuple[int, float]:
        """Return how many of the messages that wait may be written now, in one go, the urgent ones first.

        What may be written must be, or those behind wait longer than they need.

        Returns:
            The number; and, where it is 0, when to ask again: infinite if a call of ``wake`` says so.
        """
        self._look_at_clock(now)
        urgent, others = share.waiting()
        if urgent:
            allowed, at = self._free, self._free_at(1)
            allowed = min(allowed, urgent)
        elif others:
            allowed, at = self._others_turn(share, others, now)
        else:
            if share in self._line:  # what it waited with was withdrawn
                self._step_out(share)
                self.changed()
            return 0, math.inf
        if allowed <= 0 and at == math.inf and share not in self._stuck:
            self._stuck.append(share)
        return max(allowed, 0), at

    def _look_at_clock(self, now: float) -> None:
        """Give back the slots that have come free."""
        if self._taken and self._taken[-1] > now + self.span:  # of another event loop, whose clock was another
            self._taken.clear()
        while self._taken and self._taken[0] <= now:
            self._taken.popleft()

    @property
    def _free(self) -> int:
        return self.count - self._writing - len(self._taken)

    def _free_at(self, slots: int) -> float:
        """Return when so many slots are free if nothing else is sent."""
        too_many = slots - self._free
        if too_many <= 0:
            return -math.inf
        return self._taken[too_many - 1] if too_many <= len(self._taken) else math.inf

    def _others_turn(self, share: Share, messages: int, now: float) -> tuple[int, float]:
        """Let those go first who have waited for longer, and all that is urgent."""
        if share not in self._line:
            self._line.append(share)
        place = self._line.index(share)
        waiting = [other.waiting()[1] > 0 for other in self._line]
        ahead = sum(waiting[:place]) + sum(other.waiting()[0] for other in self._shares)
        allowed, at = self._spare(now, ahead)
        if allowed > 0:
            # Those behind would have to wait for a whole window.
            allowed = min(max(1, allowed - sum(waiting[place + 1 :])), messages)
            self._step_out(share)
        return allowed, at

    def _spare(self, now: float, ahead: int) -> tuple[int, float]:
        """Return how many messages may go behind so many others without taking what is kept; or when to ask again."""
        most = self.count - 1  # where that is all that can be kept, something else may still go when nothing was sent
        # One slot for all who may need one: as long as it is taken, nothing goes that is not urgent.
        unforeseen = any(share.keeps_room() for share in self._shares)
        needed = ahead + 1 + min(unforeseen, most)
        spare = self._free - needed + 1
        if spare <= 0:
            return 0, self._free_at(needed)
        for number, due in enumerate(islice(self._dues(now), most), 1):
            # What is sent now still has its slot then, and so has what is due before.
            free_then = self._free + bisect_right(self._taken, due)
            spare_then = free_then - ahead - min(unforeseen + number, most)
            if spare_then <= 0:
                return 0, due if due > now else math.inf
            spare = min(spare, spare_then)
        return spare, now

    def _dues(self, now: float) -> Iterator[float]:
        """Yield, in order, when heartbeats must be sent within a window from now."""
        beats = [each for share in self._shares if (each := share.beats()) is not None]
        return merge(*(_ticks(each, now + self.span, most_late=LATE * self.span) for each in beats))

    # What is sent.

    def begin(self, messages: int) -> None:
        """Take slots for a write that begins."""
        self._writing += messages

    def end(self, messages: int, now: float) -> None:
        """Note the end of a write, well or badly: until now its messages may have been put on the wire."""
        self._writing -= messages
        self._taken.extend([now + self.span] * messages)
        stuck, self._stuck = self._stuck, []
        for share in stuck:
            share.wake()


def _ticks(beats: Beats, until: float, *, most_late: float) -> Iterator[float]:
    first = beats.next_at + min(LATE_BEAT * beats.interval, most_late)
    due, number = first, 0
    while due < until:
        yield due
        number += 1
        due = first + number * beats.interval


@attrs.frozen(eq=False)
class SendLimit:
    """Never more than ``count`` messages in any window of ``per`` seconds, as a server counts that is strict.

    All data messages count: users' and subscriptions, auth, heartbeats, replies to passive pings; for the last
    three room is kept. Several clients of one event loop may share one object, and then keep to it together.

    Raises:
        ConfigurationError: A value out of range.
    """

    count: int = attrs.field(validator=count(least=1, optional=False))
    """Messages."""
    per: float = attrs.field(converter=to_seconds, validator=seconds(positive=True))
    """Seconds; a ``timedelta`` is taken too."""
    _window: Window = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # Not a default: it would be made before the values are checked.
        object.__setattr__(self, "_window", Window(self.count, self.per * (1 + MARGIN)))

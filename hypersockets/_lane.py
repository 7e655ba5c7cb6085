"""Where the messages of one key wait, and what happens when too many do.

Nothing in this file sleeps: workers and streams (who empty lanes) and the dispatch (which fills them) do. On the
way in and on the way out messages go by the run, and bytes are counted by the run: what each message costs here
is a step of an iterator.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from operator import length_hint
from typing import Any

import attrs

from ._bell import Bell
from ._budget import Budget, Size
from ._routing import Overflow

__all__ = ["Lane", "Put"]


class Put(enum.Enum):
    """What became of a message offered to a lane."""

    TAKEN = 1
    """It waits there, or the lane's policy dropped it (and counted it)."""
    FULL = 2
    """No room: offer it again when there is."""
    OVERFLOW = 3
    """No room, and the policy is to lose the session."""


Item = tuple[Any, Size]
"""A message and the bytes that it counts for."""


class _Conflated:
    """A queue that holds one message per conflation key: the newest, in order of arrival."""

    def __init__(self, key: Callable[[Any], Hashable]) -> None:
        self._key = key
        self._items: OrderedDict[Hashable, Item] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def append(self, message: Any, size: Size) -> None:
        self._items[self._key(message)] = message, size

    def popleft(self) -> Item:
        return self._items.popitem(last=False)[1]

    def supersede(self, message: Any) -> Item | None:
        """Take out and return the message that ``message`` makes obsolete. Raises what the user's function does."""
        return self._items.pop(self._key(message), None)


@attrs.define(eq=False, repr=False)
class _Run:
    """Messages in a row that count for equally many bytes each."""

    count: int
    size: Size


@attrs.define(eq=False, repr=False)
class Lane:
    """The queue of one key. A message counts in it from its arrival until its handling is over.

    Whoever empties it takes all that waits into the hand, and from there one message after the other.
    """

    key: Hashable
    handler: Callable[[Any], Awaitable[Any]] | None
    """``None`` iff messages leave by iteration."""
    capacity: int
    overflow: Overflow
    conflate: Callable[[Any], Hashable] | None
    stale_after: float | None
    budget: Budget
    on_drop: Callable[[Hashable, int, str], None]
    """Called with key, count and reason whenever messages are taken away."""
    on_message: Callable[[Lane], None]
    """Called when there is something to take again, unless the taker was told already."""
    is_told: bool = False
    """Whether who empties the lane has been told of messages, and has not come to its end since."""
    last_put: float = 0.0
    """When the last message came, or the session became ready; only kept where ``stale_after`` is set."""
    told_stale: bool = False
    bell: Bell = attrs.field(factory=Bell)
    """For iteration: rung when there is something to take, and when there will be no more."""
    is_read: bool = False
    """Whether a task waits for its next message, by iteration."""
    hand: Iterator[Any] = attrs.field(factory=lambda: iter(()), init=False)
    """The messages in the hand of whoever empties the lane, but for the one being handled; oldest first."""
    is_working: bool = attrs.field(default=False, init=False)
    """Whether a message is being handled."""
    is_closed: bool = False
    """Whether nobody will take any more messages."""
    beside: tuple[Lane, ...] = attrs.field(default=(), init=False)
    """The other lanes that get the messages of this key, each a list and a count of its own."""
    _waiting: list[Any] | _Conflated = attrs.field(init=False)
    """The messages behind those in the hand, oldest first."""
    _runs: list[_Run] = attrs.field(factory=list, init=False)
    """What the messages count for, in their order, the one being handled included; those that may still be
    conflated are not among them. There may be more than there are messages: see `settle`."""
    _counted: int = attrs.field(default=0, init=False)
    """How many messages are in the runs."""

    def __attrs_post_init__(self) -> None:
        self._waiting = [] if self.conflate is None else _Conflated(self.conflate)

    def __len__(self) -> int:
        return len(self._waiting) + length_hint(self.hand) + self.is_working

    @property
    def stale_at(self) -> float:
        """When the lane becomes stale. Infinite if that is not watched, or was told."""
        return math.inf if self.stale_after is None or self.told_stale else self.last_put + self.stale_after

    # Filling.

    def put_all(self, messages: list[Any], size: Size) -> bool:
        """Take all these messages if that needs no thought; else return ``False`` and take none.

        Args:
            messages: In order; the list is given away.
            size: What each of them counts for.
        """
        budget, count = self.budget, len(messages)
        if not isinstance(self._waiting, list) or self.is_closed or len(self) + count > self.capacity:
            return False
        if not budget.has_room_for(count, size):
            return False
        budget.take(count, size)
        if self._waiting:
            self._waiting += messages
        else:
            self._waiting = messages
        self._count(count, size)
        self._tell()
        return True

    def put(self, message: Any, size: Size, *, force: bool = False) -> Put:
        """Offer a message; ``force`` lets it in past capacity and budget where it would have to wait.

        Whatever a user's ``conflate`` raises comes out, and the message is not in the lane.
        """
        budget = self.budget
        if self.is_closed:
            self.on_drop(self.key, 1, "closed")
            return Put.TAKEN
        if isinstance(self._waiting, _Conflated):
            obsolete = self._waiting.supersede(message)
            if obsolete is not None:
                budget.release(1, obsolete[1])
                self.on_drop(self.key, 1, "conflated")
        if len(self) >= self.capacity:
            if self.overflow == "drop_newest":
                self.on_drop(self.key, 1, "drop_newest")
                return Put.TAKEN
            if self.overflow == "drop_oldest":
                self._drop_oldest()
            elif not force:
                return Put.FULL if self.overflow == "block" else Put.OVERFLOW
        if budget.is_full() and not force:
            return Put.FULL
        if budget.used >= 2 * budget.limit:  # losses with handlers that never return: it has to end somewhere
            self.on_drop(self.key, 1, "memory")
            return Put.TAKEN
        budget.take(1, size)
        if isinstance(self._waiting, _Conflated):
            self._waiting.append(message, size)
        else:
            self._waiting.append(message)
            self._count(1, size)
        self._tell()
        return Put.TAKEN

    def _tell(self) -> None:
        if not self.is_told:
            self.is_told = True
            self.on_message(self)

    def _drop_oldest(self) -> None:
        if self.pick_up():  # what is being handled cannot be dropped any more
            self.settle()
            next(self.hand)
            self._uncount(1, 1 if self.is_working and self._runs[0].count == 1 else 0)
            self.on_drop(self.key, 1, "drop_oldest")

    # Emptying.

    def pick_up(self) -> bool:
        """Take what waits into the hand if there is nothing in it; return whether there is now."""
        if length_hint(self.hand):
            return True
        if not self._waiting:
            return False
        if isinstance(self._waiting, list):
            self.hand, self._waiting = iter(self._waiting), []
        else:  # the others may still be conflated
            message, size = self._waiting.popleft()
            self.hand = iter((message,))
            self._count(1, size)
        return True

    def take(self) -> Any:
        """Return the oldest message in the hand; it stays in the lane until :meth:`done`."""
        self.is_working = True
        return next(self.hand)

    def done(self) -> None:
        """Let go of the message that was taken."""
        self.is_working = False
        if self.budget.room_wanted is not None or not length_hint(self.hand):
            self.settle()

    def make_room(self) -> None:
        """Let go of the message in work, which has been handled, before the next one is taken."""
        self.is_working = False
        self.settle()
        self.is_working = True

    def clear(self) -> int:
        """Empty the lane; return how many messages were in it, the one being handled included."""
        count = len(self)
        self.is_working = False
        while self.pick_up():
            for _ in self.hand:  # whoever goes through it comes to its end too
                pass
        self.settle()
        return count

    # The bytes.

    def settle(self) -> None:
        """Let go of the bytes of messages that have left: until then they count."""
        here = length_hint(self.hand) + self.is_working
        if isinstance(self._waiting, list):
            here += len(self._waiting)
        self._uncount(self._counted - here, 0)

    def _count(self, count: int, size: Size) -> None:
        self._counted += count
        if self._runs and self._runs[-1].size == size:
            self._runs[-1].count += count
        else:
            self._runs.append(_Run(count, size))

    def _uncount(self, count: int, index: int) -> None:
        self._counted -= count
        while count:
            run = self._runs[index]
            part = min(count, run.count)
            self.budget.release(part, run.size)
            run.count -= part
            count -= part
            if not run.count:
                del self._runs[index]

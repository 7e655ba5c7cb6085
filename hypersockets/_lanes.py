"""Where messages wait, per key, and what happens when too many do.

Lanes belong to the client and survive its connections. Nothing in this file sleeps: workers and streams
(who empty the lanes) and the dispatch (which fills them) do.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Protocol

import attrs

from ._bell import Bell
from ._budget import Budget, Item, Size
from ._routing import Overflow, Route, handler_function

__all__ = ["Lane", "Lanes", "Put"]

_SIZE = itemgetter(1)


class Put(enum.Enum):
    """What became of a message offered to a lane."""

    TAKEN = 1
    """It waits there, or the lane's policy dropped it (and counted it)."""
    FULL = 2
    """No room: offer it again when there is."""
    OVERFLOW = 3
    """No room, and the policy is to lose the session."""


class _Queue(Protocol):
    """Messages that wait."""

    def __len__(self) -> int: ...
    def append(self, item: Item, /) -> None: ...
    def popleft(self) -> Item: ...


class _Conflated:
    """A queue of (message, size) that holds one message per conflation key: the newest, in order of arrival."""

    def __init__(self, key: Callable[[Any], Hashable]) -> None:
        self._key = key
        self._items: OrderedDict[Hashable, Item] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def append(self, item: Item) -> None:
        self._items[self._key(item[0])] = item

    def popleft(self) -> Item:
        return self._items.popitem(last=False)[1]

    def supersede(self, message: Any) -> Item | None:
        """Take out and return the message that ``message`` makes obsolete. Raises what the user's function does."""
        return self._items.pop(self._key(message), None)


@attrs.define(eq=False)
class Lane:
    """The queue of one key. A message counts in it from its arrival until its handling is over."""

    key: Hashable
    handler: Callable[[Any], Any] | None
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
    queue: _Queue = attrs.field(init=False)
    """The messages that wait, oldest first."""
    working: Size | None = None
    """The size of the message being handled. ``None`` iff none is."""
    is_closed: bool = False
    """Whether nobody will take any more messages."""

    def __attrs_post_init__(self) -> None:
        self.queue = deque() if self.conflate is None else _Conflated(self.conflate)

    def __len__(self) -> int:
        return len(self.queue) + (self.working is not None)

    def put_all(self, items: list[Item]) -> bool:
        """Take all these messages if that needs no thought; else return ``False`` and take none."""
        budget, queue = self.budget, self.queue
        if not isinstance(queue, deque) or self.is_closed or len(self) + len(items) > self.capacity:
            return False
        used = sum(map(_SIZE, items), budget.used)
        if used >= budget.limit:
            for _, size in items:
                used -= size  # a shared size has to know that it was not taken
            return False
        budget.used = used
        queue.extend(items)
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
        if isinstance(self.queue, _Conflated):
            obsolete = self.queue.supersede(message)
            if obsolete is not None:
                self.left(obsolete[1])
                self.on_drop(self.key, 1, "conflated")
        if len(self) >= self.capacity:
            if self.overflow == "drop_newest":
                self.on_drop(self.key, 1, "drop_newest")
                return Put.TAKEN
            if self.overflow == "drop_oldest":
                if self.queue:  # what is being handled cannot be dropped any more
                    self.left(self.queue.popleft()[1])
                    self.on_drop(self.key, 1, "drop_oldest")
            elif not force:
                return Put.FULL if self.overflow == "block" else Put.OVERFLOW
        if budget.used >= budget.limit and not force:
            return Put.FULL
        if budget.used >= 2 * budget.limit:  # losses with handlers that never return: it has to end somewhere
            self.on_drop(self.key, 1, "memory")
            return Put.TAKEN
        budget.used += size
        self.queue.append((message, size))
        self._tell()
        return Put.TAKEN

    def _tell(self) -> None:
        if not self.is_told:
            self.is_told = True
            self.on_message(self)

    def take(self) -> Any:
        """Return the oldest message; it stays in the lane until :meth:`done`."""
        message, self.working = self.queue.popleft()
        return message

    def done(self) -> None:
        """Let go of the message that was taken."""
        if self.working is not None:
            size, self.working = self.working, None
            self.left(size)

    def left(self, size: Size) -> None:
        """Let go of the bytes of a message that is no longer here."""
        budget = self.budget
        budget.used -= size
        if budget.room_wanted is not None:
            budget.room_wanted.ring()

    def clear(self) -> int:
        """Empty the lane; return how many messages were in it, the one being handled included."""
        count = len(self)
        self.done()
        while self.queue:
            self.left(self.queue.popleft()[1])
        return count


class Lanes:
    """All lanes of a client: one per handler, one per open stream, perhaps one for the rest."""

    def __init__(
        self,
        handlers: Mapping[Hashable, Route],
        default_handler: Route | None,
        *,
        on_drop: Callable[[Hashable, int, str], None],
        on_message: Callable[[Lane], None],
    ) -> None:
        """Make the lanes that the configuration names.

        Args:
            handlers: Routes by key.
            default_handler: For all other keys, in one lane, so that a server cannot make lanes.
            on_drop: Called with key, count and reason whenever a message is taken away.
            on_message: Called with a lane that has a handler when it is no longer empty.
        """
        self.budget = Budget()
        self.on_silence: Callable[[], None] | None = None
        """Called when a lane's silence begins anew: opened, or no longer stale. ``None`` before any session."""
        self.are_timed = False
        """Whether any lane has a ``stale_after``."""
        self._on_drop = on_drop
        self._on_message = on_message
        self._by_key = {key: self._make(key, route) for key, route in handlers.items()}
        self._streams: dict[Hashable, Lane] = {}
        self.default = None if default_handler is None else self._make(None, default_handler)
        self.main: Lane | None = None
        """For iteration over the client itself. ``None`` iff there are handlers."""
        if not handlers and default_handler is None:
            self.main = self._make(None, stream_route())

    def __iter__(self) -> Iterator[Lane]:
        yield from self._by_key.values()
        yield from self._streams.values()
        for lane in (self.default, self.main):
            if lane is not None:
                yield lane

    def _make(self, key: Hashable, route: Route) -> Lane:
        self.are_timed = self.are_timed or route.stale_after is not None
        handler = None if route.handler is _iterated else handler_function(route.handler)
        return Lane(
            key,
            handler,
            route.capacity,
            route.overflow,
            route.conflate,
            route.stale_after,
            self.budget,
            self._on_drop,
            _tell_reader if handler is None else self._on_message,
        )

    def silence_begins(self) -> None:
        """Have whoever keeps the time for ``stale_after`` look at the lanes again."""
        if self.on_silence is not None:
            self.on_silence()

    def find(self, key: Hashable) -> Lane | None:
        """Return the one lane for a message with that key, or ``None`` if nobody handles it."""
        lane = self._by_key.get(key)
        if lane is None:
            lane = self._streams.get(key)
        if lane is None:
            lane = self.main if self.default is None else self.default
        return lane

    def open_stream(self, key: Hashable, route: Route) -> Lane:
        """Return the lane of the stream for ``key``, a new one unless there is one.

        Raises:
            RuntimeError: The key has a handler, which would get its messages.
        """
        if key in self._by_key:
            raise RuntimeError(f"messages with the key {key!r} go to its handler; a stream of them would stay empty")
        if key not in self._streams:
            self._streams[key] = self._make(key, route)
        return self._streams[key]

    def close_stream(self, lane: Lane) -> None:
        """Forget a stream; what waits in it is dropped, and counted."""
        if self._streams.get(lane.key) is lane:
            del self._streams[lane.key]
        lane.is_closed = True  # some of its messages may be on their way
        self.drop(lane)

    def drop(self, lane: Lane) -> None:
        """Empty a lane for good and count what was in it."""
        count = lane.clear()
        if count:
            self._on_drop(lane.key, count, "closed")

    @property
    def queued(self) -> int:
        """How many messages are in all lanes."""
        return sum(map(len, self))

    @property
    def are_handled(self) -> bool:
        """Whether no lane with a handler holds a message."""
        return not any(len(lane) for lane in self if lane.handler is not None)


def _tell_reader(lane: Lane) -> None:
    """Wake whoever iterates over the lane."""
    lane.bell.ring()


def _iterated(message: Any) -> None:
    """Stand for the handler of a lane that is emptied by iteration."""


def stream_route(**options: Any) -> Route:
    """Return the settings of a stream's lane: a :class:`Route`'s, but for the handler."""
    return Route(_iterated, **options)

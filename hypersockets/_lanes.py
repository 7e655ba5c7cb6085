"""Where messages wait, per key, and what happens when too many do.

Lanes belong to the client and survive its connections. Nothing in this file sleeps: workers and streams
(who empty the lanes) and the dispatch (which fills them) do.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Protocol

import attrs

from ._bell import Bell
from ._routing import Overflow, Route, handler_function

__all__ = ["Budget", "Lane", "Lanes", "Put"]

BUDGET = 64 * 2**20
"""Bytes of frames that all lanes of a client hold together before its reading stops."""

OVERHEAD = 64
"""Bytes that a message counts for beside its payload, so that empty ones are bounded too."""


class Put(enum.Enum):
    """What became of a message offered to a lane."""

    TAKEN = 1
    """It waits there, or the lane's policy dropped it (and counted it)."""
    FULL = 2
    """No room: offer it again when there is."""
    OVERFLOW = 3
    """No room, and the policy is to lose the session."""


@attrs.define(eq=False)
class Budget:
    """The bytes that all lanes hold together."""

    limit: int = BUDGET
    used: int = 0

    @property
    def is_spent(self) -> bool:
        """Whether the lanes hold all they may."""
        return self.used >= self.limit


class _Waiting(Protocol):
    """A queue of (message, size)."""

    def __len__(self) -> int: ...
    def append(self, item: tuple[Any, int], /) -> None: ...
    def popleft(self) -> tuple[Any, int]: ...


class _Conflated:
    """A queue of (message, size) that holds one message per conflation key: the newest, in order of arrival."""

    def __init__(self, key: Callable[[Any], Hashable]) -> None:
        self._key = key
        self._items: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def append(self, item: tuple[Any, int]) -> None:
        self._items[self._key(item[0])] = item

    def popleft(self) -> tuple[Any, int]:
        return self._items.popitem(last=False)[1]

    def supersede(self, message: Any) -> tuple[Any, int] | None:
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
    on_room: Callable[[], None]
    """Called whenever a message has left."""
    bell: Bell = attrs.field(factory=Bell)
    """Rung when there is something to take, and when there will be no more."""
    has_worker: bool = False
    last_put: float = 0.0
    """When the last message came, or the session became ready; only kept where ``stale_after`` is set."""
    told_stale: bool = False
    is_read: bool = False
    """Whether a task waits for its next message, by iteration."""
    _waiting: _Waiting = attrs.field(init=False)
    _working: int | None = None
    """The size of the message being handled. ``None`` iff none is."""

    def __attrs_post_init__(self) -> None:
        self._waiting = deque() if self.conflate is None else _Conflated(self.conflate)

    def __len__(self) -> int:
        return len(self._waiting) + (self._working is not None)

    @property
    def waiting(self) -> int:
        """How many messages wait, the one being handled not counted."""
        return len(self._waiting)

    def put(self, message: Any, size: int, *, force: bool = False) -> Put:
        """Offer a message; ``force`` lets it in past capacity and budget where it would have to wait.

        Whatever a user's ``conflate`` raises comes out, and the message is not in the lane.
        """
        if isinstance(self._waiting, _Conflated):
            obsolete = self._waiting.supersede(message)
            if obsolete is not None:
                self._left(obsolete[1])
                self.on_drop(self.key, 1, "conflated")
        if len(self) >= self.capacity:
            if self.overflow == "drop_newest":
                self.on_drop(self.key, 1, "drop_newest")
                return Put.TAKEN
            if self.overflow == "drop_oldest":
                if self._waiting:  # what is being handled cannot be dropped any more
                    self._left(self._waiting.popleft()[1])
                    self.on_drop(self.key, 1, "drop_oldest")
            elif not force:
                return Put.FULL if self.overflow == "block" else Put.OVERFLOW
        if self.budget.is_spent and not force:
            return Put.FULL
        if self.budget.used >= 2 * self.budget.limit:  # losses with handlers that never return: it has to end somewhere
            self.on_drop(self.key, 1, "memory")
            return Put.TAKEN
        self._waiting.append((message, size))
        self.budget.used += size
        self.bell.ring()
        return Put.TAKEN

    def take(self) -> Any:
        """Return the oldest message; it stays in the lane until :meth:`done`."""
        message, self._working = self._waiting.popleft()
        return message

    def done(self) -> None:
        """Let go of the message that was taken."""
        if self._working is not None:
            size, self._working = self._working, None
            self._left(size)

    def clear(self) -> int:
        """Empty the lane; return how many messages were in it, the one being handled included."""
        count = len(self)
        self.done()
        while self._waiting:
            self._left(self._waiting.popleft()[1])
        return count

    def _left(self, size: int) -> None:
        self.budget.used -= size
        self.on_room()


class Lanes:
    """All lanes of a client: one per handler, one per open stream, perhaps one for the rest."""

    def __init__(
        self,
        handlers: Mapping[Hashable, Route],
        default_handler: Route | None,
        *,
        on_drop: Callable[[Hashable, int, str], None],
        on_lane: Callable[[Lane], None],
    ) -> None:
        """Make the lanes that the configuration names.

        Args:
            handlers: Routes by key.
            default_handler: For all other keys, in one lane, so that a server cannot make lanes.
            on_drop: Called with key, count and reason whenever a message is taken away.
            on_lane: Called with each lane that has a handler, before its first message.
        """
        self.budget = Budget()
        self.room_wanted: Bell | None = None
        """Rung when a message leaves a lane. ``None`` iff nobody waits for room."""
        self.on_silence: Callable[[], None] | None = None
        """Called when a lane's silence begins anew: opened, or no longer stale. ``None`` before any session."""
        self._on_drop = on_drop
        self._on_lane = on_lane
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
            self._room,
        )

    def _room(self) -> None:
        if self.room_wanted is not None:
            self.room_wanted.ring()

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
        if lane is not None and lane.handler is not None and not lane.has_worker:
            lane.has_worker = True
            self._on_lane(lane)
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


def _iterated(message: Any) -> None:
    """Stand for the handler of a lane that is emptied by iteration."""


def stream_route(**options: Any) -> Route:
    """Return the settings of a stream's lane: a :class:`Route`'s, but for the handler."""
    return Route(_iterated, **options)

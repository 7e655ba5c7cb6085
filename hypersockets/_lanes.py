"""The lanes of a client: one per handler, one or more per key that is iterated over, perhaps one for the rest.

They belong to the client and survive its connections.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from ._budget import Budget
from ._lane import Lane
from ._routing import Route, awaited, handler_function

__all__ = ["Lanes", "stream_route"]


class Lanes:
    """All lanes of a client."""

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
        self.budget = Budget(settle=self._settle)
        self.are_timed = False
        """Whether any lane has a ``stale_after``: most clients have none to look at."""
        self._on_drop = on_drop
        self._on_message = on_message
        self._by_key = {key: self._make(key, route) for key, route in handlers.items()}
        self._streams: dict[Hashable, Lane] = {}
        """By key the first lane of those that are iterated over; it has the others beside it."""
        self._named: dict[Hashable, Lane] = {}
        """Those among them that are opened again by their key."""
        self.default = None if default_handler is None else self._make(None, default_handler)
        self.main: Lane | None = None
        """For iteration over the client itself. ``None`` iff there are handlers."""
        if not handlers and default_handler is None:
            self.main = self._make(None, stream_route())

    def __iter__(self) -> Iterator[Lane]:
        yield from self._by_key.values()
        for first in self._streams.values():
            yield first
            yield from first.beside
        for lane in (self.default, self.main):
            if lane is not None:
                yield lane

    def _make(self, key: Hashable, route: Route) -> Lane:
        self.are_timed = self.are_timed or route.stale_after is not None
        handler = None if route.handler is _iterated else awaited(handler_function(route.handler))
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

    def _settle(self) -> None:
        for lane in self:
            lane.settle()

    def find(self, key: Hashable) -> Lane | None:
        """Return the lane for a message with that key, which may have others beside it; ``None``: nobody handles it."""
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
        if key not in self._named:
            self._named[key] = self.add_stream(key, route)
        return self._named[key]

    def add_stream(self, key: Hashable, route: Route) -> Lane:
        """Return a new lane that gets all messages with that key from now on, as those that are there already do.

        Raises:
            RuntimeError: The key has a handler, which would get its messages.
        """
        if key in self._by_key:
            raise RuntimeError(f"messages with the key {key!r} go to its handler; a stream of them would stay empty")
        lane = self._make(key, route)
        if key in self._streams:
            self._streams[key].beside += (lane,)
        else:
            self._streams[key] = lane
        return lane

    def detach(self, lane: Lane) -> None:
        """Give a stream no more messages; it keeps those that wait in it."""
        first = self._streams.get(lane.key)
        if first is lane:
            del self._streams[lane.key]
            if lane.beside:
                heir, *others = lane.beside
                heir.beside, lane.beside = tuple(others), ()
                self._streams[lane.key] = heir
        elif first is not None:
            first.beside = tuple(each for each in first.beside if each is not lane)
        if self._named.get(lane.key) is lane:
            del self._named[lane.key]

    def close_stream(self, lane: Lane) -> None:
        """Forget a stream; what waits in it is dropped, and counted."""
        self.detach(lane)
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

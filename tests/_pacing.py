"""A server that counts strictly, and senders in simulated time that keep to a limit."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import anyio
import attrs

import hypersockets as hs
from hypersockets._heartbeat import Beats
from hypersockets._send_limit import Share
from hypersockets.testing import Peer


def violations(times: Sequence[float], limit: hs.SendLimit) -> int:
    """Return how many messages were one too many in the closed window of ``per`` seconds that ends with them."""
    return sum(late - early <= limit.per for early, late in zip(times, times[limit.count :], strict=False))


def most_in_a_window(times: Sequence[float], per: float) -> int:
    """Return how many messages are in the fullest closed window, counted one by one."""
    return max((number + 1 - bisect_left(times, at - per) for number, at in enumerate(times)), default=0)


def used(times: Sequence[float], limit: hs.SendLimit) -> float:
    """Return the share of the permitted rate that was used from the first window's beginning to the last one's."""
    last = times[-1 - (len(times) - 1) % limit.count]
    return (len(times) - 1) // limit.count * limit.count / (last - times[0]) / (limit.count / limit.per)


@attrs.define(eq=False)
class Counting:
    """A server's memory of when what came, over all its connections."""

    limit: hs.SendLimit
    answer: Callable[[str], str | None] = lambda _: None
    got: list[tuple[float, str]] = attrs.field(factory=list)

    async def script(self, peer: Peer) -> None:
        """Take everything, note when it came, answer."""
        while True:
            text = str(await peer.receive())
            self.got.append((anyio.current_time(), text))
            answer = self.answer(text)
            if answer is not None:
                await peer.send(answer)

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.got]

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.got]

    def when(self, *texts: str) -> list[float]:
        """Return when these came, in the order in which they did."""
        return [at for at, text in self.got if text in texts]

    def assert_kept(self) -> None:
        """Check that the limit was kept, by two ways of counting."""
        assert violations(self.times, self.limit) == 0
        assert most_in_a_window(self.times, self.limit.per) <= self.limit.count


@attrs.define(eq=False)
class Sender:
    """One connection's writer: sends what it may, and sleeps until it is told to look again."""

    simulation: Simulation
    write_seconds: Iterable[float]
    """How long each write takes, in turn."""
    beats: Beats | None = None
    keeps_room: bool = False
    urgent: list[float] = attrs.field(factory=list)
    """When what waits was asked for."""
    ordinary: list[float] = attrs.field(factory=list)
    wake_at: float = math.inf
    is_writing: bool = False
    sent: list[tuple[str, float, float, float]] = attrs.field(factory=list)
    """Kind, asked for, written from, written until."""
    durations: Iterator[float] = attrs.field(init=False)
    share: Share = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.durations = iter(self.write_seconds)
        self.share = Share(
            window=self.simulation.limit._window,
            beats=lambda: self.beats,
            keeps_room=lambda: self.keeps_room,
            waiting=lambda: (len(self.urgent), len(self.ordinary)),
            wake=self.wake,
        )

    def wake(self) -> None:
        self.wake_at = self.simulation.now
        self.simulation.at(self.simulation.now, self.look)

    def look(self) -> None:
        """Do as a writer does when it has woken."""
        now = self.simulation.now
        if self.beats is not None and self.beats.due(now):
            self.urgent.append(now)
            self.wake_at = now
            self.share.window.changed()
        if self.is_writing or now < self.wake_at:
            return
        allowed, self.wake_at = self.share.window.turn(self.share, now)
        items = [("urgent", at) for at in self.urgent[:allowed]]
        del self.urgent[:allowed]
        items += [("ordinary", at) for at in self.ordinary[: allowed - len(items)]]
        del self.ordinary[: sum(kind == "ordinary" for kind, _ in items)]
        assert len(items) == allowed, "no more is allowed than waits"
        if not items:
            assert self.wake_at > now, "a sender never spins"
            if self.wake_at < math.inf:
                self.simulation.at(self.wake_at, self.look)
            return
        self.is_writing = True
        self.share.window.begin(len(items))
        self.simulation.at(now + next(self.durations), self.written, items, now)

    def written(self, items: list[tuple[str, float]], since: float) -> None:
        now = self.simulation.now
        self.sent += [(kind, asked, since, now) for kind, asked in items]
        self.is_writing = False
        self.share.window.end(len(items), now)
        self.wake()

    def ask(self, kind: str) -> None:
        (self.urgent if kind == "urgent" else self.ordinary).append(self.simulation.now)
        self.wake()


@attrs.define(eq=False)
class Simulation:
    """The order in which things happen."""

    limit: hs.SendLimit
    now: float = 0.0
    _events: list[tuple[float, int, Any, tuple[Any, ...]]] = attrs.field(factory=list)
    _numbers: Any = attrs.field(factory=count)

    def at(self, time: float, do: Any, *args: Any) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), do, args))

    def run(self, until: float = math.inf) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, do, args = heapq.heappop(self._events)
            do(*args)

    def tick(self, sender: Sender) -> None:
        """Have a sender look at its beats whenever one is due, as long as the simulation runs."""
        assert sender.beats is not None
        sender.look()
        self.at(sender.beats.next_at, self.tick, sender)

"""Whether the peer is alive: one timer per session over all deadlines that concern it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import anyio

from ._errors import ConnectionLostError, HeartbeatTimeoutError, IdleTimeoutError
from ._heartbeat import Beats, Quiet
from ._lane import Lane
from ._lanes import Lanes

__all__ = ["Liveness"]

logger = logging.getLogger("hypersockets")

BLOCKED_WARNING = 5.0
"""Seconds for which lanes may be full before the log says so."""


class Liveness:
    """The clocks of one ready session: heartbeat, protocol pings, silence, stale routes.

    While reading is stopped by our own full lanes no deadline runs: the silence is ours. The beats go on.
    """

    def __init__(
        self,
        *,
        name: str,
        lanes: Lanes,
        on_beat: Callable[[float], None],
        on_ping: Callable[[float], None],
        on_stale: Callable[[Lane, float], None],
        on_loss: Callable[[ConnectionLostError], None],
        on_age: Callable[[], None],
    ) -> None:
        self._name = name
        self._lanes = lanes
        self._on_beat = on_beat
        self._on_ping = on_ping
        self._on_stale = on_stale
        self._on_loss = on_loss
        self._on_age = on_age
        self._watch = anyio.CancelScope()
        """Around many sleeps: to enter one costs more than all else that there is to do for a ping."""
        self.heartbeat: Beats | None = None
        self.pings: Beats | None = None
        self.quiet: Quiet | None = None
        self.rotate_at = math.inf
        """When the connection is old enough to be rotated."""
        self._beaten_at = -math.inf
        """When a heartbeat was last sent. None has been before."""
        self.watches_lanes = False
        """Whether lanes get what is received: before that their silence says nothing."""
        self._paused_at: float | None = None
        """Since when reading is stopped. ``None`` while it is not."""
        self._warned = False
        self._pauses = 0

    def heard(self) -> None:
        """Take a sign of life: frames of any kind have arrived."""
        if self.quiet is not None:
            self.quiet.heard(anyio.current_time())

    def pong(self, sent_at: float) -> None:
        """Take the answer to the protocol ping that was sent then, and to those before it."""
        assert self.pings is not None  # whoever pings does it by this clock
        self.pings.answered(sent_at)

    def beat_sent(self) -> None:
        """Take note that a heartbeat is with the socket."""
        self._beaten_at = anyio.current_time()

    def beat_answered(self) -> None:
        """Take an answer to all heartbeats that were sent; it says nothing of one that still waits for the socket."""
        if self.heartbeat is not None:
            self.heartbeat.answered(self._beaten_at)

    def pause(self) -> None:
        """Stop all deadlines: a lane is full, or reading is stopped. Each call wants a :meth:`resume`."""
        self._pauses += 1
        if self._paused_at is None:
            self._paused_at = anyio.current_time()
            self._warned = False
            self._look()

    def resume(self) -> None:
        """Let the deadlines run on from where they were, once nothing is paused any more."""
        self._pauses -= 1
        if self._pauses or self._paused_at is None:
            return
        since, self._paused_at = self._paused_at, None
        now = anyio.current_time()
        for clock in (self.heartbeat, self.pings, self.quiet):
            if clock is not None:
                clock.paused(since, now)
        self._shift(since, now)
        self._look()

    def _shift(self, since: float, now: float) -> None:
        """Take what lanes did not get between two times as not missed."""
        for lane in self._lanes if self._lanes.are_timed else ():
            lane.last_put = now - max(0.0, since - lane.last_put)

    def watch_lanes(self, since: float) -> None:
        """Watch for silent lanes, which have got nothing since then because they were not open."""
        self.watches_lanes = True
        self._shift(since, anyio.current_time())
        self._look()

    def stop(self) -> None:
        """Stop all deadlines for good, for nobody reads any more; the beats go on."""
        self.pause()
        self._warned = True

    def look_again(self) -> None:
        """Take note that a clock or a lane was added."""
        self._look()

    async def run(self) -> None:
        """Sleep from deadline to deadline until cancelled, or until the peer is dead."""
        while True:  # noqa: ASYNC913 - the sleep is one
            with anyio.CancelScope() as self._watch:
                while (wake_at := self._check(now := anyio.current_time())) is not None:  # noqa: ASYNC110 - no polling
                    # Each sleep ends at a deadline. One is that of an answer, which mostly has come by then: to wake
                    # for it takes less than to set a scope's deadline at each ping and to take it back at each pong.
                    await anyio.sleep(wake_at - now)
                return

    def _look(self) -> None:
        """Have the deadlines looked at now."""
        self._watch.cancel()

    def _check(self, now: float) -> float | None:
        """Do what is due; return when something may be next (``None``: the peer is dead)."""
        wake_at = math.inf
        for beats, beat in ((self.heartbeat, self._on_beat), (self.pings, self._on_ping)):
            if beats is not None:
                if beats.due(now):
                    beat(now)
                wake_at = min(wake_at, beats.next_at)
        if self.rotate_at <= now:
            self.rotate_at = math.inf
            self._on_age()
        wake_at = min(wake_at, self.rotate_at)
        if self._paused_at is not None:
            return min(wake_at, self._warn(now, self._paused_at))
        for clock in (self.heartbeat, self.pings, self.quiet):
            if clock is not None:
                deadline = clock.deadline
                if deadline <= now:
                    self._lose(clock)
                    return None
                wake_at = min(wake_at, deadline)
        return min(wake_at, self._find_stale(now)) if self.watches_lanes and self._lanes.are_timed else wake_at

    def _lose(self, clock: Beats | Quiet) -> None:
        loss: type[ConnectionLostError] = HeartbeatTimeoutError
        what = "no answer to a heartbeat" if clock is self.heartbeat else "no pong"
        if clock is self.quiet:
            loss, what = IdleTimeoutError, "no frame of any kind"
        self._on_loss(loss(f"{what} for {clock.timeout:g} s", code=1011, by="us"))

    def _find_stale(self, now: float) -> float:
        """Tell of the lanes that have become stale; return when the next one may."""
        wake_at = math.inf
        for lane in self._lanes:
            if lane.stale_at <= now:
                lane.told_stale = True
                self._on_stale(lane, now - lane.last_put)
            wake_at = min(wake_at, lane.stale_at)
        return wake_at

    def _warn(self, now: float, since: float) -> float:
        if self._warned:
            return math.inf
        if now < since + BLOCKED_WARNING:
            return since + BLOCKED_WARNING
        self._warned = True
        full = [lane.key for lane in self._lanes if len(lane) >= lane.capacity]
        logger.warning(
            "%s: for %.0f s what was received could not be handled, and reading stops; full lanes: %r",
            self._name,
            now - since,
            full,
        )
        return math.inf

"""The beats of a session: heartbeats and protocol pings, sent when the liveness clock says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import attrs

from ._calls import call
from ._errors import ConnectionLostError
from ._message import Frame, as_message
from ._outbox import Outgoing
from ._sender import Sender
from ._transport import Transport

__all__ = ["Pulse"]

PINGS = 16
"""How many protocol pings may be unanswered where no timeout ends that."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Pulse:
    """Sends when it is time. A task runs only while there is something to wait for: between beats there is none."""

    sender: Sender
    transport: Transport
    start: Callable[[str, Callable[[], Awaitable[None]]], None]
    """Starts a named task of the session."""
    message: Frame | Callable[[], Any] | None
    """The heartbeat. ``None`` iff there is none."""
    on_beat_sent: Callable[[], None]
    """Called when a heartbeat is with the socket."""
    on_no_beat: Callable[[ConnectionLostError], None]
    """Called if the user's callable raises."""
    on_pong: Callable[[float, float], None]
    """Called with the time of each ping that was answered, and its round trip, in seconds."""
    _last: Outgoing | None = attrs.field(default=None, init=False)
    _is_asking: bool = attrs.field(default=False, init=False)
    """Whether the user's callable is making a heartbeat."""
    _pinging: int = attrs.field(default=0, init=False)
    """How many pings are unanswered."""

    def beat(self) -> None:
        """Have a heartbeat sent; one that still waits for the socket is beat enough."""
        if self._is_asking or (self._last is not None and not self._last.is_settled):
            return
        if callable(self.message):
            self._is_asking = True
            self.start("heartbeat", partial(self._ask_and_beat, self.message))
        else:
            self._post(self.message)

    def _post(self, message: Any) -> None:
        self._last = self.sender.post(as_message(message), self.on_beat_sent, is_urgent=True)

    async def _ask_and_beat(self, message: Callable[[], Any]) -> None:
        try:
            self._post(await call(message))
        except Exception as error:  # of the user's callable: without heartbeats the session is lost
            what = f"the heartbeat.message callable raised {type(error).__name__}"
            lost = ConnectionLostError(what, code=1000, by="us")
            lost.__cause__ = error
            self.on_no_beat(lost)
        self._is_asking = False

    def ping(self, now: float) -> None:
        """Have a protocol ping sent, unless very many are unanswered, which nobody wants to hear of."""
        if self._pinging >= PINGS:
            return
        self._pinging += 1
        if self.sender.can_ping:
            self.sender.ping(partial(self._answered, now))
        else:
            self.start("pings", partial(self._ping, now))

    async def _ping(self, sent_at: float) -> None:
        try:
            latency = await self.transport.ping()
        except ConnectionLostError:
            return  # the reader will say why
        self._answered(sent_at, latency)

    def _answered(self, sent_at: float, latency: float | None = None) -> None:
        self._pinging -= 1
        self.on_pong(sent_at, anyio.current_time() - sent_at if latency is None else latency)

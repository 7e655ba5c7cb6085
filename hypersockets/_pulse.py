"""The beats of a session: the tasks that send heartbeats and protocol pings when the liveness clock says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._bell import Bell
from ._calls import call
from ._errors import ConnectionLostError
from ._message import Frame, as_message
from ._outbox import Outgoing
from ._transport import Transport
from ._wire import Wire

__all__ = ["Pulse"]


class Pulse:
    """Sends when it is time. The clock itself never waits for a send, nor for a user's callable."""

    def __init__(self) -> None:
        self._beat_due = Bell()
        self._ping_due = Bell()
        self._is_pinging = False

    def beat_is_due(self) -> None:
        """Have a heartbeat sent."""
        self._beat_due.ring()

    def ping_is_due(self) -> None:
        """Have a protocol ping sent, unless one is unanswered: its answer would be taken for that of both."""
        if not self._is_pinging:
            self._ping_due.ring()

    async def beat(
        self, message: Frame | Callable[[], Any], wire: Wire, on_failure: Callable[[ConnectionLostError], None]
    ) -> None:
        """Send heartbeats until cancelled, or until the user's callable raises."""
        last: Outgoing | None = None
        while True:
            await self._beat_due.wait()
            try:
                frame = as_message(await call(message) if callable(message) else message)
            except Exception as error:
                what = f"the heartbeat.message callable raised {type(error).__name__}"
                lost = ConnectionLostError(what, code=1000, by="us")
                lost.__cause__ = error
                on_failure(lost)
                return
            if last is None or last.is_settled:  # one that still waits for the socket is beat enough
                last = wire.post(frame)

    async def ping(self, transport: Transport, on_pong: Callable[[float], None]) -> None:
        """Send protocol pings, and tell the round trip of each in seconds, until the connection ends."""
        while True:
            await self._ping_due.wait()
            self._is_pinging = True
            try:
                latency = await transport.ping()
            except ConnectionLostError:
                return  # the reader will say why
            self._is_pinging = False
            on_pong(latency)

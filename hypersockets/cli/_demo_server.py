"""The server of the demo: it demands auth, serves two numbered channels, pings, and breaks every connection.

It keeps the books that the demo is judged by: what it handed to its socket whole, and who came back.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import anyio
import attrs

from hypersockets.testing import Peer

__all__ = ["BREAKS", "CHANNELS", "Break", "DemoServer", "Stretch"]

CHANNELS = ("trades", "quotes")
_STEADY = 12
"""Messages per channel that come one by one, before the burst."""
_BURST = 150
"""Messages per channel that are written at once, with the break right behind them."""
_PACE = 0.015
"""Seconds between the steady ones."""
_PATIENCE = 3.0
"""Seconds that a pong may take."""
_RETRY_AFTER = 1
"""Seconds."""


@attrs.frozen
class Break:
    """A way to break a connection."""

    name: str
    """In the table."""
    words: str
    """When it happens."""
    do: Callable[[Peer, str], Awaitable[None]]
    """Breaks; may use a message for it, of which no more than a part is sent."""
    refuses: bool = False
    """Whether the next handshake is refused."""
    ignores_auth: bool = False
    """Whether the next login is not answered."""
    spares_messages: bool = True
    """Whether what was written whole before it is bound to arrive."""


async def _cut(peer: Peer, _: str) -> None:
    peer.cut()


async def _reset(peer: Peer, _: str) -> None:
    peer.reset()


async def _close(peer: Peer, _: str) -> None:
    await peer.close(1001, "going away")


async def _restart(peer: Peer, _: str) -> None:
    await peer.close(1012, "service restart")


async def _mute(peer: Peer, _: str) -> None:
    await peer.mute()


async def _cut_in_half(peer: Peer, message: str) -> None:
    await peer.send_half(message)
    peer.cut()


BREAKS = (
    Break("cut without a close frame", "cut right after a burst, no close frame", _cut),
    Break("reset", "TCP reset right after a burst", _reset, spares_messages=False),
    Break("clean close", "close frame 1001 right after a burst", _close),
    Break("refused handshake", f"close 1012, then 503 with Retry-After: {_RETRY_AFTER}", _restart, refuses=True),
    Break("silence", "silence, but the connection stays open", _mute),
    Break("frame cut in half", "cut in the middle of a frame", _cut_in_half),
    Break("auth that times out", "close 1012, then a login without answer", _restart, ignores_auth=True),
)


@attrs.define(eq=False, repr=False)
class Stretch:
    """A row of the table: what was sent until a break, and how the client came back after it."""

    name: str
    spares_messages: bool = True
    sent: list[tuple[str, int]] = attrs.field(factory=list)
    """Channel and number of each message that was handed to the socket whole."""
    connections: int = 0
    auths: int = 0
    """Login messages, the one that was not answered included."""
    resent: int = 0
    """Subscriptions; those of the first connection are not sent again."""
    broken_at: float = 0.0
    back_after: float | None = None
    """Seconds from the break until all subscriptions had come again. ``None``: they have not."""


class DemoServer:
    """Plays one break after the other; each connection gets as far as the next.

    Args:
        token: What a login must show.
        say: Told what happens, as a word and as words.
    """

    def __init__(self, token: str, say: Callable[[str, str], None]) -> None:
        self.start = Stretch("(first connection)")
        self.stretches = [Stretch(each.name, each.spares_messages) for each in BREAKS]
        self.last = Stretch("(closed by the client)")
        self.pings = 0
        self.pongs = 0
        self.finished = anyio.Event()
        """Set when the client has come back after the last break and has read everything."""
        self._token = token
        self._say = say
        self._done = 0
        """How many breaks there were."""
        self._obstacle: Break | None = None
        """The break whose second half, for the next connection, is still to come."""
        self._numbers = dict.fromkeys(CHANNELS, 0)
        self._ponged = anyio.Event()

    async def script(self, peer: Peer) -> None:
        """Serve one connection: let it in or not, send, then break it in the next of the ways."""
        stretch = self.stretches[self._done - 1] if self._done else self.start
        stretch.connections += 1
        obstacle, self._obstacle = self._obstacle, None
        if obstacle is not None and obstacle.refuses:
            self._say("refused", f"#{peer.number + 1}: 503, Retry-After: {_RETRY_AFTER}")
            await peer.reject(503, {"Retry-After": str(_RETRY_AFTER)})
            return
        await self._log_in(peer, stretch, is_ignored=obstacle is not None and obstacle.ignores_auth)
        await self._subscribe(peer, stretch)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._answer, peer)
            if self._done == len(BREAKS):
                await self._stream(peer, self.last)
                await self._ping(peer)  # its pong says that all before it was read
                self.finished.set()
                await anyio.sleep_forever()  # until the client leaves
            await self._stream(peer, self.stretches[self._done])
            tasks.cancel_scope.cancel()
        self._obstacle = now = BREAKS[self._done]
        self.stretches[self._done].broken_at = anyio.current_time()
        self._done += 1
        self._say("BREAK", f"{self._done} of {len(BREAKS)}: {now.words}")
        channel = CHANNELS[0]
        await now.do(peer, _message(channel, self._numbers[channel] + 1))

    async def _log_in(self, peer: Peer, stretch: Stretch, *, is_ignored: bool) -> None:
        first = await peer.receive_json()
        stretch.auths += 1
        if is_ignored:
            self._say("ignored", f"#{peer.number + 1}: the login gets no answer")
            await peer.receive()  # the client gives up: this ends the script
        await peer.send_json({"op": "login", "ok": first == {"op": "login", "token": self._token}})

    async def _subscribe(self, peer: Peer, stretch: Stretch) -> None:
        asked = []
        for _ in CHANNELS:
            message = await peer.receive_json()
            asked.append(message["channel"])
            await peer.send_json({"op": "subscribed", "channel": message["channel"]})
        if self._done:
            stretch.resent += len(asked)
            if asked == [*CHANNELS]:
                stretch.back_after = anyio.current_time() - stretch.broken_at
        self._say("served", f"#{peer.number + 1}: first the login, then {' and '.join(asked)}")

    async def _answer(self, peer: Peer) -> None:
        while True:
            message = await peer.receive_json()
            if message == {"op": "beat"}:
                await peer.send_json({"op": "beat-ack"})
            else:
                self.pongs += message == {"op": "pong", "id": self.pings}
                self._ponged.set()

    async def _stream(self, peer: Peer, stretch: Stretch) -> None:
        for _ in range(_STEADY):
            await self._send(peer, stretch, 1)
            await anyio.sleep(_PACE)
        await self._ping(peer)
        await self._send(peer, stretch, _BURST)

    async def _send(self, peer: Peer, stretch: Stretch, count: int) -> None:
        numbered: list[tuple[str, int]] = []
        for _ in range(count):
            for channel in CHANNELS:
                self._numbers[channel] += 1
                numbered.append((channel, self._numbers[channel]))
        await peer.send_many([_message(*each) for each in numbered])
        stretch.sent += numbered

    async def _ping(self, peer: Peer) -> None:
        self.pings += 1
        self._ponged = anyio.Event()
        await peer.send_json({"op": "ping", "id": self.pings})
        with anyio.move_on_after(_PATIENCE):
            await self._ponged.wait()


def _message(channel: str, number: int) -> str:
    return json.dumps({"channel": channel, "number": number, "text": "what a server has to say"})

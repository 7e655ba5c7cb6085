"""A client that follows the feed of ``_feed_server.py``, what it is asked for, and what both ends must agree on."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs

import hypersockets as hs
from tests.network._netns import Network
from tests.wire._children import Child, child

INTERVAL, TIMEOUT = 0.2, 0.6
"""Between two signs of life that are asked for, and for how long one may be missing."""
OPEN_TIMEOUT, CLOSE_TIMEOUT = 1.0, 0.5
BACKOFF = hs.ExponentialBackoff(0.1, 0.5)
SLACK = 1.0
"""Seconds for a busy machine."""
BACK_WITHIN = OPEN_TIMEOUT + BACKOFF.max_delay + SLACK
"""Seconds after which a client must be ready again, once nothing stands in its way: an attempt may just have begun."""

CHANNELS = ("a", "b")
LATER = "later"
"""The channel that is subscribed to at run time."""


@asynccontextmanager
async def feed_server(network: Network, host: str, port: int, *, first: int = 0) -> AsyncIterator[Child]:
    """Run a feed at the server's place."""
    script = str(Path(__file__).parent / "_feed_server.py")
    async with child(
        "ip", "netns", "exec", network.server, sys.executable, script, host, str(port), str(first)
    ) as running:
        await running.wait_for("ready")
        yield running


async def record_of(server: Child, *, last: bool = False) -> dict[int, dict[str, Any]]:
    """Ask a feed for its record; the last one is given in the moment of its death."""
    server.process.send_signal(signal.SIGTERM if last else signal.SIGUSR1)
    line = await server.wait_for("record ")
    return {int(number): connection for number, connection in json.loads(line.partition(" ")[2]).items()}


@attrs.define(eq=False)
class Ledger:
    """What a client has handled, and how often it was answered: its provider of auth, handler and heartbeat."""

    channels: tuple[str, ...] = CHANNELS
    handled: dict[str, list[tuple[int, int]]] = attrs.field(factory=dict)
    """Per channel, connection and number of each message, in the order in which they were handled."""
    answers: int = 0
    """Messages that went to auth, to acks and to heartbeats."""
    unanswered: list[float] = attrs.field(factory=list)
    """When each heartbeat was sent that nothing has answered yet."""
    has_ended: bool = False
    changed: anyio.Event = attrs.field(factory=anyio.Event)

    async def get_auth_message(self) -> str:
        return "auth secret"

    async def validate_auth_response(self, response: str | bytes) -> bool:
        self.answers += 1
        return response == "accepted"

    def subscription(self, channel: str) -> hs.Subscription:
        def ack(message: Any) -> bool | None:
            if message.get("ack") != channel:
                return None
            self.answers += 1
            return True

        return hs.Subscription(f"sub {channel}", key=channel, ack=ack)

    def heartbeat(self) -> hs.Heartbeat:
        def beat() -> str:
            self.unanswered.append(anyio.current_time())
            return "ping"

        def is_pong(frame: str | bytes) -> bool:
            if frame != "pong":
                return False
            self.answers += 1
            self.unanswered.clear()
            return True

        return hs.Heartbeat(INTERVAL, beat, pong=is_pong, timeout=TIMEOUT)

    def handle(self, message: Any) -> None:
        self.handled.setdefault(message["channel"], []).append((message["connection"], message["n"]))
        self._tell()

    def end(self, message: Any) -> None:
        self.answers += 1
        self.has_ended = True
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def config(self, url: str, **fields: Any) -> hs.ClientConfig:
        """Return what a client needs to fill this."""
        settings: dict[str, Any] = {
            "auth": self,
            "subscriptions": [self.subscription(channel) for channel in self.channels],
            "router": hs.JsonRouter(),
            "handlers": {**dict.fromkeys((*CHANNELS, LATER), self.handle), "end": self.end},
            "reconnect_strategy": BACKOFF,
            "open_timeout": OPEN_TIMEOUT,
            "close_timeout": CLOSE_TIMEOUT,
            "proxy": None,
        }
        return hs.ClientConfig(url=url, **{**settings, **fields})


WAYS: dict[str, tuple[Any, type[hs.ConnectionLostError], float]] = {
    "heartbeat": (
        lambda ledger: {"heartbeat": ledger.heartbeat(), "ping_interval": None},
        hs.HeartbeatTimeoutError,
        INTERVAL + TIMEOUT,
    ),
    "protocol pings": (
        lambda _: {"ping_interval": INTERVAL, "ping_timeout": TIMEOUT},
        hs.HeartbeatTimeoutError,
        INTERVAL + TIMEOUT,
    ),
    "idle timeout": (lambda _: {"idle_timeout": TIMEOUT, "ping_interval": None}, hs.IdleTimeoutError, TIMEOUT),
}
"""How silence may be noticed: settings, the error, and within how many seconds of the last sign of life."""


@attrs.define(eq=False)
class Following:
    """A ready client in the hands of a test."""

    client: hs.Client
    ledger: Ledger
    counted: int = 0
    """How many numbered messages it was given to send: the next one's number."""
    is_counting: bool = True
    has_counted: anyio.Event = attrs.field(factory=anyio.Event)

    @property
    def channels(self) -> tuple[str, ...]:
        return (*self.ledger.channels, LATER)

    async def count(self) -> None:
        """Send numbers until told to stop."""
        while self.is_counting:
            await self.client.send(f"count {self.counted}")
            self.counted += 1
            await anyio.sleep(0.05)
        self.has_counted.set()

    async def counts_no_more(self) -> None:
        """Stop counting; returns when the last number is out."""
        self.is_counting = False
        with anyio.fail_after(BACK_WITHIN):
            await self.has_counted.wait()

    async def handles(self, count: int = 10) -> None:
        """Wait for so many more messages of each channel."""
        due = {channel: len(self.ledger.handled.get(channel, ())) + count for channel in self.channels}
        while any(len(self.ledger.handled.get(channel, ())) < due[channel] for channel in self.channels):
            await self.ledger.changed.wait()

    async def flows(self, seconds: float = 0.0) -> None:
        """Show that messages of all channels come, for so long, without a loss of the connection."""
        epoch, since = self.client.epoch, anyio.current_time()
        with anyio.fail_after(seconds + BACK_WITHIN):
            await self.handles()
            while anyio.current_time() < since + seconds:
                await self.ledger.changed.wait()
        assert (self.client.is_connected, self.client.epoch) == (True, epoch), "it was lost though nothing was wrong"

    async def _next(self, kind: type[Any], within: float) -> Any:
        with anyio.fail_after(within):
            while not isinstance(event := await self.client.recv_event(), kind):
                pass
        return event

    async def loses(self, kind: type[hs.ConnectionLostError], *, within: float) -> hs.Disconnected:
        """Wait until the loss is noticed; return what the client says of it."""
        lost: hs.Disconnected = await self._next(hs.Disconnected, within + SLACK)
        assert isinstance(lost.error, kind), lost
        assert not self.client.is_connected
        return lost

    async def fails(self, kind: type[BaseException], *, within: float) -> Any:
        """Wait until an attempt has failed; return its error."""
        event: hs.ErrorOccurred = await self._next(hs.ErrorOccurred, within + SLACK)
        assert isinstance(event.error, kind), event
        return event.error

    async def returns(self, *, within: float) -> float:
        """Wait until the client is ready again, by itself; return the seconds that it took from now."""
        since = anyio.current_time()
        connected: hs.Connected = await self._next(hs.Connected, within)
        return connected.at - since

    async def ends(self, server: Child, before: dict[int, dict[str, Any]] | None = None) -> dict[int, dict[str, Any]]:
        """Have the feed send its last message, close, and compare what both ends have; return the feed's record.

        Args:
            server: The feed.
            before: The record of the feed that was there before.
        """
        await self.counts_no_more()
        with anyio.fail_after(BACK_WITHIN):
            await self.client.send("stop")
            while not self.ledger.has_ended:
                await self.ledger.changed.wait()
        await self.client.aclose()
        await self.client.wait_closed()
        record = {**(before or {}), **await record_of(server)}
        self._compare(record)
        return record

    def _compare(self, record: dict[int, dict[str, Any]]) -> None:
        ledger, last = self.ledger, max(record)
        asked = [f"sub {channel}" for channel in self.channels]
        opening = ["auth secret", "accepted", *asked]
        for connection in record.values():
            # Auth first, nothing before it is accepted, and then all that is wanted, once each, as far as it came.
            assert connection["opening"] == opening[: len(connection["opening"])], connection
            if connection["counted"]:
                assert connection["opening"] == opening, "the user's messages come last"
        assert record[last]["opening"] == opening
        for channel in self.channels:
            handled = ledger.handled[channel]
            assert handled == sorted(handled), "each channel in order, over all connections"
            for number, connection in record.items():
                numbers = [n for where, n in handled if where == number]
                sent = connection["sent"].get(channel, 0)
                # Nothing doubled, nothing left out; and where nothing went wrong, nothing lost.
                assert numbers == list(range(len(numbers)))
                assert len(numbers) == sent if number == last else len(numbers) <= sent
        read = self.client.metrics().messages_received
        assert read == sum(map(len, ledger.handled.values())) + ledger.answers, "what was read was handled"
        counted = [n for number in sorted(record) for n in record[number]["counted"]]
        assert counted == sorted(set(counted)), "nothing that was sent has come twice"
        tail = record[last]["counted"]
        # Nothing is lost where there is no loss.
        assert tail == list(range(tail[0], self.counted))


@asynccontextmanager
async def following(url: str, ledger: Ledger, **fields: Any) -> AsyncIterator[Following]:
    """Connect, subscribe to one more channel, and count aloud until the end."""
    async with hs.connect(ledger.config(url, **fields)) as client, anyio.create_task_group() as tasks:
        await client.subscribe(ledger.subscription(LATER))
        it = Following(client, ledger)
        tasks.start_soon(it.count)
        yield it
        tasks.cancel_scope.cancel()

"""Shared by the tests of the whole client: configurations for a scripted server, small scripts, what happened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio

import hypersockets as hs
from hypersockets._lanes import Lanes
from hypersockets._liveness import Liveness
from hypersockets.testing import Peer, ScriptedServer

FAST = hs.FixedDelay(1)
ROUTER = hs.JsonRouter()


def settings(server: ScriptedServer, *, latency: float = 0.0, **fields: Any) -> hs.ClientConfig:
    """Return a configuration for ``server``: one second between attempts, no protocol pings."""
    fields = {
        "ping_interval": None,
        "reconnect_strategy": FAST,
        "transport": server.connector(latency=latency),
        **fields,
    }
    return hs.ClientConfig(**{"url": server.url, **fields})


def lonely_liveness() -> Liveness:
    """Return clocks without a session, which tell nobody."""
    nothing: Any = None
    lanes = Lanes({}, None, on_drop=nothing, on_message=nothing)
    return Liveness(
        name="", lanes=lanes, on_beat=nothing, on_ping=nothing, on_stale=nothing, on_loss=nothing, on_age=nothing
    )


def message(channel: str, n: int, **fields: Any) -> str:
    return json.dumps({"channel": channel, "n": n, **fields})


async def idle(peer: Peer) -> None:
    """Accept, then read until the client goes."""
    while True:
        await peer.receive()


def sends(*messages: str | bytes, end: Callable[[Peer], Any] | None = None) -> Callable[[Peer], Awaitable[None]]:
    """Return a script that sends, then ends the connection as ``end`` does (``None``: leaves that to the client)."""

    async def script(peer: Peer) -> None:
        await peer.send_many(messages)
        if end is None:
            await idle(peer)
        else:
            done = end(peer)
            if done is not None:
                await done

    return script


def cut(peer: Peer) -> None:
    peer.cut()


def happened(client: hs.Client) -> list[hs.Event]:
    """Return the events that the client has kept."""
    listener = client.events()
    events: list[hs.Event] = []
    while (event := listener.next_nowait()) is not None:
        events.append(event)
    return events


async def wait_for(client: hs.Client, kind: type[Any], count: int = 1) -> Any:
    """Wait for the ``count``-th event of a kind, counted from the client's first, and return it."""
    async for event in client.events():
        count -= isinstance(event, kind)
        if not count:
            return event
    raise AssertionError(f"the client ended without it: {happened(client)}")


def stand_still(seconds: float) -> None:
    """Let time pass without the event loop running, as in a process that was suspended."""
    try:
        loop: Any = asyncio.get_running_loop()
    except RuntimeError:
        import trio.lowlevel

        clock: Any = trio.lowlevel.current_clock()
        clock.jump(seconds)
    else:
        loop._jumping.now += seconds


def names(events: Iterable[hs.Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def of(kind: type[Any], events: Iterable[hs.Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def assert_legal(events: list[hs.Event]) -> None:
    """Check the grammar of events: attempts, one loss per session, Closed once and last, time and epoch ascending."""
    attempting = connected = False
    for index, event in enumerate(events):
        if isinstance(event, hs.Connecting):
            assert not attempting
            assert not connected
            attempting = True
        elif isinstance(event, hs.Connected):
            assert attempting
            attempting, connected = False, True
        elif isinstance(event, hs.ErrorOccurred):
            if not isinstance(event.error, (hs.ParseError, hs.SubscriptionRefusedError)):  # they do not end an attempt
                attempting = False
        elif isinstance(event, hs.Disconnected):
            assert connected
            connected = False
        elif isinstance(event, hs.Reconnecting):
            assert not attempting
            assert not connected
        elif isinstance(event, hs.Closed):
            assert index == len(events) - 1, "Closed is the last event"
            assert not connected
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert [event.epoch for event in events] == sorted(event.epoch for event in events)


class SlowRouter:
    """A router whose ``parse`` is async, and takes so many seconds for each message."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def parse(self, frame: str | bytes) -> Any:
        await anyio.sleep(self.seconds)
        return json.loads(frame)

    def route_key(self, parsed: Any) -> Any:
        return parsed["channel"]


class Auth:
    """A provider whose n-th message is ``auth n``; ``ok`` accepts, ``no`` rejects, all else is no answer."""

    def __init__(self) -> None:
        self.asked = 0

    async def get_auth_message(self) -> str:
        self.asked += 1
        return f"auth {self.asked}"

    async def validate_auth_response(self, response: str | bytes) -> bool | None:
        return {"ok": True, "no": False}.get(str(response))


class Recorder:
    """A handler that takes its time and remembers."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.began: list[Any] = []
        self.handled: list[Any] = []
        self.changed = anyio.Event()

    async def handle(self, message: Any) -> None:
        self.began.append(message)
        self._tell()
        if self.seconds:
            await anyio.sleep(self.seconds)
        self.handled.append(message)
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def wait_handled(self, count: int) -> None:
        while len(self.handled) < count:
            await self.changed.wait()

    async def wait_began(self, count: int) -> None:
        while len(self.began) < count:
            await self.changed.wait()

    @property
    def numbers(self) -> list[int]:
        return [message["n"] for message in self.handled]

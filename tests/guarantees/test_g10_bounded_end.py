"""Guarantee 10: everything ends in bounded time on every path; no task, socket or timer is left. Cancelling at any
await is safe, natively on asyncio too. (Every single checkpoint is cancelled elsewhere; here are the phases.)"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Opcode, Peer, ScriptedServer, frame, wait_all_tasks_blocked
from tests._live import Auth, Recorder, assert_legal, happened, idle, of, settings, stand_still, wait_for

pytestmark = pytest.mark.anyio


async def dumb(peer: Peer) -> None:
    """Never answer the handshake."""
    await anyio.sleep_forever()


async def mute_when_asked(peer: Peer) -> None:
    """Accept, and never answer again: no verdict, no ack, no close frame."""
    await peer.accept()
    await peer.mute()


async def stall(peer: Peer) -> None:
    """Accept, and never read again."""
    await peer.accept()
    await peer.stall()


async def refuse(peer: Peer) -> None:
    await peer.reject(503)


async def chatter(peer: Peer) -> None:
    """Answer the close frame never, and go on talking."""
    await peer.accept()
    peer._talk.is_mute = True
    while True:
        await peer._talk.stream.send(frame(Opcode.TEXT, b"talk"))
        await anyio.sleep(0.1)


PHASES: dict[str, tuple[Callable[[Peer], Awaitable[None]], dict[str, Any]]] = {
    "handshake": (dumb, {"open_timeout": 1000}),
    "auth": (mute_when_asked, {"auth": Auth(), "auth_timeout": 1000}),
    "subscriptions": (
        mute_when_asked,
        {"subscriptions": [hs.Subscription("s", ack=lambda _: None)], "subscribe_timeout": 1000},
    ),
    "backoff": (refuse, {"reconnect_strategy": hs.FixedDelay(1000)}),
    "ready": (idle, {}),
    "ready, mute": (mute_when_asked, {}),
    "ready, stalled": (stall, {}),
    "ready, chattering": (chatter, {}),
}


@pytest.mark.parametrize("phase", PHASES)
async def test_g10_leaving_is_bounded_in_every_phase(phase: str) -> None:
    """The block is left while the client is in this phase: over within close_timeout plus the second of a close frame."""
    script, fields = PHASES[phase]
    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, close_timeout=3, **fields), wait_ready=False) as client:
            await anyio.sleep(10)
            if phase == "ready, stalled":
                tasks = anyio.create_task_group()
                await tasks.__aenter__()
                tasks.start_soon(client.send, "x" * 200_000)
                await wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
                await tasks.__aexit__(None, None, None)
            left_at = anyio.current_time()
        took = anyio.current_time() - left_at
        assert took <= (5 if phase == "ready, stalled" else 3)
        assert took >= (3 if phase in ("ready, mute", "ready, chattering") else 0), (
            "it waits for the peer's close frame"
        )
        assert client.connection_state is hs.ConnectionState.CLOSED
    assert server.open_count == 0
    events = happened(client)
    assert_legal(events)
    assert isinstance(events[-1], hs.Closed)
    assert events[-1].error is None


@pytest.mark.parametrize("phase", PHASES)
async def test_g10_cancellation_is_bounded_in_every_phase(phase: str) -> None:
    """Cancelled from outside: no drain, no wait for the peer; only a close frame is written, for at most a second."""
    script, fields = PHASES[phase]
    client: Any = None
    async with ScriptedServer(script) as server:
        with anyio.move_on_after(10) as scope:
            async with hs.connect(settings(server, close_timeout=3, **fields), wait_ready=False) as client:
                if phase == "ready, stalled":
                    await client.send("x" * 200_000)
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert anyio.current_time() <= (11 if phase == "ready, stalled" else 10)
        await wait_all_tasks_blocked()
        if phase in ("ready", "ready, mute", "auth", "subscriptions"):
            assert server.peers[-1].close_code == 1000
    assert_legal(happened(client))
    assert isinstance(happened(client)[-1], hs.Closed)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("wait_ready", [True, False])
async def test_g10_native_cancellation_on_asyncio(phase: str, wait_ready: bool, anyio_backend_name: str) -> None:
    """``task.cancel()`` and ``asyncio.timeout`` end it as anyio's cancellation does, and as ``CancelledError``."""
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own cancellation")
    script, fields = PHASES[phase]
    async with ScriptedServer(script) as server:

        async def use() -> None:
            async with hs.connect(settings(server, close_timeout=3, **fields), wait_ready=wait_ready) as client:
                if phase == "ready, stalled":
                    await client.send("x" * 200_000)
                await anyio.sleep_forever()

        task = asyncio.create_task(use())
        await anyio.sleep(10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert anyio.current_time() <= (11 if phase == "ready, stalled" else 10)


async def test_g10_native_cancellation_during_the_drain(anyio_backend_name: str) -> None:
    """A second, native, cancellation while leaving waits for handlers cuts the drain short."""
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own cancellation")
    handler = Recorder(1000)

    async def script(peer: Peer) -> None:
        await peer.send("m")
        await idle(peer)

    async with ScriptedServer(script) as server:

        async def use() -> None:
            async with hs.connect(settings(server, default_handler=handler, drain_timeout=None)):
                await handler.wait_began(1)

        task = asyncio.create_task(use())
        await anyio.sleep(5)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert anyio.current_time() == 5
        assert server.peers[0].close_code == 1000


async def test_g10_whatever_waits_is_told_of_the_end() -> None:
    """Tasks that wait on a client in every way come back when it is closed: errors, or the end of an iteration."""
    ends: dict[str, Any] = {}

    async def script(peer: Peer) -> None:
        await peer.receive()
        peer.cut()

    async with ScriptedServer([script, dumb]) as server, anyio.create_task_group() as tasks:
        config = settings(server, subscriptions=["s"])
        async with hs.connect(config) as client:

            async def waits(name: str, function: Callable[[], Awaitable[Any]]) -> None:
                try:
                    ends[name] = await function()
                except hs.ClientClosedError as error:
                    ends[name] = error

            async def iterate() -> list[Any]:
                return [each async for each in client]

            async def stream() -> list[Any]:
                return [each async for each in client.messages("key")]

            async def listen() -> Any:
                return [each async for each in client.events()][-1]

            await server.wait_connections(2)
            tasks.start_soon(waits, "send", lambda: client.send("x"))
            tasks.start_soon(waits, "wait_connected", client.wait_connected)
            tasks.start_soon(waits, "wait_closed", client.wait_closed)
            tasks.start_soon(waits, "iterate", iterate)
            tasks.start_soon(waits, "stream", stream)
            tasks.start_soon(waits, "listen", listen)
            tasks.start_soon(waits, "aclose", client.aclose)
        await wait_all_tasks_blocked()
        assert isinstance(ends.pop("send"), hs.ClientClosedError)
        assert isinstance(ends.pop("wait_connected"), hs.ClientClosedError)
        assert isinstance(ends.pop("listen"), hs.Closed)
        assert ends == {"wait_closed": None, "iterate": [], "stream": [], "aclose": None}


@pytest.mark.parametrize(
    "call", ["send", "subscribe", "wait_connected", "recv_event", "iterate", "aclose", "wait_closed"]
)
async def test_g10_each_call_can_be_cancelled(call: str) -> None:
    """A cancelled call leaves the client as it was, and working."""
    async with ScriptedServer([mute_when_asked, idle]) as server:
        config = settings(server, subscriptions=[hs.Subscription("s", ack=lambda _: None)], subscribe_timeout=5)
        async with hs.connect(config, wait_ready=False) as client:
            while client.try_recv_event() is not None:
                pass
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "send": lambda: client.send("cancelled"),
                "subscribe": lambda: client.subscribe("extra"),
                "wait_connected": client.wait_connected,
                "recv_event": client.recv_event,
                "iterate": client.__aiter__().__anext__,
                "aclose": client.aclose,
                "wait_closed": client.wait_closed,
            }
            await wait_all_tasks_blocked()
            while client.try_recv_event() is not None:
                pass
            with anyio.move_on_after(0 if call == "subscribe" else 1):
                await calls[call]()
            await client.unsubscribe("s")
            if call == "aclose":
                return
            await client.wait_connected()
            await client.send("fine")
            await wait_all_tasks_blocked()
            assert server.peers[-1].received[-1] == "fine"
            assert "cancelled" not in server.peers[-1].received
            assert not of(hs.Closed, happened(client))


async def test_g10_a_day_long_outage() -> None:
    """24 hours of refused connections with exponential backoff: few attempts, then back at once, nothing lost or left."""

    async def restart(peer: Peer) -> None:
        await peer.receive()
        await anyio.sleep(1)
        await peer.close(1012)

    async with ScriptedServer([restart, idle]) as server:
        strategy = hs.ExponentialBackoff(1, 60)
        async with hs.connect(
            settings(server, reconnect_strategy=strategy, subscriptions=["s"]), wait_ready=False
        ) as client:
            await wait_for(client, hs.Disconnected)
            server.refuse(None)
            with anyio.move_on_after(86_400):
                await client.send("through the night")
            attempts = client.metrics().connect_attempts
            assert 86_400 / 60 <= attempts <= 86_400 / 60 + 10
            assert client.connection_state is hs.ConnectionState.RECONNECTING
            server.accept_all()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.send, "in the morning")
                await client.wait_connected()
            await wait_all_tasks_blocked()
            assert anyio.current_time() <= 86_400 + 60
            assert server.peers[-1].received == ["s", "in the morning"]
            assert client.metrics().reconnect_count == 1
        connected = of(hs.Connected, happened(client))
        assert connected[-1].downtime == pytest.approx(86_400, abs=61)


class Endless:
    """A user's transport: always has something, heeds no close frame, and has no ``discard``; each read takes 10 ms."""

    def __init__(self) -> None:
        self.closed: list[float] = []

    async def receive(self) -> list[str]:
        stand_still(0.01)
        return ["again"]

    async def send(self, message: str | bytes) -> None:
        """Throw it away."""

    async def ping(self) -> float:
        return 0.0

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed.append(anyio.current_time())

    @asynccontextmanager
    async def open(self, request: hs.OpenRequest) -> AsyncIterator[Any]:
        yield self


@pytest.mark.parametrize("close_timeout", [0, 1])
async def test_g10_a_transport_whose_receive_never_blocks_is_left_in_time(close_timeout: float) -> None:
    """What still comes after our close frame is thrown away, and never holds the deadline up."""
    transport = Endless()
    async with hs.connect(
        "ws://endless.test", transport=transport, default_handler=lambda _: None, close_timeout=close_timeout
    ) as client:
        while client.metrics().messages_received < 100:
            await anyio.sleep(0.1)
        left_at = anyio.current_time()
    assert anyio.current_time() - left_at == pytest.approx(close_timeout, abs=0.2)
    assert len(transport.closed) == 1

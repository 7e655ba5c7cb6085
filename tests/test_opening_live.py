"""The way to a ready session when things meet at an odd moment: short sessions, late handshakes, large snapshots, and
how many round trips it all takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

import hypersockets as hs
from hypersockets.testing import Opcode, Peer, ScriptedServer, frame, wait_all_tasks_blocked
from tests._live import ROUTER, Auth, Recorder, assert_legal, happened, idle, message, names, of, settings, stand_still
from tests._through import Through

pytestmark = pytest.mark.anyio

GOODBYE = frame(Opcode.CLOSE, b"\x03\xe8")
CHANNEL_ACK = hs.Subscription("sub", ack=lambda each: each["channel"] == "ack" or None)


# Ready for a moment


@pytest.mark.parametrize("texts", [[], ["a", "b"]])
async def test_a_session_that_was_ready_for_a_moment_is_entered(texts: list[str]) -> None:
    """101, messages and close 1000 in one packet, and nothing is retried: a clean end, which the body still sees."""

    async def script(peer: Peer) -> None:
        await peer.send_raw(peer.accept_response() + b"".join(frame(1, each.encode()) for each in texts) + GOODBYE)

    for _ in range(20):  # whoever is woken first
        async with ScriptedServer(script) as server:
            is_entered = False
            async with hs.connect(settings(server, reconnect_strategy=hs.NeverReconnect())) as client:
                is_entered = True
                assert [each async for each in client] == texts
                await client.wait_closed()
            assert is_entered
            assert client.epoch == 1
            assert names(happened(client)) == ["Connecting", "Connected", "Disconnected", "Closed"]


# The handshake and its time limit


class Late(Through):
    """Gives out what it read first just as the event loop, having stood still, finds that the time is over."""

    def __init__(self, inner: ByteStream, *, is_late: bool) -> None:
        super().__init__(inner)
        self.is_late = is_late

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await super().receive(max_bytes)
        if self.is_late:
            self.is_late = False
            stand_still(60)
            with anyio.CancelScope(shield=True):  # what was read is there before the cancellation is heard of
                for _ in range(5):
                    await checkpoint()
        return data


@pytest.mark.parametrize("open_timeout", [1, 10])
async def test_a_handshake_that_completes_while_its_time_expires(open_timeout: float) -> None:
    """The event loop stood still, a suspended laptop say: the attempt counts as too late, and the next one is made."""
    async with ScriptedServer(idle) as server:

        async def open_stream(_: hs.OpenRequest) -> ByteStream:
            return Late(await server.connect(), is_late=server.connection_count == 0)

        config = settings(server, transport=hs.StreamConnector(open_stream=open_stream), open_timeout=open_timeout)
        async with hs.connect(config) as client:
            assert client.epoch == 1
            events = happened(client)
        assert names(events) == ["Connecting", "ErrorOccurred", "Reconnecting", "Connecting", "Connected"]
        assert type(of(hs.ErrorOccurred, events)[0].error) is hs.OpenTimeoutError
        assert_legal(happened(client))


async def test_a_connector_that_opens_too_late() -> None:
    """One of the user's that heeds no cancellation: what it opens after all is left again, and it is another attempt."""

    class Stubborn:
        seconds = 20

        @asynccontextmanager
        async def open(self, request: hs.OpenRequest) -> AsyncIterator[hs.Transport]:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.seconds)
                self.seconds = 0
            async with server.connector().open(request) as transport:
                yield transport

    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, transport=Stubborn(), open_timeout=5)) as client:
            (error,) = of(hs.ErrorOccurred, happened(client))
            assert type(error.error) is hs.OpenTimeoutError
            assert error.at == 20
            assert anyio.current_time() == 21


# More than fits before ready


async def test_a_snapshot_larger_than_the_inbox_may_come_before_the_ack() -> None:
    """1.2 MB of data stand before the confirmation: that the session waits for it does not stop the reading."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "sub"
        await peer.send_many([message("book", n, pad="x" * 600_000) for n in range(2)])
        await peer.send(message("ack", 0))
        await idle(peer)

    book = Recorder()
    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, handlers={"book": book}, subscriptions=[CHANNEL_ACK])
        async with hs.connect(config) as client:
            assert anyio.current_time() == 0
            await book.wait_handled(2)
            assert client.metrics().dropped == 0
            assert client._core.lanes.budget.used == 0
    assert book.numbers == [0, 1]


async def test_more_than_the_inbox_may_come_before_the_verdict_on_auth() -> None:
    """What auth passes over is kept, in order, however much it is, and handled once the session is ready."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "auth 1"
        for n in range(12):
            await peer.send(message("book", n, pad="x" * 100_000))
        await peer.send("ok")
        await peer.send(message("book", 12))
        await idle(peer)

    book = Recorder()
    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, router=ROUTER, handlers={"book": book}, auth=Auth())):
            assert anyio.current_time() == 0
            await book.wait_handled(13)
    assert book.numbers == list(range(13))


# Handlers begin at the first `Connected`


async def test_what_an_attempt_received_is_handled_from_the_first_ready_session_on() -> None:
    """An attempt fails in its auth: what it had received waits, through the next attempt's auth too, in order."""
    seen: list[tuple[str, int, bool]] = []

    def handle(text: str) -> None:
        client = hs.current_client()
        seen.append((text, client.epoch, client.is_connected))

    async def fails(peer: Peer) -> None:
        assert await peer.receive() == "auth 1"
        await peer.send("early")
        await peer.close(1011)

    async def works(peer: Peer) -> None:
        assert await peer.receive() == "auth 2"
        await anyio.sleep(2)
        assert seen == []
        await peer.send_many(["later", "ok", "last"])
        await idle(peer)

    async with ScriptedServer([fails, works]) as server:
        async with hs.connect(settings(server, auth=Auth(), default_handler=handle)):
            await wait_all_tasks_blocked()
    assert seen == [("early", 1, True), ("later", 1, True), ("last", 1, True)]


async def test_what_an_attempt_received_is_handled_in_the_drain_if_no_session_gets_ready() -> None:
    """The strategy gives up: what was received is handled before the end, and not before that was decided."""
    handler = Recorder(1)

    async def fails(peer: Peer) -> None:
        await peer.receive()
        await peer.send(f"early {peer.number}")
        await anyio.sleep(1)
        assert handler.began == []
        await peer.close(1011)

    async with ScriptedServer(fails) as server:
        config = settings(server, auth=Auth(), default_handler=handler, reconnect_strategy=hs.FixedDelay(1, 1))
        with pytest.raises(hs.ReconnectExhaustedError):
            async with hs.connect(config):
                pytest.fail("never ready")
        assert anyio.current_time() == 1 + 1 + 1 + 2
    assert handler.handled == ["early 0", "early 1"]


# What it takes


@pytest.mark.parametrize("count", [1, 50])
async def test_restoring_takes_four_round_trips(count: int) -> None:
    """TCP's handshake, the upgrade, auth and its answer, all subscriptions and their acks, however many there are.

    A link in memory is open at once: its first round trip, TCP's, is not there to be counted, so these are three.
    """
    latency = 0.25

    def entry(n: int) -> hs.Subscription:
        return hs.Subscription(f"sub {n}", ack=lambda text: text == f"ack {n}" or None)

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send("ok")
        for n in range(count):
            assert await peer.receive() == f"sub {n}"
            await peer.send(f"ack {n}")
        if peer.number == 0:
            await anyio.sleep_until(100)
            peer.cut()
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, latency=latency, auth=Auth(), subscriptions=[entry(n) for n in range(count)])
        async with hs.connect(config) as client:
            assert anyio.current_time() == 3 * 2 * latency
            await client.wait_connected()
            await anyio.sleep_until(100 + 2 * latency)
            await client.wait_connected()
            assert of(hs.Disconnected, happened(client))[0].at == 100 + latency
            assert of(hs.Connected, happened(client))[1].downtime == 1 + 3 * 2 * latency


@pytest.mark.parametrize("count", [1, 50])
async def test_without_acks_restoring_takes_two_round_trips(count: int) -> None:
    """TCP's (none on this link) and the upgrade's: auth and subscriptions follow at once, and are under way by then."""
    latency = 0.25

    class Provider:
        async def get_auth_message(self) -> str:
            return "auth"

    async with ScriptedServer(idle) as server:
        subscriptions = [f"sub {n}" for n in range(count)]
        async with hs.connect(settings(server, latency=latency, auth=Provider(), subscriptions=subscriptions)):
            assert anyio.current_time() == 2 * latency
            await anyio.sleep(latency)
            await wait_all_tasks_blocked()
            assert server.peers[0].received == ["auth", *subscriptions]

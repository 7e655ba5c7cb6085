"""Sending, events, states, metrics, waiting, closing."""

from __future__ import annotations

import pickle
from typing import Any

import anyio
import attrs
import pytest
from anyio.abc import ByteStream

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import Recorder, assert_legal, cut, happened, idle, names, of, sends, settings, wait_for
from tests._through import Through

pytestmark = pytest.mark.anyio


async def stalled(peer: Peer) -> None:
    await peer.accept()
    await peer.stall()


async def once_lost(peer: Peer) -> None:
    """The first connection is cut when the client says so."""
    while await peer.receive() != "cut":
        pass
    peer.cut()


# send


async def test_send_types() -> None:
    """Text and binary, bytes-likes; ``text`` turns one into the other; anything else is a clear error."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server)) as client:
        for each in ("é", b"b", bytearray(b"c"), memoryview(b"d")):
            await client.send(each)  # type: ignore[arg-type]
        await client.send(b"text", text=True)
        await client.send("binary", text=False)
        for bad in ({"a": 1}, 5, None):
            with pytest.raises(TypeError):
                await client.send(bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="UTF-8"):
            await client.send(b"\xff", text=True)
        with pytest.raises(ValueError, match="Unicode"):
            await client.send("\udc80")
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["é", b"b", b"c", b"d", "text", b"binary"]


async def test_sends_wait_in_order_for_a_session() -> None:
    """Through an outage, each once; a cancelled one is not among them."""
    async with ScriptedServer([once_lost, idle]) as server, hs.connect(settings(server)) as client:
        await client.send("cut")
        await wait_for(client, hs.Disconnected)
        async with anyio.create_task_group() as tasks:
            for n in range(5):
                tasks.start_soon(client.send, str(n))
                await wait_all_tasks_blocked()
            with anyio.move_on_after(0.5) as scope:
                await client.send("cancelled")
            assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert server.peers[1].received == list("01234")


async def test_wait_false() -> None:
    """``NotConnectedError`` at once while none is ready; on a ready session it is sent."""
    async with ScriptedServer([once_lost, idle]) as server, hs.connect(settings(server)) as client:
        await client.send("cut", wait=False)
        await wait_for(client, hs.Disconnected)
        with pytest.raises(hs.NotConnectedError):
            await client.send("x", wait=False)
        await client.wait_connected()
        await wait_all_tasks_blocked()
        assert server.peers[1].received == []


async def test_a_half_sent_message_is_sent_on_the_next_session() -> None:
    """And those queued behind it after it; one with ``wait=False`` is for this session only."""
    big = "x" * 200_000

    async with ScriptedServer([stalled, idle]) as server, hs.connect(settings(server)) as client:
        ends: list[Any] = []

        async def send(text: str, **options: Any) -> None:
            try:
                await client.send(text, **options)
                ends.append(text)
            except hs.NotConnectedError as error:
                ends.append(type(error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, big)
            await wait_all_tasks_blocked()
            tasks.start_soon(lambda: send("now or never", wait=False))
            await wait_all_tasks_blocked()
            tasks.start_soon(send, "after")
            await wait_all_tasks_blocked()
            server.peers[0].reset()
        await wait_all_tasks_blocked()
        assert server.peers[1].received == [big, "after"]
        assert ends == [hs.NotConnectedError, big, "after"]


async def test_cancelled_after_its_first_byte_the_session_finishes_the_frame() -> None:
    """Whole, before anything else; but it is not sent again if the session is lost."""
    big = "x" * 200_000
    go = anyio.Event()

    async def slow(peer: Peer) -> None:
        await peer.accept()
        peer._talk.reading.cancel()
        await go.wait()
        data = b""
        while len(data) < len(big) + 14 + 10:
            data += await peer._talk.stream.receive()
        peer.reset()

    async with ScriptedServer([slow, idle]) as server, hs.connect(settings(server)) as client:
        with anyio.move_on_after(1) as scope:
            await client.send(big)
        assert scope.cancelled_caught
        go.set()
        await client.send("next")
        await wait_for(client, hs.Connected, 2)
        await wait_all_tasks_blocked()
        assert server.peers[1].received == []


async def test_cancelled_before_its_first_byte_it_is_not_sent() -> None:
    """Queued behind a frame that is stuck."""
    big = "x" * 100_000

    async with ScriptedServer([stalled, idle]) as server, hs.connect(settings(server)) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.send, big)
            await wait_all_tasks_blocked()
            with anyio.move_on_after(1):
                await client.send("cancelled")
            server.peers[0].reset()
        await wait_all_tasks_blocked()
        assert server.peers[1].received == [big]


async def test_many_senders() -> None:
    """A hundred tasks, losses in between: every message at least once in one piece, none unasked."""

    async def script(peer: Peer) -> None:
        for _ in range(15):
            await peer.receive()
        peer.cut()

    async with ScriptedServer(script) as server, hs.connect(settings(server)) as client:
        async with anyio.create_task_group() as tasks:
            for n in range(100):
                tasks.start_soon(client.send, f"{n}")
        got = {text for peer in server.peers for text in peer.received}
        assert got <= {str(n) for n in range(100)}
        assert client.metrics().messages_sent >= 100


# Events


async def test_listeners_begin_with_the_oldest_event_and_end_with_closed() -> None:
    """Each has its own place; one opened after the end reads it all; time and name stand in every event."""
    async with ScriptedServer([sends(end=cut), idle]) as server:
        async with anyio.create_task_group() as tasks, hs.connect(settings(server, name="feed")) as client:
            seen: list[hs.Event] = []

            async def listen() -> None:
                async for event in client.events():
                    seen.append(event)

            tasks.start_soon(listen)
            await wait_for(client, hs.Connected, 2)
            await anyio.sleep(1)
    assert names(seen) == [
        *("Connecting", "Connected", "Disconnected", "Reconnecting", "Connecting", "Connected"),
        *("Disconnected", "Closed"),
    ]
    assert [event async for event in client.events()] == seen == happened(client)
    assert {event.name for event in seen} == {"feed"}
    assert [event.at for event in seen] == [0, 0, 0, 0, 1, 1, 2, 2]
    assert [event.epoch for event in seen] == [0, 1, 1, 1, 1, 2, 2, 2]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        seen[0].at = 5  # type: ignore[misc]


async def test_the_default_listener() -> None:
    """``try_recv_event`` and ``recv_event``: buffered events stay readable after the end, then ``None`` and an error."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server)) as client:
            assert isinstance(client.try_recv_event(), hs.Connecting)
            assert isinstance(await client.recv_event(), hs.Connected)
            assert client.try_recv_event() is None
            with anyio.move_on_after(5) as scope:
                await client.recv_event()
            assert scope.cancelled_caught
        assert isinstance(await client.recv_event(), hs.Disconnected)
        assert isinstance(client.try_recv_event(), hs.Closed)
        assert client.try_recv_event() is None
        with pytest.raises(hs.ClientClosedError):
            await client.recv_event()


async def test_two_tasks_cannot_share_a_listener() -> None:
    """A clear error, for the second one."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server)) as client:
        while client.try_recv_event() is not None:
            pass
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.recv_event)
            await wait_all_tasks_blocked()
            with pytest.raises(RuntimeError):
                await client.recv_event()
            tasks.cancel_scope.cancel()


async def test_close_codes_in_events() -> None:
    """The peer's code; 1005 for an empty frame; ``None`` without one, and for our own."""
    ends: list[Any] = [
        lambda p: p.close(4001, "why"),
        lambda p: p.close(None),
        cut,
        Peer.reset,
        lambda p: p.close(1000),
    ]

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(1)
        if peer.number < len(ends) and (done := ends[peer.number](peer)) is not None:
            await done
        await idle(peer)

    async with ScriptedServer(script) as server, hs.connect(settings(server)) as client:
        await wait_for(client, hs.Connected, 6)
        await client.reconnect("ours", code=3333)
        losses = of(hs.Disconnected, happened(client))
        assert [event.code for event in losses] == [4001, 1005, None, None, 1000, None]
        assert [event.error.by for event in losses] == ["peer", "peer", "network", "network", "peer", "us"]
        assert losses[0].reason == "why"
        assert losses[5].reason == "ours"
        for event in losses:
            assert pickle.loads(pickle.dumps(event.error)).by == event.error.by


# States, waiting, numbers


async def test_states_in_order() -> None:
    """Through auth, subscriptions, a loss, closing; a state with nothing to do is passed over."""
    states: list[str] = []

    async def login(_: hs.AuthChannel) -> None:
        states.append(client.connection_state.name)
        await anyio.sleep(1)

    def message(_: hs.ResumePoint) -> str:
        states.append(client.connection_state.name)
        return "sub"

    def url() -> str:
        states.append(client.connection_state.name)
        return "ws://scripted.test"

    async with ScriptedServer(idle) as server:
        config = settings(server, url=url, auth=login, subscriptions=[hs.Subscription(message, key="k")])
        async with hs.connect(config, wait_ready=False) as client:
            states.append(client.connection_state.name)
            await client.wait_connected()
            states.append(client.connection_state.name)
            await client.reconnect()
            states.append(client.connection_state.name)
            await client.wait_connected()
        states.append(client.connection_state.name)
    assert states == [
        *("DISCONNECTED", "CONNECTING", "AUTHENTICATING", "SUBSCRIBING", "CONNECTED", "RECONNECTING"),
        *("CONNECTING", "AUTHENTICATING", "SUBSCRIBING", "CLOSED"),
    ]


async def test_waiting() -> None:
    """``wait_connected`` returns when a session is ready, at once if one is; many may wait; ``wait_closed`` at the end."""
    async with ScriptedServer(idle) as server:
        server.refuse(3)
        async with hs.connect(settings(server), wait_ready=False) as client:
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(client.wait_connected)
            assert anyio.current_time() == 3
            await client.wait_connected()
        await client.wait_closed()
        with pytest.raises(hs.ClientClosedError):
            await client.wait_connected()
        with pytest.raises(hs.ClientClosedError):
            await client.subscribe("x")
        with pytest.raises(hs.ClientClosedError):
            await client.send("x", wait=False)


async def test_metrics() -> None:
    """Data messages and bytes at the transport, auth and heartbeats included; a frozen snapshot."""
    handler = Recorder()

    class Provider:
        async def get_auth_message(self) -> str:
            return "auth"

    async def script(peer: Peer) -> None:
        await peer.send_many(["12345", b"123"])
        await peer.receive()
        await once_lost(peer)

    async with ScriptedServer(script) as server:
        config = settings(
            server, auth=Provider(), subscriptions=["sub"], heartbeat=hs.Heartbeat(10, "é"), default_handler=handler
        )
        async with hs.connect(config) as client:
            before = client.metrics()
            await anyio.sleep(11)
            await client.send("hello")
            numbers = client.metrics()
            assert numbers.messages_sent == 4
            assert numbers.bytes_sent == len("authsubhello") + 2
            assert numbers.messages_received == 2
            assert numbers.bytes_received == 8
            assert numbers.connected_since == 0
            assert numbers.connection_state is hs.ConnectionState.CONNECTED
            assert (numbers.reconnect_count, numbers.connect_attempts) == (0, 1)
            assert numbers.last_error is None
            assert before.messages_sent <= 2, "a snapshot does not change"
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                numbers.queued = 5  # type: ignore[misc]
            await client.send("cut")
            await wait_for(client, hs.Disconnected)
            assert client.metrics().connected_since is None
            await wait_for(client, hs.Connected, 2)
            numbers = client.metrics()
            assert (numbers.reconnect_count, numbers.connect_attempts, numbers.connected_since) == (1, 2, 12)
            assert isinstance(numbers.last_error, hs.ConnectionLostError)
    assert client.metrics().connection_state is hs.ConnectionState.CLOSED


async def test_the_repr_is_one_line_of_live_state() -> None:
    """Name, state, time up, epoch."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server, name="binance")) as client:
        await anyio.sleep(32.1)
        assert repr(client) == "<Client binance CONNECTED up=32.1s epoch=1>"


async def test_the_name_is_the_host() -> None:
    """By default."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server)) as client:
        assert happened(client)[0].name == "scripted.test"


async def test_reconnect_while_nothing_is_ready_does_nothing() -> None:
    """Neither in a backoff nor while connecting; and not on an ended client."""
    async with ScriptedServer([lambda peer: peer.reject(503), idle]) as server:
        async with hs.connect(settings(server), wait_ready=False) as client:
            await wait_for(client, hs.Reconnecting)
            await client.reconnect()
            await client.wait_connected()
            assert anyio.current_time() == 1
        with pytest.raises(hs.ClientClosedError):
            await client.reconnect()
        assert_legal(happened(client))


async def test_what_comes_between_our_close_frame_and_the_answer_is_handled() -> None:
    """A loss made by us loses nothing either."""
    handler = Recorder()

    async def script(peer: Peer) -> None:
        await peer.accept()
        if peer.number == 0:
            await anyio.sleep_until(5.5)
            await peer.send("on its way")
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, latency=0.4, default_handler=handler)) as client:
            await anyio.sleep_until(5.7)
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
            assert of(hs.Reconnecting, happened(client))[0].at == pytest.approx(6.5), "when the answer had come"
    assert handler.handled == ["on its way"]


@pytest.mark.parametrize("wait", [True, False])
async def test_a_send_in_a_scope_that_is_cancelled_already_sends_nothing(wait: bool) -> None:
    """Not one of a hundred, whether or not others send meanwhile."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server)) as client:
        for n in range(100):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await client.send("never", wait=wait)
            assert scope.cancelled_caught
            if n % 10 == 0:
                await client.send("sent")
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["sent"] * 10
        assert len(client._core.outbox) == 0


async def test_sends_of_one_scheduling_round_leave_in_one_write() -> None:
    """Ten tasks send at the same time: in order, each its own frame, one write to the socket for all."""
    writes: list[bytes] = []

    class Tap(Through):
        async def send(self, item: bytes) -> None:
            writes.append(item)
            await super().send(item)

    async with ScriptedServer(idle) as server:

        async def open_stream(_: hs.OpenRequest) -> ByteStream:
            return Tap(await server.connect())

        async with hs.connect(settings(server, transport=hs.StreamConnector(open_stream=open_stream))) as client:
            await wait_all_tasks_blocked()
            writes.clear()
            async with anyio.create_task_group() as tasks:
                for n in range(10):
                    tasks.start_soon(client.send, f"message {n}")
            assert len(writes) == 1
            await wait_all_tasks_blocked()
            assert sorted(map(str, server.peers[0].received)) == [f"message {n}" for n in range(10)]
            assert client.metrics().messages_sent == 10

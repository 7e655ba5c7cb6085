"""Rotation: the next connection takes over from one that still works, and nothing is lost or out of order."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Opcode, Peer, ScriptedServer, frame, wait_all_tasks_blocked
from tests._live import ROUTER, Auth, Recorder, assert_legal, happened, idle, message, names, settings, wait_for

pytestmark = pytest.mark.anyio


def text(content: str) -> bytes:
    """Return a text frame: a server that answers no close frame may still send."""
    return frame(Opcode.TEXT, content.encode())


async def feed(peer: Peer, start: int, sent: list[int], every: float = 0.01) -> None:
    """Send numbers until the client's close frame has come."""
    while peer.close_code is None:
        await peer.send(message("a", start + len(sent)))
        sent.append(start + len(sent))
        await anyio.sleep(every)


def feeds(sent: dict[int, list[int]], every: float = 0.01) -> Callable[[Peer], Any]:
    async def script(peer: Peer) -> None:
        await feed(peer, peer.number * 1000, sent.setdefault(peer.number, []), every)

    return script


# Receiving


@pytest.mark.parametrize("latency", [0.0, 0.1])
@pytest.mark.parametrize("seconds", [0.0, 0.02])
async def test_what_the_old_connection_still_says_comes_first(latency: float, seconds: float) -> None:
    """All that it says up to its close reply, and then what the new one has received meanwhile: each once, in order."""
    sent: dict[int, list[int]] = {}
    handler = Recorder(seconds)
    async with ScriptedServer(feeds(sent)) as server:
        config = settings(server, latency=latency, router=ROUTER, handlers={"a": handler}, drain_timeout=None)
        async with hs.connect(config) as client:
            await anyio.sleep(1)
            await client.rotate()
            assert max(handler.numbers) < 1000, "what the new one has received is held"
            await anyio.sleep(1)
        assert len(server.peers) == 2
        assert handler.numbers[: len(sent[0])] == sent[0], "all that was sent before the close frame came"
        rest = handler.numbers[len(sent[0]) :]
        assert rest == sent[1][: len(rest)]
        assert len(rest) > 10
        assert client.metrics().dropped == 0


async def test_a_server_that_answers_no_close_frame_is_waited_for_so_long_and_no_longer() -> None:
    """What it says for ``close_timeout`` is handled; then the connection is cut, and what the new one holds comes."""

    async def script(peer: Peer) -> None:
        if peer.number:
            await peer.send_many([message("a", n) for n in (1000, 1001)])
            await idle(peer)
        await peer.accept()
        peer._talk.stop_reading()
        for n in range(100):
            await peer.send_raw(text(message("a", n)))
            await anyio.sleep(0.5)

    handler = Recorder()
    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, handlers={"a": handler}, close_timeout=2)
        async with hs.connect(config) as client:
            await anyio.sleep(3.1)
            await client.rotate()
            assert anyio.current_time() == pytest.approx(3.1)
            await anyio.sleep(1.8)
            assert handler.numbers == list(range(10))
            await anyio.sleep(0.3)
            assert handler.numbers == [*range(11), 1000, 1001]


async def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a lane's capacity the reading of the new connection pauses; with the end of the old one it goes on."""
    monkeypatch.setattr(sys.modules["hypersockets._session"], "HELD", 10)
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        if peer.number == 0:
            await peer.accept()
            await peer.stall()
        for n in range(1000):
            await peer.send(message("a", n))
            sent = n + 1
        await idle(peer)

    handler = Recorder()
    async with ScriptedServer(script) as server:
        config = settings(
            server,
            transport=server.connector(capacity=200),
            router=ROUTER,
            handlers={"a": handler},
            idle_timeout=3,
        )
        async with hs.connect(config) as client:
            await client.rotate()
            await anyio.sleep(4.5)
            assert 10 <= client.metrics().queued <= 20
            assert 10 < sent < 40
            assert handler.numbers == []
            await handler.wait_handled(1000)
            assert handler.numbers == list(range(1000))
            assert client.epoch == 2, "while its reading was paused the silence was ours"


async def test_the_old_connection_is_read_out_however_slow_the_handlers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """While full lanes stop its reading, ``close_timeout`` does not run: what it has said is not lost by our slowness."""
    monkeypatch.setattr(sys.modules["hypersockets._dispatch"], "INBOX", 1000)

    async def script(peer: Peer) -> None:
        if peer.number:
            await peer.send(message("a", 1000))
            await idle(peer)
        for n in range(100):
            await peer.send(message("a", n, pad="x" * 10_000))
        await idle(peer)

    handler = Recorder(1)
    async with ScriptedServer(script) as server:
        config = settings(
            server,
            transport=server.connector(capacity=2_000_000),
            router=ROUTER,
            handlers={"a": hs.Route(handler, capacity=2)},
            close_timeout=2,
        )
        async with hs.connect(config) as client:
            await anyio.sleep(5)
            await client.rotate()
            await handler.wait_handled(101)
            assert handler.numbers == [*range(100), 1000]
            assert client.epoch == 2


async def test_closing_does_not_wait_for_an_old_connection_that_slow_handlers_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its reading stops with the rest, and the drain has its bound."""
    monkeypatch.setattr(sys.modules["hypersockets._dispatch"], "INBOX", 1000)

    async def script(peer: Peer) -> None:
        for n in range(100):
            await peer.send(message("a", n, pad="x" * 10_000))
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(
            server,
            transport=server.connector(capacity=2_000_000),
            router=ROUTER,
            handlers={"a": hs.Route(Recorder(1), capacity=2)},
        )
        async with hs.connect(config) as client:
            await client.rotate()
            await anyio.sleep(20)
            await client.aclose()
            assert anyio.current_time() <= 20 + 5 + 5 + 3


# Sending


async def test_two_rotations_in_a_row_keep_the_order_of_what_is_sent() -> None:
    """The third connection waits for what the first still writes, and the second, which goes too, never gets to it."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        if peer.number < 2:
            await peer.stall()
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, transport=server.connector(capacity=300), close_timeout=2)
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.send, "first " + "x" * 10_000)
            await wait_all_tasks_blocked()
            await client.rotate()
            await anyio.sleep(1)
            await client.rotate()
            tasks.start_soon(client.send, "second")
            await anyio.sleep(10)
        assert [str(each).split()[0] for each in server.peers[2].received] == ["first", "second"]


@pytest.mark.parametrize("latency", [0.0, 0.05])
async def test_each_message_is_sent_on_one_connection(latency: float) -> None:
    """Three tasks send on and on while the connection is rotated: each message comes once, and in order."""

    async with ScriptedServer(idle) as server:
        config = settings(server, transport=server.connector(latency=latency, capacity=300))
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:

            async def sender(name: str) -> None:
                for n in range(100):
                    await client.send(f"{name} {n} {'x' * 50}")

            for name in "abc":
                tasks.start_soon(sender, name)
            for _ in range(3):
                await anyio.sleep(0.3)
                await client.rotate()
        received = [str(each) for peer in server.peers for each in peer.received]
        assert len(received) == 300
        for name in "abc":
            assert [each.split()[1] for each in received if each[0] == name] == [str(n) for n in range(100)]


async def test_a_message_that_the_old_connection_cannot_finish_goes_first_on_the_new_one() -> None:
    """The peer reads no more: what was half written is sent again, before what waited behind it."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.accept()
            await peer.stall()
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, transport=server.connector(capacity=300))
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            big = "big " + "x" * 70_000
            for each in (big, "first", "second"):
                tasks.start_soon(client.send, each)
                await wait_all_tasks_blocked()
            await client.rotate()
            for _ in range(100):
                await anyio.sleep(0.1)
                print(anyio.current_time(), [x[:10] for x in server.peers[1].received])
            tasks.cancel_scope.cancel()
        assert server.peers[1].received == [big, "first", "second"]


# What is to be seen of it


async def test_a_rotation_is_one_event() -> None:
    """``Rotated`` alone: the client is connected throughout, the epoch counts it, ``reconnect_count`` does not."""
    states: set[Any] = set()

    async def script(peer: Peer) -> None:
        await peer.receive()
        await anyio.sleep(1)
        await peer.send("ok")
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, latency=0.1, auth=Auth(), subscriptions=["sub"], name="me")
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            before = len(happened(client))

            async def watch() -> None:
                while True:
                    states.add((client.connection_state, client.is_connected))
                    await anyio.sleep(0.05)

            tasks.start_soon(watch)
            ready_at = anyio.current_time()
            await anyio.sleep(10)
            await client.rotate()
            assert client.epoch == 2
            rotated_at = anyio.current_time()
            await anyio.sleep(5)
            tasks.cancel_scope.cancel()
        (rotated,) = happened(client)[before:-2]
        assert isinstance(rotated, hs.Rotated)
        assert (rotated.epoch, rotated.name, rotated.at) == (2, "me", rotated_at)
        assert rotated.age == pytest.approx(rotated_at - ready_at)
        assert names(happened(client)) == ["Connecting", "Connected", "Rotated", "Disconnected", "Closed"]
        assert states == {(hs.ConnectionState.CONNECTED, True)}
        assert client.metrics().reconnect_count == 0
        assert client.metrics().connect_attempts == 2
        assert [peer.received for peer in server.peers] == [["auth 1", "sub"], ["auth 2", "sub"]]
        assert [peer.close_code for peer in server.peers] == [1000, 1000]


async def test_handlers_go_on() -> None:
    """A rotation cancels none, and waits for none."""

    async def script(peer: Peer) -> None:
        await peer.send(message("a", peer.number))
        await idle(peer)

    handler = Recorder(30)
    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, handlers={"a": handler}, drain_timeout=None)
        async with hs.connect(config) as client:
            await handler.wait_began(1)
            await client.rotate()
            assert anyio.current_time() < 1
            assert handler.numbers == []
            await handler.wait_handled(2)
            assert handler.numbers == [0, 1]


async def test_pings_and_heartbeats_go_out_on_the_one_until_it_is_taken_over_from_and_then_on_the_other() -> None:
    """Two live for a while; the answers of one are not taken for the other's."""

    async def script(peer: Peer) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer, peer)
            if peer.number:
                await anyio.sleep(7)
                await peer.send("ok")

    async def answer(peer: Peer) -> None:
        while True:
            got = str(await peer.receive())
            if got == "beat":
                await peer.send("pong")
            elif peer.number == 0:
                await peer.send("ok")

    beat = hs.Heartbeat(2, "beat", pong="pong", timeout=3)
    async with ScriptedServer(script) as server:
        config = settings(server, auth=Auth(), auth_timeout=20, heartbeat=beat, ping_interval=1, ping_timeout=1.5)
        async with hs.connect(config) as client:
            await anyio.sleep(3.5)
            await client.rotate()
            assert anyio.current_time() == pytest.approx(10.5)
            await anyio.sleep(6)
            first, second = server.peers
            assert (first.received.count("beat"), len(first.pings)) == (5, 10)
            assert (second.received.count("beat"), len(second.pings)) == (2, 5)
            assert names(happened(client)) == ["Connecting", "Connected", "Rotated"]


# Who asks for it, and when


async def test_rotating_inside_a_handler_whose_own_lane_is_full() -> None:
    """It waits for no handler, not even the one that asks."""

    async def script(peer: Peer) -> None:
        start = 100 * peer.number
        await peer.send_many([message("a", start + n) for n in range(10)])
        await idle(peer)

    numbers: list[int] = []

    async def handler(parsed: Any) -> None:
        if parsed["n"] == 0:
            await hs.current_client().rotate()
        numbers.append(parsed["n"])

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": hs.Route(handler, capacity=2)})):
            await anyio.sleep(1)
            assert anyio.current_time() == pytest.approx(1)
            assert numbers == [*range(10), *range(100, 110)]


async def test_two_at_once_are_two_rotations() -> None:
    """One after the other: whoever asks gets a connection that is made after the asking."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server)) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.rotate)
                tasks.start_soon(client.rotate)
            assert client.epoch == 3
            await anyio.sleep(1)
            assert server.open_count == 1


async def test_without_a_ready_session_there_is_nothing_to_rotate() -> None:
    """While none is ready: ``NotConnectedError``; after the end: ``ClientClosedError``."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server)) as client:
            server.refuse(1)
            await client.reconnect()
            with pytest.raises(hs.NotConnectedError, match="RECONNECTING"):
                await client.rotate()
            await wait_for(client, hs.Connected, 2)
            await client.rotate()
            await client.aclose()
            with pytest.raises(hs.ClientClosedError):
                await client.rotate()


async def test_to_another_url_and_back() -> None:
    """A callable is asked for the URL of each attempt: where a rotation has led is for that once."""
    asked = 0

    async def url() -> str:
        nonlocal asked
        asked += 1
        await anyio.sleep(0.1)
        return f"ws://here.test/{asked}"

    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, url=url)) as client:
            await client.rotate("ws://there.test/elsewhere")
            await client.rotate()
            await client.rotate("ws://there.test/again")
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
            paths = [peer.request.path for peer in server.peers]
            assert paths == ["/1", "/elsewhere", "/2", "/again", "/3"]
            with pytest.raises(hs.ConfigurationError, match="url"):
                await client.rotate("http://there.test/")


async def test_cancelling_who_waits_does_not_stop_it() -> None:
    """Nor does it leave anything behind."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, latency=0.1)) as client:
            with anyio.move_on_after(0.05):
                await client.rotate()
            with anyio.move_on_after(0.05):
                await client.rotate()
            await wait_for(client, hs.Rotated)
            await anyio.sleep(2)
            assert client.epoch == 2
            assert server.open_count == 1


# Subscriptions


async def acknowledges(peer: Peer) -> None:
    while True:
        got = str(await peer.receive())
        if got.startswith("sub"):
            await peer.send(message("ack", 0, of=got))


def acked(name: str, **fields: Any) -> hs.Subscription:
    return hs.Subscription(
        f"sub {name}",
        key=name,
        ack=lambda parsed: parsed.get("of") == f"sub {name}" or None,
        unsubscribe=f"unsub {name}",
        **fields,
    )


async def test_what_is_wanted_while_it_is_under_way_is_told_to_both() -> None:
    """Subscribed, unsubscribed, out and in again: both connections know, and whoever waits hears of it once."""

    async def script(peer: Peer) -> None:
        if peer.number:
            await peer.receive()
            await anyio.sleep(5)
            await peer.send("ok")
        else:
            assert await peer.receive() == "auth 1"
            await peer.send("ok")
        await acknowledges(peer)

    async with ScriptedServer(script) as server:
        config = settings(
            server, router=ROUTER, handlers={}, auth=Auth(), subscriptions=[acked("x"), acked("y"), acked("z")]
        )
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.rotate)
            await anyio.sleep(1)
            await client.subscribe(acked("new"))
            await client.unsubscribe("x")
            await client.resubscribe("y")
            assert client.epoch == 1
            await anyio.sleep(10)
            assert client.epoch == 2
            first, second = server.peers
            assert first.received == [
                "auth 1",
                "sub x",
                "sub y",
                "sub z",
                "sub new",
                "unsub x",
                "unsub y",
                "sub y",
            ]
            assert second.received == ["auth 2", "sub y", "sub z", "sub new"]


async def test_what_is_wanted_while_the_new_one_subscribes_is_told_to_both() -> None:
    """The new connection has been told of all there was, and waits for an ack: it is told of the rest."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await acknowledges(peer)
        assert await peer.receive() == "sub x"
        assert await peer.receive() == "sub y"
        await anyio.sleep(5)
        await peer.send(message("ack", 0, of="sub x"))
        await acknowledges(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, handlers={}, subscriptions=[acked("x"), acked("y")])
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.rotate)
            await anyio.sleep(1)
            await client.subscribe(acked("new"))
            await client.unsubscribe("y")
            await client.resubscribe("x")
            await anyio.sleep(10)
            assert client.epoch == 2
            await client.unsubscribe("new")
            await wait_all_tasks_blocked()
            assert server.peers[0].received == ["sub x", "sub y", "sub new", "unsub y", "unsub x", "sub x"]
            assert server.peers[1].received == [
                "sub x",
                "sub y",
                "sub new",
                "unsub y",
                "unsub x",
                "sub x",
                "unsub new",
            ]
            assert_legal(happened(client))

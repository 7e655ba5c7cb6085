"""Faults that the simulation found, each as the smallest life in which it showed."""

from __future__ import annotations

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import Recorder, happened, idle, message, names, of, settings, wait_for

pytestmark = pytest.mark.anyio


async def test_a_pong_is_known_after_a_pause() -> None:
    """A ping that was under way when a full lane stopped the reading is answered by its pong all the same."""

    async def slow(parsed: object) -> None:
        await anyio.sleep(0.4)

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(10.3)
        await peer.send_many([message("full", n) for n in range(4)])  # they come between the ping and its pong
        while True:
            await peer.receive()

    async with ScriptedServer(script) as server:
        config = settings(
            server,
            ping_interval=10,
            ping_timeout=4,
            router=hs.JsonRouter(),
            handlers={"full": hs.Route(slow, capacity=1)},
            latency=1,
        )
        async with hs.connect(config) as client:
            await anyio.sleep(19)
            assert names(happened(client)) == ["Connecting", "Connected"], "the pong came two seconds after its ping"


async def test_what_came_before_a_loss_is_no_repeat() -> None:
    """A server that has restarted counts from the beginning: a rotation later on knows its own repeats alone."""
    recorder = Recorder()

    async def script(peer: Peer) -> None:
        first, last = [(0, 10), (0, 3), (2, 6)][peer.number]
        await peer.send_many([message("feed", n) for n in range(first, last)])
        if peer.number == 0:
            peer.cut()
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(
            server,
            router=hs.JsonRouter(),
            handlers={"feed": recorder},
            message_id=lambda parsed: parsed["n"],
        )
        async with hs.connect(config) as client:
            await recorder.wait_handled(13)
            await client.rotate()
            await anyio.sleep(1)
            assert recorder.numbers == [*range(10), *range(3), *range(3, 6)], "of the third connection 2 is a repeat"


async def test_a_refused_attempt_of_a_rotation_that_became_the_next_attempt_sets_the_floor() -> None:
    """Lost while a rotation was being made, the client waits as long as that connection's refusal asks, from then on."""

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await anyio.sleep(1)
            server.peers[0].cut()
            await anyio.sleep(2)
            await peer.reject(503, {"Retry-After": "30"})
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server)) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(_rotate, client)
            await wait_for(client, hs.Connected, 2)
            refused, connecting = of(hs.ErrorOccurred, happened(client))[-1], of(hs.Connecting, happened(client))[-1]
            assert (refused.at, connecting.at) == (3, 33)
            assert of(hs.Reconnecting, happened(client))[-1].delay == 32, "counted from the loss, as every wait"


async def test_a_full_lane_is_filled_on_whatever_the_next_connection_brings() -> None:
    """Two connections have a dispatch each in a rotation: that one of them has nothing to wait for ends no wait of the
    other."""
    handled: list[str] = []
    may_handle = anyio.Event()

    async def handle(message: str) -> None:
        await may_handle.wait()
        handled.append(message.rstrip())

    async def script(peer: Peer) -> None:
        await peer.accept()
        if peer.number == 0:
            for number in range(5):
                await peer.send(f"old {number}".ljust(400_000))  # so much that the reading stops
        else:
            await peer.send("new")
        await idle(peer)

    class Slowly:
        async def parse(self, frame: str | bytes) -> str | bytes:  # what is awaited has the task look at it
            return frame

        def route_key(self, message: str | bytes) -> None:
            return None

    async with ScriptedServer(script) as server:
        config = settings(server, router=Slowly(), default_handler=hs.Route(handle, capacity=1))
        async with hs.connect(config) as client:
            await wait_all_tasks_blocked()
            await client.rotate()
            await wait_all_tasks_blocked()
            may_handle.set()
            with anyio.fail_after(60):
                while len(handled) < 6:
                    await anyio.sleep(1)
    assert handled == [*(f"old {number}" for number in range(5)), "new"]


async def test_a_rotation_that_is_refused_while_the_lost_connection_takes_leave_sets_the_floor() -> None:
    """The loss is known, though its connection is not over yet: what the refusal asks for counts as in any attempt."""

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await anyio.sleep(1)
            await peer.reject(503, {"Retry-After": "30"})
        await peer.accept()
        if peer.number == 0:
            await peer.stall()  # it does not answer a close frame
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server)) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(_rotate, client)
            await anyio.sleep(0.75)
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
            assert of(hs.Reconnecting, happened(client))[-1].delay == 30.25, "counted from the loss, as every wait"


async def test_a_subscription_that_timed_out_is_taken_back_from_both_connections() -> None:
    """A rotation under way waits for it no longer, and a server that has only been slow does not go on to feed it."""

    async def script(peer: Peer) -> None:
        while True:
            got = await peer.receive()
            if got == "sub" and peer.received.count("sub") == 2:
                await peer.send("ack")

    entry = hs.Subscription(
        "sub", key="feed", unsubscribe="unsub", ack=lambda parsed: True if parsed == "ack" else None
    )
    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, subscribe_timeout=3)) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(_subscribe_in_vain, client, entry)
            await anyio.sleep(1)
            await client.rotate()
            assert anyio.current_time() == 3, "nothing is left to be confirmed"
            await client.subscribe(entry)
            assert server.peers[1].received == ["sub", "unsub", "sub"]


async def _subscribe_in_vain(client: hs.Client, entry: hs.Subscription) -> None:
    with pytest.raises(hs.SubscriptionTimeoutError):
        await client.subscribe(entry)


async def _rotate(client: hs.Client) -> None:
    with pytest.raises(hs.HandshakeRejectedError):
        await client.rotate()

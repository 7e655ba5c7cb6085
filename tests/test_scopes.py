"""Subscriptions that last as long as a block: what the server is told, and what each block gets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, Recorder, happened, idle, message, of, settings, wait_for

pytestmark = pytest.mark.anyio


def sub(key: str, **fields: Any) -> hs.Subscription:
    """Subscribe with ``+key``, unsubscribe with ``-key``; the ack says ``ack`` and the key."""

    def ack(parsed: Any) -> bool | None:
        return parsed["ok"] if parsed.get("ack") == key else None

    return hs.Subscription(f"+{key}", **{"key": key, "unsubscribe": f"-{key}", "ack": ack, **fields})


def verdict(key: str, ok: bool = True) -> str:
    return json.dumps({"ack": key, "ok": ok})


@attrs.define(eq=False)
class Exchange:
    """A server that acks what it likes, and numbers its messages per key on demand."""

    refused: set[str] = attrs.field(factory=set)
    """Keys that it refuses."""
    ignored: set[str] = attrs.field(factory=set)
    """Keys that it does not answer."""
    sent: int = 0

    async def script(self, peer: Peer) -> None:
        while True:
            text = str(await peer.receive())
            if text[0] == "+" and text[1:] not in self.ignored:
                await peer.send(verdict(text[1:], text[1:] not in self.refused))

    async def send(self, peer: Peer, count: int, key: str = "a") -> None:
        """Send messages of a key with the next numbers, and let all tasks have them."""
        await peer.send_many([message(key, n) for n in range(self.sent, self.sent + count)])
        self.sent += count
        await wait_all_tasks_blocked()


@asynccontextmanager
async def exchange(**fields: Any) -> AsyncIterator[tuple[Exchange, ScriptedServer, hs.Client]]:
    here = Exchange()
    async with ScriptedServer(here.script) as server:
        async with hs.connect(settings(server, router=ROUTER, **fields)) as client:
            yield here, server, client


async def take(stream: hs.MessageStream, count: int) -> list[int]:
    """Return the numbers of the next messages; they must be there already."""
    with anyio.fail_after(0):
        return [(await stream.__anext__())["n"] for _ in range(count)]


def waiting(stream: hs.MessageStream) -> int:
    return int(repr(stream).partition("waiting=")[2][:-1])


def wanted(client: hs.Client) -> list[Any]:
    return [each.key for each in client._core.subscriptions]


def assert_nothing_is_left(client: hs.Client) -> None:
    core = client._core
    assert wanted(client) == []
    assert core.session is None or list(core.session.told.acks) == []
    assert list(core.lanes) == [core.lanes.main]
    assert core.lanes.budget.used == 0
    assert core.watchers == []


# One block.


async def test_a_block_has_the_messages_of_its_key_across_reconnects() -> None:
    """Others have theirs; it is subscribed on each connection; leaving unsubscribes."""
    async with exchange() as (here, server, client):
        async with client.subscription(sub("a")) as stream:
            assert isinstance(stream, hs.MessageStream)
            await here.send(server.peers[0], 2)
            await here.send(server.peers[0], 1, "b")
            server.peers[0].cut()
            await wait_for(client, hs.Connected, 2)
            await here.send(server.peers[1], 2)
            assert await take(stream, 4) == [0, 1, 3, 4]
        await wait_all_tasks_blocked()
        assert [peer.received for peer in server.peers] == [["+a"], ["+a", "-a"]]
        assert await take(client.__aiter__(), 1) == [2]
        assert_nothing_is_left(client)


async def test_no_message_is_missed_on_entering() -> None:
    """The first ones may come in one read with the ack, or before it."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send_many([message("a", 0), verdict("a"), message("a", 1)])
        await idle(peer)

    async with ScriptedServer(script) as server, hs.connect(settings(server, router=ROUTER)) as client:
        async with client.subscription(sub("a")) as stream:
            assert await take(stream, 2) == [0, 1]


async def test_an_entry_may_be_a_mere_message() -> None:
    """It is its own key then, confirmed when sent, and there is nothing to unsubscribe with."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server, router=ROUTER)) as client:
        async with client.subscription("a") as stream:
            await wait_all_tasks_blocked()
            await server.peers[0].send(message("a", 7))
            await wait_all_tasks_blocked()
            assert await take(stream, 1) == [7]
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["a"]
        assert_nothing_is_left(client)


async def test_what_waits_when_a_block_is_left_is_dropped_and_counted() -> None:
    """As when a stream is closed; later messages go elsewhere."""
    async with exchange() as (here, server, client):
        async with client.subscription(sub("a")) as stream:
            await here.send(server.peers[0], 3)
            assert await take(stream, 1) == [0]
        await here.send(server.peers[0], 1)
        assert await take(client.__aiter__(), 1) == [3]
        assert [each async for each in stream] == []
        assert client.metrics().dropped == 2
    (event,) = of(hs.MessageDropped, happened(client))
    assert (event.key, event.count, event.why) == ("a", 2, "closed")


async def test_a_block_takes_the_options_of_a_route() -> None:
    """``stale_after`` counts from entering."""
    async with exchange() as (_, _, client), client.subscription(sub("a"), stale_after=3):
        await anyio.sleep(1)
        async with client.subscription(sub("b"), stale_after=5):
            stale = await wait_for(client, hs.RouteStale, 2)
            assert (stale.key, stale.at, stale.silent_for) == ("b", 6, 5)


async def test_bad_options_and_keys_with_a_handler_are_refused() -> None:
    """Options when they are given, the key on entering; and nothing is wanted."""
    async with exchange(handlers={"a": Recorder()}) as (_, server, client):
        with pytest.raises(hs.ConfigurationError, match="capacity"):
            client.subscription(sub("b"), capacity=0)
        with pytest.raises(TypeError):
            client.subscription(sub("b"), handler=print)
        with pytest.raises(hs.ConfigurationError, match=r"Subscription\.message"):
            client.subscription(17)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="'a' go to its handler"):
            async with client.subscription(sub("a")):
                pytest.fail("entered")
        await wait_all_tasks_blocked()
        assert (wanted(client), server.peers[0].received) == ([], [])


async def test_iteration_ends_with_the_client() -> None:
    """When what was received was read; leaving raises nothing then, entering does."""
    async with exchange() as (here, server, client):
        async with client.subscription(sub("a")) as stream:
            await here.send(server.peers[0], 2)
            await client.aclose()
            assert [each["n"] async for each in stream] == [0, 1]
        with pytest.raises(hs.ClientClosedError):
            async with client.subscription(sub("b")):
                pytest.fail("entered")
        assert_nothing_is_left(client)


async def test_a_client_that_fails_ends_iteration_with_its_error() -> None:
    """And what comes out of the client is the failure, not what the block made of it."""
    with pytest.raises(hs.ReconnectExhaustedError):
        async with exchange(reconnect_strategy=hs.NeverReconnect(), drain_timeout=None) as (_, server, client):
            with anyio.CancelScope(shield=True), pytest.raises(hs.ClientClosedError):
                async with client.subscription(sub("a")) as stream:
                    server.peers[0].cut()
                    await stream.__anext__()
    assert_nothing_is_left(client)


async def test_what_the_block_raises_comes_out_as_itself() -> None:
    """The subscription is withdrawn."""
    error = KeyError("mine")
    async with exchange() as (_, server, client):
        with pytest.raises(KeyError) as raised:
            async with client.subscription(sub("a")):
                raise error
        assert raised.value is error
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["+a", "-a"]
        assert_nothing_is_left(client)


async def test_a_handler_may_open_a_block() -> None:
    """The ack comes past its own lane, and the stream's messages too."""
    got: list[Any] = []

    async def handler(order: Any) -> None:
        async with hs.current_client().subscription(sub("a")) as stream:
            got.append((await stream.__anext__())["n"])
        got.append(order["n"])

    async with exchange(handlers={"orders": handler}) as (here, server, client):
        await here.send(server.peers[0], 1, "orders")
        await here.send(server.peers[0], 1)
        assert got == [1, 0]
        assert wanted(client) == []


# Several blocks.


@pytest.mark.parametrize("first_out", [0, 1, 2])
async def test_blocks_on_one_key_share_one_subscription_and_each_has_every_message(first_out: int) -> None:
    """Whoever leaves first; an open ``messages`` stream has them as well; the last one out unsubscribes."""
    async with exchange() as (here, server, client):
        plain = client.messages("a")
        async with AsyncExitStack() as rest:
            stacks = [await rest.enter_async_context(AsyncExitStack()) for _ in range(3)]
            streams = [await stack.enter_async_context(client.subscription(sub("a"))) for stack in stacks]
            for _ in range(2):
                await here.send(server.peers[0], 1)
            assert [await take(stream, 2) for stream in [plain, *streams]] == [[0, 1]] * 4
            await stacks[first_out].aclose()
            await here.send(server.peers[0], 2)
            remaining = [stream for index, stream in enumerate(streams) if index != first_out]
            assert [await take(stream, 2) for stream in [plain, *remaining]] == [[2, 3]] * 3
            assert [each async for each in streams[first_out]] == []
            assert client.messages("a")._lane is plain._lane
            plain.close()
            await here.send(server.peers[0], 1)
            assert [await take(stream, 1) for stream in remaining] == [[4], [4]]
            assert server.peers[0].received == ["+a"]
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["+a", "-a"]
        assert client.metrics().dropped == 0
        assert_nothing_is_left(client)


async def test_a_stream_that_is_opened_inside_a_block_has_the_messages_as_well() -> None:
    """And closing it takes nothing from the block."""
    async with exchange() as (here, server, client), client.subscription(sub("a")) as stream:
        await here.send(server.peers[0], 1)
        plain = client.messages("a")
        await here.send(server.peers[0], 1)
        assert (await take(stream, 2), await take(plain, 1)) == ([0, 1], [1])
        plain.close()
        await here.send(server.peers[0], 1)
        assert await take(stream, 1) == [2]


async def test_a_slow_block_has_its_own_overflow_policy() -> None:
    """Its oldest messages are dropped; the others get all of them, across a loss; then it goes on with the newest."""
    async with exchange() as (here, server, client):
        async with (
            client.subscription(sub("a"), capacity=3, overflow="drop_oldest") as slow,
            client.subscription(sub("a")) as keen,
            client.subscription(sub("a"), conflate=lambda each: each["n"] % 2) as conflated,
        ):
            await here.send(server.peers[0], 4)
            assert await take(keen, 4) == [0, 1, 2, 3]
            server.peers[0].cut()
            await wait_for(client, hs.Connected, 2)
            await here.send(server.peers[1], 4)
            assert await take(keen, 4) == [4, 5, 6, 7]
            assert await take(slow, 3) == [5, 6, 7]
            assert await take(conflated, 2) == [6, 7]
            whys = {event.why for event in of(hs.MessageDropped, happened(client))}
            assert whys == {"drop_oldest", "conflated"}
        assert client.metrics().dropped == 5 + 6
        assert_nothing_is_left(client)


async def test_a_full_block_that_blocks_holds_up_reading_until_it_is_left() -> None:
    """In order and once, for the other as well; what was held for the block that is left is counted."""
    async with exchange() as (here, server, client):
        async with client.subscription(sub("a")) as keen:
            async with client.subscription(sub("a"), capacity=2) as slow:
                await here.send(server.peers[0], 3)
                await here.send(server.peers[0], 3)
                assert waiting(keen) < 6, "what follows waits, whatever its lane"
                assert await take(slow, 2) == [0, 1]
                await wait_all_tasks_blocked()
                assert await take(slow, 1) == [2]
            await wait_all_tasks_blocked()
            assert await take(keen, 6) == [0, 1, 2, 3, 4, 5]
        assert client.metrics().dropped == 3
        assert_nothing_is_left(client)


async def test_a_thousand_blocks_on_one_key() -> None:
    """One for each user of a web server, say: each gets all, and no bytes stay behind."""
    async with exchange() as (here, server, client):
        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(client.subscription(sub("a"))) for _ in range(1000)]
            await here.send(server.peers[0], 2)
            assert client.metrics().queued == 2000
            for stream in streams:
                assert await take(stream, 2) == [0, 1]
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["+a", "-a"]
        assert_nothing_is_left(client)


async def test_messages_that_share_a_frame_count_until_the_last_block_has_read_them() -> None:
    """A frame's bytes are there once, whatever the number of blocks."""
    async with exchange() as (_, server, client):
        budget = client._core.lanes.budget
        async with client.subscription(sub("a")) as one, client.subscription(sub("a")) as two:
            text = json.dumps([{"channel": "a", "n": n, "pad": "x" * 1000} for n in range(3)])
            await server.peers[0].send(text)
            await wait_all_tasks_blocked()
            assert len(text) < budget.used < 2 * len(text)
            assert await take(one, 3) == [0, 1, 2]
            assert budget.used > len(text)
            assert await take(two, 3) == [0, 1, 2]
            assert budget.used == 0


# Wanted otherwise.


@pytest.mark.parametrize("how", ["configured", "before", "inside"])
async def test_what_is_wanted_otherwise_stays_wanted(how: str) -> None:
    """By the configuration, or by ``subscribe`` before or in the block: until it is unsubscribed."""
    fields = {"subscriptions": [sub("a")]} if how == "configured" else {}
    async with exchange(**fields) as (here, server, client):
        if how == "before":
            await client.subscribe(sub("a"))
        async with client.subscription(sub("a")) as stream:
            if how == "inside":
                await client.subscribe(sub("a"))
            await here.send(server.peers[0], 1)
            assert await take(stream, 1) == [0]
        await wait_all_tasks_blocked()
        assert (wanted(client), server.peers[0].received) == (["a"], ["+a"])
        await client.unsubscribe("a")
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["+a", "-a"]
        assert_nothing_is_left(client)


async def test_unsubscribe_ends_it_for_all() -> None:
    """Their iteration ends with what was received; leaving tells the server nothing more; nobody else is touched."""
    async with exchange() as (here, server, client):
        async with client.subscription(sub("a")) as one, client.subscription(sub("a"), capacity=2) as two:
            await here.send(server.peers[0], 2)
            await client.unsubscribe("a")
            await client.subscribe(sub("a"))
            await here.send(server.peers[0], 3)
            assert [each["n"] async for each in one] == [0, 1]
            assert waiting(two) == 2
            assert await take(client.__aiter__(), 3) == [2, 3, 4]
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["+a", "-a", "+a"]
        assert wanted(client) == ["a"]
        assert client.metrics().dropped == 2


async def test_unsubscribe_wakes_whoever_waits_for_the_next_message() -> None:
    """There will be none."""
    async with exchange() as (_, _, client):
        async with client.subscription(sub("a")) as stream, anyio.create_task_group() as tasks:
            tasks.start_soon(client.unsubscribe, "a")
            with anyio.fail_after(1):
                assert [each async for each in stream] == []


async def test_resubscribe_keeps_the_blocks() -> None:
    """Out and in again; a refusal then takes the block's wish from nobody."""
    async with exchange() as (here, server, client):
        async with client.subscription(sub("a")) as stream:
            await client.resubscribe("a")
            here.refused.add("a")
            with pytest.raises(hs.SubscriptionRefusedError):
                await client.resubscribe("a")
            here.ignored.add("a")
            with pytest.raises(hs.SubscriptionTimeoutError):
                await client.resubscribe("a")
            assert wanted(client) == ["a"]
            here.refused.clear()
            here.ignored.clear()
            server.peers[0].cut()
            await wait_for(client, hs.Connected, 2)
            await here.send(server.peers[1], 1)
            assert await take(stream, 1) == [0]
        await wait_all_tasks_blocked()
        received = [peer.received for peer in server.peers]
        assert received == [["+a", "-a", "+a", "-a", "+a", "+a"], ["+a", "-a"]]


# Entering that fails.


async def test_a_refusal_comes_out_of_entering() -> None:
    """Nothing is left, and the server is not told to forget what it does not know."""
    async with exchange() as (here, server, client):
        here.refused.add("a")
        with pytest.raises(hs.SubscriptionRefusedError):
            async with client.subscription(sub("a")):
                pytest.fail("entered")
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["+a"]
        assert_nothing_is_left(client)
        here.refused.clear()
        async with client.subscription(sub("a")):
            pass


async def test_a_timeout_comes_out_of_entering() -> None:
    """Nothing is left on either side: the server may have heard it and only be slow."""
    async with exchange(subscribe_timeout=4) as (here, server, client):
        here.ignored.add("a")
        with pytest.raises(hs.SubscriptionTimeoutError):
            async with client.subscription(sub("a")):
                pytest.fail("entered")
        assert anyio.current_time() == 4
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["+a", "-a"]
        assert_nothing_is_left(client)


@pytest.mark.parametrize("other", ["block", "configured"])
async def test_a_failed_entering_leaves_the_others_their_wish(other: str) -> None:
    """A refusal on a later session, asked again by another block: it is tried again on the session after that."""
    fields = {"subscriptions": [sub("a")]} if other == "configured" else {}
    async with exchange(subscribe_timeout=4, **fields) as (here, server, client), AsyncExitStack() as stack:
        if other == "block":
            stream = await stack.enter_async_context(client.subscription(sub("a")))
        here.refused.add("a")
        server.peers[0].cut()
        await wait_for(client, hs.Connected, 2)
        for failure in (hs.SubscriptionRefusedError, hs.SubscriptionTimeoutError):
            with pytest.raises(failure):
                async with client.subscription(sub("a")):
                    pytest.fail("entered")
            here.ignored.add("a")
        assert wanted(client) == ["a"]
        here.refused.clear()
        here.ignored.clear()
        server.peers[1].cut()
        await wait_for(client, hs.Connected, 3)
        assert [peer.received for peer in server.peers] == [["+a"], ["+a"] * 3, ["+a"]]
        if other == "block":
            await here.send(server.peers[2], 1)
            assert await take(stream, 1) == [0]


async def test_a_refused_block_says_nothing_on_leaving() -> None:
    """Refused on a later session: an event; the block goes on; the server has nothing to take back."""
    async with exchange() as (here, server, client):
        async with client.subscription(sub("a")):
            here.refused.add("a")
            server.peers[0].cut()
            await wait_for(client, hs.Connected, 2)
            assert len(of(hs.ErrorOccurred, happened(client))) == 1
        await wait_all_tasks_blocked()
        assert [peer.received for peer in server.peers] == [["+a"], ["+a"]]
        assert_nothing_is_left(client)


async def test_unsubscribed_while_entering() -> None:
    """It is raised, as for ``subscribe``."""
    async with exchange() as (here, _, client), anyio.create_task_group() as tasks:
        here.ignored.add("a")

        async def enter() -> None:
            with pytest.raises(hs.SubscriptionRefusedError, match="unsubscribed while it waited"):
                async with client.subscription(sub("a")):
                    pytest.fail("entered")
            assert_nothing_is_left(client)

        tasks.start_soon(enter)
        await wait_all_tasks_blocked()
        await client.unsubscribe("a")


# Losses and cancellation.


async def test_cancelled_while_entering() -> None:
    """The server is told that it is not wanted after all."""
    async with exchange() as (here, server, client):
        here.ignored.add("a")
        with anyio.move_on_after(1) as scope:
            async with client.subscription(sub("a")):
                pytest.fail("entered")
        assert scope.cancelled_caught
        assert_nothing_is_left(client)
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["+a", "-a"]


async def test_cancelled_inside() -> None:
    """While it waits for a message; and one that is in a block on the same key is not touched."""
    async with exchange() as (here, server, client):
        async with client.subscription(sub("a")) as other:
            with anyio.move_on_after(1) as scope:
                async with client.subscription(sub("a")) as stream, client.subscription(sub("b")):
                    async for _ in stream:
                        pytest.fail("nothing was sent")
            assert scope.cancelled_caught
            await here.send(server.peers[0], 1)
            assert await take(other, 1) == [0]
            assert server.peers[0].received == ["+a", "+b", "-b"]
        assert_nothing_is_left(client)


async def test_a_loss_while_entering() -> None:
    """It is confirmed by the next session."""
    async with exchange() as (here, server, client), anyio.create_task_group() as tasks:
        here.ignored.add("a")

        async def lose() -> None:
            await wait_all_tasks_blocked()
            here.ignored.clear()
            server.peers[0].cut()

        tasks.start_soon(lose)
        async with client.subscription(sub("a")) as stream:
            assert anyio.current_time() == 1
            await here.send(server.peers[1], 1)
            assert await take(stream, 1) == [0]
        await wait_all_tasks_blocked()
        assert [peer.received for peer in server.peers] == [["+a"], ["+a", "-a"]]


async def test_entering_and_leaving_while_offline_just_edit_what_is_wanted() -> None:
    """Neither waits; the next session is asked for what is wanted then."""
    async with exchange() as (here, server, client), AsyncExitStack() as stack:
        async with client.subscription(sub("a")) as stream:
            server.peers[0].cut()
            await wait_for(client, hs.Disconnected)
            kept = await stack.enter_async_context(client.subscription(sub("b")))
            async with client.subscription(sub("c")):
                assert wanted(client) == ["a", "b", "c"]
            stream.close()
            assert wanted(client) == ["a", "b"]
        assert wanted(client) == ["b"]
        assert anyio.current_time() == 0
        await wait_for(client, hs.Connected, 2)
        assert [peer.received for peer in server.peers] == [["+a"], ["+b"]]
        await here.send(server.peers[1], 1, "b")
        assert await take(kept, 1) == [0]


async def test_leaving_while_the_next_session_is_made() -> None:
    """Asked for and not confirmed yet: the server is told, and the session becomes ready without it."""
    async with exchange() as (here, server, client):
        async with client.subscription(sub("a")):
            here.ignored.add("a")
            server.peers[0].cut()
            await wait_for(client, hs.Connecting, 2)
            await wait_all_tasks_blocked()
            assert client.connection_state is hs.ConnectionState.SUBSCRIBING
        await client.wait_connected()
        await wait_all_tasks_blocked()
        assert anyio.current_time() == 1
        assert [peer.received for peer in server.peers] == [["+a"], ["+a", "-a"]]


# Rotation.


async def test_a_rotation_keeps_blocks_and_their_messages_in_order() -> None:
    """The next connection is subscribed before it takes over; each block has all, once, in order."""
    async with exchange() as (here, server, client):
        async with client.subscription(sub("a")) as one, client.subscription(sub("a")) as two:
            await here.send(server.peers[0], 2)
            await client.rotate()
            await here.send(server.peers[1], 2)
            assert [await take(stream, 4) for stream in (one, two)] == [[0, 1, 2, 3]] * 2
        await wait_all_tasks_blocked()
        assert [peer.received for peer in server.peers] == [["+a"], ["+a", "-a"]]
        assert_nothing_is_left(client)


async def test_a_block_that_comes_and_goes_while_a_rotation_is_under_way() -> None:
    """Both connections are told."""
    async with exchange(subscriptions=[sub("slow")]) as (here, server, client), anyio.create_task_group() as tasks:
        here.ignored.add("slow")
        tasks.start_soon(client.rotate)
        await wait_all_tasks_blocked()
        async with client.subscription(sub("a")):
            await wait_all_tasks_blocked()
        await server.peers[1].send(verdict("slow"))
        await wait_all_tasks_blocked()
        assert client.epoch == 2
        assert [peer.received for peer in server.peers] == [["+slow", "+a", "-a"]] * 2
        assert wanted(client) == ["slow"]

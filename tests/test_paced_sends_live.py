"""Paced sends against a server that counts strictly: what it sees keeps to the limit, whoever sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import Auth, happened, idle, of, settings, wait_for
from tests._pacing import Counting, used

pytestmark = pytest.mark.anyio

LATENCY = 0.03


async def flood(client: hs.Client, name: str, count: int, tasks: int = 3) -> None:
    """Send numbered messages from several tasks."""

    async def some(task: int) -> None:
        for number in range(task, count, tasks):
            await client.send(f"{name} {number}")

    async with anyio.create_task_group() as group:
        for task in range(tasks):
            group.start_soon(some, task)


def acked(text: str) -> hs.Subscription:
    """Subscribe with a text; the ack is that text and ``ok``."""
    return hs.Subscription(text, ack=lambda got: got == f"{text} ok" or None)


async def test_a_strict_server_never_counts_too_many() -> None:
    """Users' sends from several tasks; 98 % of the permitted rate and more is used."""
    counting = Counting(hs.SendLimit(5, 1))
    async with ScriptedServer(counting.script) as server:
        async with hs.connect(settings(server, latency=LATENCY, send_limit=counting.limit)) as client:
            await flood(client, "m", 501)
            await anyio.sleep(LATENCY)
    counting.assert_kept()
    assert sorted(counting.texts) == sorted(f"m {number}" for number in range(501))
    assert used(counting.times, counting.limit) >= 0.98


async def test_three_clients_share_one_limit() -> None:
    """Together they keep to it and use it up, and each gets its part."""
    counting = Counting(hs.SendLimit(7, 2))
    async with ScriptedServer(counting.script) as server, anyio.create_task_group() as group:
        config = settings(server, latency=LATENCY, send_limit=counting.limit)
        async with hs.connect(config) as one, hs.connect(config) as two, hs.connect(config) as three:
            for name, client in zip("abc", (one, two, three), strict=True):
                group.start_soon(flood, client, name, 1000)
            await anyio.sleep(200)
            group.cancel_scope.cancel()
    counting.assert_kept()
    assert used(counting.times, counting.limit) >= 0.98
    for name in "abc":
        assert sum(text[0] == name for text in counting.texts) > len(counting.got) / 4


async def test_a_heartbeat_goes_out_on_time_while_users_saturate() -> None:
    """Within 1 %. Room is kept for it, and for nothing else: the rate is used up all the same."""
    counting = Counting(hs.SendLimit(5, 1))
    async with ScriptedServer(counting.script) as server, anyio.create_task_group() as group:
        config = settings(server, latency=LATENCY, send_limit=counting.limit, heartbeat=hs.Heartbeat(3, "beat"))
        async with hs.connect(config) as client:
            ready_at = anyio.current_time()
            group.start_soon(flood, client, "m", 10_000)
            await anyio.sleep(300.5)
            group.cancel_scope.cancel()
    counting.assert_kept()
    due = [pytest.approx(ready_at + 3 * number + LATENCY, abs=0.03) for number in range(1, 101)]
    assert counting.when("beat") == due
    assert used(counting.times, counting.limit) >= 0.98


async def test_a_passive_ping_is_answered_at_once_while_users_saturate() -> None:
    """A slot is kept for that, whenever it comes."""
    counting = Counting(hs.SendLimit(5, 1))
    asked: list[float] = []

    async def script(peer: Peer) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(counting.script, peer)
            for _ in range(20):
                await anyio.sleep(1.37)
                asked.append(anyio.current_time())
                await peer.send("ping")

    async with ScriptedServer(script) as server, anyio.create_task_group() as group:
        ping = hs.TextPassivePing("ping", reply="pong")
        config = settings(server, latency=LATENCY, send_limit=counting.limit, passive_ping=ping)
        async with hs.connect(config) as client:
            group.start_soon(flood, client, "m", 10_000)
            await anyio.sleep(29)
            group.cancel_scope.cancel()
    counting.assert_kept()
    assert counting.when("pong") == [pytest.approx(at + 2 * LATENCY) for at in asked]
    assert used(counting.times, counting.limit) > 0.78  # the fifth slot is kept


async def test_the_window_outlives_the_connection() -> None:
    """After a loss auth, then subscriptions, then users' sends, paced, and counted with what came before the loss."""
    counting = Counting(hs.SendLimit(3, 10))

    async def cut(peer: Peer) -> None:
        for _ in range(7):
            text = str(await peer.receive())
            counting.got.append((anyio.current_time(), text))
        peer.cut()

    async with ScriptedServer([cut, counting.script]) as server, anyio.create_task_group() as group:
        subscriptions = [f"sub {number}" for number in range(5)]
        config = settings(server, latency=LATENCY, send_limit=counting.limit, auth=Token(), subscriptions=subscriptions)
        async with hs.connect(config) as client:
            group.start_soon(flood, client, "m", 4, 4)
            await wait_for(client, hs.Connected, 2)
            await anyio.sleep(100)
    counting.assert_kept()
    restored = ["token", *subscriptions]
    assert counting.texts[:6] == restored
    assert counting.texts[7:13] == restored
    assert {text[0] for text in counting.texts[13:]} == {"m"}
    assert counting.times[12] == pytest.approx(40.13, abs=0.1), "in the fifth window: auth's slot is free after it"


class Token:
    async def get_auth_message(self) -> str:
        return "token"


async def test_a_thousand_subscriptions_take_their_time() -> None:
    """The timeout is for the acks: it begins with the last that was sent, and not before."""
    counting = Counting(hs.SendLimit(5, 1), answer=lambda text: f"{text} ok")
    entries = [acked(str(number)) for number in range(1000)]
    async with ScriptedServer(counting.script) as server:
        config = settings(server, latency=LATENCY, send_limit=counting.limit, subscriptions=entries)
        async with hs.connect(config) as client:
            assert client.epoch == 1
            assert anyio.current_time() == pytest.approx(199 * 1.001, abs=0.2)
    counting.assert_kept()
    assert counting.texts == [str(number) for number in range(1000)]


async def test_an_ack_is_awaited_from_the_last_subscription_on() -> None:
    """``subscribe_timeout`` after it was sent the attempt fails, however long the sending took."""
    counting = Counting(hs.SendLimit(1, 7))
    entries = [hs.Subscription(f"{n}", ack=lambda text: None) for n in range(4)]
    async with ScriptedServer(counting.script) as server:
        config = settings(server, send_limit=counting.limit, subscriptions=entries, subscribe_timeout=2)
        async with hs.connect(config, wait_ready=False) as client:
            failed = await wait_for(client, hs.ErrorOccurred)
            assert type(failed.error) is hs.SubscriptionTimeoutError
            assert failed.at == pytest.approx(3 * 7.007 + 2)


async def test_a_server_that_reads_nothing_is_noticed_while_it_is_subscribed() -> None:
    """Only the wait for a turn stops the clock, not the wait for the socket."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.stall()

    async with ScriptedServer(script) as server:
        config = settings(
            server,
            transport=server.connector(capacity=1000),
            send_limit=hs.SendLimit(5, 1),
            subscriptions=["x" * 100_000, "y"],
            subscribe_timeout=3,
        )
        async with hs.connect(config, wait_ready=False) as client:
            failed = await wait_for(client, hs.ErrorOccurred)
            assert type(failed.error) is hs.SubscriptionTimeoutError
            assert failed.at == 3 + 1, "a second is for the close frame, behind what is stuck"


async def test_what_is_urgent_overtakes_subscriptions() -> None:
    """A passive ping during a long restoration is answered at once."""
    counting = Counting(hs.SendLimit(2, 1), answer=lambda text: "ping" if text in ("10", "60") else None)
    async with ScriptedServer(counting.script) as server:
        ping = hs.TextPassivePing("ping", reply="pong")
        entries = [str(number) for number in range(100)]
        config = settings(server, send_limit=counting.limit, passive_ping=ping, subscriptions=entries)
        async with hs.connect(config):
            await wait_all_tasks_blocked()
    counting.assert_kept()
    assert [text for text in counting.texts if text != "pong"] == entries
    assert counting.when("pong") == counting.when("10", "60")


async def test_room_for_heartbeats_is_kept_while_subscribing() -> None:
    """In a long window subscriptions would take all the slots, and the first heartbeats had none."""
    counting = Counting(hs.SendLimit(10, 60))
    async with ScriptedServer(counting.script) as server:
        entries = [str(number) for number in range(12)]
        config = settings(server, send_limit=counting.limit, heartbeat=hs.Heartbeat(25, "beat"), subscriptions=entries)
        async with hs.connect(config):
            ready_at = anyio.current_time()
            assert ready_at == pytest.approx(60.06)
            await anyio.sleep(51)
    counting.assert_kept()
    assert counting.when("beat") == [ready_at + 25, ready_at + 50]


async def test_the_wait_for_a_turn_is_not_auth_time() -> None:
    """A window that was full at the loss outlasts ``auth_timeout``: the first attempt succeeds all the same."""
    counting = Counting(hs.SendLimit(2, 30), answer=lambda text: "ok" if text.startswith("auth") else None)
    async with ScriptedServer(counting.script) as server:
        config = settings(server, send_limit=counting.limit, auth=Auth(), auth_timeout=4)
        async with hs.connect(config) as client:
            await client.send("m")
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
            assert anyio.current_time() == pytest.approx(30.03)
            assert not of(hs.ErrorOccurred, happened(client))
    counting.assert_kept()


async def test_auth_that_gets_no_answer_times_out() -> None:
    """The clock that stood still while auth waited for its turn goes on where it was."""
    counting = Counting(hs.SendLimit(1, 30), answer=lambda text: "ok" if text == "auth 1" else None)
    async with ScriptedServer(counting.script) as server:
        config = settings(server, send_limit=counting.limit, auth=Auth(), auth_timeout=4)
        async with hs.connect(config) as client:
            await client.reconnect()
            failed = await wait_for(client, hs.ErrorOccurred)
            assert type(failed.error) is hs.AuthenticationTimeoutError
            assert failed.at == pytest.approx(34.03)


async def test_subscribing_at_run_time_waits_for_its_turn() -> None:
    """Before users' sends, and without a timeout for what is not sent yet; an ack that does not come is one."""
    counting = Counting(hs.SendLimit(1, 4), answer=lambda text: None if text == "mute" else f"{text} ok")
    async with ScriptedServer(counting.script) as server:
        config = settings(server, send_limit=counting.limit, subscribe_timeout=3)
        async with hs.connect(config) as client, anyio.create_task_group() as group:
            await client.send("first")
            group.start_soon(flood, client, "m", 2, 2)
            await wait_all_tasks_blocked()
            for number in range(3):
                group.start_soon(client.subscribe, acked(f"sub {number}"))
            await wait_all_tasks_blocked()
            with pytest.raises(hs.SubscriptionTimeoutError):
                await client.subscribe(hs.Subscription("mute", ack=lambda got: None))
            assert anyio.current_time() == pytest.approx(4 * 4.004 + 3)
            assert sorted(counting.texts[:4]) == ["first", "sub 0", "sub 1", "sub 2"]
            assert counting.texts[4:] == ["mute"]
    counting.assert_kept()
    assert sorted(counting.texts[5:]) == ["m 0", "m 1"]


async def test_what_cannot_be_sent_yet_is_not_asked_for_yet() -> None:
    """A subscription's callable is asked shortly before its turn: where to resume would be out of date."""
    counting = Counting(hs.SendLimit(2, 1))
    asked: list[float] = []

    def message(number: int) -> Any:
        def make(_: hs.ResumePoint) -> str:
            asked.append(anyio.current_time())
            return f"sub {number}"

        return make

    entries = [hs.Subscription(message(number), key=number) for number in range(20)]
    async with ScriptedServer(counting.script) as server:
        async with hs.connect(settings(server, send_limit=counting.limit, subscriptions=entries)) as client:
            await wait_all_tasks_blocked()
            assert all(sent - at < 2.1 for sent, at in zip(counting.times, asked, strict=True))
            counting.got.clear()
            asked.clear()
            for number in range(20, 30):
                client._core.subscriptions.want(
                    hs.Subscription(message(number), key=number, unsubscribe=f"un {number}")
                )
            await client.subscribe(hs.Subscription(message(30), key=30))
            await wait_all_tasks_blocked()
            assert all(sent - at < 2.1 for sent, at in zip(counting.times, asked, strict=True))
            async with anyio.create_task_group() as group:
                for number in range(20, 30):
                    group.start_soon(client.unsubscribe, number)
            await client.subscribe("after them")
    counting.assert_kept()
    assert sorted(counting.texts[11:-1]) == [f"un {number}" for number in range(20, 30)]
    assert counting.texts[-1] == "after them"


async def test_a_cancelled_send_is_not_sent_and_takes_no_slot() -> None:
    """While it waits for its turn nothing of it is anywhere."""
    counting = Counting(hs.SendLimit(1, 10))
    async with ScriptedServer(counting.script) as server:
        async with hs.connect(settings(server, send_limit=counting.limit)) as client:
            await client.send("one")
            with anyio.move_on_after(5) as scope:
                await client.send("never")
            assert scope.cancelled_caught
            with anyio.move_on_after(3) as scope:
                await client.send("nor this", wait=False)
            assert scope.cancelled_caught
            await anyio.sleep(20)
            since = anyio.current_time()
            await client.send("two")
            assert anyio.current_time() == since
            await client.send("three")
            assert anyio.current_time() == pytest.approx(since + 10.01)
    assert counting.texts == ["one", "two", "three"]


async def test_a_loss_while_sends_wait_for_their_turn() -> None:
    """They go out on the next session, in order; those that belong to this one fail at once."""
    counting = Counting(hs.SendLimit(1, 10))
    failed: list[float] = []

    async def bound(client: hs.Client) -> None:
        with pytest.raises(hs.NotConnectedError):
            await client.send("bound", wait=False)
        failed.append(anyio.current_time())

    async with ScriptedServer(counting.script) as server:
        async with hs.connect(settings(server, send_limit=counting.limit)) as client:
            async with anyio.create_task_group() as group:
                await client.send("one")
                group.start_soon(client.send, "two")
                await wait_all_tasks_blocked()
                group.start_soon(bound, client)
                group.start_soon(client.send, "three")
                await anyio.sleep(5)
                server.peers[0].cut()
            assert failed == [5]
    assert counting.got == [(0, "one"), (pytest.approx(10.01), "two"), (pytest.approx(20.02), "three")]


async def test_a_write_under_way_keeps_its_slot() -> None:
    """Nobody knows yet when its message goes out: who shares the limit waits, and goes on when it is over."""
    limit = hs.SendLimit(1, 1)
    counting = Counting(limit)

    async def slow(peer: Peer) -> None:
        await peer.accept()
        await peer.receive()
        await anyio.sleep(1)
        peer.cut()

    async with ScriptedServer(counting.script) as server, ScriptedServer(slow) as other:
        async with hs.connect(settings(server, send_limit=limit)) as client:
            config = settings(other, send_limit=limit, reconnect_strategy=hs.FixedDelay(100))
            stuck_link = other.connector(capacity=100)
            async with (
                hs.connect(config, transport=stuck_link, drain_timeout=0) as stuck,
                anyio.create_task_group() as group,
            ):
                assert isinstance(stuck.connection_state, hs.ConnectionState)
                other.peers[0]._talk.stop_reading()
                group.start_soon(stuck.send, "x" * 1000)
                await wait_all_tasks_blocked()
                group.start_soon(client.send, "behind")
                await anyio.sleep(20)
                assert counting.got == []
                other.peers[0].reset()
                await wait_for(stuck, hs.Disconnected)
                lost_at = anyio.current_time()
                await anyio.sleep(5)
                group.cancel_scope.cancel()
    [(at, _)] = counting.got
    assert lost_at + 1 < at < lost_at + 2.1


class OneByOne:
    """A transport without ``send_many``."""

    def __init__(self, transport: hs.Transport) -> None:
        self.receive, self.send = transport.receive, transport.send
        self.ping, self.close = transport.ping, transport.close


@attrs.frozen
class OneByOneConnector:
    connector: hs.Connector

    @asynccontextmanager
    async def open(self, request: hs.OpenRequest) -> AsyncIterator[hs.Transport]:
        async with self.connector.open(request) as transport:
            yield OneByOne(transport)


async def test_a_transport_that_sends_one_at_a_time() -> None:
    """Is paced like others."""
    counting = Counting(hs.SendLimit(4, 1))
    async with ScriptedServer(counting.script) as server:
        transport = OneByOneConnector(server.connector(latency=LATENCY))
        async with hs.connect(settings(server, transport=transport, send_limit=counting.limit)) as client:
            await flood(client, "m", 41, 10)
            await anyio.sleep(LATENCY)
    counting.assert_kept()
    assert len(counting.got) == 41
    assert used(counting.times, counting.limit) > 0.98


async def test_leaving_does_not_wait_for_a_turn() -> None:
    """The end is as bounded as without a limit; who waits for a turn is told."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, send_limit=hs.SendLimit(1, 1000))) as client:
            await client.send("one")

            async def late() -> None:
                with pytest.raises(hs.ClientClosedError):
                    await client.send("never")

            async with anyio.create_task_group() as group:
                group.start_soon(late)
                await wait_all_tasks_blocked()
                await client.aclose()
        assert anyio.current_time() == 0


@pytest.mark.parametrize("interval", [0.1, 0.2])
def test_heartbeats_that_would_take_everything(interval: float) -> None:
    """Are refused: they would come late, and nothing else could be sent."""
    with pytest.raises(
        hs.ConfigurationError, match=r"every 0\.. s one of the 5 messages that send_limit allows in 1 s"
    ):
        hs.ClientConfig(url="ws://x", heartbeat=hs.Heartbeat(interval, "beat"), send_limit=hs.SendLimit(5, 1))
    hs.ClientConfig(url="ws://x", heartbeat=hs.Heartbeat(lambda: interval, "beat"), send_limit=hs.SendLimit(5, 1))

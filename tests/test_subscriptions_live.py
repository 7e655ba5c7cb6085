"""Subscriptions against a server: acks, refusals, timeouts, changes at run time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import assert_legal, happened, idle, names, of, settings, wait_for

pytestmark = pytest.mark.anyio


def sub(key: str, **fields: Any) -> hs.Subscription:
    """Subscribe with ``+key``; ``key ok`` and ``key no`` are its acks; unsubscribe with ``-key``."""
    verdicts = {f"{key} ok": True, f"{key} no": False}
    return hs.Subscription(f"+{key}", **{"key": key, "unsubscribe": f"-{key}", "ack": verdicts.get, **fields})


def answers(**replies: str) -> Any:
    """Return a script that answers ``+key`` with ``key ok``, or as told (``""``: not at all)."""

    async def script(peer: Peer) -> None:
        while True:
            text = str(await peer.receive())
            if text == "cut":
                peer.cut()
            elif text[0] == "+":
                reply = replies.get(text[1:], "ok")
                if reply:
                    await peer.send(f"{text[1:]} {reply}")

    return script


async def test_all_are_sent_without_waiting_for_each_other() -> None:
    """In order; only then the acks are awaited."""

    async def script(peer: Peer) -> None:
        assert [await peer.receive() for _ in range(3)] == ["+a", "+b", "+c"]
        await peer.send_many(["b ok", "c ok", "a ok"])
        await idle(peer)

    async with ScriptedServer(script) as server, hs.connect(settings(server, subscriptions=map(sub, "abc"))):
        assert anyio.current_time() == 0


async def test_acks_are_not_routed_and_only_asked_for_while_awaited() -> None:
    """What comes before, between and after an ack is routed; a second one like it is an ordinary message."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send_many(["x", "a ok", "y", "a ok", "z"])
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, subscriptions=[sub("a")])) as client:
            stream = client.__aiter__()
            assert [await stream.__anext__() for _ in range(4)] == ["x", "y", "a ok", "z"]


async def test_an_entry_without_ack_is_confirmed_when_sent() -> None:
    """A mere message is an entry, and its own key."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server, subscriptions=["one", b"two"])) as client:
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["one", b"two"]
        await client.unsubscribe(b"two")
        await client.reconnect()
        await client.wait_connected()
        await wait_all_tasks_blocked()
        assert server.peers[1].received == ["one"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_callable_is_asked_on_each_send_where_to_resume(is_async: bool) -> None:
    """With a ``ResumePoint``: epoch and downtime."""
    points: list[hs.ResumePoint] = []

    def message(point: hs.ResumePoint) -> str:
        points.append(point)
        return f"since {point.epoch}"

    async def async_message(point: hs.ResumePoint) -> str:
        return message(point)

    async def script(peer: Peer) -> None:
        await peer.receive()
        await anyio.sleep(1)
        peer.cut()

    async with ScriptedServer([script, script, idle]) as server:
        entry = hs.Subscription(async_message if is_async else message, key="k")
        config = settings(server, subscriptions=[entry], reconnect_strategy=hs.ExponentialBackoff(3, 60))
        async with hs.connect(config) as client:
            await wait_for(client, hs.Connected, 3)
            await wait_all_tasks_blocked()
            assert [peer.received for peer in server.peers] == [["since 0"], ["since 1"], ["since 2"]]
    assert [(point.epoch, point.downtime) for point in points] == [(0, 0), (1, 3), (2, 6)]


@pytest.mark.parametrize(
    "bad",
    [
        ValueError("no"),
        17,
        hs.HandshakeRejectedError("the token service's", status=404),
        hs.AuthenticationRejectedError("by the token service"),
        hs.ClientClosedError("the token service's client"),
        hs.SubscriptionRefusedError("another client's", key="k"),
    ],
)
async def test_a_callable_that_fails_fails_the_attempt(bad: Any) -> None:
    """As the cause of a ``ConnectError``; retried."""
    calls = 0

    def message(_: hs.ResumePoint) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            if isinstance(bad, Exception):
                raise bad
            return bad
        return "good"

    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, subscriptions=[hs.Subscription(message, key="k")])) as client:
            assert anyio.current_time() == 1
            error = of(hs.ErrorOccurred, happened(client))[0].error
            assert type(error) is hs.ConnectError
            assert error.__cause__ is (bad if isinstance(bad, Exception) else error.__cause__)
            assert error.__cause__ is not None


async def test_missing_acks_are_a_reconnect() -> None:
    """``SubscriptionTimeoutError`` naming the keys after ``subscribe_timeout``; the next connection starts anew."""

    async def script(peer: Peer) -> None:
        for _ in range(3):
            await peer.receive()
        await peer.send_many(["a ok"] if peer.number == 0 else ["a ok", "b ok", "c ok"])
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, subscriptions=map(sub, "abc"), subscribe_timeout=4)
        async with hs.connect(config) as client:
            assert anyio.current_time() == 5
            error = of(hs.ErrorOccurred, happened(client))[0].error
            assert isinstance(error, hs.SubscriptionTimeoutError)
            assert error.keys == ("b", "c")


# At run time.


async def test_subscribe_returns_when_confirmed() -> None:
    """By its ack; without one when it is sent."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "+a"
        await anyio.sleep(3)
        await peer.send("a ok")
        await idle(peer)

    async with ScriptedServer(script) as server, hs.connect(settings(server)) as client:
        await client.subscribe(sub("a"))
        assert anyio.current_time() == 3
        await client.subscribe("plain")
        assert anyio.current_time() == 3
        await wait_all_tasks_blocked()
        assert server.peers[0].received == ["+a", "plain"]


async def test_a_refusal_at_run_time_is_raised() -> None:
    """The entry is no longer wanted, the session goes on."""
    async with ScriptedServer(answers(a="no")) as server, hs.connect(settings(server)) as client:
        with pytest.raises(hs.SubscriptionRefusedError) as caught:
            await client.subscribe(sub("a"))
        assert caught.value.key == "a"
        assert client.epoch == 1
        assert client.is_connected
        await client.send("cut")
        await wait_for(client, hs.Connected, 2)
        await wait_all_tasks_blocked()
        assert server.peers[1].received == []


async def test_a_timeout_at_run_time_is_raised() -> None:
    """After ``subscribe_timeout``; as a refusal; a late ack is an ordinary message."""
    async with ScriptedServer(answers(a="")) as server:
        async with hs.connect(settings(server, subscribe_timeout=2)) as client:
            with pytest.raises(hs.SubscriptionTimeoutError) as caught:
                await client.subscribe(sub("a"))
            assert caught.value.keys == ("a",)
            assert anyio.current_time() == 2
            assert client.is_connected
            await server.peers[0].send("a ok")
            assert await client.__aiter__().__anext__() == "a ok"
            await client.send("cut")
            await wait_for(client, hs.Connected, 2)
            await wait_all_tasks_blocked()
            assert server.peers[1].received == []


async def test_who_else_waits_for_what_timed_out_is_told() -> None:
    """It is no longer wanted, so no ack would count any more."""

    async def subscribe(client: hs.Client) -> None:
        with pytest.raises(hs.SubscriptionTimeoutError):
            await client.subscribe(sub("a"))
        assert anyio.current_time() == 2

    async with ScriptedServer(answers(a="")) as server:
        async with hs.connect(settings(server, subscribe_timeout=2)) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(subscribe, client)
            await anyio.sleep(1)
            await subscribe(client)


async def test_a_loss_while_subscribe_waits() -> None:
    """It returns when the next session has confirmed the entry; the outage does not count as its timeout."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "+a"
        if peer.number == 0:
            peer.cut()
        await peer.send("a ok")
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, subscribe_timeout=2, reconnect_strategy=hs.FixedDelay(30))
        async with hs.connect(config) as client:
            await client.subscribe(sub("a"))
            assert anyio.current_time() == 30
            assert server.connection_count == 2


async def test_subscribe_while_not_ready_returns_at_once() -> None:
    """And a refusal then is one before (fatal) or after (an event) the first ready session."""
    async with ScriptedServer([idle, answers(a="no")]) as server:
        async with hs.connect(settings(server)) as client:
            await client.reconnect()
            await client.subscribe(sub("a"))
            assert not client.is_connected
            await client.wait_connected()
            error = of(hs.ErrorOccurred, happened(client))[0].error
            assert isinstance(error, hs.SubscriptionRefusedError)
            assert server.peers[1].received == ["+a"]


async def test_a_refused_entry_stays_wanted_and_can_be_asked_for_again() -> None:
    """Configured, refused on a later session: tried on each that follows; ``subscribe`` tries at once."""

    async def script(peer: Peer) -> None:
        count = 0
        while True:
            if await peer.receive() == "+a":
                await peer.send("a no" if peer.number in (1, 2) and not count else "a ok")
                count += 1
            else:
                peer.cut()

    async with ScriptedServer(script) as server, hs.connect(settings(server, subscriptions=[sub("a")])) as client:
        for n in (2, 3):
            await client.send("cut")
            await wait_for(client, hs.Connected, n)
        await client.subscribe(sub("a"))
        await wait_all_tasks_blocked()
        assert [peer.received for peer in server.peers] == [["+a", "cut"], ["+a", "cut"], ["+a", "+a"]]


async def test_the_same_key_twice_is_one_subscription() -> None:
    """The second call waits for the first one's ack, and sends nothing."""
    async with ScriptedServer(answers(a="")) as server, hs.connect(settings(server)) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.subscribe, sub("a"))
            tasks.start_soon(client.subscribe, sub("a"))
            await anyio.sleep(1)
            assert server.peers[0].received == ["+a"]
            await server.peers[0].send("a ok")
        assert anyio.current_time() == 1
        await client.subscribe(sub("a"))
        assert server.peers[0].received == ["+a"]


async def test_unsubscribe_says_so_and_forgets() -> None:
    """A wait for its ack ends; an entry without an ``unsubscribe`` message is just no longer wanted."""
    async with ScriptedServer(answers(b="")) as server:
        async with hs.connect(settings(server, subscriptions=[sub("a"), "plain"])) as client:
            await client.unsubscribe("a")
            await client.unsubscribe("plain")
            await client.unsubscribe("a")
            async with anyio.create_task_group() as tasks:

                async def subscribe() -> None:
                    with pytest.raises(hs.SubscriptionRefusedError):
                        await client.subscribe(sub("b"))

                tasks.start_soon(subscribe)
                await anyio.sleep(1)
                await client.unsubscribe("b")
            assert anyio.current_time() == 1
            await wait_all_tasks_blocked()
            assert server.peers[0].received == ["+a", "plain", "-a", "+b", "-b"]


async def test_unsubscribe_while_subscribing_lets_the_session_become_ready() -> None:
    """The one ack that never comes is no longer wanted: nothing is left to wait for."""
    async with ScriptedServer(answers(b="")) as server:
        async with hs.connect(settings(server, subscriptions=[sub("a"), sub("b")]), wait_ready=False) as client:
            await anyio.sleep(3)
            assert not client.is_connected
            await client.unsubscribe("b")
            await client.wait_connected()
            assert anyio.current_time() == 3


async def test_resubscribe_is_out_and_in_again() -> None:
    """For a book to rebuild: unsubscribe, subscribe, confirmed."""
    async with ScriptedServer(answers()) as server:
        async with hs.connect(settings(server, subscriptions=[sub("a")])) as client:
            await client.resubscribe("a")
            assert server.peers[0].received == ["+a", "-a", "+a"]
            with pytest.raises(hs.SubscriptionError):
                await client.resubscribe("unknown")
            await client.send("cut")
            await wait_for(client, hs.Connected, 2)
            await client.resubscribe("a")
            assert server.peers[1].received == ["+a", "-a", "+a"]


async def test_a_cancelled_subscribe_stays_wanted() -> None:
    """From the call on: the next session is told."""
    async with ScriptedServer([answers(a=""), answers()]) as server, hs.connect(settings(server)) as client:
        with anyio.move_on_after(1):
            await client.subscribe(sub("a"))
        await client.send("cut")
        await wait_for(client, hs.Connected, 2)
        assert server.peers[1].received == ["+a"]


async def test_acks_see_parsed_messages() -> None:
    """Also in the middle of a packed array, whose other elements are routed."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send('[{"channel": "x", "n": 1}, {"ack": "a"}, {"channel": "x", "n": 2}]')
        await idle(peer)

    got: list[Any] = []
    entry = hs.Subscription("+a", ack=lambda message: True if message.get("ack") == "a" else None)
    async with ScriptedServer(script) as server:
        config = settings(server, subscriptions=[entry], router=hs.JsonRouter(), handlers={"x": got.append})
        async with hs.connect(config):
            await wait_all_tasks_blocked()
    assert [message["n"] for message in got] == [1, 2]


async def test_an_ack_function_that_raises_costs_one_message() -> None:
    """Counted as a parse error; the session still becomes ready by the next one."""

    def ack(message: Any) -> bool | None:
        if message == "bad":
            raise KeyError("bad")
        return True if message == "a ok" else None

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send_many(["bad", "a ok"])
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, subscriptions=[sub("a", ack=ack)])) as client:
            assert client.metrics().parse_errors == 1
            assert_legal(happened(client))
            assert "Connected" in names(happened(client))


async def test_a_callable_that_fails_at_run_time_does_not_cost_the_session() -> None:
    """It is this entry that cannot be asked for: raised to the caller, an event; the next session asks again."""

    def message(resume: hs.ResumePoint) -> str:
        if resume.epoch == 1 and resume.downtime == 0:
            raise hs.AuthenticationError("token service")
        return "sub k"

    async with ScriptedServer(idle) as server, hs.connect(settings(server)) as client:
        with pytest.raises(hs.ConnectError) as failed:
            await client.subscribe(hs.Subscription(message, key="k"))
        assert isinstance(failed.value.__cause__, hs.AuthenticationError)
        assert client.is_connected
        assert client.epoch == 1
        await client.reconnect()
        await wait_for(client, hs.Connected, 2)
        await wait_all_tasks_blocked()
        assert server.peers[1].received == ["sub k"]


@pytest.mark.parametrize("again", [False, True])
async def test_unsubscribed_while_another_ones_message_is_asked_for(again: bool) -> None:
    """B is dropped while A's callable takes its time: B is not sent; wanted again meanwhile, it is sent once."""

    async def slow(_: hs.ResumePoint) -> str:
        await anyio.sleep(2)
        return "A"

    async with ScriptedServer(idle) as server:
        config = settings(server, subscriptions=[hs.Subscription(slow, key="A"), "B", "C"])
        async with hs.connect(config, wait_ready=False) as client:
            await anyio.sleep(1)
            await client.unsubscribe("B")
            if again:
                await client.subscribe("B")
            await client.wait_connected()
            await anyio.sleep(10)
            assert anyio.current_time() == 12
            assert sorted(map(str, server.peers[0].received)) == ["A", *(["B"] if again else []), "C"]


async def test_unsubscribed_and_wanted_again_while_it_is_asked_for_itself() -> None:
    """The entry of before is forgotten: what its callable gives in the end is not sent, the new one is, once."""
    asked = 0

    async def slow(_: hs.ResumePoint) -> str:
        nonlocal asked
        asked += 1
        await anyio.sleep(2)
        return f"message {asked}"

    entry = hs.Subscription(slow, key="k")
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, subscriptions=[entry]), wait_ready=False) as client:
            await anyio.sleep(1)
            await client.unsubscribe("k")
            await client.subscribe(entry)
            await client.wait_connected()
            await anyio.sleep(10)
            assert server.peers[0].received == ["message 2"]

"""Rotations that something comes in between of: a refusal, a loss, the end of the client."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, Auth, Recorder, assert_legal, happened, idle, message, names, of, settings, wait_for

pytestmark = pytest.mark.anyio


async def test_a_rejected_login_leaves_the_old_connection_alone() -> None:
    """``rotate`` raises what it was, one ``ErrorOccurred`` says so, and the old connection delivers and sends on."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send("no" if peer.number else "ok")
        if peer.number == 0:
            await peer.receive()
            await peer.send(message("a", 1))
        await idle(peer)

    handler = Recorder()
    async with ScriptedServer(script) as server:
        config = settings(server, auth=Auth(), router=ROUTER, handlers={"a": handler})
        async with hs.connect(config) as client:
            with pytest.raises(hs.AuthenticationRejectedError):
                await client.rotate()
            assert (client.epoch, client.is_connected) == (1, True)
            await client.send("go on")
            await handler.wait_handled(1)
            assert names(happened(client)) == ["Connecting", "Connected", "ErrorOccurred"]
            assert server.open_count == 1


@pytest.mark.parametrize("answer", ["ok", "no"])
async def test_a_server_that_closes_the_first_connection_when_the_second_logs_in(answer: str) -> None:
    """The second is the next attempt then; if it comes to nothing, the loss is mended in the usual way."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        if peer.number == 1:
            await server.peers[0].send(message("a", 0))
            await server.peers[0].close(4000, "one at a time")
            await anyio.sleep(0.5)
        await peer.send(answer if peer.number == 1 else "ok")
        await peer.send(message("a", peer.number))
        await idle(peer)

    handler = Recorder()
    async with ScriptedServer(script) as server:
        config = settings(server, auth=Auth(), router=ROUTER, handlers={"a": handler})
        async with hs.connect(config) as client:
            await handler.wait_handled(1)
            if answer == "ok":
                await client.rotate()
                assert client.epoch == 2
            else:
                with pytest.raises(hs.AuthenticationRejectedError):
                    await client.rotate()
                assert not client.is_connected
            await handler.wait_handled(3 if answer == "ok" else 4)
            assert handler.numbers == ([0, 0, 1] if answer == "ok" else [0, 0, 1, 2])
            assert client.metrics().reconnect_count == 1
            assert_legal(happened(client))
            assert len(of(hs.Disconnected, happened(client))) == 1


async def test_the_loss_of_the_old_connection_while_the_url_is_asked_for() -> None:
    """The new attempt is told of once, when it is known where it goes to."""
    asked = 0

    async def url() -> str:
        nonlocal asked
        asked += 1
        if asked == 2:
            await anyio.sleep(1)
        return f"ws://here.test/{asked}"

    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, url=url)) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.rotate)
            await anyio.sleep(0.5)
            server.peers[0].cut()
            await wait_for(client, hs.Connected, 2)
            assert names(happened(client)) == ["Connecting", "Connected", "Disconnected", "Connecting", "Connected"]
            assert [event.url for event in of(hs.Connecting, happened(client))] == [
                "ws://here.test/1",
                "ws://here.test/2",
            ]
            assert_legal(happened(client))


async def test_a_stable_session_counts_though_the_next_one_had_begun_when_it_was_lost() -> None:
    """The counter of attempts starts anew: the delay after the loss of the new one is the first again."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        if peer.number == 1:
            await server.wait_open(1)
        await peer.send("ok")
        if peer.number == 1:
            await anyio.sleep(1)
            peer.cut()
        await idle(peer)

    async with ScriptedServer(script) as server:
        server.refuse(3)
        strategy = hs.ExponentialBackoff(1, 60)
        config = settings(server, auth=Auth(), auth_timeout=100, reconnect_strategy=strategy)
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            await anyio.sleep(100)
            tasks.start_soon(client.rotate)
            await anyio.sleep(1)
            server.peers[0].cut()
            await wait_for(client, hs.Reconnecting, 4)
            assert [event.delay for event in of(hs.Reconnecting, happened(client))] == [1, 2, 4, 1]


async def test_closing_ends_a_rotation_that_a_handler_waits_for() -> None:
    """The end waits for the handler: so the handler does not wait for the end."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.send(message("a", 1))
        await peer.receive()
        if peer.number == 0:
            await peer.send("ok")
        await idle(peer)

    raised: list[BaseException] = []

    async def handler(_: Any) -> None:
        try:
            await hs.current_client().rotate()
        except hs.ClientClosedError as error:
            raised.append(error)
            raise

    async with ScriptedServer(script) as server:
        config = settings(
            server, auth=Auth(), auth_timeout=1000, router=ROUTER, handlers={"a": handler}, drain_timeout=None
        )
        async with hs.connect(config) as client:
            await anyio.sleep(1)
            assert len(server.peers) == 2
            await client.aclose()
            assert anyio.current_time() < 10
    assert len(raised) == 1


async def test_age_begins_no_rotation_while_the_client_closes() -> None:
    """However long its handlers take to finish."""

    async def script(peer: Peer) -> None:
        await peer.send(message("a", 1))
        await idle(peer)

    handler = Recorder(100)
    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, handlers={"a": handler}, max_connection_age=10, drain_timeout=None)
        async with hs.connect(config):
            await handler.wait_began(1)
        assert handler.numbers == [1]
        assert len(server.peers) == 1


async def test_age_is_not_forgotten_while_another_rotation_fails() -> None:
    """A rotation that was asked for and fails is tried again, if the connection has become old meanwhile."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        if peer.number != 1:
            await peer.send("ok")
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, auth=Auth(), auth_timeout=20, max_connection_age=10)
        async with hs.connect(config) as client:
            await anyio.sleep(5)
            with pytest.raises(hs.AuthenticationTimeoutError):
                await client.rotate()
            await anyio.sleep(2)
            assert client.epoch == 2


async def test_a_rotation_by_age_that_fails_is_tried_again_at_the_pace_of_the_strategy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the last tenth of the age, then after its growing delays; the old connection works all the while."""
    monkeypatch.setattr(logging.getLogger("hypersockets"), "disabled", True)
    async with ScriptedServer(idle) as server:
        strategy = hs.ExponentialBackoff(2, 60)
        config = settings(server, reconnect_strategy=strategy, max_connection_age=100)
        async with hs.connect(config) as client:
            server.refuse(4)
            rotated = await wait_for(client, hs.Rotated)
            errors = [event.at for event in of(hs.ErrorOccurred, happened(client))]
            assert 90 <= errors[0] <= 100
            assert [round(at - errors[0], 6) for at in [*errors, rotated.at]] == [0, 2, 6, 14, 30]
            assert client.is_connected
            assert client.metrics().reconnect_count == 0


async def test_a_rotation_by_age_leaves_a_server_alone_for_as_long_as_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Retry-After`` is a floor under its next try too."""
    monkeypatch.setattr(logging.getLogger("hypersockets"), "disabled", True)

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.reject(503, {"Retry-After": "30"})
        else:
            await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, reconnect_strategy=hs.ExponentialBackoff(2, 60), max_connection_age=100)
        async with hs.connect(config) as client:
            rotated = await wait_for(client, hs.Rotated)
            (error,) = of(hs.ErrorOccurred, happened(client))
            assert rotated.at - error.at == pytest.approx(30)


async def test_break_before_make() -> None:
    """The next attempt comes at once, ``Rotated`` alone tells of it; what came before the close reply is handled."""

    async def script(peer: Peer) -> None:
        n = 0
        while peer.close_code is None:
            await peer.send(message("a", 1000 * peer.number + n))
            n += 1
            await anyio.sleep(0.05)
        said[peer.number] = n

    said: dict[int, int] = {}
    handler = Recorder()
    async with ScriptedServer(script) as server:
        config = settings(
            server,
            latency=0.1,
            rotation="break-before-make",
            router=ROUTER,
            handlers={"a": handler},
            reconnection_delay_offset=50,
        )
        async with hs.connect(config) as client:
            await anyio.sleep(10)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.rotate)
                await wait_all_tasks_blocked()
                assert not client.is_connected
            assert client.epoch == 2
            await anyio.sleep(2)
            assert names(happened(client)) == ["Connecting", "Connected", "Rotated"]
            assert client.metrics().reconnect_count == 0
            assert client.metrics().last_error is None
            assert anyio.current_time() < 14
            assert handler.numbers[: said[0]] == list(range(said[0]))
            assert handler.numbers[said[0]] == 1000
            server.refuse(1)
            with pytest.raises(hs.ConnectError):
                await client.rotate()
            await wait_for(client, hs.Connected, 2)
            since = names(happened(client))[3:]
            assert since == ["Disconnected", "Connecting", "ErrorOccurred", "Reconnecting", "Connecting", "Connected"]
            assert_legal(happened(client))
            assert client.metrics().reconnect_count == 1


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_the_end_of_the_client_while_a_rotation_has_broken_and_not_made(is_cancelled: bool) -> None:
    """The loss is told of after all, before ``Closed``."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await idle(peer)
        await peer.stall()

    async with ScriptedServer(script) as server:
        config = settings(server, latency=0.1, rotation="break-before-make", close_timeout=1)
        with anyio.move_on_after(2 if is_cancelled else None) as scope:
            async with hs.connect(config) as client, anyio.create_task_group() as tasks:
                with pytest.raises(hs.ClientClosedError):
                    tasks.start_soon(_close_later, client)
                    await client.rotate()
        assert scope.cancelled_caught == is_cancelled
    kinds = names(happened(client))
    assert kinds == ["Connecting", "Connected", "Disconnected", "Connecting", "Closed"]
    assert_legal(happened(client))


async def _close_later(client: hs.Client) -> None:
    await anyio.sleep(4)
    assert not client.is_connected
    await client.aclose()


async def test_a_refusal_of_what_the_old_connection_has_confirmed_fails_the_rotation() -> None:
    """The old one, which has it, goes on; an entry that nobody has confirmed does not stop a rotation."""

    async def script(peer: Peer) -> None:
        while True:
            got = str(await peer.receive())
            is_ok = peer.number == 0 or got == "sub b"
            await peer.send(message("ack", 0, of=got, ok=is_ok))

    def ack(name: str) -> Any:
        return lambda parsed: parsed["ok"] if parsed.get("of") == name else None

    async with ScriptedServer(script) as server:
        config = settings(
            server, router=ROUTER, handlers={}, subscriptions=[hs.Subscription("sub a", ack=ack("sub a"))]
        )
        async with hs.connect(config) as client:
            with pytest.raises(hs.SubscriptionRefusedError):
                await client.rotate()
            assert client.epoch == 1
            assert client.is_connected
            await wait_all_tasks_blocked()
            assert server.open_count == 1


async def test_a_refusal_by_the_next_connection_after_the_loss_of_the_old_one() -> None:
    """There is none left that has the entry: as on any later session an event tells of it, and the session goes on."""

    async def script(peer: Peer) -> None:
        got = str(await peer.receive())
        await peer.send(message("ack", 0, of=got, ok=peer.number == 0))
        await idle(peer)

    entry = hs.Subscription("sub", ack=lambda parsed: parsed.get("ok"))
    async with ScriptedServer(script) as server:
        config = settings(server, latency=0.3, router=ROUTER, handlers={}, subscriptions=[entry])
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.rotate)
            await anyio.sleep(1.1)  # the next one has been sent the subscription, and its answer is on the way
            await client.reconnect()
        assert len(server.peers) == 2
        assert client.epoch == 2
        assert_legal(happened(client))


async def test_a_loss_of_the_new_one_while_the_old_one_still_speaks() -> None:
    """What the old one says until its end comes first, then what the new one had said, then what comes after."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.accept()
            peer._talk.stop_reading()
            for n in range(4):
                await peer.send(message("a", n))
                await anyio.sleep(1)
            await anyio.sleep_forever()
        await peer.send(message("a", 10 * peer.number))
        if peer.number == 1:
            await anyio.sleep(0.1)
            peer.cut()
        await idle(peer)

    handler = Recorder()
    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": handler})) as client:
            await client.rotate()
            await handler.wait_handled(6)
            assert handler.numbers == [0, 1, 2, 3, 10, 20]
            assert client.metrics().dropped == 0
            assert_legal(happened(client))


async def test_the_new_one_is_ready_while_what_the_lost_one_gave_is_still_parsed() -> None:
    """It becomes the client's session at once, as after a loss; what the lost one gave is handled first all the same."""

    class SlowRouter:
        async def parse(self, frame: Any) -> Any:
            if "old" in frame:
                await anyio.sleep(3)
            return frame

        def route_key(self, parsed: Any) -> str:
            return "all"

    async def script(peer: Peer) -> None:
        await peer.accept()
        if peer.number == 0:
            await anyio.sleep(1)
            await peer.send("old")
            await anyio.sleep(0.01)
            peer.cut()
        await peer.send("new")
        await idle(peer)

    handler = Recorder()
    async with ScriptedServer(script) as server:
        config = settings(server, latency=0.1, router=SlowRouter(), handlers={"all": handler})
        async with hs.connect(config) as client:
            await anyio.sleep(0.9)
            await client.rotate()
            assert client.is_connected
            assert handler.handled == []
            await handler.wait_handled(2)
            kinds = [type(event) for event in happened(client)]
    assert handler.handled == ["old", "new"]
    assert kinds == [hs.Connecting, hs.Connected, hs.Disconnected, hs.Connecting, hs.Connected]


async def test_an_heir_that_confirms_and_then_fails_has_confirmed_nothing() -> None:
    """Who subscribes waits for the connection that goes on, whose server never confirmed it."""

    def ack(name: str) -> Any:
        return lambda parsed: True if parsed.get("of") == name else None

    async def script(peer: Peer) -> None:
        while True:
            got = str(await peer.receive())
            if (got == "sub a") == (peer.number == 0):
                await peer.send(message("ack", 0, of=got))

    a, b = (hs.Subscription(f"sub {name}", ack=ack(f"sub {name}")) for name in "ab")
    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, handlers={}, subscriptions=[a], subscribe_timeout=3)
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(_rotates_in_vain, client)
            with pytest.raises(hs.SubscriptionTimeoutError):
                await client.subscribe(b)
            assert client.epoch == 1


async def _rotates_in_vain(client: hs.Client) -> None:
    with pytest.raises(hs.SubscriptionTimeoutError):
        await client.rotate()


async def test_both_connections_are_lost_at_once() -> None:
    """What the next one alone had received is handled too, behind all of the old one's."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        if peer.number == 1:
            await peer.receive()
            await peer.send_many([message("a", n) for n in (10, 11)])
            await anyio.sleep(0.1)
            await server.peers[0].send(message("a", 0))
            server.peers[0].cut()
            peer.cut()
        await idle(peer)

    handler = Recorder()
    never = hs.Subscription("sub", ack=lambda parsed: True if parsed["channel"] == "ack" else None)
    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": handler})) as client:
            wanted = client._core.subscriptions.want(never)
            with pytest.raises(hs.ConnectionLostError):
                await client.rotate()
            client._core.subscriptions.drop(wanted)
            await client.wait_connected()
            assert handler.numbers == [0, 10, 11]
            assert client.metrics().dropped == 0

"""Pings, heartbeats, passive pings and idle timeout against a server. Mute servers: guarantee 7."""

from __future__ import annotations

import json
import math
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets._heartbeat import Beats
from hypersockets._liveness import Liveness
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, Auth, Recorder, happened, idle, lonely_liveness, message, of, sends, settings, wait_for

pytestmark = pytest.mark.anyio


async def mute(peer: Peer) -> None:
    await peer.accept()
    await peer.mute()


def stamps(times: list[tuple[Any, float]]) -> Any:
    """Return a script that notes what it receives, and when."""

    async def script(peer: Peer) -> None:
        while True:
            times.append((await peer.receive(), anyio.current_time()))

    return script


async def test_pings_measure_the_round_trip() -> None:
    """Protocol pings are on by default, every 20 s; the last round trip is in the metrics."""
    async with ScriptedServer(idle) as server:
        config = hs.ClientConfig(url=server.url, transport=server.connector(latency=0.25))
        async with hs.connect(config) as client:
            assert client.metrics().latency is None
            await anyio.sleep(99)
            assert len(server.peers[0].pings) == 4
            assert client.metrics().latency == 0.5
            assert client.epoch == 1


async def test_pings_of_many_clients_go_out_together() -> None:
    """However they came to be connected: a process with thousands wakes up a few times, not for each of them."""
    async with ScriptedServer(idle) as server, AsyncExitStack() as clients:
        for _ in range(5):
            config = hs.ClientConfig(url=server.url, transport=server.connector())
            await clients.enter_async_context(hs.connect(config))
            await anyio.sleep(0.03)
        for at, pings in (19.999, 0), (20.001, 1), (39.999, 1), (40.001, 2):
            await anyio.sleep(at - anyio.current_time())
            assert [len(peer.pings) for peer in server.peers] == 5 * [pings]


async def test_no_pings_where_none_are_wanted() -> None:
    """``ping_interval=None``."""
    async with ScriptedServer(mute) as server, hs.connect(settings(server)) as client:
        await anyio.sleep(10_000)
        assert client.is_connected
        assert server.peers[0].pings == []


async def test_ping_timeout_none_only_measures() -> None:
    """Pings without a deadline never cost a session."""
    async with ScriptedServer(mute) as server:
        async with hs.connect(settings(server, ping_interval=5, ping_timeout=None, close_timeout=0)) as client:
            await anyio.sleep(10_000)
            assert client.is_connected
            assert len(server.peers[0].pings) == 16, "nobody wants to hear of more that are not answered"


async def test_the_first_beat_is_one_interval_after_ready() -> None:
    """Ready, not connected: auth takes three seconds here; then a steady beat, on every session anew."""
    times: list[tuple[Any, float]] = []

    async def script(peer: Peer) -> None:
        await peer.receive()
        await anyio.sleep(3)
        await peer.send("ok")
        await stamps(times)(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, auth=Auth(), heartbeat=hs.Heartbeat(10, "beat"))) as client:
            await anyio.sleep(32)
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
            await anyio.sleep(11)
    assert times == [("beat", 13), ("beat", 23), ("beat", 33), ("beat", 49)]


async def test_a_heartbeat_without_pong_expects_no_answer() -> None:
    """A mute server keeps its session."""
    async with ScriptedServer(mute) as server:
        async with hs.connect(settings(server, heartbeat=hs.Heartbeat(1, "beat"), close_timeout=0)) as client:
            await anyio.sleep(1000)
            assert client.epoch == 1
            assert len(server.peers[0].received) in (999, 1000)


@pytest.mark.parametrize("pong", ["pong", lambda frame: frame == "pong"])
async def test_pongs_are_not_routed(pong: Any) -> None:
    """A constant or a predicate recognises them; everything else is routed."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.receive()
            await peer.send_many(["pong", "data"])

    handler = Recorder()
    async with ScriptedServer(script) as server:
        beat = hs.Heartbeat(10, "ping", pong=pong)
        async with hs.connect(settings(server, heartbeat=beat, default_handler=handler)) as client:
            await anyio.sleep(35)
            assert client.epoch == 1
    assert handler.handled == ["data"] * 3


@pytest.mark.parametrize("is_async", [True, False])
async def test_the_message_may_be_made_for_each_beat(is_async: bool) -> None:
    """By a plain or async callable."""
    count = 0
    times: list[tuple[Any, float]] = []

    def make() -> str:
        nonlocal count
        count += 1
        return f"beat {count}"

    async def make_async() -> str:
        return make()

    async with ScriptedServer(stamps(times)) as server:
        async with hs.connect(settings(server, heartbeat=hs.Heartbeat(5, make_async if is_async else make))):
            await anyio.sleep(16)
    assert times == [("beat 1", 5), ("beat 2", 10), ("beat 3", 15)]


async def test_a_slow_beat_is_skipped_not_caught_up() -> None:
    """A callable that takes 25 s of a 10 s interval: no burst afterwards, and the clock is not held up."""
    times: list[tuple[Any, float]] = []
    slow = iter([25, 0, 0, 0, 0])

    async def make() -> str:
        await anyio.sleep(next(slow))
        return "beat"

    async with ScriptedServer(stamps(times)) as server:
        async with hs.connect(settings(server, heartbeat=hs.Heartbeat(10, make))):
            await anyio.sleep(61)
    assert times[0][1] == 35
    assert len([at for _, at in times if 35 <= at < 40]) <= 2
    assert [at for _, at in times if at >= 40] == [40, 50, 60]


async def test_a_beat_that_cannot_be_made_costs_the_session() -> None:
    """The callable's exception is the cause; it reconnects."""
    oops = LookupError()

    def make() -> str:
        raise oops

    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, heartbeat=hs.Heartbeat(10, make))) as client:
            lost = await wait_for(client, hs.Disconnected)
            assert lost.at == 10
            assert lost.error.__cause__ is oops


@pytest.mark.parametrize("kind", ["plain", "async", "timedelta"])
async def test_the_pace_may_be_dictated_by_the_server(kind: str) -> None:
    """``interval``, ``timeout`` and ``idle_timeout`` as callables: asked once per session, after auth."""
    pace: dict[str, float] = {}
    asked: list[str] = []

    async def login(channel: hs.AuthChannel) -> None:
        pace.update(json.loads(await channel.receive()))

    def ask(name: str) -> Any:
        def plain() -> Any:
            asked.append(name)
            return timedelta(seconds=pace[name]) if kind == "timedelta" else pace[name]

        async def coroutine() -> Any:
            return plain()

        return coroutine if kind == "async" else plain

    async def script(peer: Peer) -> None:
        await peer.send_json({"interval": 7 + peer.number, "timeout": 3, "idle": 100})
        await peer.mute()

    async with ScriptedServer(script) as server:
        beat = hs.Heartbeat(ask("interval"), "beat", pong="pong", timeout=ask("timeout"))
        async with hs.connect(settings(server, auth=login, heartbeat=beat, idle_timeout=ask("idle"))) as client:
            await wait_for(client, hs.Disconnected, 2)
            assert [event.at for event in of(hs.Disconnected, happened(client))] == [10, 11 + 8 + 3]
    assert sorted(asked) == sorted(["interval", "timeout", "idle"] * 2)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), "soon", None])
async def test_a_pace_that_is_no_duration_is_fatal(bad: Any) -> None:
    """Bad configuration found later, with the field's name."""
    async with ScriptedServer(idle) as server:
        with pytest.raises(hs.ConfigurationError, match="idle_timeout"):
            async with hs.connect(settings(server, idle_timeout=lambda: bad)):
                pytest.fail("never")


async def test_passive_pings_are_answered_before_parsing() -> None:
    """They are not routed; text, JSON by path, and a reply made of the parsed ping."""
    handler = Recorder()

    def never(frame: Any) -> Any:
        assert "ping" not in frame
        return json.loads(frame)

    async def script(peer: Peer) -> None:
        await peer.send('{"op": {"type": "ping"}, "ts": 17}')
        assert await peer.receive() == "pong 17"
        await peer.send(message("a", 1))
        await idle(peer)

    async with ScriptedServer(script) as server:
        ping = hs.JsonPassivePing("op.type", "ping", reply=lambda ping: f"pong {ping['ts']}")
        router = hs.JsonRouter(loads=never)
        async with hs.connect(settings(server, router=router, passive_ping=ping, handlers={"a": handler})) as client:
            await handler.wait_handled(1)
            await wait_all_tasks_blocked()
            assert client.metrics().messages_sent == 1
            assert client.metrics().messages_received == 2
            assert client.metrics().parse_errors == 0


async def test_passive_pings_are_answered_while_handlers_are_stuck() -> None:
    """The reader waits for no handler."""

    async def script(peer: Peer) -> None:
        await peer.send("stuck")
        for _ in range(20):
            await anyio.sleep(1)
            await peer.send("ping")
            assert await peer.receive() == "pong"
            assert anyio.current_time() == int(anyio.current_time())
        await peer.close(1012)

    async with ScriptedServer([script, idle]) as server:
        config = settings(
            server,
            default_handler=lambda _: anyio.sleep_forever(),
            passive_ping=hs.TextPassivePing("ping", reply="pong"),
            drain_timeout=0,
        )
        async with hs.connect(config) as client:
            await wait_for(client, hs.Disconnected)
            assert anyio.current_time() == 20


@pytest.mark.parametrize("sign", ["data", "ping", "pong", None])
async def test_idle_timeout_counts_frames_of_any_kind(sign: str | None) -> None:
    """Control frames too; silence for so long is a loss: 1011, ``IdleTimeoutError``, at that second."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        for _ in range(5):
            await anyio.sleep(9)
            if sign == "data":
                await peer.send("data")
            elif sign == "ping":
                await peer.ping()
            elif sign == "pong":
                await peer.send_raw(b"\x8a\x00")
        await peer.mute()

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, idle_timeout=10)) as client:
            lost = await wait_for(client, hs.Disconnected)
            assert lost.at == (10 if sign is None else 55)
            assert isinstance(lost.error, hs.IdleTimeoutError)
            await server.wait_connections(2)
            assert anyio.current_time() == lost.at + 1, "cut without waiting"
            assert server.peers[0].close_code == 1011


async def test_liveness_losses_do_not_wait_even_for_a_stalled_socket() -> None:
    """The close frame cannot be written: a second is the most that is given to it."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.stall()

    async with ScriptedServer([script, idle]) as server, anyio.create_task_group() as tasks:
        beat = hs.Heartbeat(10, "beat", pong="pong", timeout=5)
        async with hs.connect(settings(server, heartbeat=beat)) as client:
            tasks.start_soon(client.send, "x" * 100_000)
            await wait_for(client, hs.Connected, 2)
            assert anyio.current_time() <= 10 + 5 + 1 + 1
            await wait_all_tasks_blocked()
            assert server.peers[1].received == ["x" * 100_000], "cut off half-way, so sent on the next session"


async def test_a_black_hole_is_noticed_by_the_defaults() -> None:
    """Nothing arrives, nothing fails: with no settings at all it takes 40 s."""
    async with ScriptedServer(idle) as server:
        config = hs.ClientConfig(url=server.url, transport=server.connector(), reconnect_strategy=hs.FixedDelay(1))
        async with hs.connect(config) as client:
            await anyio.sleep(1)
            link = server.peers[0].link
            assert link is not None
            link.blackhole()
            lost = await wait_for(client, hs.Disconnected)
            assert isinstance(lost.error, hs.HeartbeatTimeoutError)
            assert lost.at == 40
            await wait_for(client, hs.Connected, 2)


@pytest.mark.parametrize(("timeout", "wakes"), [(10, 10), (5, 10 + 9)], ids=["of the interval", "shorter"])
@pytest.mark.parametrize("kind", ["pings", "heartbeats"])
async def test_how_often_an_idle_client_wakes(
    kind: str, timeout: float, wakes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of them sleep from beat to beat, and wake for the answers only where these are due before the next."""
    looks: list[float] = []
    look = Liveness._check

    def counted(liveness: Liveness, now: float) -> float | None:
        looks.append(now)
        return look(liveness, now)

    async def script(peer: Peer) -> None:
        while True:
            await peer.receive()
            await peer.send("pong")

    monkeypatch.setattr(Liveness, "_check", counted)
    more: dict[str, Any] = {"ping_interval": 10, "ping_timeout": timeout}
    if kind == "heartbeats":
        more = {"heartbeat": hs.Heartbeat(10, "ping", pong="pong", timeout=timeout)}
    async with ScriptedServer(script) as server, hs.connect(settings(server, **more)) as client:
        await anyio.sleep(101)
        assert client.epoch == 1
        assert len(looks) == 1 + wakes, "one at the beginning"


async def test_an_answer_counts_while_the_clock_does_not_run() -> None:
    """A session that was lost, or is being closed, may still be read for a moment."""
    liveness = lonely_liveness()
    liveness.heartbeat = beats = Beats.starting(0, interval=1, timeout=1)
    assert beats.due(1)
    assert beats.deadline == 2
    liveness.beat_answered()
    assert beats.deadline == 2, "it is yet to be sent"
    liveness.heartbeat = beats = Beats.starting(anyio.current_time() - 1, interval=1, timeout=1)
    assert beats.due(anyio.current_time())
    liveness.beat_sent()
    liveness.beat_answered()
    assert beats.deadline == math.inf


@pytest.mark.parametrize("is_made", [False, True], ids=["constant", "made"])
async def test_an_answer_is_to_the_beats_that_were_sent(is_made: bool) -> None:
    """Guarantee 7: one that still waits for the socket is not answered by a pong that comes meanwhile."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.receive() == "beat"
        with anyio.move_on_after(11):
            await peer.stall()  # the second one waits behind what fills the link
        await peer.send("pong")
        await peer.mute()

    beat = hs.Heartbeat(10, (lambda: "beat") if is_made else "beat", pong="pong", timeout=15)
    async with ScriptedServer([script, idle]) as server:
        connector = server.connector(capacity=1000)
        async with hs.connect(settings(server, heartbeat=beat, transport=connector, close_timeout=0)) as client:
            await anyio.sleep_until(12)
            with anyio.move_on_after(1) as scope:
                await client.send("x" * 3000)
            assert scope.cancelled_caught
            lost = await wait_for(client, hs.Disconnected)
            assert isinstance(lost.error, hs.HeartbeatTimeoutError)
            assert lost.at == 20 + 15


async def test_a_slow_subscription_callable_holds_up_no_deadline() -> None:
    """What becomes wanted while the session is ready may take the user's code for ever to word."""

    async def asked(point: hs.ResumePoint) -> str:
        await anyio.sleep_forever()
        raise AssertionError("never woken")

    async with ScriptedServer(mute) as server:
        config = settings(server, ping_interval=5, ping_timeout=4, close_timeout=0)
        async with hs.connect(config) as client, anyio.create_task_group() as group:
            started = anyio.current_time()
            group.start_soon(client.subscribe, hs.Subscription(asked, key="slow"))
            group.start_soon(client.subscribe, "behind it")
            lost = await wait_for(client, hs.Disconnected)
            assert isinstance(lost.error, hs.HeartbeatTimeoutError)
            assert lost.at == started + 9
            group.cancel_scope.cancel()


async def test_inbound_load_does_not_delay_beats() -> None:
    """A hundred messages a second, each handled: the beat is on the second."""
    times: list[tuple[Any, float]] = []

    async def script(peer: Peer) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stamps(times), peer)
            while True:
                await peer.send(message("a", 1))
                await anyio.sleep(0.01)

    async with ScriptedServer(script) as server:
        beat = hs.Heartbeat(1, "beat")
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": lambda _: None}, heartbeat=beat)):
            await anyio.sleep(10.5)
    assert times == [("beat", n) for n in range(1, 11)]


async def test_the_end_of_a_pause_lets_deadlines_run_on() -> None:
    """Our own lane is full from 0 to 60: that silence is ours; the peer's counts from there."""
    handler = Recorder(30)

    async with ScriptedServer(sends(*(message("a", n, pad="x" * 600_000) for n in range(3)))) as server:
        route = hs.Route(handler, capacity=1)
        config = settings(
            server, router=ROUTER, handlers={"a": route}, idle_timeout=10, drain_timeout=0, close_timeout=0
        )
        async with hs.connect(config) as client:
            lost = await wait_for(client, hs.Disconnected)
            assert lost.at == 70
            assert isinstance(lost.error, hs.IdleTimeoutError)

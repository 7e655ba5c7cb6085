"""Guarantee 11: giving up raises one plain exception and emits ``Closed``."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import Auth, Recorder, assert_legal, happened, idle, of, settings

pytestmark = pytest.mark.anyio


async def lost(peer: Peer) -> None:
    await peer.accept()
    await anyio.sleep(1)
    peer.cut()


async def rejected_later(peer: Peer) -> None:
    await peer.receive()
    await peer.send("ok" if peer.number == 0 else "no")
    await anyio.sleep(1)
    peer.cut()


async def forbidden(peer: Peer) -> None:
    await peer.reject(403)


CASES: dict[str, tuple[Any, dict[str, Any], type[Exception]]] = {
    "strategy gives up": (lost, {"reconnect_strategy": hs.NeverReconnect()}, hs.ReconnectExhaustedError),
    "attempts used up": (lost, {"reconnect_strategy": hs.FixedDelay(1, 2)}, hs.ReconnectExhaustedError),
    "auth rejected": (rejected_later, {"auth": Auth()}, hs.AuthenticationRejectedError),
    "forbidden": ([lost, forbidden], {}, hs.HandshakeRejectedError),
    "fatal close code": (
        lambda peer: peer.close(4001, "banned"),
        {"fatal_close_codes": [4001]},
        hs.ConnectionLostError,
    ),
}


async def test_g11_on_entering() -> None:
    """A first connection that cannot be had: the plain exception from entering; the last error is its cause."""
    async with ScriptedServer(idle) as server:
        server.refuse(None)
        with pytest.raises(hs.ReconnectExhaustedError) as caught:
            async with hs.connect(settings(server, reconnect_strategy=hs.FixedDelay(1, 3))):
                pytest.fail("never ready")
    assert caught.value.attempts == 3
    assert isinstance(caught.value.__cause__, hs.ConnectError)
    assert anyio.current_time() == 3


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("body", ["sleeps", "sends", "iterates", "waits", "in a group"])
async def test_g11_the_body_is_cancelled_and_the_error_comes_out_alone(case: str, body: str) -> None:
    """Whatever the body waits for, on the client or not: one plain exception, ``Closed`` with it, last."""
    script, fields, kind = CASES[case]
    async with ScriptedServer(script) as server:
        with pytest.raises(kind) as caught:
            async with hs.connect(settings(server, **fields), wait_ready=False) as client:
                await anyio.sleep(0)
                if body == "sleeps":
                    await anyio.sleep_forever()
                elif body == "sends":
                    while True:
                        await client.send("x")
                        await anyio.sleep(0.1)
                elif body == "iterates":
                    async for _ in client:
                        pass
                    pytest.fail("it did not end well")
                elif body == "waits":
                    await client.wait_closed()
                    pytest.fail("it did not end well")
                else:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(client.wait_closed)
                        tasks.start_soon(client.__aiter__().__anext__)
                        tasks.start_soon(anyio.sleep_forever)
        assert type(caught.value) is kind
    events = happened(client)
    assert_legal(events)
    assert isinstance(events[-1], hs.Closed)
    assert events[-1].error is caught.value
    assert client.connection_state is hs.ConnectionState.CLOSED
    with pytest.raises(hs.ClientClosedError) as closed:
        await client.send("x")
    assert closed.value.__cause__ is caught.value


async def test_g11_giving_up_drains_too() -> None:
    """What was received is handled before the exception comes out, at most ``drain_timeout`` long."""
    handler = Recorder(1)

    async def script(peer: Peer) -> None:
        await peer.send_many("abc")
        peer.cut()

    async with ScriptedServer(script) as server:
        config = settings(server, default_handler=handler, reconnect_strategy=hs.NeverReconnect())
        with pytest.raises(hs.ReconnectExhaustedError):
            async with hs.connect(config):
                await anyio.sleep_forever()
    assert handler.handled == list("abc")
    assert anyio.current_time() == 3


@pytest.mark.parametrize("drain_timeout", [5, None])
@pytest.mark.parametrize("waits_in", ["send", "subscribe", "wait_connected"])
@pytest.mark.parametrize("catches", [True, False])
async def test_g11_a_handler_that_waits_for_a_session_does_not_change_the_end(
    waits_in: str, catches: bool, drain_timeout: Any
) -> None:
    """No session will come any more: it is told at once, and what comes out is still why the strategy gave up."""
    seen: list[BaseException] = []

    async def handle(_: Any) -> None:
        client = hs.current_client()
        await anyio.sleep(0.5)
        try:
            if waits_in == "send":
                await client.send("x")
            elif waits_in == "subscribe":
                await client.subscribe(hs.Subscription("s", ack=lambda _: None))
            else:
                await client.wait_connected()
        except hs.ClientClosedError as error:
            seen.append(error)
            if not catches:
                raise

    async def script(peer: Peer) -> None:
        await peer.send("m")
        await anyio.sleep(1 if waits_in == "subscribe" else 0)
        peer.cut()

    async with ScriptedServer([script, lambda peer: peer.reject(503)]) as server:
        config = settings(
            server,
            default_handler=handle,
            reconnect_strategy=hs.FixedDelay(1, 2),
            drain_timeout=drain_timeout,
            subscribe_timeout=1000,
        )
        with pytest.raises(hs.ReconnectExhaustedError) as caught:
            async with hs.connect(config) as client:
                await anyio.sleep_forever()
    assert len(seen) == 1
    assert anyio.current_time() <= 3
    assert of(hs.Closed, happened(client))[0].error is caught.value


@pytest.mark.parametrize(("status", "last"), [(503, hs.ReconnectExhaustedError), (404, hs.HandshakeRejectedError)])
async def test_g11_a_body_that_listens_sees_closed_before_it_is_cancelled(status: int, last: type[Exception]) -> None:
    """The client gives up after a failed attempt, the usual way: whatever order tasks are run in, 20 times of 20."""
    for _ in range(20):
        seen: list[hs.Event] = []
        async with ScriptedServer(lambda peer: peer.reject(status)) as server:
            config = settings(server, reconnect_strategy=hs.FixedDelay(1, 2))
            with pytest.raises(last) as caught:
                async with hs.connect(config, wait_ready=False) as client:
                    async for event in client.events():
                        seen.append(event)
        assert isinstance(seen[-1], hs.Closed)
        assert seen[-1].error is caught.value

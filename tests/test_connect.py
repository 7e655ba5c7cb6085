"""Entering, leaving, and which exception comes out."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import Recorder, assert_legal, cut, happened, idle, names, of, sends, settings, wait_for

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.anyio


class Oops(Exception):
    """An error of the user's."""


class Falsy(Exception):
    """An error that is false, for those who forget that there are such."""

    def __bool__(self) -> bool:
        return False


async def mute(peer: Peer) -> None:
    await peer.accept()
    await peer.mute()


# Entering.


async def test_a_url_and_overrides_are_a_configuration() -> None:
    """``connect(url, **fields)`` and ``connect(config, **fields)``."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(server.url, transport=server.connector(), name="mine") as client:
            assert "mine" in repr(client)
        async with hs.connect(settings(server, name="mine"), name="yours") as client:
            assert "yours" in repr(client)


@pytest.mark.parametrize("arguments", [{"url": "http://x.test"}, {"ping_interval": -1}, {"handlers": {1: None}}])
async def test_a_bad_configuration_is_refused_before_any_io(arguments: dict[str, Any]) -> None:
    """``ConfigurationError``, a ``ValueError``, at the call, not at entering."""
    with pytest.raises(hs.ConfigurationError) as caught:
        hs.connect("ws://x.test", **arguments)
    assert isinstance(caught.value, ValueError)


async def test_a_first_connection_that_fails_is_retried_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """By the same strategy; each failure is a warning in the log and an event."""
    async with ScriptedServer([lambda peer: peer.reject(503), idle]) as server:
        server.refuse(2)
        async with hs.connect(settings(server, reconnect_strategy=hs.ExponentialBackoff(1, 60))) as client:
            assert anyio.current_time() == 1 + 2 + 4
            assert client.epoch == 1
            assert names(happened(client)) == ["Connecting", "ErrorOccurred", "Reconnecting"] * 3 + [
                "Connecting",
                "Connected",
            ]
    assert [record.levelno for record in caplog.records if record.name == "hypersockets"] == [logging.WARNING] * 3


async def test_wait_ready_false_enters_at_once() -> None:
    """And a time limit is the user's: ``fail_after`` around ``wait_connected``."""
    async with ScriptedServer(lambda _: anyio.sleep_forever()) as server:
        with pytest.raises(TimeoutError):
            async with hs.connect(settings(server, open_timeout=100), wait_ready=False) as client:
                assert client.connection_state is hs.ConnectionState.DISCONNECTED
                with anyio.fail_after(30):
                    await client.wait_connected()
        assert anyio.current_time() == 30


async def test_wait_ready_false_makes_what_entering_would_raise_a_background_failure() -> None:
    """It cancels the body and comes out as itself."""
    async with ScriptedServer(lambda peer: peer.reject(403)) as server:
        reached = False
        with pytest.raises(hs.HandshakeRejectedError) as caught:
            async with hs.connect(settings(server), wait_ready=False):
                reached = True
                await anyio.sleep_forever()
        assert reached
        assert caught.value.status == 403
        assert caught.value.epoch == 0


async def test_entering_can_be_given_up() -> None:
    """A deadline around entering cancels it, wherever it is."""
    async with ScriptedServer(idle) as server:
        server.refuse(None)
        with anyio.move_on_after(100) as scope:
            async with hs.connect(settings(server)):
                pytest.fail("never ready")
        assert scope.cancelled_caught
        assert anyio.current_time() == 100


async def test_it_can_stand_in_an_exit_stack() -> None:
    """Entered and left in the same task: an ``AsyncExitStack`` will do."""
    async with ScriptedServer(idle) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(hs.connect(settings(server))) for _ in range(3)]
        for client in clients:
            await client.send("x")


# Leaving.


async def test_leaving_drains_then_closes() -> None:
    """Reading stops, handlers finish what was received, their sends still go out, then the close frame, in this order."""
    handler = Recorder(1)

    async def handle(message: Any) -> None:
        await handler.handle(message)
        await hs.current_client().send(f"done {message}")

    async def script(peer: Peer) -> None:
        await peer.send_many(["1", "2", "3"])
        await anyio.sleep(1.5)
        await peer.send("too late")
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, default_handler=handle)) as client:
            await handler.wait_began(1)
            await client.send("leaving")
        assert anyio.current_time() == 3
        assert server.peers[0].received == ["leaving", "done 1", "done 2", "done 3"]
        assert server.peers[0].close_code == 1000
    assert handler.handled == ["1", "2", "3"]
    assert names(happened(client)) == ["Connecting", "Connected", "Disconnected", "Closed"]
    gone = of(hs.Disconnected, happened(client))[0]
    assert gone.error is None
    assert gone.code is None


async def test_leaving_waits_for_the_peers_close_and_throws_away_what_still_comes() -> None:
    """A slow close handshake is waited for; data that comes meanwhile is nobody's."""
    handler = Recorder()

    async def script(peer: Peer) -> None:
        peer.auto_pong = False
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, latency=1, default_handler=handler)):
            await anyio.sleep(10)
            await server.peers[0].send("on its way when we leave")
            left_at = anyio.current_time()
        assert anyio.current_time() - left_at == 2
    assert handler.handled == []


@pytest.mark.parametrize("close_timeout", [0, 2, 5])
async def test_a_peer_that_does_not_close_is_cut(close_timeout: float) -> None:
    """After ``close_timeout``."""
    async with ScriptedServer(mute) as server:
        async with hs.connect(settings(server, close_timeout=close_timeout)):
            pass
        assert anyio.current_time() == close_timeout
        await server.wait_open(0)


@pytest.mark.parametrize("drain_timeout", [0, 3, None])
async def test_the_drain_has_its_time(drain_timeout: Any) -> None:
    """At most ``drain_timeout``, then the handlers are cancelled; ``None``: as long as they take."""
    handler = Recorder(100)
    async with ScriptedServer(sends("m")) as server:
        config = settings(server, default_handler=handler, drain_timeout=drain_timeout)
        async with hs.connect(config) as client:
            await handler.wait_began(1)
        assert anyio.current_time() == (100 if drain_timeout is None else drain_timeout)
    assert handler.handled == (["m"] if drain_timeout is None else [])
    assert client.metrics().dropped == (0 if drain_timeout is None else 1)


async def test_leaving_during_a_backoff_takes_no_time_but_the_drain() -> None:
    """No session, so no close frame; what was received is still handled."""
    handler = Recorder(2)
    async with ScriptedServer(sends("m", end=cut)) as server:
        config = settings(server, default_handler=handler, reconnect_strategy=hs.FixedDelay(1000))
        async with hs.connect(config) as client:
            await wait_for(client, hs.Reconnecting)
        assert anyio.current_time() == 2
    assert handler.handled == ["m"]
    assert names(happened(client)) == ["Connecting", "Connected", "Disconnected", "Reconnecting", "Closed"]


@pytest.mark.parametrize("drain_timeout", [5, None])
async def test_leaving_with_a_handler_that_waits_to_send(drain_timeout: Any) -> None:
    """In a backoff no session will come for it: it is told, the end is clean, and takes no time."""
    errors: list[Exception] = []

    async def handle(_: Any) -> None:
        await anyio.sleep(0.1)
        try:
            await hs.current_client().send("x")
        except hs.ClientClosedError as error:
            errors.append(error)
            raise

    async with ScriptedServer(sends("m", end=cut)) as server:
        config = settings(
            server, default_handler=handle, reconnect_strategy=hs.FixedDelay(1000), drain_timeout=drain_timeout
        )
        async with hs.connect(config):
            await anyio.sleep(10)
        assert anyio.current_time() == 10
    assert len(errors) == 1


# Exceptions.


@pytest.mark.parametrize(
    "error", [Oops(), KeyboardInterrupt(), SystemExit(3), ExceptionGroup("mine", [Oops()]), Falsy()]
)
async def test_what_the_body_raises_comes_out_as_itself(error: BaseException) -> None:
    """The same object; a group that the body raised stays that group; the handlers are drained."""
    handler = Recorder(1)
    async with ScriptedServer(sends("m")) as server:
        try:
            async with hs.connect(settings(server, default_handler=handler)) as client:
                await handler.wait_began(1)
                raise error
        except BaseException as caught:
            assert caught is error
        else:
            pytest.fail("it was swallowed")
        assert anyio.current_time() == 1
        assert server.peers[0].close_code == 1000
    assert handler.handled == ["m"]
    assert of(hs.Closed, happened(client))[0].error is None


@pytest.mark.parametrize("error", [Oops(), SystemExit(3), ExceptionGroup("mine", [Oops()]), Falsy()])
@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_handler_raises_comes_out_as_itself(error: BaseException, is_async: bool) -> None:
    """The body is cancelled; no drain, no wait for the peer; a close frame is written."""
    slow = Recorder(100)

    def fail(_: Any) -> None:
        raise error

    async def fail_later(_: Any) -> None:
        await anyio.sleep(1)
        raise error

    async def script(peer: Peer) -> None:
        await peer.send_many(['{"channel": "slow"}', '{"channel": "fail"}', '{"channel": "fail"}'])
        await peer.mute()

    async with ScriptedServer(script) as server:
        handlers = {"slow": slow, "fail": fail_later if is_async else fail}
        try:
            async with hs.connect(settings(server, router=hs.JsonRouter(), handlers=handlers)) as client:
                await anyio.sleep_forever()
        except BaseException as caught:
            assert caught is error
        else:
            pytest.fail("it was swallowed")
        assert anyio.current_time() == (1 if is_async else 0)
        assert server.peers[0].close_code == 1000
    assert slow.handled == []
    events = happened(client)
    assert_legal(events)
    assert events[-1].error is error  # type: ignore[attr-defined]
    assert client.metrics().handler_errors == 1


async def test_the_order_of_a_failure() -> None:
    """``Closed(error)`` to the listeners, the body is cancelled, then who waits gets ``ClientClosedError`` from it."""
    told: list[Any] = []
    cancelled: list[Any] = []

    async with (
        ScriptedServer([sends(end=cut), lambda peer: peer.reject(403)]) as server,
        anyio.create_task_group() as tasks,
    ):
        with pytest.raises(hs.HandshakeRejectedError) as caught:
            async with hs.connect(settings(server, reconnect_strategy=hs.FixedDelay(10))) as client:
                await wait_for(client, hs.Disconnected)

                async def sender() -> None:
                    with pytest.raises(hs.ClientClosedError) as closed:
                        await client.send("x")
                    told.append(closed.value.__cause__)

                tasks.start_soon(sender)
                try:
                    await anyio.sleep_forever()
                finally:
                    cancelled += [happened(client)[-1], client.connection_state]
        await wait_all_tasks_blocked()
    closed, state = cancelled
    assert isinstance(closed, hs.Closed), "the listeners know it first"
    assert closed.error is caught.value
    assert state is hs.ConnectionState.CLOSED
    assert told == [caught.value]


@pytest.mark.parametrize("shielded", [True, False])
async def test_a_send_that_waits_never_makes_a_group(shielded: bool) -> None:
    """Several tasks of the body wait in ``send`` (even shielded from the cancellation): one plain exception comes out."""
    async with ScriptedServer([sends(end=cut), lambda peer: peer.reject(403)]) as server:
        with pytest.raises(hs.HandshakeRejectedError):
            async with hs.connect(settings(server)) as client:
                await wait_for(client, hs.Disconnected)
                with anyio.CancelScope(shield=shielded):
                    async with anyio.create_task_group() as tasks:
                        for n in range(3):
                            tasks.start_soon(client.send, f"{n}")
                        tasks.start_soon(client.wait_connected)


async def test_only_both_make_a_group() -> None:
    """The body raises something of its own while it is cancelled by a failure: an ``ExceptionGroup`` of the two."""
    own = Oops()
    async with ScriptedServer([sends(end=cut), lambda peer: peer.reject(403)]) as server:
        with pytest.raises(ExceptionGroup) as caught:
            async with hs.connect(settings(server)):
                try:
                    await anyio.sleep_forever()
                finally:
                    raise own
    first, second = caught.value.exceptions
    assert {type(first), type(second)} == {Oops, hs.HandshakeRejectedError}
    assert own in caught.value.exceptions


async def test_a_handler_that_raises_while_the_body_leaves_with_an_error() -> None:
    """Both are told; the drain ends with the handler's exception."""

    async def fail(_: Any) -> None:
        await anyio.sleep(1)
        raise Oops

    async with ScriptedServer(sends("1", "2")) as server:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with hs.connect(settings(server, default_handler=fail)):
                await anyio.sleep(0.5)
                raise KeyError
    assert [type(each) for each in caught.value.exceptions] == [KeyError, Oops]


async def test_a_handler_that_raises_while_the_client_is_left() -> None:
    """The block had ended well: the handler's exception alone comes out, and the drain is over."""

    async def fail(message: Any) -> None:
        await anyio.sleep(1)
        raise Oops

    async with ScriptedServer(sends("1", "2")) as server:
        with pytest.raises(Oops):
            async with hs.connect(settings(server, default_handler=fail, drain_timeout=None)) as client:
                await anyio.sleep(0.5)
        assert anyio.current_time() == 1
    assert isinstance(happened(client)[-1].error, Oops)  # type: ignore[attr-defined]


async def test_later_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The first failure comes out; a second one is an error in the log."""

    async def fail(message: Any) -> None:
        try:
            await anyio.sleep(message["n"])
        finally:
            raise {1: Oops, 2: KeyError}[message["n"]]

    async with ScriptedServer(sends('{"channel": "a", "n": 1}', '{"channel": "b", "n": 2}')) as server:
        handlers = dict.fromkeys("ab", fail)
        with pytest.raises(Oops):
            async with hs.connect(settings(server, router=hs.JsonRouter(), handlers=handlers)):
                await anyio.sleep_forever()
    assert any(record.levelno == logging.ERROR and "KeyError" in record.getMessage() for record in caplog.records)


async def test_asyncio_timeout(anyio_backend_name: str) -> None:
    """``asyncio.timeout`` around it all: ``TimeoutError``, no drain, a close frame."""
    if anyio_backend_name != "asyncio" or sys.version_info < (3, 11):
        pytest.skip("asyncio's own")
    handler = Recorder(100)

    async def script(peer: Peer) -> None:
        await peer.send("m")
        await peer.mute()

    async with ScriptedServer(script) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                async with hs.connect(settings(server, default_handler=handler)):
                    await anyio.sleep_forever()
        assert anyio.current_time() == 10
        assert server.peers[0].close_code == 1000


async def test_a_user_strategy_that_raises_is_not_silent() -> None:
    """An exception from the user's own strategy comes out as itself."""

    class Strategy:
        def next_delay(self, attempt: int) -> float | None:
            raise Oops

    async with ScriptedServer(sends(end=cut)) as server:
        with pytest.raises(Oops):
            async with hs.connect(settings(server, reconnect_strategy=Strategy())) as client:
                await anyio.sleep_forever()
    assert isinstance(happened(client)[-1], hs.Closed)


# A clean end.


CLEAN = [(1000, True), (1001, True), (None, True), (1012, False), (1008, False), (3000, False)]


@pytest.mark.parametrize(("code", "is_clean"), CLEAN)
@pytest.mark.parametrize("strategy", [hs.NeverReconnect(), hs.FixedDelay(1, 0)])
async def test_a_close_by_the_server_where_nothing_is_retried(code: int | None, is_clean: bool, strategy: Any) -> None:
    """1000, 1001 and no code are a clean end: iteration ends, nothing is cancelled, nothing raised; others are not."""
    got: list[Any] = []

    async def script(peer: Peer) -> None:
        await peer.send_many(["1", "2"])
        await peer.close(code)

    async def use() -> None:
        async with hs.connect(settings(server, reconnect_strategy=strategy)) as client:
            async for each in client:
                got.append(each)
            await client.wait_closed()
            await anyio.sleep(1)
            with pytest.raises(hs.ClientClosedError) as caught:
                await client.send("x")
            assert caught.value.__cause__ is None
            with pytest.raises(hs.ClientClosedError):
                await client.wait_connected()
            got.append(client.connection_state.name)
            assert happened(client)[-1].error is None  # type: ignore[attr-defined]

    async with ScriptedServer(script) as server:
        if is_clean:
            await use()
            assert got == ["1", "2", "CLOSED"]
        else:
            with pytest.raises(hs.ReconnectExhaustedError) as caught:
                await use()
            assert caught.value.attempts == 0


async def test_a_clean_close_is_retried_where_the_strategy_says_so() -> None:
    """1000 from the server, and a strategy that goes on: a reconnect."""
    async with ScriptedServer([lambda peer: peer.close(1000), idle]) as server, hs.connect(settings(server)) as client:
        await wait_for(client, hs.Connected, 2)


async def test_aclose_is_a_clean_end_for_everybody() -> None:
    """From another task: the body is not cancelled, its iteration ends, leaving raises nothing; any number of times."""
    async with ScriptedServer(sends("1")) as server:
        async with anyio.create_task_group() as tasks, hs.connect(settings(server)) as client:

            async def close() -> None:
                await anyio.sleep(1)
                await client.aclose(3001, "bye")
                assert client.connection_state is hs.ConnectionState.CLOSED
                await client.aclose()

            tasks.start_soon(close)
            assert [each async for each in client] == ["1"]
            assert anyio.current_time() == 1
            await anyio.sleep(1)
            await client.aclose()
        assert server.peers[0].close_code == 3001
        assert server.peers[0].close_reason == "bye"
    assert anyio.current_time() == 2


@pytest.mark.parametrize("code", [1004, 1005, 1006, 999, 2999, 5000])
async def test_a_code_that_cannot_be_sent_is_refused(code: int) -> None:
    """At once, and nothing is closed."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server)) as client:
        with pytest.raises(ValueError, match=str(code)):
            await client.aclose(code)
        with pytest.raises(ValueError, match="reason"):
            await client.aclose(1000, "x" * 124)
        with pytest.raises(ValueError, match=str(code)):
            await client.reconnect(code=code)
        assert client.is_connected

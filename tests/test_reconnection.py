"""The timeline, to the second; what is retried, what is fatal, ``Retry-After``, several URLs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import assert_legal, cut, happened, idle, names, of, sends, settings, wait_for

pytestmark = pytest.mark.anyio


def lasts(seconds: float, end: Any = cut) -> Any:
    """Return a script that is ready for so long."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(seconds)
        done = end(peer)
        if done is not None:
            await done

    return script


async def not_ready(peer: Peer) -> None:
    await peer.reject(503)


def timeline(client: hs.Client) -> list[tuple[str, float]]:
    return [(type(event).__name__, event.at) for event in happened(client)]


async def test_the_whole_timeline() -> None:
    """lost → offset → next_delay(0) → attempt → next_delay(1) → attempt; ready and stable → offset → next_delay(0)."""
    async with ScriptedServer([lasts(10), not_ready, not_ready, lasts(5), idle]) as server:
        config = settings(
            server, reconnect_strategy=hs.ExponentialBackoff(1, 60), reconnection_delay_offset=2, stable_after=5
        )
        async with hs.connect(config) as client:
            await wait_for(client, hs.Connected, 3)
            events = happened(client)
            assert timeline(client) == [
                ("Connecting", 0),
                ("Connected", 0),
                ("Disconnected", 10),
                ("Reconnecting", 10),  # offset 2 and next_delay(0)
                ("Connecting", 13),
                ("ErrorOccurred", 13),
                ("Reconnecting", 13),  # next_delay(1), no offset
                ("Connecting", 15),
                ("ErrorOccurred", 15),
                ("Reconnecting", 15),
                ("Connecting", 19),
                ("Connected", 19),
                ("Disconnected", 24),
                ("Reconnecting", 24),  # stable: from the first delay
                ("Connecting", 27),
                ("Connected", 27),
            ]
            waits = [(event.attempt, event.delay) for event in of(hs.Reconnecting, events)]
            assert waits == [(1, 3), (2, 2), (3, 4), (1, 3)]
            assert [event.downtime for event in of(hs.Connected, events)] == [0, 9, 3]
            assert [event.epoch for event in of(hs.Connected, events)] == [1, 2, 3]
            assert client.metrics().reconnect_count == 2
            assert client.metrics().connect_attempts == 5
            assert_legal(events)


async def test_the_very_first_attempts_have_no_offset() -> None:
    """An attempt that never became ready goes straight to the next ``next_delay``."""
    async with ScriptedServer(idle) as server:
        server.refuse(3)
        config = settings(server, reconnect_strategy=hs.ExponentialBackoff(1, 60), reconnection_delay_offset=100)
        async with hs.connect(config):
            assert anyio.current_time() == 7


@pytest.mark.parametrize(("stays", "delays"), [(4.999, [1, 2, 4, 8]), (5, [1, 1, 1, 1])])
async def test_the_counter_starts_again_only_when_stable(stays: float, delays: list[float]) -> None:
    """Ready is not enough: ``stable_after`` seconds of it are."""
    async with ScriptedServer(lasts(stays)) as server:
        async with hs.connect(settings(server, reconnect_strategy=hs.ExponentialBackoff(1, 60))) as client:
            await wait_for(client, hs.Reconnecting, 4)
            assert [event.delay for event in of(hs.Reconnecting, happened(client))] == delays


async def test_an_unstable_session_goes_on_counting_from_before() -> None:
    """Two failed attempts, a short session, and the fourth wait is next_delay(3), with the offset."""
    async with ScriptedServer([not_ready, not_ready, lasts(1), idle]) as server:
        config = settings(server, reconnect_strategy=hs.ExponentialBackoff(1, 60), reconnection_delay_offset=0.5)
        async with hs.connect(config) as client:
            await wait_for(client, hs.Connected, 2)
            assert [event.delay for event in of(hs.Reconnecting, happened(client))] == [1, 2, 4.5]


@pytest.mark.parametrize("n", [0, 1, 5])
async def test_max_attempts_is_n_retries(n: int) -> None:
    """``next_delay(n)`` is ``None``: n retries, then the plain exception with the last error as its cause."""
    async with ScriptedServer(not_ready) as server:
        with pytest.raises(hs.ReconnectExhaustedError) as caught:
            async with hs.connect(settings(server, reconnect_strategy=hs.FixedDelay(1, max_attempts=n))):
                pytest.fail("never ready")
        assert server.connection_count == n + 1
    assert caught.value.attempts == n
    assert isinstance(caught.value.__cause__, hs.HandshakeRejectedError)
    assert anyio.current_time() == n


async def test_the_strategy_is_asked_with_the_attempt_counted_from_0() -> None:
    """And its ``Reconnecting`` says 1, with the whole wait."""
    asked: list[int] = []

    class Strategy:
        def next_delay(self, attempt: int) -> float | None:
            asked.append(attempt)
            return 0.25

    async with ScriptedServer([not_ready, not_ready, idle]) as server:
        async with hs.connect(settings(server, reconnect_strategy=Strategy())) as client:
            assert [event.attempt for event in of(hs.Reconnecting, happened(client))] == [1, 2]
    assert asked == [0, 1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 426])
async def test_4xx_is_fatal_on_a_first_connection(status: int) -> None:
    """And comes out itself, with its status."""
    async with ScriptedServer(lambda peer: peer.reject(status)) as server:
        with pytest.raises(hs.HandshakeRejectedError) as caught:
            async with hs.connect(settings(server)):
                pytest.fail("never")
        assert caught.value.status == status
        assert server.connection_count == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_passing_troubles_are_retried(status: int) -> None:
    """Before the first session too."""
    async with ScriptedServer([lambda peer: peer.reject(status), idle]) as server, hs.connect(settings(server)):
        assert anyio.current_time() == 1


@pytest.mark.parametrize(("status", "is_fatal"), [(401, True), (403, True), (404, False), (400, False), (410, False)])
async def test_once_ready_only_401_and_403_are_fatal(status: int, is_fatal: bool) -> None:
    """A proxy in mid-deploy says 404."""
    async with ScriptedServer([lasts(1), lambda peer: peer.reject(status), idle]) as server:
        if is_fatal:
            with pytest.raises(hs.HandshakeRejectedError) as caught:
                async with hs.connect(settings(server)):
                    await anyio.sleep(10)
            assert caught.value.epoch == 1
        else:
            async with hs.connect(settings(server)) as client:
                await wait_for(client, hs.Connected, 2)


@pytest.mark.parametrize("code", [1008, 1002, 1011, 1012, 1013, 4000, 4999])
@pytest.mark.parametrize("is_listed", [True, False])
async def test_fatal_close_codes(code: int, is_listed: bool) -> None:
    """A received close code is fatal only where it is listed."""
    async with ScriptedServer([lasts(1, lambda peer: peer.close(code)), idle]) as server:
        config = settings(server, fatal_close_codes=[code] if is_listed else [4321])
        if is_listed:
            with pytest.raises(hs.ConnectionLostError) as caught:
                async with hs.connect(config):
                    await anyio.sleep(10)
            assert caught.value.code == code
            assert caught.value.by == "peer"
        else:
            async with hs.connect(config) as client:
                await wait_for(client, hs.Connected, 2)
                lost = of(hs.Disconnected, happened(client))[0]
                assert lost.code == code


async def test_is_retryable_is_the_users_to_decide() -> None:
    """It is asked with the error, and its word counts, both ways."""
    asked: list[BaseException] = []

    def is_retryable(error: BaseException) -> bool:
        asked.append(error)
        return isinstance(error, hs.HandshakeRejectedError)

    async with ScriptedServer([lambda peer: peer.reject(404), lasts(1)]) as server:
        with pytest.raises(hs.ConnectionLostError):
            async with hs.connect(settings(server, is_retryable=is_retryable)):
                await anyio.sleep(10)
        assert server.connection_count == 2
    assert [type(error) for error in asked] == [hs.HandshakeRejectedError, hs.ConnectionLostError]


class Patient:
    """A strategy without ``max_delay``."""

    def next_delay(self, attempt: int) -> float | None:
        return 1.0


class PatientForLong(Patient):
    """Its cap is longer than the usual one, and a duration."""

    max_delay = timedelta(seconds=500)


@pytest.mark.parametrize(
    ("strategy", "retry_after", "waited"),
    [
        (hs.FixedDelay(1), "30", 30),
        (hs.FixedDelay(40), "30", 40),
        (hs.FixedDelay(1), "100000", 300),
        (Patient(), "100000", 300),
        (PatientForLong(), "100000", 500),
        (PatientForLong(), "400", 400),
        (hs.ExponentialBackoff(1, 60), "100000", 60),
        (hs.ExponentialBackoff(1, 1000), "100000", 1000),
        (hs.FixedDelay(1), "-5", 1),
        (hs.FixedDelay(1), "soon", 1),
        (hs.FixedDelay(1), "1e3", 1),
        (hs.FixedDelay(1), "0", 1),
        (hs.FixedDelay(1), "Mon, 01 Jan 1990 00:00:00 GMT", 1),
    ],
)
@pytest.mark.parametrize("status", [503, 429])
async def test_retry_after_is_a_floor(strategy: Any, retry_after: str, waited: float, status: int) -> None:
    """Under the next delay; capped at ``max_delay`` where the strategy has one, else at 5 minutes; nonsense is nothing."""
    async with ScriptedServer([lambda peer: peer.reject(status, {"Retry-After": retry_after}), idle]) as server:
        async with hs.connect(settings(server, reconnect_strategy=strategy)) as client:
            assert anyio.current_time() == waited
            assert of(hs.Reconnecting, happened(client))[0].delay == waited


async def test_retry_after_as_a_date() -> None:
    """An HTTP date counts from the wall clock."""
    when = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    async with ScriptedServer([lambda peer: peer.reject(503, {"Retry-After": when}), idle]) as server:
        async with hs.connect(settings(server)):
            assert 90 <= anyio.current_time() <= 101


async def test_several_urls() -> None:
    """A failed attempt moves on to the next, around; a lost session tries its own again first."""
    asked: list[str] = []

    async def script(peer: Peer) -> None:
        asked.append(peer.request.path)
        plan = {0: "reject", 1: "reject", 2: "lose", 3: "reject", 4: "lose", 5: "idle"}[peer.number]
        if plan == "reject":
            await peer.reject(503)
        elif plan == "lose":
            await lasts(1)(peer)
        else:
            await idle(peer)

    async with ScriptedServer(script) as server:
        urls = [f"ws://scripted.test/{name}" for name in "abc"]
        async with hs.connect(settings(server, url=urls)) as client:
            await wait_for(client, hs.Connected, 3)
            assert [event.url for event in of(hs.Connecting, happened(client))][:2] == urls[:2]
    assert asked == ["/a", "/b", "/c", "/c", "/a", "/a"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_url_and_headers_are_asked_on_every_attempt(is_async: bool) -> None:
    """Plain or async callables; the server sees what each attempt was given."""
    count = 0

    def url() -> str:
        nonlocal count
        count += 1
        return f"ws://scripted.test/{count}"

    def headers() -> dict[str, str]:
        return {"X-Count": str(count), "User-Agent": "mine", "Origin": "https://o.test"}

    async def async_url() -> str:
        await anyio.sleep(0.5)
        return url()

    async def async_headers() -> dict[str, str]:
        return headers()

    seen: list[tuple[str, str]] = []

    async def script(peer: Peer) -> None:
        seen.append((peer.request.path, peer.request.headers["X-Count"]))
        assert peer.request.headers["User-Agent"] == "mine"
        assert peer.request.headers["Origin"] == "https://o.test"
        await [not_ready, lasts(1), idle][peer.number](peer)

    async with ScriptedServer(script) as server:
        fields = {"url": async_url, "headers": async_headers} if is_async else {"url": url, "headers": headers}
        async with hs.connect(settings(server, **fields)) as client:
            await wait_for(client, hs.Connected, 2)
            assert [event.url for event in of(hs.Connecting, happened(client))][-1] == "ws://scripted.test/3"
    assert seen == [("/1", "1"), ("/2", "2"), ("/3", "3")]


@pytest.mark.parametrize("where", ["url", "headers"])
@pytest.mark.parametrize(
    "error",
    [
        KeyError("k"),
        hs.HandshakeRejectedError("the token service's", status=404),
        hs.AuthenticationRejectedError("by the token service"),
        hs.ClientClosedError("the token service's client"),
    ],
)
async def test_a_provider_that_raises_fails_that_attempt(where: str, error: Exception) -> None:
    """As the cause of a ``ConnectError``, an error of this library too: it is not about this connection; retried."""
    asked = 0

    def provider() -> Any:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise error
        return "ws://scripted.test/" if where == "url" else {}

    fields: dict[str, Any] = {where: provider}
    async with ScriptedServer(idle) as server, hs.connect(settings(server, **fields)) as client:
        assert anyio.current_time() == 2
        events = happened(client)
        assert names(events) == ["Connecting", "ErrorOccurred", "Reconnecting"] * 2 + ["Connecting", "Connected"]
        failed = of(hs.ErrorOccurred, events)[0].error
        assert type(failed) is hs.ConnectError
        assert failed.__cause__ is error


@pytest.mark.parametrize("url", ["http://scripted.test", "nonsense", 5, "ws://scripted.test/#fragment"])
async def test_a_callables_bad_url_is_fatal(url: Any) -> None:
    """Bad configuration found later is not worth another attempt."""
    async with ScriptedServer(idle) as server:
        with pytest.raises(hs.ConfigurationError, match="url"):
            async with hs.connect(settings(server, url=lambda: url)):
                pytest.fail("never")


async def test_a_strategy_that_gives_nonsense_is_a_configuration_error() -> None:
    """Found when it is asked, so fatal: ``Closed`` and the plain exception."""

    class Strategy:
        def next_delay(self, attempt: int) -> float | None:
            return float("nan")

    async with ScriptedServer(not_ready) as server:
        with pytest.raises(hs.ConfigurationError):
            async with hs.connect(settings(server, reconnect_strategy=Strategy())):
                pytest.fail("never")


async def test_reconnect_follows_the_same_timeline() -> None:
    """A loss made by us: offset, next_delay(0), attempt; it returns at once."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, reconnection_delay_offset=2)) as client:
            await anyio.sleep(10)
            await client.reconnect("why not")
            assert anyio.current_time() == 10
            assert not client.is_connected
            await client.reconnect("again: nothing to lose")
            await client.wait_connected()
            assert timeline(client)[2:] == [
                ("Disconnected", 10),
                ("Reconnecting", 10),
                ("Connecting", 13),
                ("Connected", 13),
            ]
            assert client.epoch == 2
        assert server.peers[0].close_code == 1000


async def test_framing_that_cannot_be_made_is_a_failed_attempt() -> None:
    """The factory is asked for each connection; what it raises fails that one."""
    made = 0

    def framing() -> Any:
        nonlocal made
        made += 1
        if made == 1:
            raise KeyError("no")
        return lambda frame: [frame]

    async with ScriptedServer(sends("m")) as server:
        async with hs.connect(settings(server, framing=framing)) as client:
            assert await client.__aiter__().__anext__() == "m"
            assert anyio.current_time() == 1


async def test_reconnect_does_not_wait_for_a_server_that_does_not_answer() -> None:
    """The wait for its close frame is part of the delay: lost at 10, a delay of 5, the next attempt at 15 sharp."""

    async def mute(peer: Peer) -> None:
        await peer.accept()
        await peer.mute()

    async with ScriptedServer(mute) as server:
        config = settings(server, reconnect_strategy=hs.FixedDelay(5), close_timeout=0)
        async with hs.connect(config) as client:
            await anyio.sleep(10)
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
            assert timeline(client)[2:] == [
                ("Disconnected", 10),
                ("Reconnecting", 11),
                ("Connecting", 15),
                ("Connected", 15),
            ]
            assert of(hs.Reconnecting, happened(client))[0].delay == 5
        assert server.peers[0].close_code == 1000


@pytest.mark.parametrize("field", ["url", "headers"])
async def test_a_callable_that_says_the_configuration_is_wrong_is_fatal(field: str) -> None:
    """Another attempt would not mend it."""
    error = hs.ConfigurationError("no such account")

    def ask() -> Any:
        raise error

    async with ScriptedServer(idle) as server:
        with pytest.raises(hs.ConfigurationError) as raised:
            async with hs.connect(settings(server, **dict[str, Any]({field: ask}))):
                raise AssertionError("never entered")
    assert raised.value is error

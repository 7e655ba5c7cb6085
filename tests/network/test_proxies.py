"""nginx and haproxy between client and server: what they cut is taken up again, what they say is heeded."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import hypersockets as hs
from tests.network._following import (
    BACK_WITHIN,
    BACKOFF,
    INTERVAL,
    SLACK,
    Ledger,
    feed_server,
    following,
    record_of,
)
from tests.network._netns import Network
from tests.network._proxies import FEED, GRACE, IDLE, LIMIT, Certificates, Proxies, proxies
from tests.wire._children import Child

pytestmark = [pytest.mark.anyio, pytest.mark.wire]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def feed(network: Network) -> AsyncIterator[Child]:
    async with feed_server(network, "127.0.0.1", FEED) as running:
        yield running


@pytest.fixture
async def proxy(network: Network, tmp_path: Path, certificates: Certificates) -> AsyncIterator[Proxies]:
    async with proxies(network, tmp_path, certificates) as running:
        yield running


def settings(proxy: Proxies, name: str, transport: Any) -> dict[str, Any]:
    """Return the settings that a client needs for one of the proxies' ports."""
    secure = proxy.url(name).startswith("wss")
    context = proxy.certificates.trusted(as_client=name == "mutual") if secure else None
    return {"transport": transport, "ssl_context": context}


# What they cut


@pytest.mark.parametrize("name", ["idle", "haproxy idle"])
async def test_an_idle_cut(
    name: str, feed: Child, proxy: Proxies, transport: Any, report: Callable[[str], None]
) -> None:
    """A silent connection is cut, noticed at once and made again; one with pings is left alone."""
    silent, pinging = Ledger(channels=()), Ledger(channels=())
    url, shared = proxy.url(name), settings(proxy, name, transport)
    async with (
        hs.connect(pinging.config(url, ping_interval=INTERVAL, **shared)) as left_alone,
        hs.connect(silent.config(url, ping_interval=None, **shared)) as client,
    ):
        times = []
        with anyio.fail_after(IDLE + BACK_WITHIN):
            while client.epoch < 2:
                event = await client.recv_event()
                if isinstance(event, (hs.Connected, hs.Disconnected)):
                    times.append(event.at)
        report(f"cut {(times[1] - times[0]) * 1e3:.0f} ms after it was ready")
        assert IDLE - 0.1 <= times[1] - times[0] <= IDLE + SLACK
        assert (left_alone.is_connected, left_alone.epoch) == (True, 1)
        record = await record_of(feed)
        assert [each["opening"] for each in record.values()] == [["auth secret", "accepted"]] * 3


PORTS = {"plain": "nginx", "tls": "nginx", "mutual": "nginx", "haproxy tls": "haproxy"}


@pytest.mark.parametrize("name", PORTS)
async def test_a_reload(name: str, feed: Child, proxy: Proxies, transport: Any, report: Callable[[str], None]) -> None:
    """Old connections are cut after a while, through TLS too; the client is ready again at the first attempt."""
    async with following(proxy.url(name), Ledger(), **settings(proxy, name, transport)) as it:
        await it.flows()
        proxy.reload(PORTS[name])
        lost = await it.loses(hs.ConnectionLostError, within=GRACE + SLACK)
        took = await it.returns(within=BACKOFF.initial_delay + SLACK)
        report(f"cut ({lost.reason}), ready again {took * 1e3:.0f} ms later")
        await it.flows()
        record = await it.ends(feed)
        assert (len(record), it.client.metrics().connect_attempts) == (2, 2)


@pytest.mark.parametrize(("name", "status"), [("plain", 502), ("haproxy", 503)])
async def test_a_server_that_dies_behind_its_proxy(
    name: str,
    status: int,
    network: Network,
    proxy: Proxies,
    transport: Any,
    report: Callable[[str], None],
) -> None:
    """The proxy says 502 or 503 for as long as there is none: retried, and as before once there is one again."""
    async with feed_server(network, "127.0.0.1", FEED) as feed:
        async with following(proxy.url(name), Ledger(), **settings(proxy, name, transport)) as it:
            await it.flows()
            before = await record_of(feed, last=True)
            await it.loses(hs.ConnectionLostError, within=0)
            for _ in range(3):
                refused = await it.fails(hs.HandshakeRejectedError, within=BACKOFF.max_delay)
                assert refused.status == status
            async with feed_server(network, "127.0.0.1", FEED, first=len(before)) as again:
                took = await it.returns(within=BACKOFF.max_delay + SLACK)
                report(f"ready again {took * 1e3:.0f} ms after the server was")
                await it.flows()
                await it.ends(again, before)


# What they say


FATAL = (400, 401, 403, 404, 410, 426)
RETRIED = (425, 429, 500, 502, 503, 504)


async def test_refusals_of_a_first_connection(proxy: Proxies, feed: Child, transport: Any) -> None:
    """4xx is the end, 425 and 429 aside; those and 5xx are retried."""
    for status in FATAL:
        proxy.say(status)
        client = None
        with pytest.raises(hs.HandshakeRejectedError) as caught:
            with anyio.fail_after(BACK_WITHIN):
                config = Ledger().config(proxy.url("plain"), transport=transport)
                async with hs.connect(config, wait_ready=False) as client:
                    await anyio.sleep_forever()
        assert (caught.value.status, caught.value.epoch) == (status, 0)
        assert client is not None
        assert client.metrics().connect_attempts == 1
    for status in RETRIED:
        proxy.say(status)
        config = Ledger().config(proxy.url("plain"), transport=transport, reconnect_strategy=hs.FixedDelay(0.05))
        async with hs.connect(config, wait_ready=False) as client:
            with anyio.fail_after(BACK_WITHIN):
                while not isinstance(event := await client.recv_event(), hs.ErrorOccurred):
                    pass
                assert isinstance(event.error, hs.HandshakeRejectedError)
                assert event.error.status == status
                proxy.say(None)
                await client.wait_connected()
    assert [status for _, status in await proxy.handshakes("plain") if status in FATAL] == list(FATAL)


async def test_refusals_after_a_session(proxy: Proxies, feed: Child, transport: Any) -> None:
    """Only 401 and 403 are the end then: a proxy in mid-deploy says 404."""
    for status in (*FATAL, *RETRIED):
        proxy.say(None)
        config = Ledger().config(proxy.url("plain"), transport=transport, reconnect_strategy=hs.FixedDelay(0.05))
        fatal: BaseException | None = None
        try:
            async with hs.connect(config) as client:
                proxy.say(status)
                await client.reconnect()
                with anyio.fail_after(BACK_WITHIN):
                    while not isinstance(event := await client.recv_event(), hs.ErrorOccurred):
                        pass
                    proxy.say(None)
                    while not isinstance(event, (hs.Connected, hs.Closed)):
                        event = await client.recv_event()
        except hs.HandshakeRejectedError as error:
            fatal = error
            assert error.status == status
        assert (fatal is not None) == (status in (401, 403)), status


async def test_retry_after_as_a_date(
    proxy: Proxies, feed: Child, transport: Any, report: Callable[[str], None]
) -> None:
    """503 until a point in time: no attempt is made before it, and one soon after; a longer backoff is no excuse."""
    proxy.say("later")
    strategy = hs.ExponentialBackoff(0.05, 20)
    async with hs.connect(
        Ledger().config(proxy.url("later"), transport=transport, reconnect_strategy=strategy), wait_ready=False
    ) as client:
        with anyio.fail_after(BACK_WITHIN):
            while not isinstance(event := await client.recv_event(), hs.ErrorOccurred):
                pass
            assert isinstance(event.error, hs.HandshakeRejectedError)
            assert event.error.retry_after is not None
        proxy.say(None)
        with anyio.fail_after(proxy.back_at - time.time() + SLACK):
            await client.wait_connected()
    (refused_at, refused), (came_at, came) = await proxy.handshakes("later")
    report(f"told to come back in {proxy.back_at - refused_at:.3f} s, came after {came_at - refused_at:.3f} s")
    assert (refused, came) == (503, 101)
    assert refused_at < proxy.back_at - 0.5, "this machine is too slow to show anything"
    assert proxy.back_at - 0.01 <= came_at <= proxy.back_at + SLACK


async def test_retry_after_in_seconds(
    proxy: Proxies, feed: Child, transport: Any, report: Callable[[str], None]
) -> None:
    """A rate limit says 429 and how long to wait: so long it waits, and then it is let in at once."""
    patient = hs.ExponentialBackoff(0.1, 20)  # a floor under the delay, but never above its cap
    async with following(proxy.url("limited"), Ledger(), transport=transport, reconnect_strategy=patient) as it:
        await it.flows()
        await it.client.reconnect()
        refused = await it.fails(hs.HandshakeRejectedError, within=BACKOFF.max_delay)
        assert (refused.status, refused.retry_after) == (429, LIMIT)
        await it.returns(within=LIMIT + SLACK)
        await it.flows()
        await it.ends(feed)
    times, statuses = zip(*await proxy.handshakes("limited"), strict=True)
    report(f"came back {times[2] - times[1]:.3f} s after it was told to wait for {LIMIT} s")
    assert statuses == (101, 429, 101)
    assert LIMIT - 0.01 <= times[2] - times[1] <= LIMIT + SLACK


async def test_a_token_that_is_renewed(proxy: Proxies, feed: Child, transport: Any) -> None:
    """Headers are asked for on every attempt; one that is refused is the end."""
    tokens = iter(["fresh", "fresh", "stale"])

    async def headers() -> dict[str, str]:
        return {"Authorization": f"Bearer {next(tokens)}"}

    config = Ledger().config(proxy.url("bearer"), transport=transport, headers=headers)
    with pytest.raises(hs.HandshakeRejectedError) as caught:
        with anyio.fail_after(2 * BACK_WITHIN):
            async with hs.connect(config) as client:
                for epoch in (2, 3):
                    await client.reconnect()
                    while client.epoch < epoch:
                        await client.recv_event()
    assert (caught.value.status, caught.value.epoch) == (401, 2)
    assert "stale" not in str(caught.value)
    assert [status for _, status in await proxy.handshakes("bearer")] == [101, 101, 401]


async def test_a_redirect(proxy: Proxies, feed: Child, transport: Any) -> None:
    """It is followed, on every connection anew."""
    async with following(proxy.url("moved"), Ledger(), transport=transport) as it:
        await it.flows()
        await it.client.reconnect()
        await it.loses(hs.ConnectionLostError, within=0)
        await it.returns(within=BACKOFF.initial_delay + SLACK)
        await it.flows()
        await it.ends(feed)
    assert [status for _, status in await proxy.handshakes("moved")] == [307, 307]
    assert [status for _, status in await proxy.handshakes("plain")] == [101, 101]


# What must not be


@pytest.mark.parametrize(
    ("name", "why", "cause"),
    [
        ("expired", "expired", ssl.SSLCertVerificationError),
        ("wrong host", "IP address mismatch|not valid for", ssl.SSLCertVerificationError),
        ("leaves tls", "302.*it would leave TLS", None),
        ("no certificate of ours", "400", None),
    ],
)
async def test_what_is_refused_for_good(
    name: str, why: str, cause: type[BaseException] | None, proxy: Proxies, feed: Child, transport: Any
) -> None:
    """A certificate that does not verify, one that is asked for and lacking, a redirect out of TLS: one attempt."""
    url = proxy.url("mutual" if name == "no certificate of ours" else name)
    client = None
    config = Ledger().config(
        url, transport=transport, ssl_context=proxy.certificates.trusted(), reconnect_strategy=hs.FixedDelay(0)
    )
    with anyio.fail_after(BACK_WITHIN), pytest.raises(hs.ConnectError, match=why) as caught:
        async with hs.connect(config, wait_ready=False) as client:
            await anyio.sleep_forever()
    assert not hs.is_retryable(caught.value)
    assert cause is None or isinstance(caught.value.__cause__, cause)
    assert client is not None
    assert client.metrics().connect_attempts == 1
    assert await record_of(feed) == {}
    assert await proxy.handshakes("plain") == []

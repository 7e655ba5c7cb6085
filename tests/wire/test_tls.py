"""TLS with a private CA: what verifies works, what does not is refused once and for all."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
import trustme

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests.wire._tunnel import Tunnel

pytestmark = [pytest.mark.anyio, pytest.mark.wire]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def echo(peer: Peer) -> None:
    while True:
        message = await peer.receive()
        if message == "cut":
            peer.cut()
        await peer.send(message)


@asynccontextmanager
async def served(certificate: trustme.LeafCert) -> AsyncIterator[tuple[str, Tunnel]]:
    """Serve an echo; yield its URL, and the tunnel in front of it, which counts the attempts."""
    async with ScriptedServer(echo) as server, server.listen(ssl_context=serving(certificate)) as url:
        port = urlsplit(url).port
        assert port is not None
        async with Tunnel(port).run() as tunnel:
            yield f"wss://127.0.0.1:{tunnel.port}", tunnel


async def test_a_certificate_that_verifies(ca: trustme.CA, transport: str) -> None:
    """The client talks through TLS, and comes back after a loss."""
    strategy = hs.FixedDelay(0.05)
    async with served(ca.issue_cert("127.0.0.1")) as (url, tunnel):
        async with hs.connect(
            url, ssl_context=trusting(ca), transport=transport, reconnect_strategy=strategy
        ) as client:
            messages = aiter(client)
            with anyio.fail_after(10):
                for text in ("small", "x" * 300_000):
                    await client.send(text)
                    assert await anext(messages) == text
                await client.send("cut")
                while client.epoch < 2:
                    await client.recv_event()
                await client.send("again")
                assert await anext(messages) == "again"
        assert len(tunnel.connections) == 2


@pytest.mark.parametrize("flaw", ["unknown CA", "no context", "wrong host", "expired"])
async def test_a_certificate_that_does_not_verify(flaw: str, ca: trustme.CA, transport: Any) -> None:
    """It is refused with a ConnectError that says why, after one attempt, however patient the strategy."""
    certificate, why = {
        "unknown CA": (trustme.CA().issue_cert("127.0.0.1"), "unable to get local issuer|self.signed"),
        "no context": (ca.issue_cert("127.0.0.1"), "unable to get local issuer|self.signed"),
        "wrong host": (ca.issue_cert("other.example"), "IP address mismatch|not valid for"),
        "expired": (
            ca.issue_cert(
                "127.0.0.1",
                not_before=datetime(2020, 1, 1, tzinfo=timezone.utc),
                not_after=datetime(2020, 2, 1, tzinfo=timezone.utc),
            ),
            "expired",
        ),
    }[flaw]
    config = hs.ClientConfig(
        url="wss://127.0.0.1",
        ssl_context=None if flaw == "no context" else trusting(ca),
        transport=transport,
        reconnect_strategy=hs.FixedDelay(0),
    )
    async with served(certificate) as (url, tunnel):
        with anyio.fail_after(10), pytest.raises(hs.ConnectError, match=why) as caught:
            async with hs.connect(config, url=url):
                pytest.fail("it connected")
        assert not hs.is_retryable(caught.value)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert len(tunnel.connections) == 1

        # Entered at once, the same failure comes from behind.
        client = None
        with anyio.fail_after(10), pytest.raises(hs.ConnectError, match=why):
            async with hs.connect(config, url=url, wait_ready=False) as client:
                await anyio.sleep_forever()
        assert client is not None
        assert client.metrics().connect_attempts == 1
        assert [type(event) async for event in client.events()] == [hs.Connecting, hs.ErrorOccurred, hs.Closed]

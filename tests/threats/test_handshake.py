"""A hostile server, or whoever stands in its place, during the opening handshake."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, PeerClosed, ScriptedServer
from tests._live import settings, wait_for

pytestmark = pytest.mark.anyio


async def first_failure(server: ScriptedServer, **fields: Any) -> hs.ErrorOccurred:
    async with hs.connect(settings(server, **fields), wait_ready=False) as client:
        failed = await wait_for(client, hs.ErrorOccurred)
        assert isinstance(failed, hs.ErrorOccurred)
        return failed


async def drip_bytes(peer: Peer) -> None:
    """Send a header without end, byte by byte."""
    await peer.send_raw(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
    while True:
        await anyio.sleep(1)
        await peer.send_raw(b"y")


async def drip_lines(peer: Peer) -> None:
    """Send headers without end, one a second."""
    await peer.send_raw(b"HTTP/1.1 101 Switching Protocols\r\n")
    while True:
        await anyio.sleep(0.5)
        await peer.send_raw(b"X-More: and more\r\n")


async def silence(peer: Peer) -> None:
    """Answer nothing at all."""
    await anyio.sleep_forever()


@pytest.mark.parametrize("script", [drip_bytes, drip_lines, silence])
async def test_a_slow_answer_takes_open_timeout_and_no_more(script: Any) -> None:
    """However slowly it comes, and whatever it is made of, the clock of the whole opening runs on."""
    async with ScriptedServer(script) as server:
        failed = await first_failure(server, open_timeout=7)
        assert isinstance(failed.error, hs.OpenTimeoutError)
        assert failed.at == 7


@pytest.mark.parametrize(
    "how",
    [b"Content-Length: 999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"", b"Content-Length: -1\r\n"],
)
@pytest.mark.parametrize("status", [b"401", b"503", b"200"])
async def test_the_body_of_a_refusal_is_not_read(status: bytes, how: bytes) -> None:
    """However long it says it is: the refusal is known from its head, at once, and the connection is cut."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.send_raw(b"HTTP/1.1 " + status + b" Words\r\n" + how + b"\r\n")
        with pytest.raises(PeerClosed):
            while True:
                await peer.send_raw(b"fffff\r\n" + b"x" * 10_000)
                sent += 10_000
                await anyio.sleep(0.001)

    async with ScriptedServer(script) as server:
        config = settings(server, reconnect_strategy=hs.NeverReconnect())
        with pytest.raises((hs.HandshakeRejectedError, hs.ReconnectExhaustedError)) as caught:
            async with hs.connect(config):
                pytest.fail("it connected")
        refusal = caught.value.__cause__ or caught.value
        assert isinstance(refusal, hs.HandshakeRejectedError)
        assert refusal.status == int(status)
        await server.wait_open(0)
        assert anyio.current_time() < 2
        assert sent < 200_000


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("9" * 300, 300),
        ("9" * 8000, 1),
        ("1e9", 1),
        ("-9" + "9" * 100, 1),
        ("inf", 1),
        ("nan", 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 1),
        ("0", 1),
        ("7, 8", 1),
        ("\t\x80", 1),
    ],
)
async def test_a_retry_after_that_makes_no_sense(value: str, delay: float) -> None:
    """It can lengthen a delay, to five minutes at most, never shorten it, and what it does not say counts for nothing."""

    async def script(peer: Peer) -> None:
        await peer.send_raw(f"HTTP/1.1 503 No\r\nRetry-After: {value}\r\n\r\n".encode("latin-1"))
        peer.cut()

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server), wait_ready=False) as client:
            waiting = await wait_for(client, hs.Reconnecting)
            assert waiting.delay == delay

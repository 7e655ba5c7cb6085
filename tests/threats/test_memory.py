"""Memory under a hostile server: nothing that it chooses is kept without a bound of count and of size."""

from __future__ import annotations

import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import happened, of, settings, wait_for

pytestmark = pytest.mark.anyio


async def test_the_headers_of_refusals_take_no_memory() -> None:
    """The events keep their errors, and these the server's headers: a part of them, however many there were."""
    head = b"HTTP/1.1 503 No\r\nRetry-After: 1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 8000) for n in range(120))

    async def script(peer: Peer) -> None:
        await peer.send_raw(head + b"\r\n")
        peer.cut()

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server), wait_ready=False) as client:
            await wait_for(client, hs.ErrorOccurred, 3)
            for failed in of(hs.ErrorOccurred, happened(client)):
                assert isinstance(failed.error, hs.HandshakeRejectedError)
                assert failed.error.retry_after == 1
                assert failed.error.headers["x-0"].startswith("yyy")
                assert sum(map(len, [*failed.error.headers, *failed.error.headers.values()])) <= 32_768

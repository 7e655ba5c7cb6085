"""A hostile redirect: to plain text, to another host, to nowhere, round and round."""

from __future__ import annotations

import pytest
from anyio.abc import ByteStream

import hypersockets as hs
from hypersockets._stream_transport import StreamConnector
from hypersockets._transport import OpenRequest
from hypersockets.testing import Peer, ScriptedServer
from tests._live import idle, settings

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("location", ["ws://two.test/", "//two.test/", "http://two.test:81/", "ws://u:w@two.test/"])
async def test_a_redirect_to_another_host_takes_no_credential_along(location: str) -> None:
    """No header that could be one, nor the user info of the URL. What the user wants to be known for is told."""
    hosts: list[str] = []

    async def script(peer: Peer) -> None:
        hosts.append(peer.request.headers["Host"])
        if peer.number == 0:
            assert peer.request.headers["Authorization"] == "Bearer hush"
            await peer.reject(302, {"Location": location})
        else:
            await idle(peer)

    headers = {"Authorization": "Bearer hush", "Cookie": "hush", "X-Api-Key": "hush", "Origin": "http://me.test"}
    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, url="ws://one.test/", headers=headers, subprotocols=["p"])):
            pass
        sent = server.peers[1].request.headers
        assert hosts[1].startswith("two.test")
        assert "hush" not in repr(sorted(sent.items()))
        assert sent["Origin"] == "http://me.test"
        assert sent["Sec-WebSocket-Protocol"] == "p"


async def login(channel: hs.AuthChannel) -> None:
    await channel.send("hush")


async def test_a_redirect_to_another_host_is_refused_where_auth_would_follow() -> None:
    """What auth sends is for the host in the configuration; a detour to another is an error, for good."""

    async def script(peer: Peer) -> None:
        await peer.reject(307, {"Location": "wss://two.test/"})

    async with ScriptedServer(script) as server:
        with pytest.raises(hs.HandshakeRejectedError, match="to another host") as caught:
            async with hs.connect(settings(server, url="wss://one.test/", auth=login)):
                pytest.fail("it connected")
        assert not caught.value.retryable
        assert server.connection_count == 1


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("ws://one.test/", "/there"),
        ("ws://one.test/", "wss://one.test/there"),
        ("ws://one.test/", "ws://one.test:81/there"),
    ],
)
async def test_a_redirect_that_stays_with_its_host_is_followed_with_auth(url: str, location: str) -> None:
    """To another path, to another port as cookies do, or from plain text to TLS."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.reject(307, {"Location": location})
        else:
            assert await peer.receive() == "hush"
            await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, url=url, auth=login)):
            assert server.peers[1].request.path == "/there"


async def test_a_redirect_out_of_tls_is_not_followed() -> None:
    """Nothing is sent in plain text that was meant for TLS, the request itself included."""
    asked: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.reject(302, {"Location": "ws://one.test/plain"})

    async with ScriptedServer(script) as server:

        async def open_stream(request: OpenRequest) -> ByteStream:
            asked.append(request.url)
            return await server.connect()

        config = settings(server, url="wss://one.test/", transport=StreamConnector(open_stream=open_stream))
        with pytest.raises(hs.HandshakeRejectedError, match="leave TLS"):
            async with hs.connect(config):
                pytest.fail("it connected")
    assert asked == ["wss://one.test/"]


async def test_redirects_in_a_ring() -> None:
    """Five are followed, and the end of them is an error for good, whatever the strategy."""

    async def script(peer: Peer) -> None:
        await peer.reject(302, {"Location": ("/a", "/b")[peer.number % 2]})

    async with ScriptedServer(script) as server:
        with pytest.raises(hs.ConnectError, match="redirected more than 5 times"):
            async with hs.connect(settings(server)):
                pytest.fail("it connected")
        assert server.connection_count == 6

"""The scripted server on a real port: real sockets, and so the real clock."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
import trustme
from anyio import BrokenResourceError, EndOfStream, to_thread
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from hypersockets.testing import Opcode, Peer, PeerClosed, ScriptedServer
from tests.testing._client import RawClient

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, {}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def connect(url: str, context: ssl.SSLContext | None = None) -> AsyncIterator[RawClient]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    stream: ByteStream = await anyio.connect_tcp(parts.hostname, parts.port)
    async with stream:
        if context is not None:
            stream = await TLSStream.wrap(
                stream, hostname=parts.hostname, ssl_context=context, standard_compatible=False
            )
        yield RawClient(stream)


async def echo(peer: Peer) -> None:
    assert peer.link is None
    while True:
        await peer.send(await peer.receive())


async def test_same_scripts_on_a_port() -> None:
    """The URL leads to a server that runs the scripts; in memory it goes on as well."""
    async with ScriptedServer(echo) as server, server.listen() as url:
        assert url.startswith("ws://127.0.0.1:")
        async with connect(url) as client:
            assert (await client.open()).status_code == 101
            await client.send("hi")
            assert await client.text() == "hi"
            await client.close()
            assert (await client.frame()).opcode == Opcode.CLOSE
            with pytest.raises(EndOfStream):
                await client.event()
        await server.wait_open(0)
        await (await server.connect()).aclose()
        await server.wait_connections(2)


async def test_tls(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    """With a context it is a `wss://` URL. Clients that fail the TLS handshake are no connections."""
    async with ScriptedServer(echo) as server, server.listen(ssl_context=server_context) as url:
        assert url.startswith("wss://127.0.0.1:")
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connect(url, ssl.create_default_context()):
                pass
        async with connect(url):
            pass
        async with connect(url, client_context) as client:
            await client.open()
            await client.send("hi")
            assert await client.text() == "hi"
        await server.wait_open(0)
        assert server.connection_count == 1


async def test_cut_under_tls(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    """A cut ends the TCP connection below TLS, after what was sent."""

    async def script(peer: Peer) -> None:
        await peer.send("x" * 1_000_000)
        peer.cut()

    async with ScriptedServer(script) as server, server.listen(ssl_context=server_context) as url:
        async with connect(url, client_context) as client:
            await client.open()
            assert len(await client.text()) == 1_000_000
            with pytest.raises(EndOfStream):
                await client.event()
        await server.wait_open(0)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_reset(server_context: ssl.SSLContext, client_context: ssl.SSLContext, is_tls: bool) -> None:
    """A reset is one of TCP."""

    async def script(peer: Peer) -> None:
        await peer.send("x")
        peer.reset()
        await peer.receive()

    def read(url: str) -> None:
        with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as plain:
            stream = client_context.wrap_socket(plain, server_hostname="127.0.0.1") if is_tls else plain
            stream.sendall(request)
            # Below TLS: there a reset is a reset, and no end of some kind.
            with socket.socket(fileno=stream.detach()) as below:
                while below.recv(1000):
                    pass

    core = ClientProtocol(parse_uri(ScriptedServer.url))
    core.send_request(core.connect())
    (request,) = core.data_to_send()
    context = server_context if is_tls else None
    async with ScriptedServer(script) as server, server.listen(ssl_context=context) as url:
        with pytest.raises(ConnectionResetError):
            await to_thread.run_sync(read, url)
        await server.wait_open(0)


async def test_reset_of_what_is_closed_already() -> None:
    """A reset after the end does no harm."""

    async def script(peer: Peer) -> None:
        try:
            await peer.receive()
        except PeerClosed:
            peer.reset()
            peer.reset()
            raise

    async with ScriptedServer(script) as server, server.listen() as url:
        async with connect(url) as client:
            await client.open()
        await server.wait_open(0)


async def test_mute_and_stall_on_a_port() -> None:
    """Both hold on real sockets too: a mute server reads on, a stalled one lets the buffers run full."""

    async def mute(peer: Peer) -> None:
        await peer.accept()
        await peer.mute()

    async def stall(peer: Peer) -> None:
        await peer.accept()
        await peer.stall()

    async with ScriptedServer([mute, stall]) as server, server.listen() as url:
        async with connect(url) as client:
            await client.open()
            for _ in range(20):
                await client.send("x" * 1_000_000)
        await server.wait_open(0)
        async with connect(url) as client:
            await client.open()
            with anyio.move_on_after(0.5) as scope:
                for _ in range(100):
                    await client.send("x" * 1_000_000)
            assert scope.cancelled_caught


async def test_refuse_on_a_port() -> None:
    """A port cannot refuse by itself: the connection is closed at once."""
    async with ScriptedServer(echo) as server, server.listen() as url:
        server.refuse()
        async with connect(url) as client:
            with pytest.raises((EndOfStream, BrokenResourceError)):
                await client.open()
        assert server.connection_count == 0


async def test_end_of_listening() -> None:
    """Leaving the block ends its connections and frees the port for the next one; errors stay themselves."""
    async with ScriptedServer(Peer.mute) as server:
        with pytest.raises(ValueError, match="mine"):
            async with server.listen() as url, connect(url) as client:
                await client.ask()
                await server.wait_connections(1)
                raise ValueError("mine")
        await server.wait_open(0)
        port = urlsplit(url).port
        assert port is not None
        with pytest.raises(OSError):  # noqa: PT011 - the kinds differ between backends
            async with connect(url):
                pass
        async with server.listen(port=port) as again, connect(again):
            assert again == url
            await server.wait_connections(2)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
async def test_ipv6() -> None:
    """The URL of an IPv6 address has brackets."""
    async with ScriptedServer(echo) as server:
        try:
            async with server.listen("::1") as url, connect(url):
                assert url.startswith("ws://[::1]:")
                await server.wait_connections(1)
        except OSError:
            pytest.skip("no IPv6 on this machine")

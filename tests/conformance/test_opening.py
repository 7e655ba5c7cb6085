"""The opening handshake: what is asked, and what a server's answer becomes."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import anyio
import pytest

import hypersockets._version as version
from hypersockets._errors import ConfigurationError, ConnectError, HandshakeRejectedError, OpenTimeoutError
from hypersockets._transport import OpenRequest
from tests.conformance._peer import Peer, Script, echo
from tests.conformance._rig import Rig

pytestmark = pytest.mark.anyio


def answering(answer: bytes, *, stay: bool = True):
    """Return the script of a server that answers a handshake with these bytes."""

    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.write(answer)
        if stay:
            await peer.until_eof()

    return script


async def refused(rig: Rig, answer: bytes, *, stay: bool = True, **fields) -> ConnectError:
    async with rig.serve(answering(answer, stay=stay)) as opener:
        with pytest.raises(ConnectError) as caught:
            async with opener(**fields):
                raise AssertionError("opened")
    return caught.value


async def test_the_request_is_a_websocket_handshake(rig: Rig) -> None:
    """One of each header; the user's headers win over ours; user info becomes Basic authentication."""
    seen: list[Peer] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        seen.append(peer)
        await peer.until_eof()

    async with rig.serve(script) as opener:
        async with opener("/a/b?c=d"):
            pass
        async with opener(headers={"user-agent": "mine", "Host": "virtual", "Origin": "http://me"}):
            pass
    plain, custom = seen
    assert plain.request is not None
    assert plain.request.path == "/a/b?c=d"
    assert plain.headers["user-agent"] == [f"hypersockets/{version.__version__}"]
    assert plain.headers["host"][0].startswith(("server.test", "127.0.0.1:"))
    assert "origin" not in plain.headers
    assert "sec-websocket-extensions" not in plain.headers
    assert custom.headers["user-agent"] == ["mine"]
    assert custom.headers["host"] == ["virtual"]
    assert custom.headers["origin"] == ["http://me"]
    assert all(len(values) == 1 for peer in seen for values in peer.headers.values())


async def test_a_refusal_is_known_at_once(rig: Rig) -> None:
    """Status, headers and Retry-After are in the error; its body is not waited for."""
    head = b"HTTP/1.1 503 Busy \xe9\r\nRetry-After: 7\r\nX-One: 1\r\nX-Two: 2\r\nX-Two: 3\r\nContent-Length: 99\r\n\r\n"
    error = await refused(rig, head + b"the beginning")
    assert isinstance(error, HandshakeRejectedError)
    assert (error.status, error.retry_after, error.retryable, error.epoch) == (503, 7.0, True, 0)
    assert error.headers["x-one"] == "1"
    assert error.headers["x-two"] == "2, 3"
    assert "503" in str(error)


async def test_an_old_proxys_refusal_is_understood(rig: Rig) -> None:
    """HTTP/1.0 will do to say no."""
    error = await refused(rig, b"HTTP/1.0 404 Not Found\r\n\r\n")
    assert isinstance(error, HandshakeRejectedError)
    assert (error.status, error.retry_after) == (404, None)


NONSENSE = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "binary": bytes(range(256)) + b"\r\n",
    "no status": b"HTTP/1.1 abc OK\r\n\r\n",
    "a broken header": b"HTTP/1.1 101 Switching Protocols\r\nno colon\r\n\r\n",
    "no upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
    "no accept": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a wrong accept": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
async def test_nonsense_instead_of_a_handshake(rig: Rig, answer: bytes) -> None:
    """Whatever is not a WebSocket server is a ConnectError that names the URL, and worth another attempt."""
    error = await refused(rig, answer)
    assert type(error) is ConnectError
    assert error.retryable
    assert "ws://" in str(error)
    assert str(error).isprintable()


async def test_endless_headers(rig: Rig) -> None:
    """Headers are read up to a limit."""

    async def many(peer: Peer) -> None:
        await peer.read_request()
        await peer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
        try:
            while True:
                await peer.write(b"X-More: and more\r\n" * 100)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    async def long(peer: Peer) -> None:
        await peer.read_request()
        await peer.write(b"HTTP/1.1 101 Switching Protocols\r\nX-Long: ")
        try:
            while True:
                await peer.write(b"longer and " * 1000)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    for script in (many, long):
        async with rig.serve(script, room=1) as opener:
            with pytest.raises(ConnectError, match="in HTTP"):
                async with opener():
                    raise AssertionError("opened")


async def test_the_end_instead_of_a_handshake(rig: Rig) -> None:
    """A server that ends the connection before or in its answer is a ConnectError."""
    for answer in (b"", b"HTTP/1.1 101 Swi", b"HTTP/1.1 101 Switching Protocols\r\nUpgr"):
        error = await refused(rig, answer, stay=False)
        assert "ended the connection in the middle of its response" in str(error)


async def test_a_reset_instead_of_a_handshake(rig: Rig) -> None:
    """A connection that breaks before the handshake is over is a ConnectError with its cause."""

    async def script(peer: Peer) -> None:
        if rig.in_memory:
            return  # closed before our request is sent
        import socket
        import struct

        from anyio.abc import SocketAttribute

        await peer.read_request()
        raw = peer.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with rig.serve(script) as opener:
        text = r"the connection broke during the handshake|ended the connection"
        with pytest.raises(ConnectError, match=text) as caught:
            async with opener():
                raise AssertionError("opened")
        assert caught.value.__cause__ is not None


async def test_a_server_that_chooses_what_was_not_offered(rig: Rig) -> None:
    """Subprotocols and extensions must be among those offered."""

    async def subprotocol(peer: Peer) -> None:
        await peer.accept(subprotocol="other")
        await peer.until_eof()

    async def extension(peer: Peer) -> None:
        await peer.accept(headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
        await peer.until_eof()

    offers: list[tuple[Script, dict[str, Any]]] = [
        (subprotocol, {}),
        (subprotocol, {"subprotocols": ["one"]}),
        (extension, {}),
    ]
    for script, fields in offers:
        async with rig.serve(script) as opener:
            with pytest.raises(ConnectError, match="answered the handshake wrongly"):
                async with opener(**fields):
                    raise AssertionError("opened")


async def test_a_handshake_that_dribbles(rig: Rig) -> None:
    """open_timeout is for the whole handshake, however the bytes come."""

    async def script(peer: Peer) -> None:
        await peer.read_request()
        try:
            for byte in b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" * 100:
                await peer.write(bytes([byte]))
                await anyio.sleep(0.05)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    async with rig.serve(script) as opener:
        started = anyio.current_time()
        with pytest.raises(OpenTimeoutError, match=r"not over within 0\.4 s"):
            async with opener("/?secret", open_timeout=0.4):
                raise AssertionError("opened")
        assert 0.3 < anyio.current_time() - started < 2


async def test_cancelling_a_handshake_leaves_nothing(rig: Rig) -> None:
    """Cancelled while it waits for the server, opening ends at once and the stream is cut."""
    ended = []

    async def script(peer: Peer) -> None:
        await peer.read_request()
        ended.append(await peer.until_eof())

    async with rig.serve(script) as opener:
        with anyio.move_on_after(0.2) as scope:
            async with opener():
                raise AssertionError("opened")
        assert scope.cancelled_caught
    assert ended == [[]]


async def test_the_time_limit_ends_with_the_handshake(rig: Rig) -> None:
    """open_timeout says nothing about the connection."""
    async with rig.serve(echo) as opener, opener(open_timeout=0.2) as transport:
        await anyio.sleep(0.4)
        await transport.send("still")
        assert await transport.receive() == ["still"]


async def test_redirects_are_followed(rig: Rig) -> None:
    """A redirect is another attempt, on a connection of its own."""
    paths: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.read_request()
        assert peer.request is not None
        paths.append(peer.request.path)
        if peer.request.path != "/there":
            where = {"/": "/elsewhere?x=y", "/elsewhere?x=y": "there"}[peer.request.path]
            await peer.write(f"HTTP/1.1 307 Go\r\nLocation: {where}\r\nContent-Length: 9\r\n\r\n".encode())
            assert await peer.until_eof() == []
        else:
            await peer.accept()
            await peer.until_eof()

    async with rig.serve(script) as opener, opener():
        pass
    assert paths == ["/", "/elsewhere?x=y", "/there"]


async def test_redirects_are_bounded(rig: Rig) -> None:
    """More than five are not followed, and not worth another attempt."""
    count = 0

    async def script(peer: Peer) -> None:
        nonlocal count
        count += 1
        await peer.read_request()
        await peer.write(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n")
        await peer.until_eof()

    async with rig.serve(script) as opener:
        with pytest.raises(ConnectError, match="redirected more than 5 times") as caught:
            async with opener():
                raise AssertionError("opened")
    assert not caught.value.retryable
    assert count == 6


async def test_a_redirect_that_may_not_be_followed(rig: Rig) -> None:
    """It is refused as what it is: a response that is not 101."""
    error = await refused(rig, b"HTTP/1.1 301 Moved\r\nLocation: mailto:me\r\n\r\n")
    assert isinstance(error, HandshakeRejectedError)
    assert (error.status, error.retryable) == (301, False)


async def test_bad_headers_are_an_error_before_anything_is_sent(rig: Rig) -> None:
    """Never a connection without them; the value is not shown."""
    async with rig.serve(echo) as opener:
        for headers in ({"X-Key": "sec\r\nret"}, {"X-Key": "sec🐎ret"}):
            with pytest.raises(ConfigurationError, match="X-Key") as caught:
                async with opener(headers=headers):
                    raise AssertionError("opened")
            assert "sec" not in str(caught.value)


async def test_what_open_stream_raises_comes_out(rig: Rig) -> None:
    """A user's own way to a stream may fail in its own way."""

    class TokenError(Exception):
        pass

    async def broken(request):
        raise TokenError

    with pytest.raises(TokenError):
        async with rig.connector(broken).open(OpenRequest(url="ws://server.test")):
            raise AssertionError("opened")


async def test_user_info_becomes_basic_authentication(rig: Rig) -> None:
    """What the URL holds before the @ is sent, decoded, and is in no text."""
    seen: list[list[str]] = []

    async def script(peer: Peer) -> None:
        await peer.read_request()
        seen.append(peer.headers["authorization"])
        await peer.write(b"HTTP/1.1 401 No\r\n\r\n")

    async with rig.serve(script) as opener:
        with pytest.raises(HandshakeRejectedError) as caught:
            async with opener("/?token=hush", user="me:p%40ss@"):
                raise AssertionError("opened")
    assert [b64decode(each.removeprefix("Basic ")) for each in seen[0]] == [b"me:p@ss"]
    assert "ss@" not in str(caught.value)
    assert "hush" not in str(caught.value)

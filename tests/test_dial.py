"""From a URL to a byte stream: TCP, TLS and proxies, on real sockets."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import attrs
import pytest
import trustme
from anyio.abc import AnyByteStream, ByteStream, Listener, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener, TLSStream

from hypersockets._dial import dial
from hypersockets._errors import ConfigurationError, ConnectError
from hypersockets._transport import FROM_ENVIRONMENT, OpenRequest

pytestmark = pytest.mark.anyio

Handler = Callable[[ByteStream], Awaitable[None]]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _no_proxy_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no", "socks", "ws", "wss"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def echo(stream: ByteStream) -> None:
    async for data in stream:
        await stream.send(data)


@asynccontextmanager
async def listening(
    handler: Handler, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Serve on a port of its own, and yield that."""

    async def handle(stream: ByteStream) -> None:
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                await handler(stream)

    plain = await anyio.create_tcp_listener(local_host=host)
    port = plain.extra(SocketAttribute.local_port)
    listener: Listener = plain

    class Quiet(TLSListener):
        @staticmethod
        async def handle_handshake_error(exc: BaseException, stream: AnyByteStream) -> None:
            await anyio.aclose_forcefully(stream)
            if not isinstance(exc, Exception):
                raise exc

    if tls is not None:
        listener = Quiet(plain, tls, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield port
        tasks.cancel_scope.cancel()


async def assert_echoes(stream: ByteStream) -> None:
    async with stream:
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"


async def pipe(one: ByteStream, other: ByteStream) -> None:
    async def copy(source: ByteStream, sink: ByteStream) -> None:
        try:
            async for data in source:
                await sink.send(data)
        except anyio.BrokenResourceError:
            pass
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(copy, one, other)
        tasks.start_soon(copy, other, one)


class HttpProxy:
    """Does CONNECT and nothing else."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Fine\r\nVia: me\r\n\r\n") -> None:
        self.answer = answer
        self.requests: list[bytes] = []

    async def __call__(self, stream: ByteStream) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await stream.receive()
        self.requests.append(request)
        _, _, port = request.split(b" ")[1].rpartition(b":")
        if b" 200 " not in self.answer:
            await stream.send(self.answer)
            return
        async with await anyio.connect_tcp("127.0.0.1", int(port)) as target:
            await stream.send(self.answer)
            await pipe(stream, target)


class SocksProxy:
    """Does SOCKS 5 (RFC 1928, with RFC 1929) and SOCKS 4(a), CONNECT only."""

    def __init__(self, *, status: int = 0, user: tuple[bytes, bytes] | None = None) -> None:
        self.status = status
        self.user = user
        self.hosts: list[str] = []

    async def __call__(self, stream: ByteStream) -> None:
        read = BufferedByteReceiveStream(stream).receive_exactly
        if (await read(1)) == b"\x04":
            port = await self.version_4(read)
            await stream.send(b"\x00" + bytes([90 + self.status]) + bytes(6))
        else:
            port = await self.version_5(read, stream)
            await stream.send(b"\x05" + bytes([self.status]) + b"\x00\x01" + bytes(6))
        if not self.status:
            async with await anyio.connect_tcp("127.0.0.1", port) as target:
                await pipe(stream, target)

    async def version_4(self, read: Callable[[int], Awaitable[bytes]]) -> int:
        assert await read(1) == b"\x01"
        port = int.from_bytes(await read(2), "big")
        address = await read(4)
        while await read(1) != b"\x00":
            pass
        name = b""
        if address[:3] == bytes(3):
            while not name.endswith(b"\x00"):
                name += await read(1)
        self.hosts.append(name[:-1].decode() if name else str(ipaddress.ip_address(address)))
        return port

    async def version_5(self, read: Callable[[int], Awaitable[bytes]], stream: ByteStream) -> int:
        methods = await read((await read(1))[0])
        if self.user is None:
            await stream.send(b"\x05\x00")
        else:
            assert 2 in methods
            await stream.send(b"\x05\x02")
            assert await read(1) == b"\x01"
            name = await read((await read(1))[0])
            word = await read((await read(1))[0])
            await stream.send(b"\x01" + bytes([(name, word) != self.user]))
        assert await read(3) == b"\x05\x01\x00"
        kind = await read(1)
        if kind == b"\x03":
            self.hosts.append((await read((await read(1))[0])).decode())
        else:
            self.hosts.append(str(ipaddress.ip_address(await read({b"\x01": 4, b"\x04": 16}[kind]))))
        return int.from_bytes(await read(2), "big")


def request(url: str, proxy: str | None = None, context: ssl.SSLContext | None = None) -> OpenRequest:
    return OpenRequest(url=url, proxy=proxy, ssl_context=context)


class TestDirect:
    async def test_tcp(self) -> None:
        """A ws:// URL is a TCP connection."""
        async with listening(echo) as port:
            await assert_echoes(await dial(request(f"ws://127.0.0.1:{port}")))

    async def test_ipv6(self) -> None:
        """Addresses in brackets too."""
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("no IPv6 here")
        async with listening(echo, host="::1") as port:
            await assert_echoes(await dial(request(f"ws://[::1]:{port}")))

    async def test_nobody_listens(self) -> None:
        """The error says where and why, and holds no secret."""
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(ConnectError, match=f"could not connect to {host}:{port}: .*") as caught:
                await dial(request(f"ws://me:hush@{host}:{port}/?token=hush"))
            assert caught.value.retryable
            assert isinstance(caught.value.__cause__, OSError)
            assert "hush" not in str(caught.value)
            assert "attempts failed" not in str(caught.value)

    async def test_a_name_that_does_not_resolve(self) -> None:
        """DNS trouble may pass."""
        with pytest.raises(ConnectError, match=r"could not connect to nowhere\.invalid:80: ") as caught:
            await dial(request("ws://nowhere.invalid"))
        assert caught.value.retryable

    async def test_a_name_that_cannot_be_looked_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the resolver cannot even encode is a mistake in the URL."""

        async def refuse(host: str, port: int) -> None:
            raise UnicodeError("label too long")

        monkeypatch.setattr(anyio, "connect_tcp", refuse)
        with pytest.raises(ConfigurationError, match="cannot be looked up"):
            await dial(request("ws://server.test"))


class TestTls:
    async def test_a_private_authority(self, server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
        """The user's context is used, and the host's name is checked."""
        async with listening(echo, tls=server_context) as port:
            for host in ("localhost", "127.0.0.1"):
                await assert_echoes(await dial(request(f"wss://{host}:{port}", context=client_context)))

    async def test_the_default_context_verifies(
        self, server_context: ssl.SSLContext, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An unknown authority is refused, and not worth another attempt; a known one is fine."""
        async with listening(echo, tls=server_context) as port:
            with pytest.raises(ConnectError, match="certificate of localhost does not verify") as caught:
                await dial(request(f"wss://localhost:{port}"))
            assert not caught.value.retryable
            assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
            with authority.cert_pem.tempfile() as path:
                monkeypatch.setenv("SSL_CERT_FILE", path)
                await assert_echoes(await dial(request(f"wss://localhost:{port}")))

    async def test_another_host(self, authority: trustme.CA, client_context: ssl.SSLContext) -> None:
        """A good certificate of somebody else does not verify either."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("elsewhere.test").configure_cert(context)
        async with listening(echo, tls=context) as port:
            with pytest.raises(ConnectError, match="does not verify") as caught:
                await dial(request(f"wss://localhost:{port}", context=client_context))
            assert not caught.value.retryable

    @pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 This is not TLS\r\n\r\n"])
    async def test_a_server_without_tls(self, said: bytes, client_context: ssl.SSLContext) -> None:
        """It may be being restarted, so another attempt is made."""

        async def script(stream: ByteStream) -> None:
            await stream.receive()
            if said:
                await stream.send(said)

        async with listening(script) as port:
            with pytest.raises(ConnectError, match=r"TLS handshake with localhost failed: .+") as caught:
                await dial(request(f"wss://localhost:{port}", context=client_context))
            assert caught.value.retryable

    async def test_cancelling_a_tls_handshake_closes_the_socket(self, client_context: ssl.SSLContext) -> None:
        """The server sees the end."""
        ended = anyio.Event()

        async def script(stream: ByteStream) -> None:
            async for _ in stream:
                pass
            ended.set()

        async with listening(script) as port:
            with anyio.move_on_after(0.2) as scope:
                await dial(request(f"wss://localhost:{port}", context=client_context))
            assert scope.cancelled_caught
            with anyio.fail_after(5):
                await ended.wait()


class TestHttpProxy:
    @pytest.mark.parametrize("secure", [False, True])
    async def test_a_tunnel(self, secure: bool, server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
        """For ws:// and wss://; the proxy gets its own credentials and nothing of the URL but host and port."""
        proxy = HttpProxy()
        async with listening(echo, tls=server_context if secure else None) as port, listening(proxy) as proxy_port:
            scheme = "wss" if secure else "ws"
            asked = request(
                f"{scheme}://me:hush@localhost:{port}/?token=hush",
                f"http://user:p%40ss@127.0.0.1:{proxy_port}",
                client_context,
            )
            await assert_echoes(await dial(asked))
            (sent,) = proxy.requests
            lines = sent.decode().split("\r\n")
            assert lines[0] == f"CONNECT localhost:{port} HTTP/1.1"
            assert f"Host: localhost:{port}" in lines
            (basic,) = [line for line in lines if line.startswith("Proxy-Authorization: Basic ")]
            assert b64decode(basic.rpartition(" ")[2]) == b"user:p@ss"
            assert b"hush" not in sent

    async def test_tls_to_the_proxy(
        self,
        server_context: ssl.SSLContext,
        client_context: ssl.SSLContext,
        authority: trustme.CA,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """An https:// proxy is verified as any server; TLS runs within TLS."""
        proxy = HttpProxy()
        async with listening(echo, tls=server_context) as port, listening(proxy, tls=server_context) as proxy_port:
            asked = request(f"wss://localhost:{port}", f"https://localhost:{proxy_port}", client_context)
            with pytest.raises(ConnectError, match="certificate of localhost does not verify"):
                await dial(asked)
            assert proxy.requests == []
            with authority.cert_pem.tempfile() as path:
                monkeypatch.setenv("SSL_CERT_FILE", path)
                await assert_echoes(await dial(asked))
            assert b"Proxy-Authorization" not in proxy.requests[0]

    async def test_a_proxy_that_refuses(self) -> None:
        """It is an error that says so, and never a direct connection."""
        touched = []

        async def target(stream: ByteStream) -> None:
            touched.append(stream)

        async with listening(target) as port:
            for answer, text in [
                (b"HTTP/1.1 407 Authenticate\r\nContent-Length: 99\r\n\r\n", "refused a tunnel to .*: HTTP 407"),
                (b"SSH-2.0\r\n", "did not answer the handshake in HTTP"),
                (b"", "ended the connection in the middle"),
            ]:
                async with listening(HttpProxy(answer)) as proxy_port:
                    with pytest.raises(ConnectError, match=text) as caught:
                        await dial(request(f"ws://127.0.0.1:{port}", f"http://u:hush@127.0.0.1:{proxy_port}"))
                    assert "hush" not in str(caught.value)
                    assert f"the proxy 127.0.0.1:{proxy_port}" in str(caught.value)
        assert touched == []

    async def test_no_proxy_there(self) -> None:
        """The same for one that nobody runs."""
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        for scheme in ("http", "https", "socks5h"):
            async with listening(echo) as target:
                with pytest.raises(ConnectError, match=str(port)):
                    await dial(request(f"ws://127.0.0.1:{target}", f"{scheme}://127.0.0.1:{port}"))


class TestSocksProxy:
    @pytest.mark.parametrize(
        ("scheme", "host", "asked"),
        [
            ("socks5h", "localhost", "localhost"),
            ("socks5", "127.0.0.1", "127.0.0.1"),
            ("socks4a", "localhost", "localhost"),
            ("socks4", "localhost", "127.0.0.1"),
        ],
    )
    async def test_a_connection(self, scheme: str, host: str, asked: str) -> None:
        """Who looks up the host's name is as the scheme says."""
        proxy = SocksProxy()
        async with listening(echo) as port, listening(proxy) as proxy_port:
            await assert_echoes(await dial(request(f"ws://{host}:{port}", f"{scheme}://127.0.0.1:{proxy_port}")))
        assert proxy.hosts == [asked]

    async def test_tls_through_it_with_a_password(
        self, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        """The server's name is checked behind the proxy."""
        proxy = SocksProxy(user=(b"me", b"p@ss"))
        async with listening(echo, tls=server_context) as port, listening(proxy) as proxy_port:
            url = f"socks5h://me:p%40ss@127.0.0.1:{proxy_port}"
            stream = await dial(request(f"wss://localhost:{port}", url, client_context))
            assert isinstance(stream, TLSStream)
            await assert_echoes(stream)

    async def test_a_proxy_that_refuses(self) -> None:
        """A wrong password, a refused connection, a proxy that is none."""

        async def hang_up(stream: ByteStream) -> None:
            await stream.receive()

        async with listening(echo) as port:
            proxies: list[tuple[Handler, str]] = [
                (SocksProxy(user=(b"me", b"other")), "authentication failure"),
                (SocksProxy(status=5), "refused"),
                (hang_up, "unexpectedly"),
            ]
            for proxy, text in proxies:
                async with listening(proxy) as proxy_port:
                    pattern = f"the proxy 127.0.0.1:{proxy_port} gave no .*{text}"
                    with pytest.raises(ConnectError, match=pattern) as caught:
                        await dial(request(f"ws://127.0.0.1:{port}", f"socks5h://me:hush@127.0.0.1:{proxy_port}"))
                    assert "hush" not in str(caught.value)

    async def test_user_info_that_cannot_be_sent(self) -> None:
        """SOCKS takes ASCII only here; the cause would show a part of the password."""
        async with listening(SocksProxy(user=(b"me", b"x"))) as proxy_port:
            with pytest.raises(ConfigurationError) as caught:
                await dial(request("ws://127.0.0.1:1", f"socks5h://me:h%C3%BCsh@127.0.0.1:{proxy_port}"))
        assert caught.value.__suppress_context__
        assert "sh" not in str(caught.value).replace("be sent", "")

    async def test_without_python_socks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install."""
        monkeypatch.setitem(sys.modules, "python_socks", None)
        with pytest.raises(ConfigurationError, match=r"pip install hypersockets\[proxy\]"):
            await dial(request("ws://127.0.0.1:1", "socks5://127.0.0.1:1"))

    async def test_the_default_port_is_that_of_socks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """1080, unless the URL says 80."""
        ports: list[int] = []

        async def connect_tcp(remote_host: str, remote_port: int, **_: object) -> None:
            ports.append(remote_port)
            raise OSError("no")

        monkeypatch.setattr(anyio, "connect_tcp", connect_tcp)
        for url in ("socks5h://proxy.test", "socks5h://proxy.test/", "socks5h://proxy.test:80/", "http://proxy.test"):
            with pytest.raises(ConnectError):
                await dial(request("ws://server.test", url))
        assert ports == [1080, 1080, 80, 80]


class TestWhichProxy:
    async def test_the_environment_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Read on every attempt; NO_PROXY holds."""
        proxy = HttpProxy()
        async with listening(echo) as port, listening(proxy) as proxy_port:
            asked = request(f"ws://127.0.0.1:{port}", FROM_ENVIRONMENT)
            await assert_echoes(await dial(asked))
            assert len(proxy.requests) == 0
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy_port}")
            await assert_echoes(await dial(asked))
            assert len(proxy.requests) == 1
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            await assert_echoes(await dial(asked))
            assert len(proxy.requests) == 1
            monkeypatch.delenv("NO_PROXY")
            await assert_echoes(await dial(attrs.evolve(asked, proxy=None)))
            assert len(proxy.requests) == 1

    @pytest.mark.parametrize(
        "url", ["ftp://u:hush@p.test", "http://u:hush@p.test:x", "http://hush@p.test", "http://", "p.test:80"]
    )
    async def test_a_proxy_that_cannot_be_one(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is named, masked, and told apart from one in the environment."""
        with pytest.raises(ConfigurationError, match=r"^proxy is .*use a URL such as") as caught:
            await dial(request("ws://127.0.0.1:1", url))
        assert "hush" not in str(caught.value)
        assert caught.value.__suppress_context__
        monkeypatch.setenv("HTTP_PROXY", url)
        with pytest.raises(ConfigurationError, match=r"^the proxy from the environment is ") as caught:
            await dial(request("ws://127.0.0.1:1", FROM_ENVIRONMENT))
        assert "hush" not in str(caught.value)

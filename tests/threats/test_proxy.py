"""A hostile proxy, and what a hostile configuration might say to one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, TaskGroup

import hypersockets as hs
from hypersockets.testing import memory_link

pytestmark = pytest.mark.anyio

Say = Callable[[ByteStream], Awaitable[None]]


class Net:
    """Stands for the network: whoever connects reaches this proxy, and is noted."""

    def __init__(self, tasks: TaskGroup, say: Say) -> None:
        self.tasks = tasks
        self.say = say
        self.asked: list[tuple[str, int]] = []

    async def connect_tcp(self, remote_host: str, remote_port: int, **_: Any) -> ByteStream:
        self.asked.append((remote_host, remote_port))
        ours, theirs = memory_link()
        self.tasks.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: ByteStream) -> None:
        async with stream:
            with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                await self.say(stream)


async def through(say: Say, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> tuple[Net, hs.HyperSocketError]:
    """Try once to connect through the proxy; return where connections went, and the error."""
    async with anyio.create_task_group() as tasks:
        net = Net(tasks, say)
        with monkeypatch.context() as patch:
            patch.setattr(anyio, "connect_tcp", net.connect_tcp)
            fields = {"url": "ws://192.0.2.1/?token=hush", "proxy": "http://me:hush@proxy.test:3128", **fields}
            with pytest.raises(hs.HyperSocketError) as caught:
                async with hs.connect(hs.ClientConfig(**fields, reconnect_strategy=hs.NeverReconnect())):
                    pytest.fail("it connected")
        tasks.cancel_scope.cancel()
    error: Any = caught.value
    if isinstance(error, hs.ReconnectExhaustedError):
        error = error.__cause__
    assert isinstance(error, hs.HyperSocketError)
    assert "hush" not in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 500
    return net, error


def saying(*answers: bytes, wait: float = 0.0) -> Say:
    async def say(stream: ByteStream) -> None:
        for answer in answers:
            await stream.receive()
            await stream.send(answer)
        if not answers:
            await stream.receive()
        await anyio.sleep(wait)

    return say


async def flooding(stream: ByteStream) -> None:
    await stream.receive()
    await stream.send(b"HTTP/1.1 200 Fine\r\n")
    while True:
        await stream.send(b"X-More: and more\r\n" * 1000)


RUBBISH = {
    "nothing": saying(),
    "binary": saying(bytes(range(256)) * 4),
    "another protocol": saying(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "a page": saying(b"<html>no</html>\r\n\r\n"),
    "a redirect": saying(b"HTTP/1.1 302 Go\r\nLocation: http://evil.test/\r\n\r\n"),
    "an upgrade": saying(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
    "an interim answer": saying(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine\r\n\r\n"),
    "a phrase that forges": saying(b"HTTP/1.1 502 \x9b2J" + b"x" * 8000 + b"\r\n\r\n"),
    "our own request": saying(b"HTTP/1.1 407 No\r\nProxy-Authorization: hush\r\n\r\n"),
    "headers without end": flooding,
}


@pytest.mark.parametrize("kind", RUBBISH)
@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4a"])
async def test_a_proxy_that_talks_rubbish_is_no_detour(kind: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and worth a retry; nothing ever goes to the server directly."""
    user = "me:hush@" if scheme != "socks4a" else ""
    net, error = await through(RUBBISH[kind], monkeypatch, proxy=f"{scheme}://{user}proxy.test:3128")
    assert isinstance(error, hs.ConnectError)
    assert hs.is_retryable(error)
    assert net.asked == [("proxy.test", 3128)]


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4a"])
async def test_a_proxy_that_keeps_silent_or_drips(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``open_timeout`` counts for the way through a proxy too."""

    async def drip(stream: ByteStream) -> None:
        await stream.receive()
        for byte in b"HTTP/1.1 200 " + b"x" * 1000 if scheme == "http" else b"":
            await stream.send(bytes([byte]))
            await anyio.sleep(1)
        await anyio.sleep_forever()

    started = anyio.current_time()
    net, error = await through(drip, monkeypatch, proxy=f"{scheme}://proxy.test:3128", open_timeout=7)
    assert isinstance(error, hs.OpenTimeoutError)
    assert anyio.current_time() - started == pytest.approx(7)
    assert net.asked == [("proxy.test", 3128)]


async def test_what_a_proxy_says_behind_its_answer_is_not_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer to the handshake that came before the handshake was sent is not taken for one."""
    seen: list[bytes] = []

    async def say(stream: ByteStream) -> None:
        seen.append(await stream.receive())
        await stream.send(b"HTTP/1.1 200 Fine\r\n\r\nHTTP/1.1 401 Forged\r\n\r\n")
        seen.append(await stream.receive())

    _, error = await through(say, monkeypatch)
    assert seen[1].startswith(b"GET /?token=hush HTTP/1.1\r\n")
    assert "ended the connection in the middle of its response" in str(error)


ODD = ["a%0d%0aX-Evil:%201", "a%00b", "a\\@b", "a,b", "a;b", "a'b", "[::1]", "[fe80::1%25x]", "a%20HTTP/1.1"]
BAD = ["a\r\nX-Evil: 1", "a\nb", "a\0b", "a b", "a\x85b", "a\u2028b", "a\tb", "[::1]\r\nX-Evil: 1", "a:1 HTTP/1.1\r\nX"]


@pytest.mark.parametrize("host", [*ODD, *BAD])
async def test_a_host_cannot_speak_to_the_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callable's URL is refused, or its host stands in CONNECT as one word: it adds no line and no other host."""
    seen: list[bytes] = []

    async def say(stream: ByteStream) -> None:
        seen.append(await stream.receive())

    net, error = await through(say, monkeypatch, url=lambda: f"ws://{host}/")
    if host in BAD or not seen:
        assert isinstance(error, hs.ConfigurationError)
        assert net.asked == []
        return
    lines = seen[0].decode().split("\r\n")
    assert len(lines[0].split(" ")) == 3
    names = [line.partition(" ")[0] for line in lines[:-2]]
    assert names == ["CONNECT", "Host:", "User-Agent:", "Proxy-Authorization:"]


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4a"])
@pytest.mark.parametrize("user", ["me%00evil.test%00:x", "me%0d%0aX-Evil:x", "me:%0a", "me:x%7f"])
async def test_user_info_cannot_speak_to_the_proxy(scheme: str, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a NUL in it SOCKS 4 would be told another host; whatever has a control character is refused."""
    net, error = await through(saying(), monkeypatch, proxy=f"{scheme}://{user}@proxy.test")
    assert isinstance(error, hs.ConfigurationError)
    assert "evil" not in str(error).lower()
    assert net.asked == []


@pytest.mark.parametrize("proxy", ["ftp://p.test", "p.test:80", "http://p.test:99999", "socks9://p.test"])
async def test_an_environment_that_names_no_proxy_that_can_be(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fatal: never a connection past the proxy that was meant."""
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    net, error = await through(saying(), monkeypatch, proxy="environment")
    assert isinstance(error, hs.ConfigurationError)
    assert net.asked == []


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x03\x40\x00" + b"\x02" * 1000])
async def test_a_tls_handshake_that_does_not_end(hello: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers in the server's place, silent or byte by byte, is left when ``open_timeout`` is over."""

    async def drip(stream: ByteStream) -> None:
        for byte in hello:
            await stream.send(bytes([byte]))
            await anyio.sleep(1)
        await anyio.sleep_forever()

    started = anyio.current_time()
    _, error = await through(drip, monkeypatch, url="wss://server.test/", proxy=None, open_timeout=7)
    assert isinstance(error, hs.OpenTimeoutError)
    assert anyio.current_time() - started == pytest.approx(7)

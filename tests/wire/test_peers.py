"""Servers by other people's libraries, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import anyio
import pytest

import hypersockets as hs
from tests.wire._children import free_port, running_script, script

pytestmark = [pytest.mark.anyio, pytest.mark.wire]

SERVERS = ["_websockets_server.py", "_trio_websocket_server.py"]


@pytest.fixture(params=SERVERS)
def program(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """One server of each kind, for all tests that leave it running."""
    with ExitStack() as running:
        yield {name: f"ws://127.0.0.1:{running.enter_context(running_script(name))}" for name in SERVERS}


@pytest.fixture
def url(program: str, urls: dict[str, str]) -> str:
    return urls[program]


def config(url: str, transport: Any) -> hs.ClientConfig:
    return hs.ClientConfig(url=url, transport=transport, reconnect_strategy=hs.FixedDelay(0.05))


async def test_messages(url: str, transport: str) -> None:
    """Text and bytes of any size come back as they were; a thousand in a row come in order."""
    async with hs.connect(config(url, transport), ping_interval=0.05) as client:
        messages = aiter(client)
        with anyio.fail_after(10):
            for message in ("", "žluťoučký 🐎", b"\x00\xff" * 70, "x" * 70_000, b"y" * 3_000_000):
                await client.send(message)
                assert await anext(messages) == message
            await client.send("count 1000")
            assert [await anext(messages) for _ in range(1000)] == [str(number) for number in range(1000)]
            while client.metrics().latency is None:  # its pongs are understood too
                await client.send("once more")
                assert await anext(messages) == "once more"
        assert client.epoch == 1


async def test_fragments_and_compression(urls: dict[str, str], transport: str) -> None:
    """What comes compressed, or in pieces, is whole when it arrives."""
    compression = "deflate" if transport == "stream" else None
    async with hs.connect(config(urls[SERVERS[0]], transport), compression=compression) as client:
        await client.send("fragments příliš")
        messages = aiter(client)
        with anyio.fail_after(10):
            assert [await anext(messages), await anext(messages)] == ["příliš", "příliš"]


async def test_close_codes(url: str, transport: str) -> None:
    """The server's code and reason are in the event; what it sent before is handled, then the client is back."""
    async with hs.connect(config(url, transport)) as client:
        messages = aiter(client)
        for code, reason in ((1000, "done"), (1001, "bye"), (1011, ""), (1012, "restart"), (4321, "řeka")):
            await client.send(f"before {code}")
            await client.send(f"close {code} {reason}")
            with anyio.fail_after(10):
                while not isinstance(event := await client.recv_event(), hs.Disconnected):
                    pass
                assert isinstance(event.error, hs.ConnectionLostError)
                assert (event.code, event.error.code, event.error.by) == (code, code, "peer")
                assert event.reason == reason or not reason
                assert await anext(messages) == f"before {code}"
                await client.send("back")
                assert await anext(messages) == "back"
        assert client.epoch == 6


async def test_a_clean_close_without_a_retry_is_an_end(url: str, transport: str) -> None:
    """The server says 1000 and the strategy says no more: iteration ends, nothing is raised."""
    async with hs.connect(url, transport=transport, reconnect_strategy=hs.NeverReconnect()) as client:
        await client.send("last words")
        await client.send("close 1000 done")
        with anyio.fail_after(10):
            assert [message async for message in client] == ["last words"]
            await client.wait_closed()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
async def test_restart_on_the_same_port(how: str, program: str, transport: str) -> None:
    """The client is back when the server is, its subscriptions first, then what waited to be sent."""
    port = str(free_port())
    subscriptions = ["subscribe to a", "subscribe to b"]
    settings = config(f"ws://127.0.0.1:{port}", transport)
    async with AsyncExitStack() as first_life:
        server, _ = await first_life.enter_async_context(script(program, port))
        async with hs.connect(settings, subscriptions=subscriptions) as client:
            messages = aiter(client)
            with anyio.fail_after(20):
                assert [await anext(messages) for _ in subscriptions] == subscriptions
                await (server.kill() if how == "SIGKILL" else server.terminate())
                while not isinstance(lost := await client.recv_event(), hs.Disconnected):
                    pass
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.send, "sent while it was down")
                    while not isinstance(await client.recv_event(), hs.ErrorOccurred):
                        pass  # nobody listens there
                    async with script(program, port):
                        got = [await anext(messages) for _ in range(3)]
                        assert got == [*subscriptions, "sent while it was down"]
                        assert client.epoch == 2
                        await client.aclose()
    if (how, program) == ("SIGTERM", "_websockets_server.py"):
        assert lost.code == 1001
    if how == "SIGKILL":
        assert lost.code is None

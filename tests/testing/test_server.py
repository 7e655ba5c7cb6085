"""The scripted server in memory."""

from __future__ import annotations

import sys

import anyio
import pytest

from hypersockets._transport import OpenRequest
from hypersockets.testing import Peer, PeerClosed, ScriptedServer, wait_all_tasks_blocked
from tests.testing._client import RawClient
from tests.testing.conftest import Serve

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

pytestmark = pytest.mark.anyio


async def test_connector() -> None:
    """The connector carries the library's own transport, over a link with the latency asked for."""

    async def script(peer: Peer) -> None:
        await peer.send(f"you said {await peer.receive()!s}")
        await peer.receive()

    async with (
        ScriptedServer(script) as server,
        server.connector(latency=0.5).open(OpenRequest(url=server.url)) as transport,
    ):
        assert anyio.current_time() == 1
        await transport.send("hi")
        assert await transport.receive() == ["you said hi"]
        assert anyio.current_time() == 2


async def test_scripts_in_turn() -> None:
    """The n-th connection runs the n-th script, the last one all that follow."""

    async def first(peer: Peer) -> None:
        await peer.send(f"first {peer.number}")

    async def others(peer: Peer) -> None:
        await peer.send(f"others {peer.number}")

    said = []
    async with ScriptedServer([first, others]) as server:
        for _ in range(3):
            async with await server.connect() as stream:
                client = RawClient(stream)
                await client.open()
                said.append(await client.text())
        assert [peer.number for peer in server.peers] == [0, 1, 2]
    assert said == ["first 0", "others 1", "others 2"]


async def test_counts_and_waits() -> None:
    """Connections are counted when they open and when they end, and both can be waited for."""
    async with ScriptedServer(Peer.receive) as server:
        assert (server.connection_count, server.open_count, server.peers) == (0, 0, [])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.wait_connections, 2)
            tasks.start_soon(server.wait_connections, 1)
            one, other = await server.connect(), await server.connect()
        assert (server.connection_count, server.open_count) == (2, 2)
        assert repr(server) == "<ScriptedServer connections=2 open=2>"
        await one.aclose()
        await server.wait_open(1)
        await other.aclose()
        await server.wait_open(0)
        assert server.connection_count == 2


async def test_refuse() -> None:
    """Refused connections get ConnectionRefusedError, as many as asked for, or all until told otherwise."""
    async with ScriptedServer(Peer.receive) as server:

        async def attempt() -> bool:
            try:
                await (await server.connect()).aclose()
            except ConnectionRefusedError:
                return False
            return True

        server.refuse()
        assert [await attempt() for _ in range(2)] == [False, True]
        server.refuse(2)
        assert [await attempt() for _ in range(3)] == [False, False, True]
        server.refuse(None)
        assert not any([await attempt() for _ in range(5)])
        server.accept_all()
        assert await attempt()
        await server.wait_open(0)
        assert server.connection_count == 3
    assert not await attempt()


async def test_leaving_is_prompt() -> None:
    """Leaving the block cancels the scripts and cuts the connections, without waiting for anything."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep_forever()

    async with ScriptedServer(script) as server:
        stream = await server.connect()
        client = RawClient(stream)
        await client.open()
    assert anyio.current_time() == 0
    assert server.open_count == 0
    with pytest.raises(anyio.EndOfStream):
        await client.event()
    await stream.aclose()


class ScriptFailed(Exception):
    pass


async def failing(_: Peer) -> None:
    raise ScriptFailed


async def test_failure_of_a_script_comes_out_as_itself(serve: Serve) -> None:
    """An exception in a script cancels the block at once, and is what comes out of it."""
    with pytest.raises(ScriptFailed):
        async with serve(failing) as (_, client):
            await client.ask()
            await anyio.sleep_forever()


async def test_failure_in_a_script_s_task_group(serve: Serve) -> None:
    """A group that a script raises stays that group, without its PeerClosed."""

    async def script(_: Peer) -> None:
        raise ExceptionGroup("mine", [PeerClosed(None, ""), ScriptFailed()])

    with pytest.raises(ExceptionGroup, match="mine") as caught:
        async with serve(script) as (_, client):
            await client.ask()
            await anyio.sleep_forever()
    (inner,) = caught.value.exceptions
    assert isinstance(inner, ScriptFailed)


async def failing_at_last(peer: Peer) -> None:
    await peer.accept()
    try:
        await anyio.sleep_forever()
    finally:
        raise ScriptFailed


async def test_failures_of_several_scripts() -> None:
    """Several failures come out as a group."""
    with pytest.raises(ExceptionGroup) as caught:
        async with ScriptedServer(failing_at_last) as server:
            for _ in range(2):
                await RawClient(await server.connect()).open()
    assert [type(error) for error in caught.value.exceptions] == [ScriptFailed, ScriptFailed]


async def test_failure_of_the_block_comes_out_as_itself(serve: Serve) -> None:
    """The block's own exception is not wrapped."""
    with pytest.raises(ValueError, match="block"):
        async with serve(Peer.mute):
            raise ValueError("block")


async def test_failures_of_block_and_script() -> None:
    """When both fail, both are told."""
    with pytest.raises(ExceptionGroup) as caught:
        async with ScriptedServer(failing) as server:
            await RawClient(await server.connect()).ask()
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError("block")
    assert [type(error) for error in caught.value.exceptions] == [ValueError, ScriptFailed]


async def test_script_that_fails_while_the_block_is_left() -> None:
    """A script that fails in its own cleanup is heard too."""
    with pytest.raises(ScriptFailed):
        async with ScriptedServer(failing_at_last) as server:
            await RawClient(await server.connect()).open()


async def test_cancellation_from_outside_passes_through(serve: Serve) -> None:
    """A timeout around the server is a timeout."""
    with pytest.raises(TimeoutError):
        with anyio.fail_after(5):
            async with serve(Peer.mute) as (_, client):
                await client.ask()
                await anyio.sleep_forever()
    assert anyio.current_time() == 5


async def test_many_connections() -> None:
    """Hundreds of connections, one after the other, leave nothing open."""

    async def script(peer: Peer) -> None:
        await peer.close(1013)

    async with ScriptedServer(script) as server:
        for _ in range(300):
            async with await server.connect(latency=0.01) as stream:
                client = RawClient(stream)
                await client.open()
                assert bytes((await client.frame()).data) == b"\x03\xf5"
        await server.wait_open(0)
        await wait_all_tasks_blocked()
        assert server.connection_count == 300

"""Connections in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream

from hypersockets.testing import Link, MemoryStream, memory_link, wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


async def read_all(stream: MemoryStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def test_bytes_go_both_ways() -> None:
    """What one end sends, the other receives; chunks are not kept apart, and `max_bytes` is a limit."""
    client, server = memory_link()
    assert client.link is server.link
    await client.send(b"abc")
    await client.send(b"")
    await client.send(b"def")
    assert await server.receive(4) == b"abcd"
    assert await server.receive() == b"ef"
    await server.send(b"xyz")
    assert await client.receive() == b"xyz"
    with pytest.raises(ValueError, match="max_bytes"):
        await client.receive(0)


async def test_reader_waits_for_bytes() -> None:
    """An empty link makes the reader wait until there is something."""
    client, server = memory_link()
    got: list[bytes] = []

    async def read() -> None:
        got.append(await server.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await wait_all_tasks_blocked()
        assert not got
        await client.send(b"x")
    assert got == [b"x"]


async def test_latency() -> None:
    """Bytes and ends arrive one latency after they were sent, in order, also when the reader comes late."""
    client, server = memory_link(latency=0.5)
    await client.send(b"a")
    await anyio.sleep(0.25)
    await client.send(b"b")
    await client.send_eof()
    assert await server.receive() == b"a"
    assert anyio.current_time() == 0.5
    assert await server.receive() == b"b"
    with pytest.raises(EndOfStream):
        await server.receive()
    assert anyio.current_time() == 0.75
    await server.send(b"later")
    await anyio.sleep(10)
    assert await client.receive() == b"later"
    assert anyio.current_time() == 10.75


async def test_cancelled_receive_loses_nothing() -> None:
    """A receive that is cancelled, at whatever point, leaves the bytes to the next one."""
    client, server = memory_link(latency=1)
    await client.send(b"abc")
    with anyio.move_on_after(0.5):
        await server.receive()
    await anyio.sleep(1)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await server.receive()
    assert await server.receive() == b"abc"


async def test_back_pressure() -> None:
    """A sender waits while the buffer is full, and goes on as the reader makes room; each direction for itself."""
    client, server = memory_link(capacity=10)
    sent: list[int] = []

    async def send() -> None:
        for size in (10, 25):
            await client.send(b"x" * size)
            sent.append(size)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await wait_all_tasks_blocked()
        assert sent == [10]
        assert "to_server=10" in repr(client)
        await server.send(b"other way")
        assert len(await server.receive(4)) == 4
        await wait_all_tasks_blocked()
        assert sent == [10]
        total = 4
        while total < 35:
            total += len(await server.receive())
    assert sent == [10, 25]
    assert await client.receive() == b"other way"


async def test_half_close() -> None:
    """After `send_eof` the peer reads the end, and the other direction goes on."""
    client, server = memory_link()
    await client.send(b"last")
    await client.send_eof()
    await client.send_eof()
    with pytest.raises(ClosedResourceError):
        await client.send(b"more")
    assert await read_all(server) == b"last"
    with pytest.raises(EndOfStream):
        await server.receive()
    await server.send(b"answer")
    assert await client.receive() == b"answer"


async def test_close() -> None:
    """The peer of a closed end reads what was sent, then the end; its writes fail; the closed end is closed."""
    client, server = memory_link()
    await client.send(b"bye")
    await server.send(b"never read")
    await client.aclose()
    await client.aclose()
    with pytest.raises(BrokenResourceError):
        await server.send(b"x")
    assert await read_all(server) == b"bye"
    for action in (client.receive(), client.send(b"x")):
        with pytest.raises(ClosedResourceError):
            await action
    assert "closed" in repr(client)


async def test_writes_fail_only_when_the_news_has_arrived() -> None:
    """With latency, the peer's close is not known at once: until then writes succeed, into the void."""
    client, server = memory_link(latency=1, capacity=4)
    await client.aclose()
    await server.send(b"more than fits")
    await anyio.sleep(1)
    with pytest.raises(BrokenResourceError):
        await server.send(b"x")


async def test_close_wakes_who_waits() -> None:
    """An end that is closed, by whichever task, does not leave others waiting."""
    client, server = memory_link(capacity=1)
    outcomes: dict[str, BaseException | None] = {}

    async def attempt(name: str, action: Callable[[], Awaitable[object]]) -> None:
        try:
            await action()
        except (ClosedResourceError, EndOfStream) as error:
            outcomes[name] = error
        else:
            outcomes[name] = None

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attempt, "own receive", client.receive)
        tasks.start_soon(attempt, "own send", lambda: client.send(b"12"))
        tasks.start_soon(attempt, "peer's receive", lambda: read_all(server))
        await wait_all_tasks_blocked()
        await client.aclose()
    assert isinstance(outcomes["own receive"], ClosedResourceError)
    assert outcomes.keys() == {"own receive", "own send", "peer's receive"}


async def test_close_lets_a_blocked_peer_go_on() -> None:
    """Who waits for room when the reader closes does not wait for ever."""
    client, server = memory_link(capacity=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expect, BrokenResourceError, server, "send")
        await wait_all_tasks_blocked()
        await client.aclose()


async def expect(error: type[Exception], stream: MemoryStream, action: str) -> None:
    with pytest.raises(error):
        await (stream.send(b"12") if action == "send" else stream.receive())


async def test_reset() -> None:
    """A reset breaks both sides at once, those who wait too, and throws away what was not read."""
    client, server = memory_link(capacity=1)
    await server.send(b"1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expect, BrokenResourceError, server, "send")
        tasks.start_soon(expect, BrokenResourceError, server, "receive")
        await wait_all_tasks_blocked()
        client.link.reset()
    await expect(BrokenResourceError, client, "receive")
    await expect(BrokenResourceError, client, "send")
    assert "reset" in repr(client.link)
    await client.aclose()
    await expect(ClosedResourceError, client, "receive")


async def test_cut() -> None:
    """A cut lets both sides read what was sent, then the end; writing fails at once, waiting writers included."""
    client, server = memory_link(latency=1, capacity=3)
    await client.send(b"up")
    async with anyio.create_task_group() as tasks:
        await server.send(b"dow")
        tasks.start_soon(expect, BrokenResourceError, server, "send")
        await wait_all_tasks_blocked()
        client.link.cut()
    assert anyio.current_time() == 0
    assert "cut" in repr(client.link)
    await expect(BrokenResourceError, client, "send")
    assert await read_all(server) == b"up"
    assert await read_all(client) == b"dow"


async def test_blackhole() -> None:
    """In a black hole writes succeed for ever, nothing arrives but what was under way, and no end is noticed."""
    client, server = memory_link(latency=1, capacity=4)
    await client.send(b"away")
    client.link.blackhole()
    await client.send(b"more than fits")
    await server.send(b"lost")
    assert "dark" in repr(client.link)
    assert await server.receive() == b"away"
    with anyio.move_on_after(3600) as scope:
        await server.receive()
    assert scope.cancelled_caught
    await client.aclose()
    await server.send(b"x")
    with anyio.move_on_after(3600) as scope:
        await server.receive()
    assert scope.cancelled_caught


async def test_blackhole_frees_a_blocked_sender() -> None:
    """Who waits for room waits no longer once everything vanishes."""
    client, server = memory_link(capacity=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, b"12")
        await wait_all_tasks_blocked()
        client.link.blackhole()
    assert await server.receive() == b"1"


async def test_heal() -> None:
    """After healing bytes arrive again; what had vanished does not."""
    client, server = memory_link()
    client.link.blackhole()
    await client.send(b"lost")
    client.link.heal()
    await client.send(b"found")
    assert await server.receive() == b"found"
    assert "up" in repr(client.link)


async def test_heal_shows_ends_that_were_missed() -> None:
    """An end closed in the dark is noticed after healing."""
    client, server = memory_link(latency=1)
    client.link.blackhole()
    await client.aclose()
    await anyio.sleep(5)
    client.link.heal()
    with pytest.raises(EndOfStream):
        await server.receive()
    assert anyio.current_time() == 6
    await expect(BrokenResourceError, server, "send")


async def test_cut_ends_a_blackhole() -> None:
    """A cut is noticed also where everything vanished before."""
    link = Link()
    link.blackhole()
    link.cut()
    assert await read_all(link.client_stream) == b""
    assert await read_all(link.server_stream) == b""


async def test_one_task_at_a_time() -> None:
    """Two tasks that read (or write) the same end are told so, as with a socket."""
    client, _ = memory_link()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await client.receive()
        tasks.cancel_scope.cancel()


async def test_sending_without_waiting() -> None:
    """It takes what there is room for, and raises as ``send`` does."""
    client, server = memory_link(capacity=5)
    assert client.send_nowait(b"abc") == 3
    assert client.send_nowait(b"defg") == 2
    assert client.send_nowait(b"fg") == 0
    assert await server.receive() == b"abcde"
    client.link.cut()
    with pytest.raises(anyio.BrokenResourceError):
        client.send_nowait(b"x")

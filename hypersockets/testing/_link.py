"""A connection in memory that behaves like TCP, with faults on demand.

Bytes carry the time at which they arrive, and who reads waits until then: a link needs no task.
"""

from __future__ import annotations

import math
from collections import deque

import anyio
import attrs
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from ._signal import Signal

__all__ = ["Link", "MemoryStream", "memory_link"]


@attrs.define(eq=False, repr=False)
class _Pipe:
    """One direction of a link."""

    latency: float
    capacity: int
    chunks: deque[tuple[float, bytes]] = attrs.field(factory=deque)
    """What was sent, with the times of arrival."""
    size: int = 0
    """Bytes in ``chunks``."""
    is_dark: bool = False
    """True iff what enters now vanishes."""
    has_ended: bool = False
    end_at: float | None = None
    """When the reader sees the end; not ``None`` iff ``has_ended`` and that is not lost in the dark."""
    is_deserted: bool = False
    deserted_at: float | None = None
    """When the writer sees that the reader has closed; as ``end_at``."""
    readable: Signal = attrs.field(factory=Signal)
    writable: Signal = attrs.field(factory=Signal)

    def put(self, data: memoryview) -> int:
        """Take in as much as there is room for, return how much that was."""
        if self.is_dark or self.is_deserted:
            return len(data)
        taken = bytes(data[: self.capacity - self.size])
        if taken:
            self.chunks.append((anyio.current_time() + self.latency, taken))
            self.size += len(taken)
            self.readable.fire()
        return len(taken)

    def take(self, max_bytes: int) -> bytes:
        """Return what has arrived, up to ``max_bytes``; nothing when nothing has."""
        now = anyio.current_time()
        taken = bytearray()
        while self.chunks and self.chunks[0][0] <= now and len(taken) < max_bytes:
            at, chunk = self.chunks.popleft()
            room = max_bytes - len(taken)
            taken += chunk[:room]
            if len(chunk) > room:
                self.chunks.appendleft((at, chunk[room:]))
        if taken:
            self.size -= len(taken)
            self.writable.fire()
        return bytes(taken)

    @property
    def next_at(self) -> float:
        """When the reader has something to see: bytes or the end."""
        if self.chunks:
            return self.chunks[0][0]
        return math.inf if self.end_at is None else self.end_at

    def end(self) -> None:
        """Let nothing more in; the reader sees the end after the bytes."""
        self.has_ended = True
        self.settle()

    def desert(self) -> None:
        """Nobody reads any more: throw away what is there and what will come."""
        self.is_deserted = True
        self.chunks.clear()
        self.size = 0
        self.settle()

    def settle(self) -> None:
        """Let the news of both ends travel, unless it is dark."""
        if not self.is_dark:
            arrival = anyio.current_time() + self.latency
            if self.has_ended and self.end_at is None:
                self.end_at = arrival
            if self.is_deserted and self.deserted_at is None:
                self.deserted_at = arrival
        self.wake()

    def wake(self) -> None:
        self.readable.fire()
        self.writable.fire()


class Link:
    """Two byte streams, each the other's peer, and the wire between them.

    Its methods are synchronous and may be called by any task of the event loop.

    Args:
        latency: Seconds that a byte (and an end) takes to arrive, one way. Order is kept.
        capacity: Bytes that may be under way or unread in each direction; more make the sender wait.
    """

    def __init__(self, latency: float = 0.0, capacity: int = 65536) -> None:
        up, down = _Pipe(latency, capacity), _Pipe(latency, capacity)
        self._pipes = (up, down)
        self.is_cut: bool = False
        """True once :meth:`cut` was called."""
        self.is_reset: bool = False
        """True once :meth:`reset` was called."""
        self.client_stream: MemoryStream = MemoryStream(self, "client", down, up)
        self.server_stream: MemoryStream = MemoryStream(self, "server", up, down)

    def cut(self) -> None:
        """End both directions: both sides read what was sent before, then the end; writing fails."""
        self.is_cut = True
        for pipe in self._pipes:
            pipe.is_dark = False
            pipe.end()

    def reset(self) -> None:
        """Break the connection at once, for both sides; what was not read is lost."""
        self.is_reset = True
        for pipe in self._pipes:
            pipe.wake()

    def blackhole(self) -> None:
        """From now on let everything vanish silently, in both directions: bytes, and ends as well.

        What is under way already still arrives.
        """
        for pipe in self._pipes:
            pipe.is_dark = True
            pipe.wake()  # who waited for room has it now

    def heal(self) -> None:
        """End a :meth:`blackhole`: what vanished stays lost, but ends that nobody noticed are noticed now."""
        for pipe in self._pipes:
            pipe.is_dark = False
            pipe.settle()

    def __repr__(self) -> str:
        up, down = self._pipes
        state = "reset" if self.is_reset else "cut" if self.is_cut else "dark" if up.is_dark else "up"
        return f"<Link {state} to_server={up.size} to_client={down.size}>"


class MemoryStream(ByteStream):
    """One end of a :class:`Link`."""

    def __init__(self, link: Link, name: str, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.link = link
        """The link that this is an end of."""
        self._name = name
        self._in = incoming
        self._out = outgoing
        self._is_closed = False
        self._receiving = anyio.ResourceGuard("reading from")
        self._sending = anyio.ResourceGuard("writing to")

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes, return at most ``max_bytes`` of them.

        Raises:
            EndOfStream: The peer has closed, or ended its direction.
            BrokenResourceError: The link was reset.
            ClosedResourceError: This end is closed.
        """
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            await checkpoint()
            while True:
                self._check()
                data = self._in.take(max_bytes)
                if data:
                    return data
                at = self._in.next_at
                if at <= anyio.current_time():
                    raise anyio.EndOfStream
                with anyio.CancelScope(deadline=at):
                    await self._in.readable.wait()

    async def send(self, item: bytes) -> None:
        """Send all bytes, waiting for room; when cancelled, an unknown part of them was sent.

        Raises:
            BrokenResourceError: The link was reset or cut, or the peer has closed.
            ClosedResourceError: This end is closed, or ended its direction.
        """
        with self._sending:
            await checkpoint()
            rest = memoryview(item)
            while True:
                self._check_writable()
                rest = rest[self._out.put(rest) :]
                if not rest:
                    return
                await self._out.writable.wait()

    def send_nowait(self, item: bytes) -> int:
        """Send as many of the bytes as there is room for, without waiting; return how many that were.

        Raises:
            BrokenResourceError, ClosedResourceError: As :meth:`send`.
        """
        self._check_writable()
        return self._out.put(memoryview(item))

    async def send_eof(self) -> None:
        """End this direction; the other one goes on."""
        if not self._out.has_ended:
            self._out.end()
        await checkpoint()

    async def aclose(self) -> None:
        """Close this end: the peer reads the end after what was sent, and its writes fail."""
        if not self._is_closed:
            self._is_closed = True
            self._out.end()
            self._in.desert()
        await checkpoint()

    def _check(self) -> None:
        if self._is_closed:
            raise anyio.ClosedResourceError
        if self.link.is_reset:
            raise anyio.BrokenResourceError

    def _check_writable(self) -> None:
        self._check()
        deserted_at = self._out.deserted_at
        if self.link.is_cut or (deserted_at is not None and deserted_at <= anyio.current_time()):
            raise anyio.BrokenResourceError
        if self._out.has_ended:
            raise anyio.ClosedResourceError

    def __repr__(self) -> str:
        return f"<MemoryStream {self._name}{' closed' if self._is_closed else ''} {self.link!r}>"


def memory_link(latency: float = 0.0, capacity: int = 65536) -> tuple[MemoryStream, MemoryStream]:
    """Return the client's and the server's end of a new :class:`Link`, which is the ``link`` of both.

    Args:
        latency: Seconds, one way.
        capacity: Bytes per direction.
    """
    link = Link(latency, capacity)
    return link.client_stream, link.server_stream

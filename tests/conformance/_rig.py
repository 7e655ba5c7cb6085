"""A transport, a backend and a kind of wire: what the suite runs over."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import anyio
import attrs
from anyio.abc import ByteStream, SocketAttribute, TaskGroup

from hypersockets._stream_transport import StreamConnector
from hypersockets._transport import OpenRequest, Transport
from hypersockets._trio_websocket_transport import TrioWebSocketConnector
from hypersockets.testing import virtual_backend
from tests.conformance._peer import Peer, Script, memory_link

LIMIT = 20
"""Seconds for anything that must end by itself."""


@attrs.frozen
class Opener:
    """Opens connections to the peer."""

    connector: StreamConnector | TrioWebSocketConnector
    netloc: str

    def __call__(self, path: str = "/", user: str = "", **fields: Any) -> AbstractAsyncContextManager[Transport]:
        return self.connector.open(OpenRequest(url=f"ws://{user}{self.netloc}{path}", proxy=None, **fields))


@attrs.frozen
class Rig:
    """One combination."""

    connector: type[StreamConnector] | type[TrioWebSocketConnector]
    backend: Literal["asyncio", "trio"]
    in_memory: bool
    uvloop: bool = False

    @property
    def name(self) -> str:
        connector = "stream" if self.is_stream else "trio-websocket"
        wire = "memory" if self.in_memory else "sockets"
        return f"{connector}-{'uvloop' if self.uvloop else self.backend}-{wire}"

    @property
    def is_stream(self) -> bool:
        return self.connector is StreamConnector

    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        if self.in_memory:
            return virtual_backend(self.backend)
        return self.backend, {"use_uvloop": True} if self.uvloop else {}

    @asynccontextmanager
    async def serve(self, script: Script, *, room: float = math.inf) -> AsyncIterator[Opener]:
        """Run ``script`` for each connection; yield what opens them. Leaving waits for the scripts."""

        async def run(stream: ByteStream) -> None:
            await Peer.play(script, stream)

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                if self.in_memory:
                    async with self._serve_memory(run, tasks, room) as opener:
                        yield opener
                else:
                    async with self._serve_sockets(run) as opener:
                        yield opener

    @asynccontextmanager
    async def _serve_memory(
        self, run: Callable[[ByteStream], Any], tasks: TaskGroup, room: float
    ) -> AsyncIterator[Opener]:
        async def open_stream(_: OpenRequest) -> ByteStream:
            client, server = memory_link(room)
            tasks.start_soon(run, server)
            return client

        yield Opener(self.connector(open_stream), "server.test")

    @asynccontextmanager
    async def _serve_sockets(self, run: Callable[[ByteStream], Any]) -> AsyncIterator[Opener]:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(SocketAttribute.local_port)

        async def handle(stream: ByteStream) -> None:
            # On asyncio anyio reads on into memory from an accepted socket until its first wait for data;
            # a peer that does not read must not read.
            if self.backend == "asyncio":
                stream._transport.pause_reading()  # type: ignore[attr-defined]
            await run(stream)

        async with listener, anyio.create_task_group() as scripts, anyio.create_task_group() as accepting:
            accepting.start_soon(listener.serve, handle, scripts)
            yield Opener(self.connector(), f"127.0.0.1:{port}")
            accepting.cancel_scope.cancel()


class Flood:
    """Sends big messages without end, to fill whatever lies between us and a peer that does not read."""

    def __init__(self, transport: Transport, message: bytes = b"x" * 2**19) -> None:
        self.transport = transport
        self.message = message
        self.count = 0
        self.stopping = False

    async def run(self) -> None:
        while not self.stopping:
            await self.transport.send(self.message)
            self.count += 1

    async def stuck(self) -> None:
        """Wait until nothing moves any more: how much fits into sockets is the kernel's secret."""
        count = -1
        while self.count != count:
            count = self.count
            await anyio.sleep(0.3)


RIGS = [
    Rig(StreamConnector, "asyncio", in_memory=True),
    Rig(StreamConnector, "trio", in_memory=True),
    Rig(StreamConnector, "asyncio", in_memory=False),
    Rig(StreamConnector, "trio", in_memory=False),
    Rig(StreamConnector, "asyncio", in_memory=False, uvloop=True),
    Rig(TrioWebSocketConnector, "trio", in_memory=True),
    Rig(TrioWebSocketConnector, "trio", in_memory=False),
]

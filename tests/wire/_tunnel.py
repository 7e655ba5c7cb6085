"""A TCP proxy that can go dark: bytes are taken and never arrive, as behind a dead router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import attrs
from anyio.abc import ByteStream, SocketAttribute, SocketStream


@attrs.define(eq=False)
class _Connection:
    is_dark: bool = False


@attrs.define(eq=False)
class Tunnel:
    """Forwards connections to a port of this machine."""

    target: int
    port: int = 0
    connections: list[_Connection] = attrs.field(factory=list)
    """Every connection ever."""

    def go_dark(self) -> None:
        """Forward nothing any more on the connections that are open, in either direction; new ones work."""
        for connection in self.connections:
            connection.is_dark = True

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Tunnel]:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.port = listener.extra(SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self._serve)
            yield self
            tasks.cancel_scope.cancel()

    async def _serve(self, near: SocketStream) -> None:
        connection = _Connection()
        self.connections.append(connection)
        async with near, await anyio.connect_tcp("127.0.0.1", self.target) as far, anyio.create_task_group() as tasks:
            tasks.start_soon(self._pump, connection, near, far)
            tasks.start_soon(self._pump, connection, far, near)

    async def _pump(self, connection: _Connection, source: ByteStream, sink: ByteStream) -> None:
        # RuntimeError is uvloop's for the end of what is broken already.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, RuntimeError):
            async for data in source:
                if not connection.is_dark:
                    await sink.send(data)
            # The end of a connection is a message too, and vanishes in the dark.
            if not connection.is_dark:
                await sink.send_eof()

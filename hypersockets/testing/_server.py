"""A WebSocket server that does exactly what a script says, in memory or on a real port."""

from __future__ import annotations

import errno
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream, TaskGroup
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream

from .._stream_transport import StreamConnector
from .._transport import OpenRequest
from ._conversation import STREAM_ERRORS, Conversation, PeerClosed, new_core
from ._link import Link, MemoryStream
from ._peer import Peer
from ._signal import Signal

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

__all__ = ["Script", "ScriptedServer"]

Script = Callable[[Peer], Awaitable[object]]
"""What a server does with one connection."""

_TLS_TIMEOUT = 10.0
_LEAVE_TIMEOUT = 1.0


class ScriptedServer:
    """Serves each connection with a script: ``async with ScriptedServer(script) as server``.

    A script starts when the handshake request was read. When it returns, what is still open is
    closed with 1000. An exception from it (:class:`PeerClosed` excepted) cancels the block, and
    comes out of it as itself. Leaving the block cancels every script and cuts every connection.

    Args:
        script: An async function of a :class:`Peer`; or several: the first serves the first connection,
            and so on; the last one serves all that follow.
        compression: Accept permessage-deflate when it is offered.
        subprotocols: Accept the first of these that is offered.
    """

    url = "ws://scripted.test/"
    """A URL for clients in memory, where any will do."""

    def __init__(
        self,
        script: Script | Sequence[Script],
        *,
        compression: bool = False,
        subprotocols: Sequence[str] = (),
    ) -> None:
        self.peers: list[Peer] = []
        """Every connection ever, in order; those that were refused are not among them."""
        self.open_count: int = 0
        """How many connections have not ended."""
        self._scripts = [script] if callable(script) else list(script)
        self._compression = compression
        self._subprotocols = tuple(subprotocols)
        self._refusals: int | None = 0  # None: all
        self._failures: list[Exception] = []
        self._changed = Signal()
        self._tasks: TaskGroup | None = None  # None iff it does not run
        self._block: AbstractAsyncContextManager[None] | None = None

    # Running

    async def __aenter__(self) -> ScriptedServer:
        self._block = self._running()
        await self._block.__aenter__()
        return self

    def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[bool | None]:
        assert self._block is not None
        return self._block.__aexit__(exc_type, exc, traceback)

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None, None]:
        raised: Exception | None = None
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            except Exception as error:  # kept out of the task group, which would wrap it
                raised = error
            finally:
                self._tasks = None
            tasks.cancel_scope.cancel()
        errors = self._failures if raised is None else [raised, *self._failures]
        if len(errors) > 1:
            raise ExceptionGroup("the block and the scripts failed", errors)
        if errors:
            raise errors[0]

    # Connecting

    async def connect(self, *, latency: float = 0.0, capacity: int = 65536) -> MemoryStream:
        """Open a connection in memory, and return the client's end of its link. The handshake is the caller's.

        Args:
            latency: Seconds, one way.
            capacity: Bytes per direction.

        Raises:
            ConnectionRefusedError: See :meth:`refuse`; or the server does not run.
        """
        await checkpoint()
        if self._tasks is None or self._is_refused():
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the scripted server refuses the connection")
        link = Link(latency, capacity)
        self._tasks.start_soon(self._converse, link.server_stream, link)
        return link.client_stream

    def connector(self, *, latency: float = 0.0, capacity: int = 65536) -> StreamConnector:
        """Return what a client takes as its transport to connect to this server in memory, whatever its URL says.

        Args:
            latency: Seconds, one way.
            capacity: Bytes per direction.
        """

        async def open_stream(_: OpenRequest) -> ByteStream:
            return await self.connect(latency=latency, capacity=capacity)

        return StreamConnector(open_stream=open_stream)

    @asynccontextmanager
    async def listen(
        self, host: str = "127.0.0.1", port: int = 0, ssl_context: ssl.SSLContext | None = None
    ) -> AsyncGenerator[str, None]:
        """Serve on a TCP port too for as long as the block lasts; its connections end with it. Yields the URL.

        Args:
            host: The address to listen on, and the host of the URL.
            port: 0 takes any that is free.
            ssl_context: For ``wss://``.
        """
        assert self._tasks is not None, "enter the server first"
        listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
        scope, done = anyio.CancelScope(), anyio.Event()

        async def serve() -> None:
            try:
                with scope:
                    await listener.serve(partial(self._welcome, ssl_context))
            finally:
                done.set()

        self._tasks.start_soon(serve)
        try:
            scheme = "ws" if ssl_context is None else "wss"
            port = listener.extra(SocketAttribute.local_port)
            yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            scope.cancel()
            with anyio.move_on_after(_LEAVE_TIMEOUT, shield=True):
                await done.wait()
                await listener.aclose()

    def refuse(self, n: int | None = 1) -> None:
        """Refuse the next ``n`` connections, ``None`` all of them; on a real port they are closed at once."""
        self._refusals = n

    def accept_all(self) -> None:
        """Refuse nothing any more."""
        self._refusals = 0

    def _is_refused(self) -> bool:
        if self._refusals:
            self._refusals -= 1
            return True
        return self._refusals is None

    # Serving

    async def _welcome(self, ssl_context: ssl.SSLContext | None, socket: SocketStream) -> None:
        if self._is_refused():
            await anyio.aclose_forcefully(socket)
            return
        stream: ByteStream = socket
        if ssl_context is not None:
            try:
                with anyio.fail_after(_TLS_TIMEOUT):
                    stream = await TLSStream.wrap(
                        socket, server_side=True, ssl_context=ssl_context, standard_compatible=False
                    )
            except (anyio.EndOfStream, *STREAM_ERRORS):  # a timeout is an OSError
                await anyio.aclose_forcefully(socket)
                return
        await self._converse(stream, None)

    async def _converse(self, stream: ByteStream, link: Link | None) -> None:
        talk = Conversation(stream, new_core(self._compression, self._subprotocols))
        self.open_count += 1
        try:
            async with anyio.create_task_group() as tasks:
                peer = Peer(len(self.peers), talk, link, tasks)
                self.peers.append(peer)
                self._changed.fire()
                tasks.start_soon(talk.read)
                tasks.start_soon(talk.reply)
                while talk.request is None and talk.end is None:
                    await talk.changed.wait()
                if talk.request is not None:
                    await self._play(self._scripts[min(peer.number, len(self._scripts) - 1)], peer)
                await peer.finish()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.move_on_after(_LEAVE_TIMEOUT, shield=True):
                await anyio.aclose_forcefully(stream)
            self.open_count -= 1
            self._changed.fire()

    async def _play(self, script: Script, peer: Peer) -> None:
        try:
            await script(peer)
        except PeerClosed:
            pass
        except ExceptionGroup as group:
            rest = group.split(PeerClosed)[1]
            if rest is not None:
                self._fail(rest)
        except Exception as error:  # comes out of the server's block
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failures.append(error)
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    # Watching

    @property
    def connection_count(self) -> int:
        """How many connections there were."""
        return len(self.peers)

    async def wait_connections(self, n: int) -> None:
        """Wait until there were ``n`` connections."""
        await checkpoint()
        while len(self.peers) < n:
            await self._changed.wait()

    async def wait_open(self, n: int) -> None:
        """Wait until exactly ``n`` connections have not ended."""
        await checkpoint()
        while self.open_count != n:
            await self._changed.wait()

    def __repr__(self) -> str:
        return f"<ScriptedServer connections={len(self.peers)} open={self.open_count}>"

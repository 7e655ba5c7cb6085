"""trio-websocket behind the same protocol, on trio only.

trio-websocket composes and parses the frames, and has its own reader. What else the conformance suite
asks for is done in the stream under it (:mod:`._trio_link`). Nothing here imports trio or
trio-websocket before a connection is opened.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import anyio
import attrs
from anyio.abc import ByteStream, TaskGroup

from ._checks import check_close_code
from ._dial import dial
from ._endings import (
    GRACE,
    Loss,
    PlainGroup,
    cut,
    cutting,
    cutting_on_error,
    linger,
    network_loss,
    own_loss,
    peer_loss,
)
from ._errors import ConfigurationError, ConnectError, ConnectionLostError
from ._handshake import broken, header_dict, headers_to_send, new_core, wrong
from ._redact import mask_url
from ._redirects import open_within
from ._transport import OpenRequest, Transport
from ._trio_link import QUEUE_SIZE, TrioLink

if TYPE_CHECKING:
    import trio
    from trio_websocket import WebSocketConnection

__all__ = ["TrioWebSocketConnector", "TrioWebSocketTransport"]

_NO_LIMIT: Final = 2**62  # the link measures messages: trio-websocket counts characters
_ITS_OWN: Final = frozenset({"connection", "host", "upgrade"})  # headers that it writes, beside sec-websocket-*


@attrs.define(eq=False, repr=False)
class _ReaderNursery:
    """Stands where trio-websocket wants a nursery for its reader, so that we see how that ends."""

    _tasks: TaskGroup
    _on_end: Callable[[], None]
    failure: Exception | None = None

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._tasks.start_soon(self._run, function, *args, name="hypersockets trio-websocket reader")

    async def _run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            await function(*args)
        except Exception as error:  # not a cancellation: what the link or wsproto raised
            self.failure = error
        finally:
            self._on_end()


@attrs.define(eq=False, repr=False)
class TrioWebSocketTransport:
    """One open connection; made by :meth:`TrioWebSocketConnector.open`, and usable within it."""

    subprotocol: str | None
    """What the server chose."""
    response_headers: Mapping[str, str]
    """The headers of the server's handshake response, names in lower case."""
    _connection: WebSocketConnection
    _link: TrioLink
    _decode_text: bool
    _queue: trio.MemoryReceiveChannel[str | bytes] | None
    """Where its reader leaves messages, for which it has no name: it gives out one at a time. ``None``: not there."""
    receive_checkpoints: ClassVar[bool] = True
    _loss: Loss | None = None
    _closed_with: int | None = None  # the code that close() was called with first
    _turn: anyio.Lock = attrs.field(factory=anyio.Lock)  # of one message, or of our close frame
    _has_lingered: bool = False
    _pings: set[anyio.CancelScope] = attrs.field(factory=set)
    _ping_numbers: itertools.count[int] = attrs.field(factory=itertools.count)

    async def receive(self) -> Sequence[str | bytes]:
        """Wait for a message and return it, with those that trio-websocket has behind it.

        Raises:
            ConnectionLostError: The connection has ended, and every message before that was given out.
        """
        from trio_websocket import ConnectionClosed

        try:
            with self._link.awaited():
                message = await self._connection.get_message()
        except ConnectionClosed:
            loss = self._end()
        else:
            # Its reader pauses after each message. To wake for each costs more than the rest of a message's way, so it
            # goes on as long as it has any. The message is out of its queue: no cancellation may come here.
            messages = [message]
            if self._queue is not None:
                await self._link.until_idle()
                messages += _taken(self._queue)
            if not self._decode_text:
                return [message.encode() if isinstance(message, str) else message for message in messages]
            return messages
        if self._link.loss is not None and not self._has_lingered:
            self._has_lingered = True
            await linger(self._link.stream)
        raise loss.error()

    async def send(self, message: str | bytes) -> None:
        """Write one whole message.

        Raises:
            ConnectionLostError: The connection has ended, or a close frame was sent.
        """
        from trio_websocket import ConnectionClosed

        self._check_open()
        try:
            async with self._turn:
                try:
                    await self._connection.send_message(message)
                    await self._link.writer.flush()
                finally:
                    self._link.message = b""  # if cancelled before its first byte
        except ConnectionClosed:
            raise self._end().error() from None

    async def ping(self) -> float:
        """Send a ping, wait for its pong or a later one's, return the seconds between.

        Raises:
            ConnectionLostError: The connection has ended.
        """
        self._check_open()
        sent_at = anyio.current_time()
        with anyio.CancelScope() as scope:
            self._pings.add(scope)
            try:
                # It would wait for ever after the end; _end() cancels it.
                await self._connection.ping(next(self._ping_numbers).to_bytes(8, "big"))
                return anyio.current_time() - sent_at
            finally:
                self._pings.discard(scope)
        raise self._end().error()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame; do nothing if one was sent or the connection has ended.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999.
            reason: Cut to the 123 bytes that fit.

        Raises:
            ValueError: The code must not be sent.
        """
        check_close_code(code)
        if self._is_open:
            self._closed_with = code
            with suppress(ConnectionLostError):
                async with self._turn:
                    await self._link.close(code, reason)

    async def discard(self) -> None:
        """After :meth:`close`: throw away what still comes, until the connection has ended."""
        self._link.is_discarding = True
        with suppress(ConnectionLostError):
            while True:
                await self.receive()

    @property
    def _is_open(self) -> bool:
        lost = self._loss or self._link.loss
        return self._connection.closed is None and self._closed_with is None and lost is None

    def _check_open(self) -> None:
        if not self._is_open:
            loss = self._loss or own_loss(self._closed_with) if self._connection.closed is None else self._end()
            raise loss.error()

    def _end(self) -> Loss:
        """Note why the connection has ended, once, and tell it those who wait for a pong."""
        self._loss = self._loss or self._judge()
        for scope in self._pings:
            scope.cancel()
        return self._loss

    def _judge(self) -> Loss:
        link, reason = self._link, self._connection.closed
        assert reason is not None
        if self._closed_with is not None:
            return own_loss(self._closed_with)
        if link.loss is None and reason.code == 1006:
            return network_loss("a frame" if link.scan.is_in_frame else "", link.cause)
        if link.loss is None:
            # It says of a broken frame as if the peer had closed; and it knows no 1014. So we look ourselves.
            close = link.scan.close_frame
            if close is not None:
                return peer_loss(*close)
            link.fail(int(reason.code), reason.reason or "")
        assert link.loss is not None
        return link.loss

    async def leave(self) -> None:
        """Cut the connection. Only a close frame that the peer is owed gets a moment to leave."""
        async with cutting(self._link.stream):
            if self._connection.closed is not None:
                self._end()
            await self._link.writer.stop(finish=self._link.is_answering_close)
            self._loss = self._loss or own_loss(None)
            for scope in self._pings:
                scope.cancel()


def _taken(queue: trio.MemoryReceiveChannel[str | bytes]) -> Iterator[str | bytes]:
    """Take all that is in a queue."""
    import trio

    with suppress(trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
        while True:
            yield queue.receive_nowait()


@attrs.frozen
class TrioWebSocketConnector:
    """Opens connections with trio-websocket; on trio only, and without compression."""

    forgets_after_close: ClassVar[bool] = True  # what comes between our close frame and the peer's
    open_stream: Callable[[OpenRequest], Awaitable[ByteStream]] | None = None
    """Opens the byte stream, TLS included; ``None`` dials TCP, TLS and proxies as the request says."""

    @asynccontextmanager
    async def open(self, request: OpenRequest) -> AsyncGenerator[Transport, None]:
        """Open a connection on entering, cut it on leaving.

        Raises:
            ConfigurationError: Not on trio; compression; or a header, the host or the proxy cannot be used.
            ConnectError: No connection, TLS failed, or the handshake did.
            HandshakeRejectedError: The server answered with something else than 101.
            OpenTimeoutError: It took longer than ``open_timeout``.
        """
        import trio.lowlevel

        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            hint = "use transport='stream' on asyncio"
            raise ConfigurationError(f"transport 'trio-websocket' runs on trio only; {hint}") from None
        if request.compression is not None:
            hint = "use compression=None or transport='stream'"
            raise ConfigurationError(f"transport 'trio-websocket' has no compression; {hint}")
        async with PlainGroup() as tasks:
            transport = await open_within(request, partial(self._attempt, tasks))
            try:
                yield transport
            finally:
                with anyio.move_on_after(3 * GRACE, shield=True):
                    await transport.leave()

    async def _attempt(self, tasks: TaskGroup, request: OpenRequest) -> TrioWebSocketTransport | OpenRequest:
        core = new_core(request)
        headers = headers_to_send(core, request)
        stream = await (self.open_stream or dial)(request)
        link = TrioLink(stream, request, tasks)
        async with cutting_on_error(stream):
            connection = await self._shake(link, core.uri.resource_name, headers, tasks, request)
        if connection is None:
            assert link.redirect is not None
            await cut(stream)
            return link.redirect
        assert link.head is not None
        response_headers = header_dict(link.head.response.headers)
        return TrioWebSocketTransport(
            connection.subprotocol,
            response_headers,
            connection,
            link,
            request.decode_text,
            getattr(connection, "_recv_channel", None),
        )

    async def _shake(
        self, link: TrioLink, path: str, headers: Mapping[str, tuple[str, str]], tasks: TaskGroup, request: OpenRequest
    ) -> WebSocketConnection | None:
        """Do the handshake; ``None`` is a redirect."""
        from trio_websocket import wrap_client_stream

        extra = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for key, (name, value) in headers.items()
            if key not in _ITS_OWN and not key.startswith("sec-websocket-")
        ]
        # wrap_client_stream waits for a response for ever, also when its reader has ended.
        waiting = anyio.CancelScope()

        def on_end() -> None:
            waiting.cancel()
            link.rest()

        nursery = _ReaderNursery(tasks, on_end)
        with waiting:
            connection = await wrap_client_stream(
                cast(Any, nursery),
                cast(Any, link),
                headers["host"][1],
                path,
                subprotocols=request.subprotocols,
                extra_headers=extra,
                message_queue_size=QUEUE_SIZE,
                max_message_size=_NO_LIMIT,
            )
            link.is_over = lambda: connection.closed is not None
            return connection
        if link.redirect is not None:
            return None
        if isinstance(nursery.failure, ConnectError):
            raise nursery.failure
        who = mask_url(request.url)
        if link.cause is not None:
            raise broken(who, link.cause) from link.cause
        raise wrong(request)

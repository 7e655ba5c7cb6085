"""WebSocket over any byte stream of anyio's, on every backend.

Rules of this file: the reader waits for bytes and for nothing else. What the core wants to say while
reading (pongs, a close reply) is written by a task that lives only as long as there is something to
write; were the reader to write itself, two peers that flood each other would wait for ever.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import ClassVar, Final

import anyio
import attrs
from anyio.abc import ByteStream, TaskGroup
from websockets.client import ClientProtocol

from ._checks import check_close_code
from ._dial import dial
from ._endings import GRACE, STREAM_ERRORS, PlainGroup, cut, cutting, cutting_on_error, linger, own_loss
from ._errors import ConnectionLostError
from ._handshake import Head, accept, ask, exchange, header_dict, new_core
from ._redact import mask_url
from ._redirects import open_within, redirected
from ._stream_protocol import StreamProtocol
from ._transport import OpenRequest, Transport
from ._writer import Writer

__all__ = ["StreamConnector", "StreamTransport"]

_READ_SIZE: Final = 262144  # as much as asyncio reads at once: what is split is copied


_Ping = tuple[Callable[[], None], Callable[[], None] | None]
"""What to call when it is answered, and, if somebody waits for it, at the end of the connection.

A bare tuple: each of thousands of idle clients has one at a time, and the garbage collector looks at all objects.
"""


@attrs.define(eq=False, repr=False)
class StreamTransport:
    """One open connection; made by :meth:`StreamConnector.open`, and usable within it."""

    subprotocol: str | None
    """What the server chose."""
    response_headers: Mapping[str, str]
    """The headers of the server's handshake response, names in lower case."""
    _stream: ByteStream
    _protocol: StreamProtocol
    _writer: Writer
    _on_activity: Callable[[], None]
    receive_checkpoints: ClassVar[bool] = True  # every receive of a byte stream is one
    _has_lingered: bool = False
    _early: Sequence[str | bytes] = ()  # came in one packet with the handshake's response
    _pings: dict[bytes, _Ping] = attrs.field(factory=dict)  # unanswered, oldest first
    _ping_number: int = 0  # of the next one

    @classmethod
    def start(
        cls, core: ClientProtocol, head: Head, stream: ByteStream, tasks: TaskGroup, request: OpenRequest
    ) -> StreamTransport:
        """Return the transport for a handshake that went well; it runs its tasks in ``tasks``."""
        protocol = StreamProtocol(core, request.decode_text)
        writer = Writer(stream, tasks, protocol)
        headers = header_dict(head.response.headers)
        transport = cls(core.subprotocol, headers, stream, protocol, writer, request.on_activity)
        if head.rest:
            transport._early = transport._digest(head.rest)
        return transport

    async def receive(self) -> Sequence[str | bytes]:
        """Wait for data and return all whole messages that it completes, at least one.

        Raises:
            ConnectionLostError: The connection has ended, and every message before that was given out.
        """
        messages, self._early = self._early, ()
        while not messages:
            if self._protocol.loss is not None:
                if self._protocol.failed and not self._has_lingered:
                    self._has_lingered = True
                    await linger(self._stream)
                raise self._protocol.loss.error()
            try:
                data = await self._stream.receive(_READ_SIZE)
            except anyio.EndOfStream:
                self._end(None)
            except STREAM_ERRORS as error:
                self._end(error)
            else:
                messages = self._digest(data) or ()  # an empty list for each idle client would wait here with it
        return messages

    async def send(self, message: str | bytes) -> None:
        """Write one whole message. Cancelled before its first byte, it is not sent at all.

        Raises:
            ConnectionLostError: The connection has ended, or a close frame was sent.
        """
        await self.send_many((message,))

    async def send_many(self, messages: Sequence[str | bytes]) -> None:
        """Write whole messages in one go: all of them, or, cancelled before the first byte, none.

        Without any, the rest of what :meth:`send_nowait` has begun.

        Raises:
            ConnectionLostError: The connection has ended, or a close frame was sent.
        """
        if messages:  # the rest of what was begun goes out before a close frame, too, that waits by now
            self._check_open()
        outgoing = self._protocol.queue(messages)
        try:
            await self._writer.flush()
        finally:
            self._protocol.withdraw(outgoing)
        if messages and not outgoing.taken:  # a close frame went first
            raise self._protocol.why_not_open().error()

    def send_nowait(self, message: str | bytes) -> int | None:
        """Write what the socket takes of a message at once; return how many bytes are left, which go out first next.

        ``None``: nothing was written, and :meth:`send` may have to wait, or will say why it cannot.
        """
        frame = self._protocol.compose(message)
        return None if frame is None else self._writer.write_nowait(frame)

    @property
    def payload_received(self) -> int:
        """Bytes of payload of all data messages so far, uncompressed."""
        return self._protocol.payload

    async def ping(self) -> float:
        """Send a ping, wait for its pong or a later one's, return the seconds between.

        Raises:
            ConnectionLostError: The connection has ended.
        """
        answered_at: list[float] = []
        over = anyio.Event()

        def on_pong() -> None:
            answered_at.append(anyio.current_time())
            over.set()

        payload, sent_at = self._ping(on_pong, over.set), anyio.current_time()
        try:
            await self._writer.flush()  # of a ping that somebody waits for
            await over.wait()
        finally:
            self._pings.pop(payload, None)
        if not answered_at:
            raise self._protocol.why_not_open().error()
        return answered_at[0] - sent_at

    async def start_ping(self, on_pong: Callable[[], None]) -> None:
        """Send a ping; ``on_pong`` is called when it is answered, never if it is not.

        Raises:
            ConnectionLostError: The connection has ended.
        """
        self._ping(on_pong)
        await self._writer.flush()

    def ping_nowait(self, on_pong: Callable[[], None]) -> bool:
        """Do what :meth:`start_ping` does if that can be done without waiting; return whether it was."""
        payload = self._note_ping(on_pong)
        frame = self._protocol.compose_ping(payload)
        left = None if frame is None else self._writer.write_nowait(frame)
        if left is None:
            del self._pings[payload]
            return False
        if left:
            self._writer.reply()
        return True

    def _ping(self, on_pong: Callable[[], None], on_end: Callable[[], None] | None = None) -> bytes:
        self._check_open()
        payload = self._note_ping(on_pong, on_end)
        self._protocol.ping(payload)
        return payload

    def _note_ping(self, on_pong: Callable[[], None], on_end: Callable[[], None] | None = None) -> bytes:
        payload = self._ping_number.to_bytes(8, "big")
        self._ping_number += 1
        self._pings[payload] = on_pong, on_end
        return payload

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame; do nothing if one was sent or the connection has ended.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999.
            reason: Cut to the 123 bytes that fit.

        Raises:
            ValueError: The code must not be sent.
        """
        check_close_code(code)
        if not self._protocol.is_open:
            return
        self._protocol.close(code, reason)
        with suppress(ConnectionLostError):
            await self._writer.flush()

    async def discard(self) -> None:
        """After :meth:`close`: throw away what still comes, until the connection has ended."""
        while self._protocol.loss is None:
            try:
                data = await self._stream.receive(_READ_SIZE)
            except anyio.EndOfStream:
                self._end(None)
            except STREAM_ERRORS as error:
                self._end(error)
            else:
                self._protocol.skip(data)

    def _check_open(self) -> None:
        if not self._protocol.is_open:
            raise self._protocol.why_not_open().error()

    # Reading

    def _digest(self, data: bytes) -> list[str | bytes]:
        before = self._protocol.frames
        messages = self._protocol.feed(data)
        for payload in self._protocol.pongs:
            self._answer(payload)
        if self._protocol.frames > before:
            self._on_activity()
        if self._protocol.loss is not None:
            self._wake_pings()
        self._writer.reply()
        return messages

    def _answer(self, payload: bytes) -> None:
        while payload in self._pings:  # a pong answers the pings before its own too
            on_pong, _ = self._pings.pop(next(iter(self._pings)))
            on_pong()

    def _end(self, cause: Exception | None) -> None:
        self._protocol.end(cause)
        self._wake_pings()

    def _wake_pings(self) -> None:
        for _, on_end in self._pings.values():
            if on_end is not None:
                on_end()

    async def leave(self) -> None:
        """Cut the connection. Only a close frame that the peer is owed gets a moment to leave."""
        async with cutting(self._stream):  # asyncio's own task.cancel() pays no heed to shields
            try:
                await self._writer.stop(finish=self._protocol.is_answering_close)
            finally:
                self._protocol.loss = self._protocol.loss or own_loss(None)
                self._wake_pings()


@attrs.frozen
class StreamConnector:
    """Opens connections over anyio's byte streams, the default on both backends."""

    open_stream: Callable[[OpenRequest], Awaitable[ByteStream]] | None = None
    """Opens the byte stream, TLS included; ``None`` dials TCP, TLS and proxies as the request says."""

    def open(self, request: OpenRequest) -> AbstractAsyncContextManager[Transport]:
        """Open a connection on entering, cut it on leaving.

        Raises:
            ConfigurationError: A header, the host or the proxy cannot be used.
            ConnectError: No connection, TLS failed, or the handshake did.
            HandshakeRejectedError: The server answered with something else than 101.
            OpenTimeoutError: It took longer than ``open_timeout``.
        """
        return _Connection(self._attempt, request)

    async def _attempt(self, tasks: TaskGroup, request: OpenRequest) -> StreamTransport | OpenRequest:
        core = new_core(request)
        asking = ask(core, request)
        stream = await (self.open_stream or dial)(request)
        async with cutting_on_error(stream):
            head = await exchange(stream, asking, mask_url(request.url))
            redirect = redirected(request, head.response)
            if redirect is None:
                accept(core, head.response, request)
                return StreamTransport.start(core, head, stream, tasks, request)
        await cut(stream)
        return redirect


@attrs.define(eq=False, repr=False)
class _Connection:
    """Open while its block lasts."""

    _attempt: Callable[[TaskGroup, OpenRequest], Awaitable[StreamTransport | OpenRequest]]
    _request: OpenRequest
    _group: PlainGroup = attrs.field(factory=PlainGroup, init=False)
    _transport: StreamTransport = attrs.field(init=False)

    async def __aenter__(self) -> StreamTransport:
        tasks = await self._group.__aenter__()
        try:
            self._transport = await open_within(self._request, partial(self._attempt, tasks))
        except BaseException as error:  # raised again, once the tasks are gone: a cancellation too
            await self._group.__aexit__(None, error, None)  # noqa: ASYNC102 - its children are cancelled
            raise
        return self._transport

    async def __aexit__(self, kind: object, raised: BaseException | None, where: object) -> None:
        try:
            with anyio.move_on_after(3 * GRACE, shield=True):
                await self._transport.leave()
        finally:
            await self._group.__aexit__(kind, raised, where)  # noqa: ASYNC102 - its children are cancelled

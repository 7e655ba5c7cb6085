"""The byte stream under trio-websocket: one of anyio's, with the methods of one of trio's.

Rules of this file: nothing that trio-websocket writes waits for the socket, for it holds a lock
meanwhile that its reader wants too. Control frames are written by a task, a message by its sender.
And what it reads is bounded here, in bytes: its own queue counts messages of any size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import anyio
import attrs
from anyio.abc import ByteStream, TaskGroup
from websockets.frames import Close, Frame, Opcode

from ._bell import Bell
from ._endings import STREAM_ERRORS, Loss, cut, cut_reason, protocol_loss
from ._frame_scan import FrameScan
from ._handshake import Head, header_dict, read_head, rejection, wrong
from ._redact import mask_text, mask_url
from ._redirects import redirected
from ._transport import OpenRequest
from ._writer import Writer

__all__ = ["QUEUE_SIZE", "TrioLink"]

_READ_SIZE: Final = 16384
_AHEAD: Final = 32768  # bytes after which reading stops if nobody waits for a message
QUEUE_SIZE: Final = 65536
"""More messages than trio-websocket's queue can ever have: each is two bytes at least of those that came with the
response (64 KiB), of the read in which a message came that was waited for, and of those ahead."""
_PENDING_PONGS: Final = 16
_CLOSE_HEAD: Final = bytes((0x80 | Opcode.CLOSE,))
_PING_HEAD: Final = bytes((0x80 | Opcode.PING,))
_PONG_HEAD: Final = bytes((0x80 | Opcode.PONG,))


def _never() -> bool:
    return False


@attrs.define(eq=False, repr=False)
class TrioLink:
    """Implements what trio-websocket uses of ``trio.abc.Stream``, and :class:`Outbound` for the writer."""

    stream: ByteStream
    _request: OpenRequest
    _tasks: TaskGroup
    is_over: Callable[[], bool] = _never
    """Whether trio-websocket holds the connection for closed: it is then fed no more."""
    head: Head | None = None
    """The head of the handshake's response, once it has come."""
    is_discarding: bool = False
    """Whether nobody wants what still comes: trio-websocket then only gets the end of it."""
    redirect: OpenRequest | None = None
    """Set if that was a redirect."""
    loss: Loss | None = None
    """Set once we failed the connection: the peer broke the protocol."""
    cause: Exception | None = None
    """What broke the stream under the reader."""
    message: bytes = b""
    """The frame of the one message that is being sent, until it is taken."""
    is_answering_close: bool = False
    """True once a close frame was queued that nobody waits for."""
    _is_idle: bool = False  # whether trio-websocket has given out all that it was fed
    _idle: Bell = attrs.field(factory=Bell)
    _is_awaited: bool = False  # whether somebody waits for a message
    _awaited: Bell = attrs.field(factory=Bell)
    _ahead: int = 0  # bytes read since somebody began to
    _has_closed: bool = False  # True once a close frame was queued at all: it is the last frame
    scan: FrameScan = attrs.field(init=False)
    writer: Writer = attrs.field(init=False)
    _control: list[bytes] = attrs.field(factory=list)  # pings, and the close frame as the last
    _pongs: deque[bytes] = attrs.field(factory=lambda: deque(maxlen=_PENDING_PONGS))

    def __attrs_post_init__(self) -> None:
        self.scan = FrameScan(self._request.max_message_size)
        self.writer = Writer(self.stream, self._tasks, self)

    # What trio-websocket calls

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return bytes for trio-websocket to parse, none at the end."""
        if self.head is None:
            return await self._shake()
        if self.is_over() or self.loss is not None:
            return b""
        self.rest()
        while self._ahead >= _AHEAD and not self._is_awaited:
            await self._awaited.wait()
        data = await self._read()
        while self.is_discarding and data and not self.scan.has_closed:
            data = await self._read()
        self._ahead += len(data)
        self._is_idle = False
        return b"" if self.is_discarding else data

    async def send_all(self, data: bytes) -> None:
        """Write the request of the handshake, or queue one frame."""
        import trio

        if self.head is None:
            try:
                await self.stream.send(data)
            except STREAM_ERRORS as error:
                self.cause = error
                raise trio.BrokenResourceError from error
        elif data[:1] == _CLOSE_HEAD:
            self._reply_close(data)
        elif data[:1] == _PONG_HEAD:
            self._pongs.append(data)
            self.writer.reply()
        elif data[:1] == _PING_HEAD:
            self._control.append(data)
            self.writer.reply()
        else:
            self.message = data

    async def aclose(self) -> None:
        """Cut the stream: trio-websocket gives up."""
        await cut(self.stream)

    # What it does not do

    def rest(self) -> None:
        """Take note that trio-websocket has given out all that it was fed: it asks for more, or has ended."""
        self._is_idle = True
        self._idle.ring()

    async def until_idle(self) -> None:
        """Wait, not cancelled, until trio-websocket has given out all that it was fed: it waits for nothing itself."""
        with anyio.CancelScope(shield=True):
            while not self._is_idle:
                await self._idle.wait()

    @contextmanager
    def awaited(self) -> Generator[None, None, None]:
        """Read for as long as it takes within the block, for a message is waited for; and a little ahead after it."""
        self._is_awaited = True
        self._ahead = 0
        self._awaited.ring()
        try:
            yield
        finally:
            self._is_awaited = False

    async def _shake(self) -> bytes:
        """Check the response: trio-websocket would wait for the end of a refusal's body, however long."""
        request = self._request
        self.head = await read_head(self.stream, mask_url(request.url))
        response = self.head.response
        self.redirect = redirected(request, response)
        if self.redirect is not None:
            return b""
        if response.status_code != 101:
            raise rejection(request, response)
        headers = header_dict(response.headers)
        # What wsproto would say of these, and trio-websocket would log, quotes them.
        if headers.get("sec-websocket-protocol", "") not in ("", *request.subprotocols):
            raise wrong(request, "Sec-WebSocket-Protocol")
        if headers.get("sec-websocket-extensions"):
            raise wrong(request, "Sec-WebSocket-Extensions")
        return self.head.raw + self._look(self.head.rest)

    async def _read(self) -> bytes:
        import trio

        try:
            return self._look(await self.stream.receive(_READ_SIZE))
        except anyio.EndOfStream:
            return b""
        except STREAM_ERRORS as error:
            self.cause = error
            raise trio.BrokenResourceError from error

    def _look(self, data: bytes) -> bytes:
        before = self.scan.frames
        data = self.scan.feed(data)
        if self.scan.frames > before:
            self._request.on_activity()
        if self.scan.is_too_big:
            self.fail(1009, f"a message larger than {self.scan.max_size} bytes")
        return data

    def fail(self, code: int, why: str) -> None:
        """Close because the peer broke the protocol."""
        why = mask_text(why)
        self.loss = protocol_loss(code, why)
        self._reply_close(_close_frame(code, why))

    def _reply_close(self, frame: bytes) -> None:
        if not self._has_closed:
            self._has_closed = self.is_answering_close = True
            self._control.append(frame)
            self.writer.reply()

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame; unlike trio-websocket's ``aclose``, throw nothing away."""
        if not self._has_closed:
            self._has_closed = True
            self._control.append(_close_frame(code, reason))
            await self.writer.flush()

    # What the writer calls

    @property
    def has_replies(self) -> bool:
        """See :class:`Outbound`."""
        return bool(self._pongs or self._control)

    def take(self) -> bytes:
        """See :class:`Outbound`."""
        data = b"".join([*self._pongs, self.message, *self._control])
        self._pongs.clear()
        self._control.clear()
        self.message = b""
        return data


def _close_frame(code: int, reason: str) -> bytes:
    return Frame(Opcode.CLOSE, Close(code, cut_reason(reason)).serialize()).serialize(mask=True)

"""One connection as the server sees it: bytes in, messages out, replies written.

Three tasks work on it: the reader (which waits for bytes, and for a script that does not keep up), the
writer of what the protocol itself has to say (pongs, close replies), and the script. Whoever has
something to write puts it into ``out`` and calls :meth:`Conversation.flush`, so order is kept.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import anyio
import attrs
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from ._frames import Opcode
from ._signal import Signal

__all__ = ["STREAM_ERRORS", "Conversation", "PeerClosed", "abort", "new_core"]

STREAM_ERRORS: Final = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)
"""What a stream raises when its connection is gone; TLS errors are OSErrors."""

_FIN: Final = b""
_BACKLOG: Final = 10_000  # messages that the script has not received
_SILENT = logging.Logger("hypersockets.testing.silent")
_SILENT.disabled = True


class PeerClosed(Exception):
    """The client closed the connection, or it was lost. A script may let it pass: it ends the script, nothing else.

    Attributes:
        code: The code of the client's close frame (1005 for an empty one), ``None`` without one.
        reason: The reason of the client's close frame, or what happened.
    """

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        code = "no close frame" if self.code is None else self.code
        return f"the connection has ended: {code} {self.reason}".rstrip()


def new_core(compression: bool, subprotocols: Sequence[str]) -> ServerProtocol:
    """Return the protocol of one connection; it takes the first of ``subprotocols`` that the client offers, or none."""

    def select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return next((Subprotocol(each) for each in subprotocols if each in offered), None)

    extensions = [ServerPerMessageDeflateFactory()] if compression else None
    return ServerProtocol(extensions=extensions, select_subprotocol=select, max_size=None, logger=_SILENT)


def _below_tls(stream: ByteStream) -> ByteStream:
    while isinstance(stream, TLSStream):
        stream = stream.transport_stream  # type: ignore[assignment]  # nothing but byte streams is wrapped here
    return stream


def _asyncio_transports(stream: ByteStream) -> list[asyncio.Transport]:
    """Return the one below a socket's stream on asyncio, none otherwise."""
    transport = getattr(_below_tls(stream), "_transport", None)
    return [] if transport is None else [transport]


async def abort(stream: ByteStream) -> None:
    """Close a socket so that the peer gets a reset."""
    raw = stream.extra(SocketAttribute.raw_socket)
    with suppress(OSError):  # it is closed already
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for transport in _asyncio_transports(stream):
        transport.abort()  # before 4.16 AnyIO takes its leave with a FIN when it closes
    await anyio.aclose_forcefully(_below_tls(stream))


@attrs.define(eq=False, repr=False)
class Conversation:
    """The state that reader, writer and script share."""

    stream: ByteStream
    core: ServerProtocol
    request: Request | None = None
    """Not ``None`` once a whole handshake request was read."""
    received: list[str | bytes] = attrs.field(factory=list)
    taken: int = 0
    """How many of ``received`` the script has got."""
    pings: list[bytes] = attrs.field(factory=list)
    pongs: list[bytes] = attrs.field(factory=list)
    end: tuple[int | None, str] | None = None
    """Close code and reason; not ``None`` once no message will come any more."""
    shut: str | None = None
    """Why the script may not send any more; ``None`` while ``end`` decides."""
    is_over: bool = False
    """True once the client's direction has ended: there is nothing left to read."""
    auto_pong: bool = True
    is_mute: bool = False
    is_drained: bool = False
    """True iff the reader shall not wait for the script."""
    is_torn: bool = False
    """True iff what was sent does not end between two frames."""
    changed: Signal = attrs.field(factory=Signal)
    reading: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    out: list[bytes] = attrs.field(factory=list)
    """What is to be written; ``b""`` stands for the end of our direction."""
    _has_ended: bool = False  # our direction
    _fragments: list[bytes] = attrs.field(factory=list)
    _is_text: bool = False
    _replies: Signal = attrs.field(factory=Signal)
    _writing: anyio.Lock = attrs.field(factory=anyio.Lock)

    # Reading

    async def read(self) -> None:
        """Read until the client's direction has ended."""
        with self.reading:
            while not self.is_over:
                try:
                    data = await self.stream.receive()
                except (anyio.EndOfStream, *STREAM_ERRORS):
                    self.is_over = True
                    self.core.receive_eof()
                else:
                    self.core.receive_data(data)
                self._digest()
                while len(self.received) - self.taken > _BACKLOG and not self.is_drained:
                    await self.changed.wait()

    def _digest(self) -> None:
        for event in self.core.events_received():
            if isinstance(event, Request):
                self.request = event
            else:
                assert isinstance(event, Frame)
                self._take_in(event)
        replies = self.core.data_to_send()
        if not self.auto_pong:
            replies = [reply for reply in replies if not reply or reply[0] & 0x0F != Opcode.PONG]
        if not self.is_mute:
            self.out += replies
        close, error = self.core.close_rcvd, self.core.handshake_exc or self.core.parser_exc
        if close is not None:
            self.end = close.code, close.reason
        elif self.is_over or error is not None:
            self.end = None, self.shut or str(error or "")
        self._replies.fire()
        self.changed.fire()

    def _take_in(self, frame: Frame) -> None:
        if frame.opcode == Opcode.PING:
            self.pings.append(bytes(frame.data))
        elif frame.opcode == Opcode.PONG:
            self.pongs.append(bytes(frame.data))
        elif frame.opcode != Opcode.CLOSE:
            if frame.opcode != Opcode.CONT:
                self._is_text = frame.opcode == Opcode.TEXT
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                message = b"".join(self._fragments)
                self._fragments.clear()
                self._complete(message)

    def _complete(self, message: bytes) -> None:
        if not self._is_text:
            self.received.append(message)
            return
        try:
            self.received.append(message.decode())
        except UnicodeDecodeError as error:
            self.core.fail(1007, error.reason)
            self.core.parser_exc = error

    def stop_reading(self) -> None:
        """Leave everything that comes from now on to the socket's buffer."""
        self.reading.cancel()
        for transport in _asyncio_transports(self.stream):
            transport.pause_reading()  # before 4.16 AnyIO goes on reading after a receive was cancelled

    # Writing

    async def reply(self) -> None:
        """Write what the reader leaves to be written; never returns."""
        while True:
            await self.flush()
            await self._replies.wait()

    def queue(self, *data: bytes) -> None:
        """Put what the core has to say, then ``data``, into ``out``."""
        self.out += [*self.core.data_to_send(), *data]

    async def flush(self) -> None:
        """Write what is in ``out``. That the connection is gone is for the reader to find out."""
        async with self._writing:
            while self.out:
                chunks, self.out = self.out, []
                if self._has_ended:
                    continue
                end = chunks.index(_FIN) if _FIN in chunks else len(chunks)
                try:
                    if end:
                        await self.stream.send(b"".join(chunks[:end]))
                    if end < len(chunks):
                        self._has_ended = True
                        await _below_tls(self.stream).send_eof()
                except (*STREAM_ERRORS, RuntimeError):  # the last: uvloop's for the end of what is broken already
                    self._has_ended = self.is_drained = True
                    self.changed.fire()
                except BaseException:  # cancelled: nobody knows how much was sent
                    self.is_torn = True
                    raise

    def write_no_more(self) -> None:
        """Throw away what waits to be written, and whatever comes, the end of our direction included."""
        self.out.clear()
        self._has_ended = True

    def shut_down(self, why: str) -> None:
        """Let the script send nothing more."""
        self.shut = self.shut or why

    @property
    def is_open(self) -> bool:
        """Whether frames may be sent."""
        return self.core.state is State.OPEN and not self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether nothing more may be sent."""
        return self.end is not None or self.shut is not None

    def closed(self) -> PeerClosed:
        """Return what a script gets that goes on after the end."""
        return PeerClosed(*(self.end or (None, self.shut or "")))

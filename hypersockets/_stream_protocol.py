"""One connection without its I/O: bytes in, messages out; messages in, bytes out; and how it ended.

The ``websockets`` core does framing, masking, compression, control frames, the close and the size
limit. What it leaves to its user is here: whole messages of fragments, UTF-8 (RFC 6455 section 8.1),
which bytes go out in which order, and what an ending is called.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from ._endings import Loss, cut_reason, network_loss, own_loss, peer_loss, protocol_loss
from ._frame_scan import FrameScan
from ._redact import mask_text

__all__ = ["Outgoing", "StreamProtocol"]

_DATA: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_PONG_HEAD: Final = bytes((0x80 | Opcode.PONG,))
_PENDING_PONGS: Final = 16
_SEARCHED: Final = 1024  # bytes of each read, one by one; larger frames are few, so parsing them is quick enough


@attrs.define(eq=False)
class Outgoing:
    """A message that waits for its turn on the wire."""

    opcode: Opcode
    payload: bytes
    taken: bool = False
    """True once its bytes were handed out to be written: it cannot be called back any more."""


@attrs.define(eq=False)
class StreamProtocol:
    """The state of one open connection; implements :class:`Outbound`."""

    _core: ClientProtocol
    _decode_text: bool
    loss: Loss | None = None
    """How it ended; ``None`` as long as more messages may come. Set once."""
    failed: bool = False
    """True iff the peer broke the protocol and we answered with a close frame."""
    frames: int = 0
    """How many frames of any kind have arrived."""
    pongs: list[bytes] = attrs.field(factory=list)
    """The payloads of the pongs in what was fed last."""
    _closed_with: int | None = None  # the code of the close frame that close() made, None if it made none
    _scan: FrameScan | None = None  # of what comes when nobody wants it any more; None until it can begin
    _parts: bytearray | None = None  # the fragments of a message that is not whole yet
    _text: bool = False  # True iff that message is text
    _waiting: deque[Outgoing] = attrs.field(factory=deque)
    _frames_out: list[bytes] = attrs.field(factory=list)
    _pongs_out: deque[bytes] = attrs.field(factory=lambda: deque(maxlen=_PENDING_PONGS))

    # Inbound

    def feed(self, data: bytes) -> list[str | bytes]:
        """Take what was read and return the whole messages that it completes."""
        self.pongs = []
        self._core.receive_data(data)
        messages: list[str | bytes] = []
        for frame in self._core.events_received():
            assert isinstance(frame, Frame)
            self.frames += 1
            if frame.opcode is Opcode.PONG:
                self.pongs.append(bytes(frame.data))
            elif frame.opcode in _DATA:
                try:
                    message = self._assemble(frame)
                except UnicodeDecodeError as error:
                    self._core.fail(1007, "text that is not UTF-8")
                    self._fail(1007, f"text that is not UTF-8 ({error.reason} at byte {error.start})")
                    break
                if message is not None:
                    messages.append(message)
        self._collect()
        if self.loss is None:
            self._judge()
        return messages

    def skip(self, data: bytes) -> None:
        """Take what was read after our close frame, of which only the peer's end counts.

        Finding the frames' ends is four times as fast as parsing them, and a flood may have filled the buffers of
        two kernels before our close frame came to it.
        """
        position = 0
        while self._scan is None and self.loss is None and position < len(data):
            # The scan can begin where a frame ends. The core does not say where that is: only when.
            end = position + 1 if position < _SEARCHED else len(data)
            before = self.frames
            self.feed(data[position:end])
            position = end
            if self.frames == before + 1 and end <= _SEARCHED:
                self._scan = FrameScan(None)
        if self._scan is not None and self.loss is None:
            self._scan.feed(data[position:])
            if self._scan.has_closed:
                self.loss = own_loss(self._closed_with)

    def _assemble(self, frame: Frame) -> str | bytes | None:
        payload = frame.data
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        if self._parts is not None or not frame.fin:
            # Joined as they come: an endless stream of empty fragments takes no memory.
            parts = self._parts = bytearray() if self._parts is None else self._parts
            parts += payload
            if not frame.fin:
                return None
            payload, self._parts = parts, None
        return str(payload, "utf-8") if self._text and self._decode_text else bytes(payload)

    def _judge(self) -> None:
        """See whether what was read ended the connection."""
        core = self._core
        if core.close_rcvd is None and core.parser_exc is None:
            return
        if self._closed_with is not None:
            self.loss = own_loss(self._closed_with)
        elif core.close_rcvd is not None:
            self.loss = peer_loss(int(core.close_rcvd.code), core.close_rcvd.reason)
        else:
            assert core.close_sent is not None
            self._fail(int(core.close_sent.code), mask_text(core.close_sent.reason or str(core.parser_exc)))

    def _fail(self, code: int, why: str) -> None:
        self.failed = True
        self.loss = protocol_loss(code, why)

    def end(self, cause: Exception | None) -> None:
        """Take note that the stream has ended, or broken for this cause."""
        if self._closed_with is not None:
            self.loss = own_loss(self._closed_with)
            return
        self._core.receive_eof()
        is_in_frame = str(self._core.parser_exc).startswith("stream ends")
        where = "a frame" if is_in_frame else "a message" if self._parts is not None else ""
        self.loss = network_loss(where, cause)

    # Outbound

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent: no close frame was sent or received, and the stream has not ended."""
        return self.loss is None and self._core.state is State.OPEN

    def why_not_open(self) -> Loss:
        """Return why :attr:`is_open` is false."""
        return self.loss or own_loss(self._closed_with)

    def queue(self, message: str | bytes) -> Outgoing:
        """Let a message wait for the next :meth:`take`."""
        if isinstance(message, str):
            outgoing = Outgoing(Opcode.TEXT, message.encode())
        else:
            outgoing = Outgoing(Opcode.BINARY, message)
        self._waiting.append(outgoing)
        return outgoing

    def withdraw(self, outgoing: Outgoing) -> None:
        """Forget a message that was not taken."""
        if not outgoing.taken:
            self._waiting.remove(outgoing)

    def ping(self, payload: bytes) -> None:
        """Add a ping."""
        self._core.send_ping(payload)
        self._collect()

    def close(self, code: int, reason: str) -> None:
        """Add a close frame, behind the messages that wait."""
        self._serialize()
        self._closed_with = code
        self._core.send_close(code, cut_reason(reason))
        self._collect()

    @property
    def has_replies(self) -> bool:
        """Whether something waits to be written that no caller of ``send`` waits for."""
        return bool(self._frames_out or self._pongs_out)

    @property
    def is_answering_close(self) -> bool:
        """Whether the core sent a close frame of its own: an echo, or for a broken protocol."""
        return self._core.close_sent is not None and self._closed_with is None

    def take(self) -> bytes:
        """Return all that waits, to be written at once."""
        self._serialize()
        data = b"".join([*self._pongs_out, *self._frames_out])
        self._pongs_out.clear()
        self._frames_out.clear()
        return data

    def _serialize(self) -> None:
        while self._waiting and self.is_open:
            outgoing = self._waiting.popleft()
            outgoing.taken = True
            if outgoing.opcode is Opcode.TEXT:
                self._core.send_text(outgoing.payload)
            else:
                self._core.send_binary(outgoing.payload)
        self._collect()

    def _collect(self) -> None:
        for frame in self._core.data_to_send():
            # A peer that pings and does not read gets the newest pongs only (RFC 6455 section 5.5.3).
            if frame[:1] == _PONG_HEAD:
                self._pongs_out.append(frame)
            elif frame:  # empty: the core's sign for a half-close, which no server needs
                self._frames_out.append(frame)

"""One connection without its I/O: bytes in, messages out; messages in, bytes out; and how it ended.

The ``websockets`` core does framing, masking, compression, control frames, the close and the size
limit. What it leaves to its user is here: whole messages of fragments, UTF-8 (RFC 6455 section 8.1),
which bytes go out in which order, and what an ending is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import attrs
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State

from ._assembly import Assembly, TooMuchError
from ._endings import Loss, cut_reason, network_loss, own_loss, peer_loss, protocol_loss
from ._frame_scan import CONTROL_SIZE, FrameScan
from ._framing import LIFTED, PLAIN, compose, compose_one, head_size, is_hopeless, is_plain, lift
from ._redact import mask_text

__all__ = ["Outgoing", "StreamProtocol"]

_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY
_DATA: Final = (_TEXT, _BINARY, Opcode.CONT)
_PONG_HEAD: Final = bytes((0x80 | Opcode.PONG,))
_CLOSE_HEAD: Final = bytes((0x80 | Opcode.CLOSE,))
_PENDING_PONGS: Final = 16
_SEARCHED: Final = 1024  # bytes of each read, one by one; larger frames are few, so parsing them is quick enough


@attrs.define(eq=False, repr=False)
class Outgoing:
    """Messages that wait for their turn on the wire, all together."""

    frames: list[tuple[Opcode, bytes]]
    """Of each the opcode and the payload."""
    taken: bool = False
    """True once their bytes were handed out to be written: they cannot be called back any more."""


@attrs.define(eq=False, repr=False)
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
    payload: int = 0
    """How many bytes of data messages have arrived."""
    _assembly: Assembly = attrs.field(init=False)
    _lane: int | None = attrs.field(init=False)  # the largest payload that is lifted; None: the core gets everything
    _decode: Callable[[bytes], str | bytes] = attrs.field(init=False)
    _rest: bytes = b""  # the beginning of a frame that the core has not been given
    _behind: tuple[bytes, int] = (b"", 0)  # what was read, and where in it what is being fed ends
    _owed: int = 0  # the bytes still to come of the frame that the core is in
    _closed_with: int | None = None  # the code of the close frame that close() made, None if it made none
    _scan: FrameScan | None = None  # of what comes when nobody wants it any more; None until it can begin
    _waiting: list[Outgoing] = attrs.field(factory=list)
    _frames_out: list[bytes] = attrs.field(factory=list)
    _pongs_out: list[bytes] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        limit = self._core.max_message_size
        max_size = math.inf if limit is None else limit - CONTROL_SIZE
        self._lane = None if self._core.extensions else int(min(max_size, LIFTED))
        self._decode = bytes.decode if self._decode_text else bytes
        self._assembly = Assembly(max_size, self._decode)

    # Inbound

    def feed(self, data: bytes) -> list[str | bytes]:
        """Take what was read and return the whole messages that it completes."""
        self.pongs.clear()
        messages: list[str | bytes] = []
        if self._lane is None:
            self._ask_core(data, 0, len(data), messages)
        else:
            at = self._finish_begun(data, self._lane, messages) if self._rest else 0
            self._feed_by_lane(data, at, self._lane, messages)
        return messages

    def _finish_begun(self, data: bytes, limit: int, messages: list[str | bytes]) -> int:
        """Take as much as completes the frame that has begun; return how much that was. The rest is not copied."""
        at = 0
        while self._rest and at < len(data):
            begun, known = self._rest, len(self._rest)
            head, payload = head_size(begun, 0) if known > 1 else (2, 0)
            size = head if known < head else head + payload
            self._rest, at = b"", at + size - known
            self._behind = data, at
            self._feed_by_lane(begun + data[at - size + known : at], 0, limit, messages)
        self._behind = b"", 0
        return min(at, len(data))

    def _feed_by_lane(self, data: bytes, at: int, limit: int, messages: list[str | bytes]) -> None:
        """Lift what is plain; give the core the other frames, whole or as they come, and only at their ends go on."""
        size = len(data)
        if self._owed and at < size:
            owed = min(self._owed, size - at)
            self._owed -= owed
            self._ask_core(data, at, at + owed, messages)
            at += owed
        while at < size and not self._is_at_end:
            if data[at] in PLAIN and not self._assembly.is_open:
                before = len(messages)
                at, payload = lift(data, at, limit, self._decode, messages)
                self.frames += len(messages) - before
                self.payload += payload
                if at == size:
                    return
            end = self._next_end(data, at, limit)
            if end == at:  # not enough to decide
                self._rest = data[at:]
                return
            self._owed = max(0, end - size)
            self._ask_core(data, at, min(end, size), messages)
            at = end

    def _next_end(self, data: bytes, at: int, limit: int) -> int:
        """Return up to where the core has to be asked about the frame that begins at ``at``."""
        size = len(data)
        if size - at < 2:
            return at
        if is_hopeless(data, at):
            return size
        head, payload = head_size(data, at)
        if size - at < head:
            return at
        end = at + head + payload
        is_lifted_later = end > size and not self._assembly.is_open and is_plain(data, at, limit)
        return at if is_lifted_later else end

    @property
    def _is_at_end(self) -> bool:
        """Whether the core looks at nothing any more."""
        return self.failed or self._core.close_rcvd is not None or self._core.parser_exc is not None

    def _ask_core(self, data: bytes, at: int, end: int, messages: list[str | bytes]) -> None:
        """Have the core take a part of what was read."""
        self._core.receive_data(data[at:end])
        for frame in self._core.events_received():
            assert isinstance(frame, Frame)
            self.frames += 1
            if frame.opcode is Opcode.PONG:
                self.pongs.append(bytes(frame.data))
            elif frame.opcode in _DATA:
                self.payload += len(frame.data)
                try:
                    message = self._assembly.add(frame)
                except UnicodeDecodeError as error:
                    self._give_the_rest(data, end)
                    where = f" ({error.reason} at byte {error.start})"
                    self._refuse(1007, "text that is not UTF-8", where)
                    break
                except TooMuchError as error:
                    self._give_the_rest(data, end)
                    self._refuse(1009, str(error))
                    break
                if message is not None:
                    messages.append(message)
        self._collect()
        if self.loss is None:
            self._judge()

    def _give_the_rest(self, data: bytes, at: int) -> None:
        """Give the core all that was read: pings in there are answered, as if it had come at once."""
        behind, start = self._behind
        self._core.receive_data(data[at:] + behind[start:])

    def skip(self, data: bytes) -> None:
        """Take what was read after our close frame, of which only the peer's end counts.

        Finding the frames' ends is four times as fast as parsing them, and a flood may have filled the buffers of
        two kernels before our close frame came to it.
        """
        if self._scan is None:
            data = self._to_frame_end(data)
        if self._scan is not None and self.loss is None:
            self._scan.feed(data)
            if self._scan.has_closed:
                self.loss = own_loss(self._closed_with)

    def _to_frame_end(self, data: bytes) -> bytes:
        """Give the core the rest of the frame that it is in; begin to scan behind that, and return what is there."""
        if self._lane is not None:
            data, self._rest = self._rest + data, b""
            owed, self._owed = data[: self._owed], max(0, self._owed - len(data))
            if owed:
                self._ask_core(owed, 0, len(owed), [])
            if not self._owed:
                self._scan = FrameScan(None)
            return data[len(owed) :]
        position = 0
        while self._scan is None and self.loss is None and position < len(data):
            # The core does not say where a frame ends: only when.
            end = position + 1 if position < _SEARCHED else len(data)
            before = self.frames
            self.feed(data[position:end])
            position = end
            if self.frames == before + 1 and end <= _SEARCHED:
                self._scan = FrameScan(None)
        return data[position:]

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

    def _refuse(self, code: int, why: str, where: str = "") -> None:
        """Fail the connection for what the core let pass."""
        if self._core.state is State.OPEN:
            self._core.fail(code, why)
        elif self._closed_with is None:
            # A close frame came behind, and the core has answered it: this comes first.
            self._collect()
            self._frames_out = [frame for frame in self._frames_out if frame[:1] != _CLOSE_HEAD]
            self._frames_out.append(Frame(Opcode.CLOSE, Close(code, why).serialize()).serialize(mask=True))
        self._fail(code, why + where)

    def _fail(self, code: int, why: str) -> None:
        self.failed = True
        self.loss = protocol_loss(code, why)

    def end(self, cause: Exception | None) -> None:
        """Take note that the stream has ended, or broken for this cause."""
        if self._closed_with is not None:
            self.loss = own_loss(self._closed_with)
            return
        if self._rest:  # the core says of what the stream's end is the middle
            self._core.receive_data(self._rest)
        self._core.receive_eof()
        is_in_frame = str(self._core.parser_exc).startswith("stream ends")
        where = "a frame" if is_in_frame else "a message" if self._assembly.is_open else ""
        self.loss = network_loss(where, cause)

    # Outbound

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent: no close frame was sent or received, and the stream has not ended."""
        return self.loss is None and self._core.state is State.OPEN

    def why_not_open(self) -> Loss:
        """Return why :attr:`is_open` is false."""
        return self.loss or own_loss(self._closed_with)

    def compose(self, message: str | bytes) -> bytes | None:
        """Return the frame of a message, if that may be written next, or not at all.

        ``None``: something waits before it, nothing may be written any more, or it would be compressed: what is taken
        out of the compressor has to be written.
        """
        if self._lane is None or not self._is_free:
            return None
        return compose_one(_TEXT, message.encode()) if isinstance(message, str) else compose_one(_BINARY, message)

    def compose_ping(self, payload: bytes) -> bytes | None:
        """Return a ping, if that may be written next, or not at all; ``None`` as :meth:`compose`."""
        return compose_one(Opcode.PING, payload) if self._is_free else None

    @property
    def _is_free(self) -> bool:
        # What is_open and has_replies tell, without their calls: thousands of clients may send a ping at a time.
        is_open = self.loss is None and self._core.state is State.OPEN
        return is_open and not (self._waiting or self._frames_out or self._pongs_out)

    def queue(self, messages: Sequence[str | bytes]) -> Outgoing:
        """Let messages wait for the next :meth:`take`."""
        frames = [(_TEXT, each.encode()) if isinstance(each, str) else (_BINARY, each) for each in messages]
        outgoing = Outgoing(frames)
        self._waiting.append(outgoing)
        return outgoing

    def withdraw(self, outgoing: Outgoing) -> None:
        """Forget messages that were not taken."""
        if not outgoing.taken:
            self._waiting.remove(outgoing)

    def ping(self, payload: bytes) -> None:
        """Add a ping."""
        self._frames_out.append(compose_one(Opcode.PING, payload))  # the core takes longer to do the same

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
        data = b"".join(self._pongs_out + self._frames_out)
        self._pongs_out.clear()
        self._frames_out.clear()
        return data

    def _serialize(self) -> None:
        if not self._waiting or not self.is_open:
            return
        waiting, self._waiting = self._waiting, []
        for outgoing in waiting:
            outgoing.taken = True
            if self._lane is not None:
                self._frames_out.append(compose(outgoing.frames))
                continue
            for opcode, payload in outgoing.frames:
                if opcode is _TEXT:
                    self._core.send_text(payload)
                else:
                    self._core.send_binary(payload)
            self._collect()

    def _collect(self) -> None:
        for frame in filter(None, self._core.data_to_send()):  # empty: a half-close, which no server needs
            # A peer that pings and does not read gets the newest pongs only (RFC 6455 section 5.5.3).
            if frame[:1] == _PONG_HEAD:
                self._pongs_out.append(frame)
                del self._pongs_out[:-_PENDING_PONGS]
            else:
                self._frames_out.append(frame)

"""The server's end of one connection, played by a test: it sees every byte and sends what it likes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledByteStream
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

Script = Callable[["Peer"], Awaitable[object]]


def memory_link(room: float = math.inf) -> tuple[ByteStream, ByteStream]:
    """Return the two ends of a connection in memory; ``room`` is how many writes may wait unread."""
    to_server, from_client = anyio.create_memory_object_stream[bytes](room)
    to_client, from_server = anyio.create_memory_object_stream[bytes](room)
    client = StapledByteStream(to_server, BufferedByteReceiveStream(from_server))  # type: ignore[arg-type]
    server = StapledByteStream(to_client, BufferedByteReceiveStream(from_client))  # type: ignore[arg-type]
    return client, server


def frame(opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Return the bytes of one frame as a server sends it."""
    return Frame(opcode, payload, fin).serialize(mask=False)


def text(payload: str) -> bytes:
    return frame(Opcode.TEXT, payload.encode())


def close(code: int, reason: str = "") -> bytes:
    return frame(Opcode.CLOSE, Close(code, reason).serialize())


class Peer:
    """Replies to nothing by itself."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.core = ServerProtocol(max_size=None)
        self.request: Request | None = None
        self.headers: dict[str, list[str]] = {}
        self._frames: list[Frame] = []

    @classmethod
    async def play(cls, script: Script, stream: ByteStream) -> None:
        """Run ``script`` on a stream, then close that."""
        async with stream:
            await script(cls(stream))

    async def read_request(self) -> None:
        while self.request is None:
            self.core.receive_data(await self.stream.receive())
            for event in self.core.events_received():
                assert isinstance(event, Request)
                self.request = event
        for name, value in self.request.headers.raw_items():
            self.headers.setdefault(name.lower(), []).append(value)

    async def accept(
        self,
        *,
        then: bytes = b"",
        headers: Mapping[str, str] | None = None,
        subprotocol: str | None = None,
        deflate: bool = False,
    ) -> None:
        """Answer the handshake with 101, and ``then`` in the same packet."""
        self.core.available_extensions = [ServerPerMessageDeflateFactory()] if deflate else None
        await self.read_request()
        assert self.request is not None
        response = self.core.accept(self.request)
        for name, value in (headers or {}).items():
            if name in response.headers:
                del response.headers[name]
            response.headers[name] = value
        if subprotocol is not None:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self.core.send_response(response)
        await self.stream.send(b"".join(self.core.data_to_send()) + then)

    async def write(self, *data: bytes) -> None:
        if any(data):  # an empty item of a memory stream is the end to some
            await self.stream.send(b"".join(data))

    async def answer(self) -> None:
        """Send what the protocol asks for: pongs, a close reply."""
        await self.write(*self.core.data_to_send())

    async def next(self) -> Frame:
        """Wait for the client's next frame. Raises ``EndOfStream``."""
        while not self._frames:
            self.core.receive_data(await self.stream.receive())
            for event in self.core.events_received():
                assert isinstance(event, Frame)
                self._frames.append(event)
        return self._frames.pop(0)

    async def until_close(self) -> tuple[int, str]:
        """Read up to the client's close frame, and return its code and reason."""
        while True:
            got = await self.next()
            if got.opcode is Opcode.CLOSE:
                parsed = Close.parse(bytes(got.data))
                return int(parsed.code), parsed.reason

    async def until_eof(self) -> list[Frame]:
        """Read until the client has cut the connection, and return the frames that came before."""
        frames = []
        try:
            while True:
                frames.append(await self.next())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return frames


async def echo(peer: Peer) -> None:
    """Send each message back, and do all that the protocol asks for."""
    await peer.accept()
    try:
        while True:
            got = await peer.next()
            if got.opcode in (Opcode.TEXT, Opcode.BINARY):
                await peer.write(frame(got.opcode, bytes(got.data)))
            await peer.answer()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        pass


def payloads(frames: Sequence[Frame]) -> list[bytes]:
    return [bytes(each.data) for each in frames]

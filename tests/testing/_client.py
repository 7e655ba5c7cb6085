"""A small client for the tests of the server: it shows every frame as it came."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from anyio.abc import ByteStream
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.protocol import Event
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from hypersockets.testing import Opcode


class RawClient:
    def __init__(
        self, stream: ByteStream, *, subprotocols: Sequence[str] = (), deflate: bool = False, path: str = "/"
    ) -> None:
        self.stream = stream
        self.core = ClientProtocol(
            parse_uri(f"ws://scripted.test{path}"),
            subprotocols=[Subprotocol(each) for each in subprotocols] or None,
            extensions=[ClientPerMessageDeflateFactory()] if deflate else None,
        )
        self.events: list[Event] = []

    async def write(self) -> None:
        # What follows the end of our direction is b""; the tests end it themselves.
        data = b"".join(self.core.data_to_send())
        if data:
            await self.stream.send(data)

    async def ask(self, headers: dict[str, str] | None = None) -> None:
        request = self.core.connect()
        for name, value in (headers or {}).items():
            request.headers[name] = value
        self.core.send_request(request)
        await self.write()

    async def open(self, headers: dict[str, str] | None = None) -> Response:
        """Do the handshake, and return the response, whatever it is."""
        await self.ask(headers)
        response = await self.event()
        assert isinstance(response, Response)
        return response

    async def event(self) -> Event:
        """Return the next frame or response; raise EndOfStream at the end. Pings are not answered."""
        while not self.events:
            self.core.receive_data(await self.stream.receive())
            self.events += self.core.events_received()
        return self.events.pop(0)

    async def frame(self) -> Frame:
        event = await self.event()
        assert isinstance(event, Frame)
        return event

    async def text(self) -> str:
        frame = await self.frame()
        assert frame.opcode == Opcode.TEXT, frame
        return bytes(frame.data).decode()

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.core.send_text(message.encode())
        else:
            self.core.send_binary(message)
        await self.write()

    async def close(self, code: int | None = 1000, reason: str = "") -> None:
        self.core.send_close(code, reason)
        await self.write()

    async def rest(self) -> bytes:
        """Return all bytes up to the end."""
        data = b""
        while True:
            try:
                data += await self.stream.receive()
            except anyio.EndOfStream:
                return data

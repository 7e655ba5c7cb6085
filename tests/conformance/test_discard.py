"""After our close frame what still comes may be thrown away, quickly, up to the peer's reply."""

from __future__ import annotations

import anyio
import pytest
from websockets.frames import Opcode

from hypersockets._discard import discard
from hypersockets._errors import ConnectionLostError
from tests.conformance._peer import Peer, close, frame, text
from tests.conformance._rig import Rig

pytestmark = pytest.mark.anyio

FLOODS = {
    "nothing": [b""],
    "small messages": [text("x") * 100, text("y") * 20_000],
    "cut anywhere": [(text("hello") * 3000)[start : start + 1009] for start in range(0, 21_000, 1009)],
    "large messages": [frame(Opcode.BINARY, b"x" * 200_000), frame(Opcode.BINARY, b"x" * 5000), text("x")],
    "fragments and pings": [
        frame(Opcode.TEXT, b"x", fin=False),
        frame(Opcode.PING) * 2000,
        frame(Opcode.CONT, b"y") * 1,
    ],
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
@pytest.mark.parametrize("reply", [close(1000, "you too"), b""], ids=["a reply", "the end"])
async def test_a_flood_is_thrown_away(rig: Rig, flood: list[bytes], reply: bytes) -> None:
    """Up to the reply, or the end of the stream; the loss is ours."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.write(text("before"))
        assert await peer.until_close() == (1001, "enough")
        for data in flood:
            await peer.write(data)
        await peer.write(reply, b"" if not reply else text("after"))
        if reply:
            await peer.until_eof()

    async with rig.serve(script) as opener, opener() as transport:
        assert await transport.receive() == ["before"]
        await transport.close(1001, "enough")
        await discard(transport)
        with pytest.raises(ConnectionLostError) as caught:
            await transport.receive()
        assert (caught.value.code, caught.value.by) == (1001, "us")


async def test_a_stream_that_breaks_is_an_end_too(rig: Rig) -> None:
    """A reset instead of a reply."""
    if rig.in_memory:
        pytest.skip("memory streams end, they do not break")

    async def script(peer: Peer) -> None:
        import socket
        import struct

        from anyio.abc import SocketAttribute

        await peer.accept()
        await peer.until_close()
        raw = peer.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with rig.serve(script) as opener, opener() as transport:
        await transport.close()
        with anyio.fail_after(5):
            await discard(transport)

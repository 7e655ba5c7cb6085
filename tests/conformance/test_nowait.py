"""Sending without waiting: what the socket takes at once, and never out of order with what waits."""

from __future__ import annotations

import anyio
import pytest
from websockets.frames import Frame, Opcode

from hypersockets._transport import Transport
from tests.conformance._peer import Peer
from tests.conformance._rig import Rig

pytestmark = pytest.mark.anyio


def send_nowait(transport: Transport, message: str | bytes) -> int | None:
    left: int | None = transport.send_nowait(message)  # type: ignore[attr-defined]
    return left


async def all_data(peer: Peer) -> list[str]:
    frames: list[Frame] = await peer.until_eof()
    return [bytes(each.data).decode() for each in frames if each.opcode in (Opcode.TEXT, Opcode.BINARY)]


async def test_a_message_goes_out_at_once(rig: Rig) -> None:
    """Where there is a socket below; else nothing is written, and it can be sent as ever."""
    came: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        came.extend(await all_data(peer))

    async with rig.serve(script) as opener, opener() as transport:
        for message in ("now", b"now"):
            left = send_nowait(transport, message) if rig.is_stream else None
            assert left == (0 if rig.is_stream and not rig.in_memory else None)
            if left is None:
                await transport.send(message)
        await transport.send("later")
        await transport.close()
        if rig.is_stream:
            assert send_nowait(transport, "too late") is None
    assert came == ["now", "now", "later"]


async def test_what_the_socket_did_not_take_goes_out_first_next(rig: Rig) -> None:
    """A message that was begun is finished before anything else, and nothing more is begun meanwhile."""
    if not rig.is_stream or rig.in_memory:
        pytest.skip("has no socket of its own")
    reading = anyio.Event()
    came: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await reading.wait()
        came.extend(await all_data(peer))

    sent: list[str] = []
    async with rig.serve(script) as opener, opener() as transport:
        left: int | None = 0
        while left == 0:
            sent.append(str(len(sent)) * 2**19)
            left = send_nowait(transport, sent[-1])
        if left is None:  # the socket was full to the brim, and nothing was begun
            sent.pop()
        else:
            assert send_nowait(transport, "not now") is None
        reading.set()
        await transport.send("after")
        assert send_nowait(transport, "and now") == 0
        await transport.close()
    assert came == [*sent, "after", "and now"]


async def test_what_is_compressed_waits_for_its_turn(rig: Rig) -> None:
    """What is taken out of the compressor has to be written, whether the socket takes it or not."""
    if not rig.is_stream:
        pytest.skip("does not compress")

    async def script(peer: Peer) -> None:
        await peer.accept(deflate=True)
        await peer.until_eof()

    async with rig.serve(script) as opener, opener(compression="deflate") as transport:
        assert send_nowait(transport, "now") is None

"""Guarantee 14: malformed frames, broken UTF-8, oversized and bomb-compressed messages: a clear error, a proper close
code, a reconnect."""

from __future__ import annotations

import zlib
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Opcode, Peer, ScriptedServer, frame
from tests._live import Recorder, assert_legal, happened, of, settings, wait_for

pytestmark = pytest.mark.anyio


def bomb() -> bytes:
    deflate = zlib.compressobj(9, wbits=-15)
    data = b"".join(deflate.compress(b"\0" * 2**20) for _ in range(100)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return frame(Opcode.TEXT, data[:-4], rsv=4)


BAD = {
    "masked": (frame(Opcode.TEXT, b"x", mask=True), 1002),
    "reserved bits": (frame(Opcode.TEXT, b"x", rsv=1), 1002),
    "unknown opcode": (frame(3, b"x"), 1002),
    "unknown control opcode": (frame(11, b"x"), 1002),
    "long control frame": (frame(Opcode.PING, b"x" * 126), 1002),
    "fragmented control frame": (frame(Opcode.PING, b"x", fin=False), 1002),
    "continuation of nothing": (frame(Opcode.CONT, b"x"), 1002),
    "text within text": (frame(Opcode.TEXT, b"x", fin=False) + frame(Opcode.TEXT, b"y"), 1002),
    "bad utf-8": (frame(Opcode.TEXT, b"ok \xff"), 1007),
    "utf-8 cut off": (frame(Opcode.TEXT, "é".encode()[:1]), 1007),
    "surrogate": (frame(Opcode.TEXT, b"\xed\xa0\x80"), 1007),
    "oversized": (frame(Opcode.BINARY, b"x" * 70_000), 1009),
    "oversized in fragments": (
        frame(Opcode.BINARY, b"x" * 40_000, fin=False) + frame(Opcode.CONT, b"x" * 40_000),
        1009,
    ),
    "announced 2^62": (frame(Opcode.BINARY, b"", length=2**62), 1009),
    "bomb": (bomb(), 1009),
    "broken compression": (frame(Opcode.TEXT, b"\xff\xff\xff\xff", rsv=4), 1002),
    "close code 1005": (frame(Opcode.CLOSE, b"\x03\xed"), 1002),
    "close code 999": (frame(Opcode.CLOSE, b"\x03\xe7"), 1002),
    "half a close code": (frame(Opcode.CLOSE, b"\x03"), 1002),
    "close reason not utf-8": (frame(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
}


@pytest.mark.parametrize("kind", BAD)
async def test_g14_bad_frames(kind: str) -> None:
    """What came before is handled, the connection is closed with that code, the error says so, and it reconnects."""
    bad, code = BAD[kind]
    handler = Recorder()

    async def script(peer: Peer) -> None:
        await peer.send("before")
        if peer.number == 0:
            await peer.send_raw(bad)
        while True:
            await peer.receive()

    async with ScriptedServer(script, compression=True) as server:
        config = settings(server, default_handler=handler, max_message_size=65536, compression="deflate")
        async with hs.connect(config) as client:
            await handler.wait_handled(2)
        events = happened(client)
        assert_legal(events)
        lost = of(hs.Disconnected, events)[0]
        assert isinstance(lost.error, hs.ConnectionLostError)
        assert lost.error.by == "us"
        assert lost.error.code == code
        assert lost.code is None, "it is not the peer's"
        assert str(code) in str(lost.error)
        assert server.peers[0].close_code == code
        assert [event.delay for event in of(hs.Reconnecting, events)] == [1]
        assert lost.at <= 1
    assert handler.handled == ["before", "before"]


async def test_g14_a_flood_of_fragments_is_bounded() -> None:
    """An endless message of small fragments is an oversized one."""

    async def script(peer: Peer) -> None:
        await peer.send_raw(peer.accept_response() + frame(Opcode.TEXT, b"x", fin=False))
        while True:
            await peer.send_raw(frame(Opcode.CONT, b"x" * 100, fin=False) * 100)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, max_message_size=2**20)) as client:
            lost = await wait_for(client, hs.Disconnected)
            assert lost.error.code == 1009


HANDSHAKES = {
    "junk": b"\x00\x01\x02 hello\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "endless headers": b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 100_000,
    "one endless line": b"HTTP/1.1 101 " + b"x" * 1_000_000,
    "wrong accept": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
    ),
    "no upgrade": b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n",
    "200": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "nothing, then the end": b"",
}


@pytest.mark.parametrize("kind", HANDSHAKES)
async def test_g14_bad_handshakes(kind: str) -> None:
    """A clear error in an event, bounded in time, then another attempt."""

    async def bad(peer: Peer) -> None:
        await peer.send_raw(HANDSHAKES[kind])
        peer.cut()

    async def good(peer: Peer) -> None:
        while True:
            await peer.receive()

    async with ScriptedServer([bad, good]) as server, hs.connect(settings(server)) as client:
        events = happened(client)
        assert_legal(events)
        (failed,) = of(hs.ErrorOccurred, events)
        assert isinstance(failed.error, hs.ConnectError)
        assert str(failed.error)
        assert anyio.current_time() == 1


async def test_g14_a_handshake_that_dribbles() -> None:
    """One byte a second: ``open_timeout`` counts for the whole of it."""

    async def dribble(peer: Peer) -> None:
        for byte in peer.accept_response():
            await peer.send_raw(bytes([byte]))
            await anyio.sleep(1)

    async def good(peer: Peer) -> None:
        while True:
            await peer.receive()

    async with ScriptedServer([dribble, good]) as server, hs.connect(settings(server)) as client:
        (failed,) = of(hs.ErrorOccurred, happened(client))
        assert isinstance(failed.error, hs.OpenTimeoutError)
        assert anyio.current_time() == 11


async def test_g14_data_after_the_close_frame_is_ignored() -> None:
    """Nothing is handled that comes behind a close frame."""
    handler = Recorder()

    async def script(peer: Peer) -> None:
        await peer.send("before")
        await peer.send_raw(frame(Opcode.CLOSE, b"\x03\xf4") + frame(Opcode.TEXT, b"after"))
        await anyio.sleep_forever()

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, default_handler=handler)) as client:
            lost: Any = await wait_for(client, hs.Disconnected)
            assert lost.code == 1012
    assert handler.handled == ["before"]

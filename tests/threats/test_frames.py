"""A hostile server on an open connection: sizes that lie, floods, drips, bombs."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Opcode, Peer, ScriptedServer, frame
from tests._live import Recorder, happened, idle, of, settings, wait_for

pytestmark = pytest.mark.anyio
MIB = 2**20


async def first_loss(server: ScriptedServer, **fields: Any) -> hs.Disconnected:
    """Connect, and return how the first session ended."""
    async with hs.connect(settings(server, close_timeout=0, **fields)) as client:
        lost = await wait_for(client, hs.Disconnected)
        assert isinstance(lost, hs.Disconnected)
        return lost


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("size", [2**63, 2**64 - 1])
async def test_a_frame_that_announces_more_than_there_is(size: int, opcode: int, compression: Any) -> None:
    """Its head is enough to refuse it: nothing is awaited, nothing is set aside for it."""

    async def script(peer: Peer) -> None:
        await peer.send_raw(peer.accept_response() + frame(opcode, b"x" * 100, length=size))
        await idle(peer)

    async with ScriptedServer(script, compression=True) as server:
        lost = await first_loss(server, compression=compression)
        assert isinstance(lost.error, hs.ConnectionLostError)
        assert (lost.error.code, lost.error.by) == (1009, "us")
        assert lost.at == 0
        assert server.peers[0].close_code == 1009


@pytest.mark.parametrize("fields", [{"idle_timeout": 30}, {"ping_interval": 10, "ping_timeout": 20}])
async def test_a_frame_that_drips_is_no_sign_of_life(fields: dict[str, Any]) -> None:
    """A byte a second, for as long as the client would wait: without a limit of size the clock is the limit."""

    async def script(peer: Peer) -> None:
        await peer.send_raw(peer.accept_response() + frame(Opcode.TEXT, length=2**63))
        while True:
            await anyio.sleep(1)
            await peer.send_raw(b"x")

    async with ScriptedServer(script) as server:
        lost = await first_loss(server, max_message_size=None, **fields)
        assert isinstance(lost.error, (hs.IdleTimeoutError, hs.HeartbeatTimeoutError))
        assert lost.at == 30


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_a_flood_of_control_frames(opcode: int) -> None:
    """From a server that reads nothing: the answers take no memory, and what comes behind the flood is handled."""
    handler = Recorder()

    async def script(peer: Peer) -> None:
        await peer.accept()
        peer._talk.reading.cancel()
        flood = frame(opcode, b"p" * 125) * 1000
        for _ in range(20):
            await peer.send_raw(flood)
        await peer.send("behind")
        await anyio.sleep_forever()

    async with ScriptedServer(script) as server:
        config = settings(server, default_handler=handler, transport=server.connector(capacity=4096), close_timeout=0)
        async with hs.connect(config):
            tracemalloc.start()
            try:
                await handler.wait_handled(1)
                assert tracemalloc.get_traced_memory()[1] < 700_000, "2.5 MB were received"
            finally:
                tracemalloc.stop()


def squeezed(data: bytes) -> bytes:
    squeezer = zlib.compressobj(9, wbits=-15)
    return squeezer.compress(data) + squeezer.flush(zlib.Z_SYNC_FLUSH)


async def test_a_bomb_in_fragments() -> None:
    """Each fragment is below the limit, compressed and not; their sum is what counts."""
    squeezer = zlib.compressobj(9, wbits=-15)
    parts = [squeezer.compress(bytes(200_000)) + squeezer.flush(zlib.Z_SYNC_FLUSH) for _ in range(20)]

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send_raw(frame(Opcode.BINARY, parts[0], fin=False, rsv=4))
        for part in parts[1:]:
            await peer.send_raw(frame(Opcode.CONT, part, fin=False))
        await idle(peer)

    async with ScriptedServer(script, compression=True) as server:
        tracemalloc.start()
        try:
            lost = await first_loss(server, compression="deflate", max_message_size=MIB)
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        finally:
            tracemalloc.stop()
        assert isinstance(lost.error, hs.ConnectionLostError)
        assert lost.error.code == 1009


async def test_fragments_that_are_empty_once_decompressed() -> None:
    """They have bytes on the wire and none behind it: no limit of size would ever be reached."""
    nothing = b"\x00\x00\x00\xff\xff"  # an empty block that is stored (RFC 1951 section 3.2.4)

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send_raw(frame(Opcode.TEXT, squeezed(b"start"), fin=False, rsv=4))
        while True:
            await peer.send_raw(frame(Opcode.CONT, nothing, fin=False) * 1000)

    async with ScriptedServer(script, compression=True) as server:
        lost = await first_loss(server, compression="deflate")
        assert isinstance(lost.error, hs.ConnectionLostError)
        assert lost.error.code == 1009


JSON_BOMBS = {
    "lists": "[" * 200_000,
    "objects": '{"channel":' * 200_000,
    "closed": "[" * 200_000 + "]" * 200_000,
    "a huge number": '{"channel": "a", "n": ' + "9" * 100_000 + "}",
    "a key that cannot be hashed": '{"channel": ["a"]}',
    "half a surrogate": '{"channel": "\\ud800", "n": "',
}


@pytest.mark.parametrize("kind", JSON_BOMBS)
async def test_a_json_bomb_costs_one_message(kind: str) -> None:
    """What the parser gives up on, nesting included, is a ``ParseError``; the connection is kept."""
    handler = Recorder()

    async def script(peer: Peer) -> None:
        await peer.send_many([JSON_BOMBS[kind], json.dumps({"channel": "a", "n": 1})])
        await idle(peer)

    async with ScriptedServer(script) as server:
        ping = hs.JsonPassivePing("channel", "ping", reply="pong")
        config = settings(server, router=hs.JsonRouter(), default_handler=handler, passive_ping=ping)
        async with hs.connect(config) as client:
            await handler.wait_handled(1)
            assert handler.numbers == [1]
            (told,) = of(hs.ErrorOccurred, happened(client))
            assert isinstance(told.error, hs.ParseError)
            assert client.metrics().parse_errors == 1
            assert client.epoch == 1
            assert client.is_connected


async def test_what_comes_with_the_handshake_is_frames_and_nothing_else() -> None:
    """A second response behind the first, as from a cache that was poisoned, is a broken frame."""

    async def script(peer: Peer) -> None:
        await peer.send_raw(peer.accept_response() + b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + b"h" * 200)
        await idle(peer)

    async with ScriptedServer(script) as server:
        lost = await first_loss(server)
        assert isinstance(lost.error, hs.ConnectionLostError)
        assert (lost.error.code, lost.error.by) == (1002, "us")


async def test_pongs_that_were_sent_ahead_answer_nothing() -> None:
    """Our pings are numbered, so a server can guess them; an answer counts only for a ping that was sent."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send_raw(b"".join(frame(Opcode.PONG, n.to_bytes(8, "big")) for n in range(1000)))
        await peer.mute()

    async with ScriptedServer(script) as server:
        lost = await first_loss(server, ping_interval=10, ping_timeout=20)
        assert isinstance(lost.error, hs.HeartbeatTimeoutError)
        assert lost.at == 30

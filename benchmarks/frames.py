"""What the generator sends: blocks of many whole frames, rendered once, so that sending costs one copy."""

from __future__ import annotations

import json
import random
import struct
import zlib
from typing import Final, NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEYS: Final = 100
"""The JSON messages of a block belong to so many channels, each of them equally often."""
SIZE: Final = 256
BINARY_SIZE: Final = 16 * 1024
ECHO_SIZE: Final = 64
_BLOCK: Final = 256 * 1024


class Block(NamedTuple):
    """Bytes for one `sendall`."""

    data: bytes
    frames: int


def frame(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """Return one whole frame as servers send it: not masked."""
    first = 0x80 | (0x40 if compressed else 0) | opcode
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 2**16:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """Return one whole frame as clients send it, under a mask of zeros."""
    whole = frame(opcode, payload)
    head = len(whole) - len(payload)
    return bytes((whole[0], whole[1] | 0x80)) + whole[2:head] + bytes(4) + payload


def messages() -> list[bytes]:
    """Return the texts of a block: JSON objects of 256 bytes, as a market feed sends them, no two alike."""
    rng = random.Random(6455)  # the same on every machine
    texts = []
    for number in range(_BLOCK // SIZE // KEYS * KEYS):
        trade = {
            "channel": channel(number % KEYS),
            "seq": number,
            "symbol": rng.choice(["BTC-USD", "ETH-EUR", "SOL-USDT", "XRP-JPY"]),
            "price": round(rng.uniform(10, 99_999), 2),
            "size": round(rng.uniform(0, 10), 6),
            "side": rng.choice(["buy", "sell"]),
            "time": f"2026-01-01T00:{rng.randrange(60):02}:{rng.randrange(60):02}.{rng.randrange(10**6):06}Z",
            "id": "",
        }
        missing = SIZE - len(json.dumps(trade, separators=(",", ":")))
        trade["id"] = "".join(rng.choices("0123456789abcdef", k=missing))
        texts.append(json.dumps(trade, separators=(",", ":")).encode())
    assert all(len(text) == SIZE for text in texts)
    return texts


def channel(number: int) -> str:
    """Return the name of a channel."""
    return f"k{number:02}"


def build(mode: str) -> Block:
    """Return the block of a mode: `text`, `json`, `varied`, `binary` or `deflate`."""
    if mode in {"text", "json"}:
        frames = [frame(TEXT, text) for text in messages()]
    elif mode == "varied":
        frames = _varied()
    elif mode == "binary":
        rng = random.Random(7692)
        frames = [frame(BINARY, b"{" + rng.randbytes(BINARY_SIZE - 1)) for _ in range(_BLOCK // BINARY_SIZE)]
    elif mode == "deflate":
        frames = [frame(TEXT, _deflate(text), compressed=True) for text in messages()]
    else:
        raise ValueError(f"no such mode: {mode}")
    return Block(b"".join(frames), len(frames))


def _varied() -> list[bytes]:
    """Return texts of all header lengths, of up to 4 KiB but most of them short, one in ten not ASCII."""
    rng = random.Random(2119)
    frames, size = [], 0
    while size < _BLOCK:
        length = int(min(4096, 16 + rng.expovariate(1 / 250)))
        letters = "abcdefghij é✓" if rng.random() < 0.1 else "abcdefghij0123456789"
        frames.append(frame(TEXT, ("{" + "".join(rng.choices(letters, k=length))).encode()))
        size += len(frames[-1])
    return frames


def _deflate(payload: bytes) -> bytes:
    """Compress one message that refers to none before it, so that a block can be sent again and again."""
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def end(mode: str, count: int) -> bytes:
    """Return the last data message of a flood: how many came before it."""
    return json.dumps({"channel": "END", "count": count}).encode() if mode == "json" else f"END {count}".encode()

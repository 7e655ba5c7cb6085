"""What a server says to a client, from the handshake to the end; valid, before it is mutated."""

from __future__ import annotations

import json
import random

from ._frames import close, deflated, fragments, frame, make_frames

__all__ = ["make_conversation"]

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
REFUSED = (
    b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\n\r\n",
    b"HTTP/1.1 403 No\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /next\r\n\r\n",
    b"",
)
CONFIGURED_DEFLATE = 0x08
"""The settings' bit; see :mod:`tests.fuzz._session`."""


def message(rng: random.Random) -> bytes:
    """Return the text of one message, as a feed sends it, or as it should not."""
    if rng.random() < 0.1:
        return rng.choice(
            (b"{", b"[]", b"5", b"{}", b'{"channel": []}', b'{"channel": null}', b"", b"\xc3\xbc", b"x" * 301)
        )
    channel = rng.choice(("a", "a", "b", "c"))
    return json.dumps({"channel": channel, "n": rng.randrange(10)}).encode()


def text(rng: random.Random, payload: bytes, *, compressed: bool) -> bytes:
    """Return a text message as frames."""
    if compressed and rng.random() < 0.8:
        return frame(0xC1, deflated(payload))
    if rng.random() < 0.1:
        at = rng.randrange(len(payload) + 1)
        return frame(0x01, payload[:at]) + frame(0x80, payload[at:])
    return frame(0x81, payload)


def make_conversation(rng: random.Random, settings: int) -> list[bytes]:
    """Return what a server sends on one connection, in parts."""
    if rng.random() < 0.08:
        return [rng.choice(REFUSED)]
    compressed = bool(settings & CONFIGURED_DEFLATE) and rng.random() < 0.8
    said = [b"ok" if rng.random() < 0.95 else b"no", b'{"ack": true}' if rng.random() < 0.95 else b'{"ack": false}']
    early = [message(rng) for _ in range(rng.choice((0, 0, 0, 1, 3)))]
    later = [message(rng) for _ in range(rng.choice((0, 1, 3, 8, 20)))]
    later += [
        rng.choice((b"pong", b"ping?", b'{"ack": true}', b'{"channel": "a", "n": 7}')) for _ in range(rng.randrange(3))
    ]
    rng.shuffle(later)
    parts = [text(rng, each, compressed=compressed) for each in [*early, *said, *later]]
    for _ in range(rng.randrange(3)):
        what = rng.choice((b"\x89\x01p", b"\x8a\x00", fragments(rng), *make_frames(rng, 1)))
        parts.insert(rng.randrange(len(parts) + 1), what)
    if rng.random() < 0.3:
        parts.append(close(rng))
    return [ACCEPTED + (DEFLATE if compressed else b"") + b"\r\n", *parts]

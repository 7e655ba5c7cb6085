"""Inputs that are worth keeping: the smallest that found a fault, in the library or one of ``_planted``."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["KEPT", "Kept"]


class Kept(NamedTuple):
    """An input, and what it has found."""

    target: str
    found: str
    data: bytes


KEPT = (
    Kept(
        "lane",
        "a frame with RSV1 is lifted as if it were plain",
        b"\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\xc2\x00\x00\x00\x00\x00",
    ),
    Kept(
        "lane",
        "a masked frame is waited for",
        b"\x00\x03\x02\x00\x00\x00\x00\x01\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\xe5",
    ),
    Kept(
        "lane",
        "the boundary of lengths of 16 bits is off by one",
        b"\x00\x03\n" + bytes(21) + b"\xc2\x00\x00\x00\x00\x02\x00\x00\x00\x00\x82~`\x00",
    ),
    Kept(
        "lane",
        "the size limit is ignored in the lane",
        b"\n\x03\x0b"
        + bytes(22)
        + b"\x01\x00\x00\x03\x00\x00\x00\x00\x00\x00\x07"
        + bytes(14)
        + b"\x89}"
        + bytes(125)
        + b"\x81d"
        + bytes(100),
    ),
    Kept(
        "lane",
        "UTF-8 is not checked where a message comes in fragments",
        b"\x00\x07\x00\x06" + bytes(13) + b"\x07" + bytes(14) + b"\x01\x07\x00\x00\x00\x00\x00\x00\x00\x80\x02\x00\x9f",
    ),
    Kept(
        "lane",
        "a stream that ends in the middle of a frame's head passes for one that ends between frames",
        b"\x00\x07\x00\x00\xad" + bytes(26) + b"\x01\x00\x00\x00",
    ),
    Kept(
        "upgrade",
        "a wrong Sec-WebSocket-Accept is taken",
        b"\x00\x00HTTP/1.1 101 \r\nUpgrade:websocket\r\nConnection:Upgrade\r\nl:\r\n\r\n",
    ),
    Kept(
        "upgrade",
        "the cause of an error quotes the response",
        b"\x00\x00HTTP/1.1 101 \r\nUpgrade:websocket\r\nConnection:Upgrade\r\nSec-WebSocket-Accept:{secret}\r\n\r\n",
    ),
    Kept("upgrade", "a date in Retry-After that makes no sense raises", b"\x00\x00HTTP/1.1 429 \r\n\r\n"),
    Kept(
        "session",
        "a message that a full lane drops is not counted",
        b"TP/HTTP/1.1 101 \r\nUpgrade:websocket\r\nConnection:Upgrade\r\nSec-WebSocket-Accept:{accept}\r\n\r\n\x01\x00\x80\r"
        + bytes(13)
        + b'\x01\x06\x00\x00\x00\x00\x00\x00\x80\t\x00\x00\x00\x00\x00\x00\x00\x00\x00\x81\x18{"channel": "a", "n": 7}\x81\x18{"channel": "a", "n": 6}\x81\x18{"channel": "a", "n": 5}',
    ),
    Kept(
        "session",
        "the first message that comes before the session is ready is lost",
        b"W\x00\x00HTTP/1.1 101 Switocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n\x81\x18"
        + bytes(24)
        + b"\x81\x18"
        + bytes(24)
        + b'\x81\x18{"channel": "a", "n": 0}\x81\x02ok'
        + bytes(46),
    ),
    Kept(
        "session",
        "a user's message is sent before the subscriptions",
        b'\xd6s\x00HTTP/1.1 101 ols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n\x01\x0e{"ack": false}\x80\x00',
    ),
    Kept(
        "upgrade",
        "two Location headers make one URL with another behind it, whose password was shown",
        b"\x00\xffHTTP/1.1 308 x\r\nLocation: ws://x.test/\r\nLocation: ws://alice:{secret}@other.test/\r\n\r\n",
    ),
    Kept(
        "session",
        "a client that is left as its connection opens makes an illegal move",
        b"g\x98\x0fHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n\x81\x02\x00\x00\x81\r"
        + bytes(13)
        + b"\x81\x18"
        + bytes(25)
        + b"5"
        + bytes(277),
    ),
)

"""WebSocket frames as bytes, well-formed or not (RFC 6455 section 5.2)."""

from __future__ import annotations

from itertools import cycle

from websockets.frames import Opcode

__all__ = ["Opcode", "frame"]

_MASK = b"mask"


def frame(
    opcode: int,
    payload: bytes = b"",
    fin: bool = True,
    rsv: int = 0,
    mask: bool = False,
    *,
    length: int | None = None,
) -> bytes:
    """Return the bytes of one frame, for :meth:`Peer.send_raw`.

    Args:
        opcode: 0 to 15; those that exist are in :class:`Opcode`.
        payload: Taken as it is.
        fin: Whether it is the last frame of its message.
        rsv: The three reserved bits as a number, 0 to 7; 4 is RSV1.
        mask: Mask the payload, which servers must not do.
        length: The length to announce; ``None`` means the payload's.
    """
    announced = len(payload) if length is None else length
    head = bytearray([fin << 7 | rsv << 4 | opcode])
    if announced < 126:
        head.append(mask << 7 | announced)
    elif announced < 1 << 16:
        head.append(mask << 7 | 126)
        head += announced.to_bytes(2, "big")
    else:
        head.append(mask << 7 | 127)
        head += announced.to_bytes(8, "big")
    if mask:
        head += _MASK
        payload = bytes(byte ^ key for byte, key in zip(payload, cycle(_MASK)))
    return bytes(head) + payload

"""What a stream takes at once, without any waiting: one task less on the way of a message.

anyio's streams have no such call, but give out the socket below (``SocketAttribute.raw_socket``). Nothing else may be
writing to the stream meanwhile, nor have left anything unwritten.
"""

from __future__ import annotations

import os
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream

__all__ = ["sink_of", "write"]


def sink_of(stream: ByteStream) -> Any:
    """Return what to :func:`write` to, for a stream to take it at once: its socket, or itself.

    ``None``: that cannot be done. Under TLS there is no socket for plain bytes; a stream of another kind needs a method
    ``send_nowait``.
    """
    if hasattr(stream, "send_nowait"):
        return stream
    if os.name != "posix" or not isinstance(stream, SocketStream):
        return None
    return stream.extra(SocketAttribute.raw_socket)  # on asyncio a stand-in that cannot send, but has the number


def write(sink: Any, data: bytes) -> int:
    """Write, and return how many bytes were taken: none, too, if it is full, broken or closed.

    Whoever waits to write will be told which.
    """
    try:
        count: int = sink.send_nowait(data) if hasattr(sink, "send_nowait") else os.write(sink.fileno(), data)
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return 0
    return count

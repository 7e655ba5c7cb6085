"""What a stream takes at once, without any waiting: one task less on the way of a message.

anyio's streams have no such call, but give out the socket below (``SocketAttribute.raw_socket``). Nothing else may be
writing to the stream meanwhile, nor have left anything unwritten.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream

__all__ = ["writer_of"]


def writer_of(stream: ByteStream) -> Callable[[bytes], int] | None:
    """Return what writes to a stream without waiting, and returns how many bytes the stream took.

    ``None``: that cannot be done. Under TLS there is no socket for plain bytes; a stream of another kind needs a method
    ``send_nowait``.
    """
    send_nowait: Callable[[bytes], int] | None = getattr(stream, "send_nowait", None)
    if send_nowait is not None:
        return partial(_try, send_nowait)
    if os.name != "posix" or not isinstance(stream, SocketStream):
        return None
    # On asyncio it is a stand-in that cannot send, but its number can be written to.
    fileno = stream.extra(SocketAttribute.raw_socket).fileno
    return partial(_try, lambda data: os.write(fileno(), data))


def _try(write: Callable[[bytes], int], data: bytes) -> int:
    try:
        return write(data)
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return 0  # full, broken or closed: who waits to write will be told which

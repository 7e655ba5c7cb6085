"""The last thing on a connection: nobody wants what still comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from anyio.lowlevel import checkpoint

from ._errors import ConnectionLostError
from ._transport import Transport

__all__ = ["discard"]


async def discard(transport: Transport) -> None:
    """After ``close``: throw away what still comes, and return when the connection has ended.

    A transport may have a method ``discard`` of its own for it: a flood may have filled the buffers of two kernels
    before our close frame came to the peer, and to make messages of all that takes time.
    """
    own: Callable[[], Awaitable[None]] | None = getattr(transport, "discard", None)
    if own is not None:
        await own()
        return
    with suppress(ConnectionLostError):
        while True:
            await transport.receive()
            await checkpoint()  # one whose receive never blocks must not hold up the deadline

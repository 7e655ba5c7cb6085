"""The two protocols between a session and the wire: what opens a connection and what it then is.

The reference for every transport is the conformance suite in ``tests/conformance``: whatever passes it
can carry a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import attrs

from ._redact import mask_headers, mask_url

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["FROM_ENVIRONMENT", "Connector", "OpenRequest", "Transport"]

FROM_ENVIRONMENT = "environment"
"""The ``proxy`` that means: as ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY`` and the like say."""


def mask_proxy(proxy: str | None) -> str:
    """Return a proxy setting for a ``repr``, without its user info."""
    return "None" if proxy is None else mask_url(proxy)


def _nothing() -> None:
    """Ignore a sign of life."""


@attrs.frozen(kw_only=True)
class OpenRequest:
    """All that a connector needs to open one connection. Its ``repr`` holds no secret."""

    url: str = attrs.field(repr=mask_url)
    """A checked ``ws://`` or ``wss://`` URL."""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=mask_headers)
    """Checked extra headers of the handshake."""
    subprotocols: Sequence[str] = ()
    """Offered in this order; nothing is offered when empty."""
    ssl_context: SSLContext | None = None
    """For ``wss://``; ``None`` means :func:`ssl.create_default_context`."""
    proxy: str | None = attrs.field(default=FROM_ENVIRONMENT, repr=mask_proxy)
    """A proxy URL, ``None`` for a direct connection, or :data:`FROM_ENVIRONMENT`."""
    compression: Literal["deflate"] | None = None
    """``"deflate"`` offers permessage-deflate (RFC 7692)."""
    max_message_size: int | None = 16 * 2**20
    """In bytes, after decompression; a larger message fails the connection with 1009. ``None``: no limit."""
    decode_text: bool = True
    """``False``: text messages are given as ``bytes``, neither decoded nor checked."""
    must_stay: bool = False
    """``True``: a redirect to another host is refused, for secrets will be sent that are not meant for it."""
    open_timeout: float = 10.0
    """Seconds for everything until the handshake is over. The session enforces it too."""
    on_activity: Callable[[], None] = attrs.field(default=_nothing, repr=False)
    """To be called, without arguments, whenever frames of any kind (control frames too) have arrived."""


@runtime_checkable
class Transport(Protocol):
    """One open WebSocket connection.

    Each method may be called by one task at a time, and different methods at the same time, but
    ``send`` and ``ping`` may be called by several tasks at once. Some attributes are optional:
    ``subprotocol`` (``str | None``), ``response_headers`` (a mapping, names in lower case),
    ``payload_received`` (``int``: bytes of payload so far, which saves counting them), ``receive_checkpoints``
    (``bool``: ``receive`` always lets other tasks run), ``send_many(messages)``, which does for several messages, in
    one write, what ``send`` does for one, and ``start_ping(on_pong)``, which returns when the ping is written, and has
    ``on_pong()`` called when it is answered. Two plain functions write what needs no waiting: ``send_nowait(message)``
    returns how many bytes are left for the next ``send_many``, or ``None`` if it has written nothing;
    ``ping_nowait(on_pong)`` whether it has begun a ping.
    """

    async def receive(self) -> Sequence[str | bytes]:
        """Wait for data and return all whole messages that it completes, at least one.

        Messages that arrived before the connection ended are given out before the error. Cancelling
        it loses nothing.

        Raises:
            ConnectionLostError: The connection has ended, and every message before that was given out.
        """
        ...

    async def send(self, message: str | bytes) -> None:
        """Hand one whole message to the socket: ``str`` as text, ``bytes`` as binary.

        Cancelled half-way, the connection is of no more use than for ``close``.

        Raises:
            ConnectionLostError: The connection has ended, or a close frame was sent.
        """
        ...

    async def ping(self) -> float:
        """Send a protocol ping, wait for its pong, return the round trip in seconds.

        The pong is noticed only while some task is in ``receive``.

        Raises:
            ConnectionLostError: The connection has ended.
        """
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame and return; do nothing if one was sent already or the connection has ended.

        ``receive`` goes on up to the peer's reply, then raises. Never raises for a lost connection.
        """
        ...


@runtime_checkable
class Connector(Protocol):
    """What opens connections: the plug point for other ways to the wire."""

    def open(self, request: OpenRequest) -> AbstractAsyncContextManager[Transport]:
        """Return a context manager whose entering opens the connection and whose leaving cuts it.

        Leaving is prompt: it neither waits for the peer nor raises for a lost connection, and an
        exception from the block comes out as itself.

        Raises (on entering):
            ConfigurationError: The request asks for something that this connector cannot do.
            ConnectError: The connection could not be opened.
        """
        ...

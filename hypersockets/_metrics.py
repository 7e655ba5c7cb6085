"""Numbers about a client: counted as it runs, read as a frozen snapshot."""

from __future__ import annotations

import attrs

from ._state import ConnectionState

__all__ = ["Counters", "Metrics"]


@attrs.frozen(kw_only=True)
class Metrics:
    """A snapshot. Messages and bytes count every data message at the transport, ours (auth, heartbeats) included."""

    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    reconnect_count: int
    """Ready sessions after a loss."""
    connection_state: ConnectionState
    connected_since: float | None
    """When the present session became ready, in seconds of the event loop's clock; ``None`` while none is."""
    connect_attempts: int
    parse_errors: int
    handler_errors: int
    unrouted: int
    """Messages that nobody handles."""
    dropped: int
    """Messages taken away by overflow, conflation or the end."""
    gaps: int
    """How often numbers of a sequence were missing, however many each time."""
    queued: int
    """Messages received and not handled yet."""
    latency: float | None
    """Seconds of the last round trip of a protocol ping; ``None`` before the first."""
    last_error: BaseException | None


@attrs.define(eq=False, repr=False)
class Counters:
    """What is counted; the names are those of :class:`Metrics`."""

    messages_sent: int = 0
    messages_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    reconnect_count: int = 0
    connected_since: float | None = None
    connect_attempts: int = 0
    parse_errors: int = 0
    handler_errors: int = 0
    unrouted: int = 0
    dropped: int = 0
    gaps: int = 0
    latency: float | None = None
    last_error: BaseException | None = None

    def snapshot(self, *, connection_state: ConnectionState, queued: int) -> Metrics:
        """Return the numbers as they are now."""
        numbers = attrs.asdict(self, recurse=False)
        return Metrics(connection_state=connection_state, queued=queued, **numbers)

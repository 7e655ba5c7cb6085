"""Where a client is in its life: one enum, one table of legal moves."""

from __future__ import annotations

import enum
from types import MappingProxyType

__all__ = ["ConnectionState", "check_move"]


class ConnectionState(enum.Enum):
    """The state of a client. A state with nothing to do (no auth, no subscriptions) is passed over."""

    DISCONNECTED = "disconnected"
    """Before the first attempt."""
    CONNECTING = "connecting"
    """An attempt is under way: name resolution, TCP, TLS, the opening handshake."""
    AUTHENTICATING = "authenticating"
    """The connection is open and the server has not accepted the credentials yet."""
    SUBSCRIBING = "subscribing"
    """Subscriptions are sent, not all are confirmed yet."""
    CONNECTED = "connected"
    """The session is ready."""
    RECONNECTING = "reconnecting"
    """From a loss, or a failed attempt, to the next attempt."""
    CLOSING = "closing"
    """The client is being closed: handlers finish, the close handshake is under way."""
    CLOSED = "closed"
    """For good."""


_S = ConnectionState
_ENDS = frozenset({_S.RECONNECTING, _S.CLOSING})

MOVES = MappingProxyType(
    {
        _S.DISCONNECTED: frozenset({_S.CONNECTING, _S.CLOSING}),
        _S.CONNECTING: frozenset({_S.AUTHENTICATING, _S.SUBSCRIBING, _S.CONNECTED}) | _ENDS,
        _S.AUTHENTICATING: frozenset({_S.SUBSCRIBING, _S.CONNECTED}) | _ENDS,
        _S.SUBSCRIBING: frozenset({_S.CONNECTED}) | _ENDS,
        _S.CONNECTED: _ENDS,
        _S.RECONNECTING: frozenset({_S.CONNECTING, _S.CLOSING}),
        _S.CLOSING: frozenset({_S.CLOSED}),
        _S.CLOSED: frozenset[ConnectionState](),
    }
)
"""From each state, the states that may follow it."""


def check_move(old: ConnectionState, new: ConnectionState) -> ConnectionState:
    """Return ``new``, or raise :class:`RuntimeError`: an illegal move is a bug, ours or a caller's."""
    if new not in MOVES[old]:
        raise RuntimeError(f"illegal move from {old.name} to {new.name}; please report this")
    return new

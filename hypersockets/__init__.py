"""A WebSocket client that survives.

You describe a connection once (URL, auth, subscriptions, heartbeat, routes); this library keeps it alive on trio and
on asyncio, restores all of it after every loss, in the right order, and loses nothing that it received.

The map, from the ground up; nothing imports upward::

    data     bytes -> transport (a batch of messages) -> reader (framing, pings) -> inbox -> dispatch -> lane -> handler
    control  connect() -> supervisor -> connector.open -> session (one task group) -> Ended(why) -> strategy -> again

    0  _errors _message _redact _checks _values _paths     plain values
    1  _state _strategies _heartbeat _passive_ping _auth   decisions without I/O
       _subscriptions _told _sequences _send_limit _routing
       _endpoints _transport
    2  _events, _metrics, _config                          what users describe and see
    3  the transports; _lane _lanes _inbox _streams        bytes and queues
       _outbox _requests
    4  _core, _session; _reader, _sender, _dispatch,       what survives, and one connection
       _liveness
    5  _supervisor, _client, _connect                      the loop, what users hold, the way in and out
    7  testing, cli                                        the same tools for users
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._auth import AuthChannel as AuthChannel, AuthProvider as AuthProvider
from ._client import Client as Client, current_client as current_client
from ._config import ClientConfig as ClientConfig, HeaderProvider as HeaderProvider
from ._connect import connect as connect
from ._errors import (
    AuthenticationError as AuthenticationError,
    AuthenticationRejectedError as AuthenticationRejectedError,
    AuthenticationTimeoutError as AuthenticationTimeoutError,
    ClientClosedError as ClientClosedError,
    ConfigurationError as ConfigurationError,
    ConnectError as ConnectError,
    ConnectionLostError as ConnectionLostError,
    HandshakeRejectedError as HandshakeRejectedError,
    HeartbeatTimeoutError as HeartbeatTimeoutError,
    HyperSocketError as HyperSocketError,
    IdleTimeoutError as IdleTimeoutError,
    NotConnectedError as NotConnectedError,
    OpenTimeoutError as OpenTimeoutError,
    ParseError as ParseError,
    ReconnectExhaustedError as ReconnectExhaustedError,
    RequestTimeoutError as RequestTimeoutError,
    SubscriptionError as SubscriptionError,
    SubscriptionRefusedError as SubscriptionRefusedError,
    SubscriptionTimeoutError as SubscriptionTimeoutError,
)
from ._events import (
    Closed as Closed,
    Connected as Connected,
    Connecting as Connecting,
    Disconnected as Disconnected,
    ErrorOccurred as ErrorOccurred,
    Event as Event,
    GapDetected as GapDetected,
    MessageDropped as MessageDropped,
    Reconnecting as Reconnecting,
    Rotated as Rotated,
    RouteStale as RouteStale,
)
from ._heartbeat import Heartbeat as Heartbeat
from ._metrics import Metrics as Metrics
from ._passive_ping import (
    JsonPassivePing as JsonPassivePing,
    PassivePingDetector as PassivePingDetector,
    TextPassivePing as TextPassivePing,
)
from ._routing import (
    JsonRouter as JsonRouter,
    MessageHandler as MessageHandler,
    MessageRouter as MessageRouter,
    Route as Route,
)
from ._state import ConnectionState as ConnectionState
from ._strategies import (
    ExponentialBackoff as ExponentialBackoff,
    FixedDelay as FixedDelay,
    NeverReconnect as NeverReconnect,
    ReconnectionStrategy as ReconnectionStrategy,
    is_retryable as is_retryable,
)
from ._streams import EventListener as EventListener, MessageStream as MessageStream
from ._subscriptions import ResumePoint as ResumePoint, Subscription as Subscription
from ._transport import Connector as Connector, OpenRequest as OpenRequest, Transport as Transport
from ._version import __version__ as __version__

if TYPE_CHECKING:
    from ._send_limit import SendLimit as SendLimit
    from ._stream_transport import StreamConnector as StreamConnector
    from ._trio_websocket_transport import TrioWebSocketConnector as TrioWebSocketConnector

_LATE = {
    "SendLimit": "_send_limit",
    "StreamConnector": "_stream_transport",
    "TrioWebSocketConnector": "_trio_websocket_transport",
}
"""Imported when first used: the wire libraries take longer to import than all the rest, and few have a limit."""


def __getattr__(name: str) -> object:
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(f".{_LATE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATE])

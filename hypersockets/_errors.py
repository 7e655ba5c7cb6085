"""Everything that can go wrong, as one tree.

::

    HyperSocketError
    ├─ ConfigurationError (ValueError)
    ├─ ConnectError              while opening (DNS, TCP, TLS, proxy)
    │  ├─ HandshakeRejectedError   status, headers, retry_after, epoch
    │  └─ OpenTimeoutError
    ├─ AuthenticationError
    │  ├─ AuthenticationRejectedError
    │  └─ AuthenticationTimeoutError
    ├─ SubscriptionError
    │  ├─ SubscriptionRefusedError  key
    │  └─ SubscriptionTimeoutError  keys
    ├─ ConnectionLostError       was open: code, reason, by
    │  ├─ HeartbeatTimeoutError
    │  └─ IdleTimeoutError
    ├─ ReconnectExhaustedError   attempts
    ├─ NotConnectedError
    ├─ ClientClosedError
    ├─ RequestTimeoutError (TimeoutError)
    └─ ParseError

Rules of this file: data lives in attributes and the sentence in the first argument; every error
survives ``copy`` and ``pickle``; no sentence holds a secret.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal

__all__ = [
    "AuthenticationError",
    "AuthenticationRejectedError",
    "AuthenticationTimeoutError",
    "ClientClosedError",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLostError",
    "HandshakeRejectedError",
    "HeartbeatTimeoutError",
    "HyperSocketError",
    "IdleTimeoutError",
    "LostBy",
    "NotConnectedError",
    "OpenTimeoutError",
    "ParseError",
    "ReconnectExhaustedError",
    "RequestTimeoutError",
    "SubscriptionError",
    "SubscriptionRefusedError",
    "SubscriptionTimeoutError",
]

LostBy = Literal["peer", "us", "network"]


def _rebuild(cls: type[BaseException], args: tuple[object, ...], state: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class HyperSocketError(Exception):
    """The root of every error that this library raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class ConfigurationError(HyperSocketError, ValueError):
    """A setting that cannot work: names the field, the value (secrets masked), what is allowed."""


class ConnectError(HyperSocketError):
    """The connection could not be opened (name resolution, TCP, TLS, proxy, handshake).

    Attributes:
        retryable: ``False`` when another attempt cannot help: a certificate that does not verify,
            or a redirect that may not be followed.
    """

    def __init__(self, message: str = "the connection could not be opened", *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class HandshakeRejectedError(ConnectError):
    """The server answered the opening handshake with something else than 101.

    Attributes:
        status: HTTP status code.
        headers: The response's headers, names in lower case: the first 16 KiB of them.
        retry_after: What ``Retry-After`` asked for, in seconds, or ``None``.
        epoch: How many sessions had been ready before this attempt; 0 on a first connection.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        epoch: int = 0,
        retryable: bool = True,
    ) -> None:
        super().__init__(message, retryable=retryable)
        self.status = status
        self.headers: dict[str, str] = dict(headers or {})
        self.retry_after = retry_after
        self.epoch = epoch


class OpenTimeoutError(ConnectError):
    """The handshake was not over within ``open_timeout`` seconds."""


class AuthenticationError(HyperSocketError):
    """Authentication failed; alone, it wraps an exception from the user's auth provider."""


class AuthenticationRejectedError(AuthenticationError):
    """The server (or the user's login function) rejected the credentials."""


class AuthenticationTimeoutError(AuthenticationError):
    """No verdict on the credentials within ``auth_timeout`` seconds."""


class SubscriptionError(HyperSocketError):
    """A subscription could not be had."""


class SubscriptionRefusedError(SubscriptionError):
    """The server refused a subscription.

    Attributes:
        key: The key of the subscription.
    """

    def __init__(self, message: str, *, key: Hashable) -> None:
        super().__init__(message)
        self.key = key


class SubscriptionTimeoutError(SubscriptionError):
    """Acks did not come within ``subscribe_timeout`` seconds.

    Attributes:
        keys: The keys of the subscriptions that wait for one.
    """

    def __init__(self, message: str, *, keys: tuple[Hashable, ...]) -> None:
        super().__init__(message)
        self.keys = keys


class ConnectionLostError(HyperSocketError):
    """A connection that was open is so no longer.

    Attributes:
        code: The close code (RFC 6455 section 7.4): the peer's, 1005 for its empty close frame;
            ours when ``by`` is ``"us"``; ``None`` when there was no close frame.
        reason: The close reason, or what happened.
        by: ``"peer"`` closed it, ``"us"`` did (a protocol error included), or the ``"network"`` cut it.
    """

    def __init__(
        self,
        message: str = "connection lost",
        *,
        code: int | None = None,
        reason: str = "",
        by: LostBy = "network",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason: str = reason or message
        self.by: LostBy = by


class HeartbeatTimeoutError(ConnectionLostError):
    """The oldest unanswered ping or heartbeat went without an answer for too long."""


class IdleTimeoutError(ConnectionLostError):
    """No frame of any kind arrived for ``idle_timeout`` seconds."""


class ReconnectExhaustedError(HyperSocketError):
    """The reconnection strategy gave up; the last error is the ``__cause__``.

    Attributes:
        attempts: How many retries were made.
    """

    def __init__(self, message: str, *, attempts: int) -> None:
        super().__init__(message)
        self.attempts = attempts


class NotConnectedError(HyperSocketError):
    """No session is ready and the caller did not want to wait for one."""


class ClientClosedError(HyperSocketError):
    """The client is closed for good; what ended it, if anything failed, is the ``__cause__``."""


class RequestTimeoutError(HyperSocketError, TimeoutError):
    """No reply to a request within its timeout."""


class ParseError(HyperSocketError):
    """One of the user's functions that look at a message raised; that is the ``__cause__``."""

"""The description of a connection: one frozen value, checked when it is made.

It holds no runtime state, so one configuration serves many clients.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs

from ._auth import Auth, check_auth
from ._checks import check_callable, check_headers, check_proxy, check_url, is_token, url_host
from ._errors import ConfigurationError
from ._events import GapDetected
from ._heartbeat import Heartbeat, Seconds, session_seconds, to_session_seconds
from ._passive_ping import PassivePingDetector
from ._redact import describe, mask_headers, mask_text, mask_url, show
from ._routing import Framing, Handler, MessageRouter, Route, as_route, as_routes, check_router
from ._strategies import ExponentialBackoff, ReconnectionStrategy, is_retryable
from ._subscriptions import BatchSubscriptions, ResumePoint, Subscription, as_subscriptions
from ._transport import FROM_ENVIRONMENT, Connector, mask_proxy
from ._values import choice, count, seconds, to_optional_seconds, to_seconds

if TYPE_CHECKING:
    from ssl import SSLContext

    from ._send_limit import SendLimit

__all__ = [
    "ClientConfig",
    "GapHandler",
    "HeaderProvider",
    "OnHandlerError",
    "OnReady",
    "Sequencer",
    "UrlProvider",
]

UrlProvider = Callable[[], str | Awaitable[str]]
"""A plain or async callable giving the URL of the next attempt."""

HeaderProvider = Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""A plain or async callable giving the headers of the next attempt."""

OnReady = Callable[[Any, ResumePoint], Any]
"""An async function of the client and of where the last session stopped."""

OnHandlerError = Literal["raise", "reconnect", "continue"]
"""What an exception from a handler does: ends the client, loses the session, or is only counted."""

Sequencer = Callable[[Any], tuple[Hashable, int] | None]
"""A plain callable giving the sequence of a parsed message and its number there; ``None``: it has none."""

GapHandler = Callable[[GapDetected, Any], Any]
"""A plain or async callable of a gap and the client that found it."""

_TransportName = Literal["stream", "trio-websocket"]


# Type checkers read the fields' types from the parameters of their converters; what comes may be anything.


def _as_url(url: str | Sequence[str] | UrlProvider) -> str | tuple[str, ...] | UrlProvider:
    given: Any = url
    if callable(url):
        return url
    if isinstance(url, str):
        return check_url("url", url)
    if not isinstance(given, Sequence) or isinstance(given, (bytes, bytearray)) or not given:
        what = "an empty sequence" if isinstance(given, Sequence) and not given else describe(given)
        raise ConfigurationError(
            f"url is {what}; it must be a ws:// or wss:// URL, a sequence of them, or a callable giving one"
        )
    return tuple(check_url(f"url[{index}]", each) for index, each in enumerate(given))


def _as_headers(headers: Mapping[str, str] | HeaderProvider) -> Mapping[str, str] | HeaderProvider:
    return headers if callable(headers) else check_headers("headers", headers)


def _as_proxy(proxy: str | None) -> str | None:
    return proxy if proxy is None or proxy == FROM_ENVIRONMENT else check_proxy("proxy", proxy)


def _as_subprotocols(names: Sequence[str]) -> tuple[str, ...]:
    given: Any = names
    offered = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else None
    if offered is None or not all(map(is_token, offered)) or len(set(offered)) < len(offered):
        raise ConfigurationError(
            f"subprotocols is {show(given)}; it must be a sequence of different names (RFC 9110 section 5.6.2)"
        )
    return offered


def _as_close_codes(codes: Iterable[int]) -> tuple[int, ...]:
    given: Any = codes
    listed = tuple(given) if isinstance(given, Iterable) else None
    if listed is None or not all(isinstance(code, int) and 1000 <= code <= 4999 for code in listed):
        raise ConfigurationError(f"fatal_close_codes is {show(given)}; it must hold close codes from 1000 to 4999")
    return tuple(listed)


def _as_name(name: str) -> str:
    return mask_text(name) if isinstance(name, str) else name


def _as_default_route(handler: Handler | Route | None) -> Route | None:
    return None if handler is None else as_route("default_handler", handler)


def _default_name(config: ClientConfig) -> str:
    first = config.url[0] if isinstance(config.url, tuple) else config.url
    return "client" if callable(first) else url_host(first)


def _show_url(url: object) -> str:
    return "[" + ", ".join(map(mask_url, url)) + "]" if isinstance(url, tuple) else mask_url(url)


def _show_type(value: object) -> str:
    return "None" if value is None else f"<{type(value).__name__}>"


@attrs.frozen(kw_only=True)
class ClientConfig:
    """All that is to be known about a connection. Only ``url`` must be given.

    Durations are seconds; a ``timedelta`` is taken too. ``repr`` masks secrets.

    Raises:
        ConfigurationError: A value that cannot work; names the field, the value (secrets masked) and what is
            allowed.
    """

    url: str | tuple[str, ...] | UrlProvider = attrs.field(converter=_as_url, repr=_show_url)
    """``ws://`` or ``wss://``; a sequence (a failed attempt moves on to the next one, a lost session tries its
    own again first); or a plain or async callable giving the URL of the next attempt."""
    headers: Mapping[str, str] | HeaderProvider = attrs.field(factory=dict, converter=_as_headers, repr=mask_headers)
    """Extra headers of the handshake, or a plain or async callable asked on every attempt."""
    subprotocols: tuple[str, ...] = attrs.field(default=(), converter=_as_subprotocols)
    """Offered, in this order; the server's choice is ``client.subprotocol``."""
    ssl_context: SSLContext | None = attrs.field(default=None, repr=_show_type)
    """For ``wss://``; ``None``: :func:`ssl.create_default_context`, which verifies."""
    proxy: str | None = attrs.field(default=FROM_ENVIRONMENT, converter=_as_proxy, repr=mask_proxy)
    """``http://``, ``https://`` or ``socks5://`` URL, or ``None``; by default as the environment says."""
    compression: Literal["deflate"] | None = attrs.field(default=None, validator=choice("deflate", None))
    """``"deflate"`` offers permessage-deflate (RFC 7692)."""
    max_message_size: int | None = attrs.field(default=16 * 2**20, validator=count(least=1))
    """Bytes, after decompression; a larger message closes with 1009. ``None``: no limit."""
    decode_text: bool = attrs.field(default=True, validator=choice(True, False))
    """``False``: text frames arrive as ``bytes``, not decoded, not checked."""
    transport: _TransportName | Connector = "stream"
    """``"stream"``, ``"trio-websocket"``, or any :class:`Connector`."""
    open_timeout: float = attrs.field(default=10.0, converter=to_seconds, validator=seconds(positive=True))
    """Seconds for everything up to the end of the opening handshake."""
    close_timeout: float = attrs.field(default=5.0, converter=to_seconds, validator=seconds())
    """Seconds to wait for the peer's close frame."""
    auth: Auth | None = attrs.field(default=None, repr=_show_type)
    """An :class:`AuthProvider`, or an async function of an :class:`AuthChannel`; first on every connection."""
    auth_timeout: float = attrs.field(default=10.0, converter=to_seconds, validator=seconds(positive=True))
    """Seconds for all of auth."""
    subscriptions: tuple[Subscription, ...] = attrs.field(
        default=(), converter=as_subscriptions, repr=lambda entries: f"<{len(entries)} entries>"
    )
    """Messages or :class:`Subscription`: sent in order on every connection, after auth."""
    subscribe_timeout: float = attrs.field(default=10.0, converter=to_seconds, validator=seconds(positive=True))
    """Seconds for the acks, from the last subscription sent."""
    batch_subscriptions: BatchSubscriptions | None = attrs.field(default=None, repr=_show_type)
    """A plain or async callable that makes few messages of many subscriptions; given all that are unsent."""
    send_limit: SendLimit | None = None
    """How many messages may be sent in any stretch of time. ``None``: as many as the connection takes."""
    framing: Framing | None = attrs.field(default=None, repr=_show_type)
    """A factory, called for each connection, of a function ``(frame) -> iterable of frames``."""
    router: MessageRouter | None = attrs.field(default=None, repr=_show_type)
    """Parses frames and names keys; ``None``: messages are frames, with the key ``None``."""
    handlers: Mapping[Hashable, Route] = attrs.field(
        factory=dict, converter=as_routes, repr=lambda routes: f"<{len(routes)} routes>"
    )
    """Route key to handler or :class:`Route`."""
    default_handler: Route | None = attrs.field(default=None, converter=_as_default_route, repr=_show_type)
    """For keys that have no handler and no stream; one lane for all of them."""
    reply_key: Callable[[Any], Hashable] | None = attrs.field(default=None, repr=_show_type)
    """``reply_key(parsed message)``: the id of the request that it answers, or ``None``; asked only while a
    ``request(..., reply_key=id)`` waits."""
    on_handler_error: OnHandlerError = attrs.field(default="raise", validator=choice(*get_args(OnHandlerError)))
    """What an exception from a handler does."""
    sequence: Sequencer | None = attrs.field(default=None, repr=False)
    """``(parsed message) -> (key, number)``, or ``None`` for one without a number: finds what is missing in
    between, and has ``ResumePoint.last_sequence`` kept, of the 65 536 keys seen last. A key of more than 1024 bytes, or
    a number of more than 64 bits, is a ``ParseError``: the server chooses them. A number not higher than the last
    begins the count anew; for one that may be ahead though nothing is missing (a snapshot), give another key: see
    ``examples/order_book.py``."""
    on_gap: GapHandler | None = attrs.field(default=None, repr=False)
    """A plain or async callable ``(gap, client)``, run beside the handlers for each gap: of one key one at a time,
    and what is found meanwhile is one more run, with the newest gap. It may take its time; what it raises is as from
    a handler."""
    ping_interval: float | None = attrs.field(
        default=20.0, converter=to_optional_seconds, validator=seconds(positive=True, optional=True)
    )
    """Seconds between protocol pings; ``None``: none. From 10 s on they may come up to 1/128 early: those of many
    clients go out together."""
    ping_timeout: float | None = attrs.field(
        default=20.0, converter=to_optional_seconds, validator=seconds(positive=True, optional=True)
    )
    """Seconds the oldest unanswered ping may wait; ``None``: for ever (pings then only measure)."""
    heartbeat: Heartbeat | None = None
    """An application message at a steady beat."""
    passive_ping: PassivePingDetector | None = attrs.field(default=None, repr=_show_type)
    """Answers pings that are plain messages."""
    idle_timeout: Seconds | None = attrs.field(default=None, converter=to_session_seconds, validator=session_seconds)
    """Seconds without a frame of any kind that are a loss; may be a callable, asked once per session."""
    reconnect_strategy: ReconnectionStrategy = attrs.field(factory=lambda: ExponentialBackoff(1, 60, jitter=0.5))
    """How long to wait before each retry."""
    reconnection_delay_offset: float = attrs.field(default=0.0, converter=to_seconds, validator=seconds())
    """Seconds waited once after the loss of a session that had been ready, before the strategy's delay."""
    stable_after: float = attrs.field(default=5.0, converter=to_seconds, validator=seconds())
    """Seconds a session must stay ready before the attempt counter starts again at 0."""
    is_retryable: Callable[[BaseException], bool] = attrs.field(default=is_retryable, repr=False)
    """Which errors are worth another attempt."""
    fatal_close_codes: tuple[int, ...] = attrs.field(default=(), converter=_as_close_codes)
    """Received close codes that end the client."""
    max_connection_age: float | None = attrs.field(
        default=None, converter=to_optional_seconds, validator=seconds(positive=True, optional=True)
    )
    """Seconds after which the connection is rotated (a tenth earlier at the most, at random), before the server cuts
    it; ``None``: never."""
    rotation: Literal["break-before-make"] | None = attrs.field(
        default=None, validator=choice("break-before-make", None)
    )
    """``None``: the next connection is made while the old one still delivers; ``"break-before-make"``: after it, for
    servers that allow one connection at a time."""
    message_id: Callable[[Any], Hashable] | None = attrs.field(default=None, repr=_show_type)
    """``(parsed message) -> its id`` (``None``: it has none): what came on both connections of a rotation is handled
    once."""
    on_ready: OnReady | None = attrs.field(default=None, repr=_show_type)
    """``async (client, resume) -> None``, called on every session once it is ready, before its first message is
    handled; its failure follows ``on_handler_error``."""
    drain_timeout: float | None = attrs.field(
        default=5.0, converter=to_optional_seconds, validator=seconds(optional=True)
    )
    """Seconds handlers may take to finish on leaving; ``None``: as long as they take."""
    name: str = attrs.field(default=attrs.Factory(_default_name, takes_self=True), converter=_as_name)
    """In logs, events, ``repr``; the host of the URL by default."""

    def __attrs_post_init__(self) -> None:
        _require("ssl_context", self.ssl_context, _is_context(self.ssl_context), "an ssl.SSLContext or None")
        named = self.transport in get_args(_TransportName)
        allowed = f"one of {get_args(_TransportName)} or a Connector"
        _require("transport", self.transport, named or _has(self.transport, "open"), allowed)
        check_auth(self.auth)
        check_callable("framing", self.framing, "() -> (frame) -> frames", or_none=True)
        check_router(self.router)
        check_callable("reply_key", self.reply_key, "(message) -> id or None", or_none=True)
        _require("heartbeat", self.heartbeat, _is(self.heartbeat, Heartbeat), "a Heartbeat or None")
        check_callable("sequence", self.sequence, "(message) -> (key, number) or None", or_none=True)
        _require("on_gap", self.on_gap, _may_call(self.on_gap), "a callable (gap, client) or None")
        if self.on_gap is not None and self.sequence is None:
            raise ConfigurationError("on_gap is given without a sequence, which finds the gaps; give that too")
        check_callable("passive_ping", self.passive_ping, "(frame) -> reply or None", or_none=True)
        can_delay = _has(self.reconnect_strategy, "next_delay")
        _require("reconnect_strategy", self.reconnect_strategy, can_delay, "an object with next_delay(attempt)")
        _require(
            "batch_subscriptions", self.batch_subscriptions, _may_call(self.batch_subscriptions), "a callable or None"
        )
        _require("send_limit", self.send_limit, _is_limit(self.send_limit), "a SendLimit or None")
        _check_pace(self)
        check_callable("is_retryable", self.is_retryable, "(error) -> bool")
        check_callable("message_id", self.message_id, "(message) -> id", or_none=True)
        _require("on_ready", self.on_ready, _may_call(self.on_ready), "an async function (client, resume), or None")
        if self.max_connection_age is not None:
            self.check_rotation()
        _require("name", self.name, isinstance(self.name, str), "a str")

    def check_rotation(self) -> None:
        """Raise ``ConfigurationError`` where a connection cannot be made before the old one is given up."""
        forgets = self.transport == "trio-websocket" or getattr(self.transport, "forgets_after_close", False)
        if forgets and self.rotation is None:
            raise ConfigurationError(
                "rotation is None, and trio-websocket throws away what comes after our close frame; it must be "
                "'break-before-make' there"
            )

    @classmethod
    def of(cls, config: ClientConfig | str, overrides: Mapping[str, Any]) -> ClientConfig:
        """Return ``config`` (or the configuration of a bare URL) with fields replaced.

        Raises:
            ConfigurationError: A value that cannot work.
            TypeError: No such field.
        """
        if isinstance(config, str):
            settings: dict[str, Any] = {"url": config, **overrides}
            return cls(**settings)
        if not isinstance(config, cls):
            raise ConfigurationError(f"config is {describe(config)}; it must be a ClientConfig or a URL")
        if not overrides:
            return config
        changes: dict[str, Any] = dict(overrides)
        if config.name == _default_name(config):
            changes.setdefault("name", attrs.NOTHING)  # so that another URL gives another name
        return attrs.evolve(config, **changes)


def _require(field: str, value: object, ok: bool, what: str) -> None:
    if not ok:
        given = show(value) if isinstance(value, str) else describe(value)
        raise ConfigurationError(f"{field} is {given}; it must be {what}")


def _may_call(value: object) -> bool:
    return value is None or callable(value)


def _check_pace(config: ClientConfig) -> None:
    """Refuse heartbeats that would take all that may be sent, and still come late."""
    limit, heartbeat = config.send_limit, config.heartbeat
    if limit is None or heartbeat is None or callable(heartbeat.interval):
        return
    interval = to_seconds(heartbeat.interval)
    if interval * limit.count <= limit.per:
        raise ConfigurationError(
            f"heartbeat.interval is {interval:g}: every {interval:g} s one of the {limit.count} messages that "
            f"send_limit allows in {limit.per:g} s leaves nothing for others; take a longer interval"
        )


def _is(value: object, kind: type) -> bool:
    return value is None or isinstance(value, kind)


def _is_context(value: object) -> bool:
    """Tell whether it is an ``SSLContext``, or none: whoever has one has imported ``ssl``, which takes its time."""
    ssl = sys.modules.get("ssl")
    return value is None or (ssl is not None and isinstance(value, ssl.SSLContext))


def _is_limit(value: object) -> bool:
    """Tell whether it is a ``SendLimit``, or none: as above, whoever has one has imported it."""
    limits = sys.modules.get(f"{__package__}._send_limit")
    return value is None or (limits is not None and isinstance(value, limits.SendLimit))


def _has(value: object, method: str) -> bool:
    """Tell whether an object (a class is none: its parentheses were forgotten) has a method."""
    return not isinstance(value, type) and callable(getattr(value, method, None))

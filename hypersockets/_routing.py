"""From a frame to messages, from a message to its key, from a key to who handles it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import attrs

from ._checks import check_callable
from ._errors import ConfigurationError
from ._message import Frame
from ._paths import Path, as_path, follow
from ._redact import describe, show
from ._values import choice, count, seconds, to_optional_seconds

__all__ = [
    "Framing",
    "Handler",
    "JsonRouter",
    "MessageHandler",
    "MessageRouter",
    "Overflow",
    "Route",
    "as_routes",
    "check_router",
]

Overflow = Literal["block", "drop_oldest", "drop_newest", "reconnect"]
"""What a full lane does: stop the reading, drop what waits longest, drop what comes, or lose the session."""

Framing = Callable[[], Callable[[Frame], Iterable[Frame]]]
"""A factory, called for each connection, of a function from a frame to the frames that it means."""


@runtime_checkable
class MessageRouter(Protocol):
    """Parses frames and names the key of each message.

    Besides ``route_key`` a router has ``parse(frame) -> message``, which may be async, or
    ``parse_many(frame) -> iterable of messages``, for servers that pack several into one frame.
    """

    def route_key(self, message: Any, /) -> Hashable:
        """Return the key of a parsed message."""
        ...


class MessageHandler(Protocol):
    """An object that handles messages; a plain or async function will do as well."""

    def handle(self, message: Any, /) -> Awaitable[None] | None:
        """Handle one message. What it returns is awaited if it can be."""
        ...


Handler = Callable[[Any], Any] | MessageHandler


@attrs.frozen
class Route:
    """A handler with the settings of its lane.

    Raises:
        ConfigurationError: A value of a wrong type or out of range.
    """

    handler: Handler
    """A plain or async callable of the message, or an object with ``handle(message)``."""
    capacity: int = attrs.field(default=10_000, kw_only=True, validator=count(least=1, optional=False))
    """How many messages may wait or be in work in this lane; at least 1."""
    overflow: Overflow = attrs.field(default="block", kw_only=True, validator=choice(*get_args(Overflow)))
    """What happens to the next message when the lane is full."""
    conflate: Callable[[Any], Hashable] | None = attrs.field(default=None, kw_only=True)
    """Of waiting messages with the same ``conflate(message)`` only the newest is kept."""
    stale_after: float | None = attrs.field(
        default=None, kw_only=True, converter=to_optional_seconds, validator=seconds(positive=True, optional=True)
    )
    """Seconds without a message for this key, while connected, that make a ``RouteStale`` event."""

    def __attrs_post_init__(self) -> None:
        _check_handler("Route.handler", self.handler)
        check_callable("Route.conflate", self.conflate, "(message) -> key", or_none=True)


def handler_function(handler: object) -> Callable[[Any], Any] | None:
    """Return the function to call for each message, or ``None`` if there is none."""
    method = getattr(handler, "handle", None)
    if callable(method):
        return None if isinstance(handler, type) else method  # of a class it has no self
    return handler if callable(handler) else None


def awaited(handler: Callable[[Any], Any] | None) -> Callable[[Any], Awaitable[Any]] | None:
    """Return an async function that calls a handler, plain or async, and awaits what can be awaited of it."""
    if handler is None or inspect.iscoroutinefunction(handler):
        return handler

    async def handle(message: Any) -> None:
        result = handler(message)
        if result is not None and inspect.isawaitable(result):
            await result

    return handle


def _check_handler(field: str, handler: object) -> None:
    if handler_function(handler) is None:
        raise ConfigurationError(
            f"{field} is {describe(handler)}; it must be callable, an object with a method handle(message), or a Route"
        )


def as_routes(handlers: Mapping[Any, Handler | Route]) -> dict[Hashable, Route]:
    """Return handlers as routes.

    Raises:
        ConfigurationError: Not a mapping, or one of them cannot handle messages; names the key.
    """
    if not isinstance(handlers, Mapping):
        raise ConfigurationError(f"handlers is {describe(handlers)}; it must be a mapping of route keys to handlers")
    return {key: as_route(f"handlers[{show(key)}]", handler) for key, handler in handlers.items()}


def as_route(field: str, handler: Handler | Route) -> Route:
    """Return one handler as a route; ``field`` names it in the error."""
    if isinstance(handler, Route):
        return handler
    _check_handler(field, handler)
    return Route(handler)


def check_router(router: object) -> None:
    """Refuse what cannot route.

    Raises:
        ConfigurationError: Names what is missing.
    """
    if router is None:
        return
    if isinstance(router, type):
        raise ConfigurationError(f"router is {describe(router)}; it must be an object: {router.__name__}()")
    missing = [] if callable(getattr(router, "route_key", None)) else ["route_key(message)"]
    if not (callable(getattr(router, "parse", None)) or callable(getattr(router, "parse_many", None))):
        missing.append("parse(frame) or parse_many(frame)")
    if missing:
        raise ConfigurationError(f"router is {describe(router)}; it must have {' and '.join(missing)}")


def _as_key(key: str | Path | Callable[[Any], Hashable]) -> Path | Callable[[Any], Hashable]:
    return key if callable(key) else as_path("JsonRouter.key", key)


@attrs.frozen
class JsonRouter:
    """Parses JSON; the key of a message is one of its fields.

    Raises:
        ConfigurationError: The key is neither a field, nor a path, nor a callable.
    """

    key: Path | Callable[[Any], Hashable] = attrs.field(default=("channel",), converter=_as_key)
    """A field, or a path (``"data.type"``): a top-level array is then one message per element, and a
    message without the field has the key ``None``. Or a callable of the parsed message."""
    loads: Callable[[Any], Any] = json.loads
    """What parses a frame: ``orjson.loads``, for example."""

    def __attrs_post_init__(self) -> None:
        check_callable("JsonRouter.loads", self.loads, "(frame) -> message")
        if callable(self.key):
            check_callable("JsonRouter.key", self.key, "(message) -> key")

    def parse_many(self, frame: Frame) -> list[Any]:
        """Return the messages of a frame."""
        parsed = self.loads(frame)
        return parsed if isinstance(parsed, list) and not callable(self.key) else [parsed]

    def route_key(self, message: Any) -> Hashable:
        """Return the key of a message."""
        key = self.key
        return key(message) if callable(key) else follow(message, key)

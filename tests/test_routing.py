"""Routes, routers and handlers: what may be given, and what JSON comes to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from hypersockets._errors import ConfigurationError
from hypersockets._routing import (
    JsonRouter,
    MessageRouter,
    Route,
    as_route,
    as_routes,
    awaited,
    check_router,
    handler_function,
)

loose: Any = JsonRouter  # to be given what type checkers would refuse


class Handling:
    """An object that handles."""

    def handle(self, message: Any) -> None:
        """Take it."""


class CallableHandling(Handling):
    def __call__(self, message: Any) -> None:
        pytest.fail("handle comes first")


async def on_message(message: Any) -> None:
    """Take it."""


async def later(message: Any) -> str:
    return "key"


# Handlers and routes.


@pytest.mark.parametrize("handler", [on_message, print, lambda message: None, dict])
def test_callables_handle(handler: Any) -> None:
    """A plain or async function, or anything else that can be called, is its own handler."""
    assert Route(handler).handler is handler
    assert handler_function(handler) is handler


def test_objects_handle() -> None:
    """An object with ``handle`` handles by it, even if it could be called."""
    for handler in (Handling(), CallableHandling()):
        assert handler_function(handler) == handler.handle
        assert Route(handler).handler is handler


class Later:
    """Can be awaited, though it is no coroutine."""

    def __init__(self, taken: list[Any], message: Any) -> None:
        self.taken, self.message = taken, message

    def __await__(self) -> Generator[None, None, None]:
        self.taken.append(self.message)
        return
        yield


def test_whatever_handles_can_be_awaited() -> None:
    """A plain function is called, and what it returns is awaited if it can be; what is async already stays itself."""
    taken: list[Any] = []

    async def on_async(message: Any) -> None:
        taken.append(message)

    assert awaited(None) is None
    assert awaited(on_async) is on_async
    for handler in (taken.append, lambda message: on_async(message), lambda message: Later(taken, message), len):
        handle: Any = awaited(handler)
        with pytest.raises(StopIteration):  # how a coroutine that never waits returns
            handle("ab").send(None)
    assert taken == ["ab"] * 3


class NotQuite:
    handle = "no method"


@pytest.mark.parametrize("handler", [None, "name", 5, object(), NotQuite(), Handling, CallableHandling])
def test_what_cannot_handle(handler: Any) -> None:
    """A class with ``handle`` (its parentheses were forgotten) is no handler, nor is what has neither."""
    assert handler_function(handler) is None
    for make in (lambda: Route(handler), lambda: as_route("Route.handler", handler)):
        with pytest.raises(ConfigurationError, match=r"^Route.handler is .*; it must be callable, an object with"):
            make()


def test_route_defaults() -> None:
    """A lane holds ten thousand and stops the reading when it is full."""
    route = Route(print)
    assert (route.capacity, route.overflow, route.conflate, route.stale_after) == (10_000, "block", None, None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        route.capacity = 5  # type: ignore[misc]


def test_options_go_by_name() -> None:
    """Only the handler may be given by position."""
    keyword_only = {field.name for field in attrs.fields(Route) if field.kw_only}
    assert keyword_only == {"capacity", "overflow", "conflate", "stale_after"}


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest", "reconnect"])
def test_good_routes(overflow: Any) -> None:
    """All that a lane can be told; durations may be timedeltas."""
    route = Route(print, capacity=1, overflow=overflow, conflate=len, stale_after=timedelta(minutes=1))
    assert (route.overflow, route.stale_after) == (overflow, 60.0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"capacity": 0}, "capacity is 0; it must be a whole number of at least 1$"),
        ({"capacity": -1}, "capacity is -1"),
        ({"capacity": None}, "capacity is None"),
        ({"capacity": True}, "capacity is True"),
        ({"capacity": 1.5}, "capacity is 1.5"),
        ({"overflow": "drop"}, r"overflow is 'drop'; it must be one of \('block', 'drop_oldest', 'drop_newest', 'rec"),
        ({"overflow": None}, "overflow is None"),
        ({"overflow": ["block"]}, "overflow is"),
        ({"conflate": "symbol"}, r"Route.conflate is of type str; it must be a callable \(message\) -> key, or None$"),
        ({"conflate": later}, "Route.conflate is an async function"),
        ({"stale_after": 0}, "stale_after is 0.0; .* more than 0, a timedelta or None"),
        ({"stale_after": math.inf}, "stale_after is inf"),
        ({"stale_after": "5"}, "stale_after is '5'"),
    ],
)
def test_bad_routes(options: dict[str, Any], text: str) -> None:
    """An option out of range is refused by name, with what is allowed."""
    with pytest.raises(ConfigurationError, match=f"^{text}"):
        Route(print, **options)


def test_handlers_become_routes() -> None:
    """Handlers are wrapped, routes stay, and the mapping is a new one."""
    route = Route(print, capacity=5)
    handlers: dict[Any, Any] = {"a": print, None: route, ("b", 1): Handling()}
    routes = as_routes(handlers)
    assert routes[None] is route
    assert routes["a"] == Route(print)
    assert list(routes) == list(handlers)
    handlers.clear()
    assert len(routes) == 3


@pytest.mark.parametrize(
    ("handlers", "text"),
    [
        (None, "handlers is None; it must be a mapping of route keys to handlers"),
        ([print], "handlers is of type list"),
        (print, "handlers is of type builtin_function_or_method"),
        ({"a": print, "trades": None}, r"handlers\['trades'\] is None; it must be callable"),
        ({"a\n": Handling}, r"handlers\['a\\n'\] is the class Handling"),
    ],
)
def test_bad_handlers(handlers: Any, text: str) -> None:
    """What cannot handle is refused, with its key."""
    with pytest.raises(ConfigurationError, match=f"^{text}"):
        as_routes(handlers)


# Routers.


class Feed:
    def parse(self, frame: str | bytes) -> Any:
        return frame

    def route_key(self, message: Any) -> str:
        return "key"


class Packed:
    def parse_many(self, frame: str | bytes) -> list[Any]:
        return [frame]

    def route_key(self, message: Any) -> str:
        return "key"


class Keyless:
    parse = Feed.parse


class Parseless:
    route_key = Feed.route_key
    parse = None


@pytest.mark.parametrize("router", [None, Feed(), Packed(), JsonRouter()])
def test_good_routers(router: Any) -> None:
    """``route_key`` and one of ``parse`` and ``parse_many``; no class to derive from."""
    check_router(router)
    assert router is None or isinstance(router, MessageRouter)


@pytest.mark.parametrize(
    ("router", "text"),
    [
        (Keyless(), r"of type Keyless; it must have route_key\(message\)$"),
        (Parseless(), r"of type Parseless; it must have parse\(frame\) or parse_many\(frame\)$"),
        (object(), r"of type object; it must have route_key\(message\) and parse\(frame\) or parse_many\(frame\)$"),
        ("channel", "of type str; it must have"),
        (Feed, r"the class Feed; it must be an object: Feed\(\)$"),
        (JsonRouter, r"the class JsonRouter; it must be an object: JsonRouter\(\)$"),
    ],
)
def test_bad_routers(router: Any, text: str) -> None:
    """The refusal names what is missing."""
    with pytest.raises(ConfigurationError, match=f"^router is {text}"):
        check_router(router)


def route(router: JsonRouter, frame: str | bytes) -> list[tuple[Any, Any]]:
    return [(router.route_key(message), message) for message in router.parse_many(frame)]


def test_json_router_by_field() -> None:
    """The key is a field, ``"channel"`` by default; a message without it has the key ``None``."""
    assert route(JsonRouter(), '{"channel": "a"}') == [("a", {"channel": "a"})]
    assert route(JsonRouter(), b'{"x": 1}') == [(None, {"x": 1})]
    assert route(JsonRouter("data.type"), '{"data": {"type": 5}}') == [(5, {"data": {"type": 5}})]
    assert JsonRouter("data.type") == JsonRouter(("data", "type"))


def test_json_router_takes_arrays_apart() -> None:
    """A top-level array is one message per element, whatever the elements are."""
    assert route(JsonRouter("c"), '[{"c": "a"}, 5, [{"c": "b"}], null]') == [
        ("a", {"c": "a"}),
        (None, 5),
        (None, [{"c": "b"}]),
        (None, None),
    ]
    assert route(JsonRouter("c"), "[]") == []


def test_json_router_by_callable() -> None:
    """A callable sees what was parsed, arrays whole: they may be the protocol's messages."""
    assert route(JsonRouter(lambda message: message[1]), '[0, "ticker"]') == [("ticker", [0, "ticker"])]


def test_json_router_with_another_parser() -> None:
    """``loads`` may be any parser, and what it raises comes out."""
    assert route(JsonRouter("c", loads=lambda frame: {"c": len(frame)}), "abc") == [(3, {"c": 3})]
    with pytest.raises(json.JSONDecodeError):
        JsonRouter().parse_many("{")


leaves = st.one_of(st.none(), st.integers(), st.text())


@given(st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner)))
def test_json_router_takes_any_json(document: Any) -> None:
    """No JSON makes it raise, and nothing is lost."""
    messages = JsonRouter("a.b").parse_many(json.dumps(document))
    assert messages == (document if isinstance(document, list) else [document])
    for message in messages:
        JsonRouter("a.b").route_key(message)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: loose(""), "JsonRouter.key is ''; it must be a field name or a path"),
        (lambda: loose(5), "JsonRouter.key is 5"),
        (
            lambda: loose(later),
            r"JsonRouter.key is an async function; it must be a callable \(message\) -> key, and not async$",
        ),
        (lambda: loose("a", loads=None), r"JsonRouter.loads is None; it must be a callable \(frame\) -> message$"),
        (lambda: loose("a", loads=later), "JsonRouter.loads is an async function"),
    ],
)
def test_bad_json_routers(make: Callable[[], object], text: str) -> None:
    """A value that cannot work is refused by name."""
    with pytest.raises(ConfigurationError, match=f"^{text}"):
        make()

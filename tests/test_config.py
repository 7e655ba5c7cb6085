"""The configuration: defaults as in the contract, every bad value refused by name, no secret shown."""

from __future__ import annotations

import copy
import math
import ssl
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from hypersockets._config import ClientConfig
from hypersockets._errors import ConfigurationError
from hypersockets._heartbeat import Heartbeat
from hypersockets._passive_ping import TextPassivePing
from hypersockets._routing import JsonRouter, Route
from hypersockets._send_limit import SendLimit
from hypersockets._strategies import ExponentialBackoff, FixedDelay, NeverReconnect, is_retryable
from hypersockets._subscriptions import Subscription
from hypersockets._trio_websocket_transport import TrioWebSocketConnector

SECRET = "S3cr3t"


def config(**settings: Any) -> ClientConfig:
    return ClientConfig(**{"url": "wss://host", **settings})


class Leaky:
    """An auth provider, a router, a detector and a connector, whose ``repr`` holds the secret."""

    async def get_auth_message(self) -> str:
        return SECRET

    def parse(self, frame: str | bytes) -> Any:
        return frame

    def route_key(self, message: Any) -> str:
        return "key"

    def __call__(self, frame: str | bytes) -> None:
        return None

    def open(self, request: Any) -> Any:
        raise NotImplementedError

    def handle(self, message: Any) -> None:
        """Take it."""

    def __repr__(self) -> str:
        return SECRET


class Broken:
    """Good for nothing, and its ``repr`` holds the secret."""

    def __repr__(self) -> str:
        return SECRET


async def answers(*args: Any) -> Any:
    return None


# What is taken.


def test_defaults() -> None:
    """The defaults are those of the contract."""
    made = attrs.asdict(config(), recurse=False)
    strategy = made.pop("reconnect_strategy")
    assert (strategy.initial_delay, strategy.max_delay, strategy.max_attempts, strategy.jitter) == (1, 60, None, 0.5)
    assert made == {
        "url": "wss://host",
        "headers": {},
        "subprotocols": (),
        "ssl_context": None,
        "proxy": "environment",
        "compression": None,
        "max_message_size": 16 * 2**20,
        "decode_text": True,
        "transport": "stream",
        "open_timeout": 10,
        "close_timeout": 5,
        "auth": None,
        "auth_timeout": 10,
        "subscriptions": (),
        "subscribe_timeout": 10,
        "batch_subscriptions": None,
        "send_limit": None,
        "framing": None,
        "sequence": None,
        "on_gap": None,
        "router": None,
        "handlers": {},
        "default_handler": None,
        "reply_key": None,
        "on_handler_error": "raise",
        "ping_interval": 20,
        "ping_timeout": 20,
        "heartbeat": None,
        "passive_ping": None,
        "idle_timeout": None,
        "reconnection_delay_offset": 0,
        "stable_after": 5,
        "is_retryable": is_retryable,
        "fatal_close_codes": (),
        "max_connection_age": None,
        "rotation": None,
        "message_id": None,
        "on_ready": None,
        "drain_timeout": 5,
        "name": "host",
    }


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        ("url", ["ws://a", "wss://b"], ("ws://a", "wss://b")),
        ("url", answers, answers),
        ("headers", {"Origin": "x"}, {"Origin": "x"}),
        ("headers", answers, answers),
        ("subprotocols", ["a", "b.v2"], ("a", "b.v2")),
        ("proxy", None, None),
        ("proxy", "socks5://u:p@proxy:1080", "socks5://u:p@proxy:1080"),
        ("compression", "deflate", "deflate"),
        ("max_message_size", None, None),
        ("max_message_size", 1, 1),
        ("decode_text", False, False),
        ("transport", "trio-websocket", "trio-websocket"),
        ("close_timeout", 0, 0.0),
        ("auth", answers, answers),
        ("subscriptions", ["a"], (Subscription("a"),)),
        ("framing", lambda: iter, None),
        ("default_handler", print, Route(print)),
        ("default_handler", Route(print, capacity=5), Route(print, capacity=5)),
        ("handlers", {"a": print}, {"a": Route(print)}),
        ("reply_key", len, len),
        ("on_handler_error", "continue", "continue"),
        ("ping_interval", None, None),
        ("ping_timeout", None, None),
        ("idle_timeout", answers, answers),
        ("reconnect_strategy", NeverReconnect(), NeverReconnect()),
        ("fatal_close_codes", [1008, 4000], (1008, 4000)),
        ("fatal_close_codes", [1000, 4999], (1000, 4999)),
        ("drain_timeout", None, None),
        ("drain_timeout", 0, 0.0),
        ("name", "feed", "feed"),
        ("name", "a\nb", "a\\nb"),
    ],
)
def test_good_values(field: str, value: Any, stored: Any) -> None:
    """What is taken, and as what it is kept."""
    kept = getattr(config(**{field: value}), field)
    assert kept == (value if field == "framing" else stored)
    assert type(kept) is type(value if field == "framing" else stored)


DURATIONS = {
    "open_timeout",
    "close_timeout",
    "auth_timeout",
    "subscribe_timeout",
    "ping_interval",
    "ping_timeout",
    "idle_timeout",
    "reconnection_delay_offset",
    "stable_after",
    "drain_timeout",
}


@pytest.mark.parametrize("field", sorted(DURATIONS))
def test_durations(field: str) -> None:
    """Seconds are kept as floats; a ``timedelta`` is taken too; nonsense is refused with what is allowed."""
    for value in (3, timedelta(seconds=3)):
        kept = getattr(config(**{field: value}), field)
        assert (kept, type(kept)) == (3.0, float)
    for nonsense in (-1, math.nan, math.inf, "3", True, timedelta(seconds=-1), 10**5000):
        with pytest.raises(ConfigurationError, match=f"^{field} is .*; it must be a finite number of .*timedelta"):
            config(**{field: nonsense})


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("url", "", "url is '': its scheme is not one of ws, wss; use a URL such as"),
        ("url", f"http://user:{SECRET}@host?{SECRET}", r"url is 'http://\*\*\*@host\?\*\*\*': its scheme"),
        ("url", f"user:{SECRET}@host", r"url is '\*\*\*@host': its scheme"),
        ("url", f"wss://user:{SECRET}@host/a b", r"url is 'wss://\*\*\*@host/a b': it holds white space"),
        ("url", f"wss://host\r\nX: {SECRET}@", "url is .*white space or control"),
        ("url", None, "url is None; it must be a ws:// or wss:// URL, a sequence of them, or a callable"),
        ("url", 5, "url is 5"),
        ("url", b"wss://host", "url is of type bytes"),
        ("url", bytearray(b"wss://host"), "url is of type bytearray"),
        ("url", {SECRET}, "url is of type set"),
        ("url", [], "url is an empty sequence"),
        ("url", ("wss://a", f"wss://b?{SECRET}#x"), r"url\[1\] is 'wss://b\?\*\*\*': it must have no fragment"),
        ("url", ["wss://a", None], r"url\[1\] is None"),
        ("headers", None, "headers is None; it must be a mapping of names to values"),
        ("headers", [("A", SECRET)], "headers is of type list"),
        ("headers", {"A": SECRET + "\n"}, "headers: the value of 'A' cannot be sent"),
        ("headers", {f"A: {SECRET}": ""}, "headers: 'A…' is not a header name"),
        ("subprotocols", "chat", "subprotocols is 'chat'; it must be a sequence of different names"),
        ("subprotocols", None, "subprotocols is None"),
        ("subprotocols", b"chat", "subprotocols is b'chat'"),
        ("subprotocols", ["a", ""], r"subprotocols is \['a', ''\]"),
        ("subprotocols", ["a, b"], "subprotocols is"),
        ("subprotocols", ["a\r\nX: y"], "subprotocols is"),
        ("subprotocols", ["ä"], "subprotocols is"),
        ("subprotocols", ["a", "a"], "subprotocols is"),
        ("subprotocols", ["a", 5], "subprotocols is"),
        ("ssl_context", "default", "ssl_context is 'default'; it must be an ssl.SSLContext or None"),
        ("ssl_context", True, "ssl_context is True"),
        ("ssl_context", ssl.SSLContext, "ssl_context is the class SSLContext"),
        ("proxy", "", "proxy is '': its scheme is not one of http, https, socks4"),
        ("proxy", f"ftp://user:{SECRET}@proxy", r"proxy is 'ftp://\*\*\*@proxy': its scheme .*None for a direct"),
        ("proxy", "proxy:3128", "proxy is 'proxy:3128'"),
        ("proxy", "http://", "proxy is 'http://': it names no host"),
        ("proxy", True, "proxy is True"),
        ("compression", "gzip", r"compression is 'gzip'; it must be one of \('deflate', None\)"),
        ("compression", False, "compression is False"),
        ("max_message_size", 0, "max_message_size is 0; it must be a whole number of at least 1, or None"),
        ("max_message_size", 1e6, "max_message_size is 1000000.0"),
        ("decode_text", None, r"decode_text is None; it must be one of \(True, False\)"),
        ("decode_text", 1, "decode_text is 1"),
        ("transport", "curl", r"transport is 'curl'; it must be one of \('stream', 'trio-websocket'\) or a Connector"),
        ("transport", None, "transport is None"),
        ("transport", Broken(), "transport is of type Broken"),
        ("transport", Leaky, "transport is the class Leaky"),
        ("open_timeout", 0, "open_timeout is 0.0; .* more than 0"),
        ("open_timeout", None, "open_timeout is None"),
        ("close_timeout", None, "close_timeout is None; .* at least 0"),
        ("auth_timeout", 0, "auth_timeout is 0.0"),
        ("auth", SECRET, "auth is of type str; it must be an object with get_auth_message"),
        ("auth", Broken(), "auth is of type Broken"),
        ("auth", Leaky, "auth is the class Leaky"),
        ("subscriptions", SECRET, "subscriptions is of type str; it must be a list of messages or Subscriptions"),
        ("subscriptions", [{"op": SECRET}], r"subscriptions\[0\]: Subscription.message is of type dict"),
        ("subscribe_timeout", 0, "subscribe_timeout is 0.0"),
        ("batch_subscriptions", ["sub"], "batch_subscriptions is of type list; it must be a callable or None"),
        ("send_limit", (5, 1), "send_limit is of type tuple; it must be a SendLimit or None"),
        ("send_limit", SendLimit, "send_limit is the class SendLimit; it must be a SendLimit or None"),
        ("framing", 5, r"framing is 5; it must be a callable \(\) -> \(frame\) -> frames, or None"),
        ("framing", answers, "framing is an async function"),
        ("sequence", 5, r"sequence is 5; it must be a callable \(message\) -> \(key, number\) or None, or None"),
        ("sequence", answers, "sequence is an async function"),
        ("on_gap", Broken(), r"on_gap is of type Broken; it must be a callable \(gap, client\) or None"),
        ("on_gap", print, "on_gap is given without a sequence, which finds the gaps; give that too"),
        ("router", Broken(), "router is of type Broken; it must have"),
        ("router", JsonRouter, "router is the class JsonRouter"),
        ("handlers", None, "handlers is None; it must be a mapping of route keys to handlers"),
        ("handlers", {"k": Broken()}, r"handlers\['k'\] is of type Broken; it must be callable"),
        ("default_handler", "print", "default_handler is of type str; it must be callable"),
        ("reply_key", "id", r"reply_key is of type str; it must be a callable \(message\) -> id or None, or None"),
        ("reply_key", answers, "reply_key is an async function"),
        ("on_handler_error", "ignore", r"on_handler_error is 'ignore'; it must be one of \('raise', 'reconnect',"),
        ("ping_interval", 0, "ping_interval is 0.0; .*, a timedelta or None"),
        ("ping_timeout", 0, "ping_timeout is 0.0"),
        ("heartbeat", 30, "heartbeat is 30; it must be a Heartbeat or None"),
        ("heartbeat", Heartbeat, "heartbeat is the class Heartbeat"),
        ("passive_ping", 5, r"passive_ping is 5; it must be a callable \(frame\) -> reply or None, or None"),
        ("passive_ping", answers, "passive_ping is an async function"),
        ("idle_timeout", 0, "idle_timeout is 0.0; .*, a timedelta or None"),
        ("reconnect_strategy", None, r"reconnect_strategy is None; it must be an object with next_delay\(attempt\)"),
        ("reconnect_strategy", 5, "reconnect_strategy is 5"),
        ("reconnect_strategy", NeverReconnect, "reconnect_strategy is the class NeverReconnect"),
        ("reconnection_delay_offset", None, "reconnection_delay_offset is None"),
        ("stable_after", None, "stable_after is None"),
        ("is_retryable", None, r"is_retryable is None; it must be a callable \(error\) -> bool$"),
        ("is_retryable", True, "is_retryable is True"),
        ("is_retryable", answers, "is_retryable is an async function"),
        ("fatal_close_codes", 1008, "fatal_close_codes is 1008; it must hold close codes from 1000 to 4999"),
        ("fatal_close_codes", None, "fatal_close_codes is None"),
        ("fatal_close_codes", [999], r"fatal_close_codes is \[999\]"),
        ("fatal_close_codes", [5000], r"fatal_close_codes is \[5000\]"),
        ("fatal_close_codes", ["1008"], r"fatal_close_codes is \['1008'\]"),
        ("fatal_close_codes", "1008", "fatal_close_codes is '1008'"),
        ("max_connection_age", 0, "max_connection_age is 0.0; .*, a timedelta or None"),
        ("rotation", "make", r"rotation is 'make'; it must be one of \('break-before-make', None\)"),
        ("message_id", 5, r"message_id is 5; it must be a callable \(message\) -> id, or None$"),
        ("message_id", answers, "message_id is an async function"),
        ("on_ready", 5, r"on_ready is 5; it must be an async function \(client, resume\), or None$"),
        ("drain_timeout", -0.5, "drain_timeout is -0.5; .* at least 0, a timedelta or None"),
        ("name", None, "name is None; it must be a str"),
        ("name", b"x", "name is of type bytes"),
    ],
)
def test_bad_values(field: str, value: Any, text: str) -> None:
    """Each is refused at construction, with the field, the value (secrets masked), and what is allowed."""
    with pytest.raises(ConfigurationError, match=f"^{text}") as caught:
        config(**{field: value})
    assert SECRET not in str(caught.value)
    assert str(caught.value).isprintable()
    assert isinstance(caught.value, ValueError)


def test_a_transport_that_cannot_rotate() -> None:
    """It forgets what follows our close frame: a rotation by age has to break before it makes."""
    for transport in ("trio-websocket", TrioWebSocketConnector()):
        made = config(transport=transport, max_connection_age=60, rotation="break-before-make")
        assert made.max_connection_age == 60
        made.check_rotation()
        with pytest.raises(ConfigurationError, match=r"^rotation is None, and trio-websocket .* 'break-before-make'"):
            config(transport=transport, max_connection_age=60)
        with pytest.raises(ConfigurationError, match=r"^rotation is None"):
            config(transport=transport).check_rotation()


@pytest.mark.parametrize("interval", [2, timedelta(seconds=2), 0.5])
def test_heartbeats_that_would_take_all_that_may_be_sent(interval: Any) -> None:
    """Five messages in ten seconds, and one every two: nothing is left for others, so it is refused, and says why."""
    seconds = Heartbeat(interval, "beat").interval
    text = (
        f"^heartbeat.interval is {seconds:g}: every {seconds:g} s one of the 5 messages that send_limit allows in 10 s "
        "leaves nothing for others; take a longer interval$"
    )
    with pytest.raises(ConfigurationError, match=text):
        config(send_limit=SendLimit(5, 10), heartbeat=Heartbeat(interval, "beat"))


@pytest.mark.parametrize("heartbeat", [None, Heartbeat(2.01, "beat"), Heartbeat(answers, "beat")])
def test_heartbeats_that_leave_room_for_others(heartbeat: Any) -> None:
    """A slower one does, and of one that the server is to dictate nothing is known yet; no limit allows any."""
    limit = SendLimit(5, 10)
    made = config(send_limit=limit, heartbeat=heartbeat)
    assert (made.send_limit, made.heartbeat) == (limit, heartbeat)
    assert config(heartbeat=Heartbeat(0.01, "beat")).send_limit is None


def test_every_field_has_a_bad_value() -> None:
    """The table above leaves no field out."""
    marks = [mark for mark in test_bad_values.pytestmark if mark.name == "parametrize"]
    covered = {case[0] for case in marks[0].args[1]} | DURATIONS
    assert covered == {field.name for field in attrs.fields(ClientConfig)}


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers()), max_size=2),
    st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.text(max_size=3)), max_size=2),
    st.sampled_from([object(), Broken(), Broken, print, answers, 10**5000, 1j, ...]),
)


@given(st.sampled_from([field.name for field in attrs.fields(ClientConfig)]), anything)
def test_nonsense_is_a_configuration_error(field: str, value: Any) -> None:
    """Whatever a field is given, it is taken, or refused by a ``ConfigurationError``: never by anything else."""
    refusal = ""
    try:
        made = config(**{field: value})
    except ConfigurationError as error:
        refusal = str(error)
    else:
        repr(made)
    assert SECRET not in refusal


# What is shown.


def test_repr_shows_no_secret() -> None:
    """Neither the URL's secrets, headers, the proxy's password, auth, nor messages are in the ``repr``."""
    made = config(
        url=f"wss://user:{SECRET}@host/path?token={SECRET}",
        headers={"Authorization": f"Bearer {SECRET}"},
        proxy=f"http://user:{SECRET}@proxy:3128",
        auth=Leaky(),
        subscriptions=[SECRET, Subscription(SECRET, unsubscribe=SECRET)],
        heartbeat=Heartbeat(5, SECRET, pong=SECRET),
        passive_ping=TextPassivePing("ping", reply=SECRET),
        router=Leaky(),
        handlers={"trades": Leaky()},
        default_handler=Leaky(),
        reply_key=Leaky(),
    )
    shown = repr(made)
    assert SECRET not in shown
    for part in (
        "url=wss://***@host/path?***",
        "headers={'Authorization': '***'}",
        "proxy=http://***@proxy:3128",
        "auth=<Leaky>",
        "subscriptions=<2 entries>",
        "handlers=<1 routes>",
        "default_handler=<Route>",
        "reply_key=<Leaky>",
        "passive_ping=<TextPassivePing>",
        "name='host'",
    ):
        assert part in shown


def test_repr_of_callables_and_sequences() -> None:
    """A callable is shown by its type, each URL of a sequence masked, what is not given as ``None``."""
    context = ssl.create_default_context()
    shown = repr(config(url=[f"wss://a?{SECRET}", "wss://b"], headers=answers, ssl_context=context))
    assert "url=[wss://a?***, wss://b], headers=function" in shown
    assert "ssl_context=<SSLContext>" in shown
    assert "auth=None" in shown
    assert "url=function" in repr(config(url=lambda: SECRET))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("wss://user:p@ss@Host.example:99/x?y", "host.example"),
        ("ws://[::1]:9", "[::1]"),
        (["ws://a", "ws://b"], "a"),
        (lambda: "ws://a", "client"),
    ],
)
def test_name_is_the_host(url: Any, name: str) -> None:
    """Without a name a client is called by the first URL's host, which holds no secret."""
    assert config(url=url).name == name


# A value.


def test_frozen() -> None:
    """It cannot be changed, and what was given may be: it is a copy."""
    headers, handlers = {"A": "b"}, {"k": print}
    made = config(headers=headers, handlers=handlers)
    headers["C"] = "d"
    handlers.clear()
    assert (made.headers, list(made.handlers)) == ({"A": "b"}, ["k"])
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.url = "wss://other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        ClientConfig("wss://host")  # type: ignore[call-arg]


def test_copies() -> None:
    """A configuration can be copied and evolved; what is changed is checked again."""
    made = config(handlers={"a": print}, subscriptions=["s"], stable_after=timedelta(seconds=1))
    assert copy.copy(made) == made
    assert copy.deepcopy(made) == made
    assert attrs.evolve(made) == made
    assert attrs.evolve(made, stable_after=2).stable_after == 2.0
    with pytest.raises(ConfigurationError, match=r"^stable_after is -1"):
        attrs.evolve(made, stable_after=-1)


def test_of_url() -> None:
    """A bare URL is a configuration, with overrides."""
    strategy = FixedDelay(1)
    made = ClientConfig.of("ws://a", {"reconnect_strategy": strategy})
    assert made == ClientConfig(url="ws://a", reconnect_strategy=strategy)
    assert ClientConfig.of("ws://a", {"url": "ws://b"}).url == "ws://b"
    with pytest.raises(ConfigurationError, match=r"^url is 'host'"):
        ClientConfig.of("host", {})


def test_of_config() -> None:
    """A configuration comes back as it is, or with fields replaced and checked."""
    made = config(reconnect_strategy=ExponentialBackoff(1, 2))
    assert ClientConfig.of(made, {}) is made
    changed = ClientConfig.of(made, {"ping_interval": None})
    assert (changed.ping_interval, changed.reconnect_strategy) == (None, made.reconnect_strategy)
    assert made.ping_interval == 20
    with pytest.raises(ConfigurationError, match=r"^ping_interval is 'x'"):
        ClientConfig.of(made, {"ping_interval": "x"})
    with pytest.raises(TypeError, match="ping_intervall"):
        ClientConfig.of(made, {"ping_intervall": 5})


def test_another_url_gives_another_name() -> None:
    """A name that came from the URL follows it, one that was given stays, one among the overrides counts."""
    assert ClientConfig.of(config(), {"url": "wss://other"}).name == "other"
    assert ClientConfig.of(config(name="feed"), {"url": "wss://other"}).name == "feed"
    assert ClientConfig.of(config(), {"url": "wss://other", "name": "x"}).name == "x"
    assert ClientConfig.of(config(), {"ping_interval": None}).name == "host"


@pytest.mark.parametrize(
    ("given_config", "what"), [(None, "None"), (b"ws://a", "of type bytes"), (ClientConfig, "the class")]
)
def test_of_something_else(given_config: Any, what: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigurationError, match=f"^config is {what}.*; it must be a ClientConfig or a URL"):
        ClientConfig.of(given_config, {})


def test_connectors_are_transports() -> None:
    """Any object with ``open`` may open the connections."""
    connector = Leaky()
    assert config(transport=connector).transport is connector


def test_one_default_strategy_each() -> None:
    """The default holds no state, and callables are kept, not called."""
    unasked: Callable[[], str] = lambda: pytest.fail("asked")  # noqa: E731
    made = config(url=unasked, headers=unasked, idle_timeout=unasked)
    assert made.reconnect_strategy == config().reconnect_strategy

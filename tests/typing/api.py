"""What users write, as type checkers see it. Never run: `nox -s types` checks it with mypy and pyright."""

# What must be refused is marked `type: ignore`; this makes pyright complain where it is not refused, as mypy does.
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from typing_extensions import assert_type

import hypersockets as hs


class Feed:
    """A router needs no base class."""

    def parse(self, frame: str | bytes) -> dict[str, Any]:
        return {"channel": frame}

    def route_key(self, message: dict[str, Any]) -> Hashable:
        return str(message["channel"])


class AsyncFeed:
    async def parse(self, frame: str | bytes) -> dict[str, Any]:
        return {"channel": frame}

    def route_key(self, message: dict[str, Any]) -> Hashable:
        return str(message["channel"])


class ManyFeed:
    def parse_many(self, frame: str | bytes) -> list[dict[str, Any]]:
        return [{"channel": frame}]

    def route_key(self, message: dict[str, Any]) -> Hashable:
        return str(message["channel"])


class TokenAuth:
    """A provider without an answer to check."""

    async def get_auth_message(self) -> str | None:
        return "token"


class CheckedAuth(TokenAuth):
    async def validate_auth_response(self, response: str | bytes) -> bool | None:
        return response == "ok"


async def login(channel: hs.AuthChannel) -> None:
    assert_type(await channel.receive(), str | bytes)
    assert_type(channel.url, str)
    assert_type(channel.subprotocol, str | None)
    await channel.send("token")
    await channel.send(b"token")


class Stubborn:
    """A strategy is any object with `next_delay`."""

    def next_delay(self, attempt: int) -> float | None:
        return 1 if attempt < 10 else None


class Ledger:
    async def handle(self, message: dict[str, Any]) -> None: ...


async def on_trade(message: dict[str, Any]) -> None: ...


def on_book(message: dict[str, Any]) -> None: ...


def framing() -> Callable[[str | bytes], list[str]]:
    return lambda frame: str(frame).splitlines()


def resume(point: hs.ResumePoint) -> str:
    assert_type(point.epoch, int)
    assert_type(point.last_sequence, Mapping[Hashable, int])
    return f"since {point.epoch}"


def sequence(message: dict[str, Any]) -> tuple[Hashable, int] | None:
    return (str(message["channel"]), int(message["number"])) if "number" in message else None


async def on_gap(gap: hs.GapDetected, client: hs.Client) -> None:
    assert_type(gap.key, Hashable)
    assert_type(gap.expected, int)
    assert_type(gap.got, int)
    await client.resubscribe(gap.key)


def batch(entries: Sequence[hs.Subscription]) -> list[str | bytes]:
    return [str(entry.key) for entry in entries]


async def batch_later(entries: Sequence[hs.Subscription]) -> Iterable[str]:
    return (str(entry.key) for entry in entries)


limit = hs.SendLimit(5, timedelta(seconds=1))
assert_type(limit.count, int)
assert_type(limit.per, float)


async def headers() -> dict[str, str]:
    return {"Authorization": "…"}


async def url() -> str:
    return "wss://example.com"


providers: list[hs.AuthProvider] = [TokenAuth(), CheckedAuth()]
strategies: list[hs.ReconnectionStrategy] = [
    Stubborn(),
    hs.ExponentialBackoff(1, 60),
    hs.ExponentialBackoff(initial_delay=1, max_delay=60, max_attempts=10, multiplier=1.5, jitter=0.5),
    hs.FixedDelay(5, 3, jitter=0.1),
    hs.NeverReconnect(),
]
connectors: list[hs.Connector] = [hs.StreamConnector(), hs.TrioWebSocketConnector()]

config = hs.ClientConfig(
    url=["wss://one.example.com", "wss://two.example.com"],
    headers={"Origin": "https://example.com"},
    router=Feed(),
    handlers={
        "trades": on_trade,
        "book": on_book,
        "ledger": Ledger(),
        1: hs.Route(
            on_trade, capacity=10, overflow="drop_oldest", conflate=lambda message: message["id"], stale_after=5
        ),
    },
    default_handler=on_book,
    auth=CheckedAuth(),
    subscriptions=["trades", b"book", hs.Subscription(resume, key="r", unsubscribe="bye", ack=lambda message: True)],
    heartbeat=hs.Heartbeat(interval=30, message="ping", pong="pong", timeout=5),
    passive_ping=hs.TextPassivePing("ping", reply="pong"),
    reconnect_strategy=strategies[0],
    reconnection_delay_offset=timedelta(seconds=2),
    open_timeout=timedelta(seconds=10),
    compression="deflate",
    transport="trio-websocket",
    on_handler_error="continue",
    ping_interval=None,
    drain_timeout=None,
)
hs.ClientConfig(url=url, headers=headers, auth=login, framing=framing, router=ManyFeed(), transport=connectors[0])
hs.ClientConfig(url="wss://example.com", reply_key=lambda message: message["id"])
hs.ClientConfig(url="wss://example.com", reply_key="id")  # type: ignore[arg-type]
hs.ClientConfig(url=lambda: "wss://example.com", router=AsyncFeed(), passive_ping=lambda frame: None)
hs.ClientConfig(url="wss://example.com", router=hs.JsonRouter(key="data.type"), heartbeat=hs.Heartbeat(1, lambda: "p"))
hs.ClientConfig(url="wss://example.com", passive_ping=hs.JsonPassivePing("op", "ping", reply=lambda ping: "pong"))
hs.ClientConfig(url="wss://example.com", sequence=sequence, on_gap=on_gap)
hs.ClientConfig(url="wss://example.com", sequence=lambda message: ("all", 1), on_gap=lambda gap, client: None)
hs.ClientConfig(url="wss://example.com", sequence=lambda message: 1)  # type: ignore[arg-type,return-value]
hs.ClientConfig(url="wss://example.com", send_limit=limit, batch_subscriptions=batch)
hs.ClientConfig(url="wss://example.com", send_limit=hs.SendLimit(300, per=60), batch_subscriptions=batch_later)
hs.ClientConfig(url="wss://example.com", send_limit=(5, 1))  # type: ignore[arg-type]
hs.ClientConfig("wss://example.com")  # type: ignore[call-arg]
hs.ClientConfig(url="wss://example.com", compression="gzip")  # type: ignore[arg-type]
hs.ClientConfig(url="wss://example.com", on_handler_error="ignore")  # type: ignore[arg-type]


async def use() -> None:
    async with hs.connect("wss://example.com", wait_ready=False, open_timeout=5) as plain:
        async for frame in plain:
            print(frame)

    async with hs.connect(config) as client:
        assert_type(client, hs.Client)
        assert_type(await client.send("text"), None)
        await client.send(b"bytes", wait=False, text=True)
        await client.request("ask", match=lambda message: message["id"] == 1, timeout=5)
        await client.request(b"ask", reply_key=("id", 1), timeout=timedelta(seconds=5), retry=True, text=True)
        await client.request("ask", match=on_trade, timeout=5)  # type: ignore[arg-type]
        await client.subscribe("more")
        await client.subscribe(hs.Subscription("more", key=("more", 1)))
        await client.resubscribe("more")
        await client.unsubscribe(("more", 1))
        async for message in client.messages("trades"):
            print(message)
        async with client.subscription(hs.Subscription("more", key="more"), capacity=10) as stream:
            assert_type(stream, hs.MessageStream)
            async for message in stream:
                print(message)
        async for event in client.events():
            see(event)
        see_maybe(client.try_recv_event())
        see(await client.recv_event())
        measure(client.metrics())
        assert_type(client.connection_state, hs.ConnectionState)
        assert_type(client.is_connected, bool)
        assert_type(client.epoch, int)
        assert_type(client.subprotocol, str | None)
        await client.wait_connected()
        await client.wait_closed()
        await client.reconnect("because", code=1001)
        await client.aclose(1000, "bye")


def see(event: hs.Event) -> None:
    assert_type(event.at, float)
    assert_type(event.epoch, int)
    assert_type(event.name, str)
    if isinstance(event, hs.Connected):
        assert_type(event.url, str)
    elif isinstance(event, hs.Disconnected):
        assert_type(event.reason, str)
        assert_type(event.code, int | None)
    elif isinstance(event, hs.Reconnecting):
        assert_type(event.attempt, int)
        assert_type(event.delay, float)


def see_maybe(event: hs.Event | None) -> None:
    if event is not None:
        see(event)


def measure(metrics: hs.Metrics) -> None:
    assert_type(metrics.messages_received, int)
    assert_type(metrics.reconnect_count, int)
    assert_type(metrics.gaps, int)
    assert_type(metrics.latency, float | None)
    assert_type(metrics.connected_since, float | None)
    assert_type(metrics.connection_state, hs.ConnectionState)


def errors(error: hs.HyperSocketError) -> None:
    if isinstance(error, hs.HandshakeRejectedError):
        assert_type(error.status, int)
        assert_type(error.retry_after, float | None)
    elif isinstance(error, hs.ConnectionLostError):
        assert_type(error.code, int | None)
        assert_type(error.reason, str)
    elif isinstance(error, hs.ReconnectExhaustedError):
        assert_type(error.attempts, int)


waits: list[Callable[[hs.Client], Awaitable[None]]] = [hs.Client.wait_connected, hs.Client.wait_closed]
current: Callable[[], hs.Client] = hs.current_client
retry: Callable[[BaseException], bool] = hs.is_retryable

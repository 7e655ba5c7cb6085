"""Target ``session``: the whole client, in virtual time, fed with conversations that went wrong.

A conversation is valid (handshake, the answer to auth, acks, messages, pings, a close), then mutated. Whatever it is:

- nothing but documented errors comes out, and nothing is in the log that says that there was a bug;
- the client ends in bounded (virtual) time, and no task is left;
- each message that was received is accounted for: it was handled, or an answer that was waited for, or counted as
  dropped, not parsed, or without a route; and each drop is in an event;
- events come in their order, and what the client sends is WebSocket: auth first, and users' messages last.

An input: two bytes of settings, one for the pieces in which bytes arrive, and what the server sends on each connection,
between bytes 0x1D (the last for all that follow). In that, ``{accept}`` stands as in target ``upgrade``.
"""

from __future__ import annotations

import json
import logging
import random
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

import hypersockets as hs
from hypersockets._stream_transport import StreamConnector
from hypersockets._transport import OpenRequest
from tests._live import assert_legal, happened, of

from ._backends import check_all_on
from ._conversations import make_conversation
from ._mutation import mutate
from ._target import Deviation, Target
from ._upgrade import NEXT, render

__all__ = ["SESSION"]

AUTH, ACKS, HEARTBEAT, DEFLATE, BYTES, SLOW, ROUTED, TRIO = (1 << bit for bit in range(8))
"""Bits of the first byte: what the client is configured with; how long handlers take; on which backend."""
ENDS = ("end", "mute", "reset", "polite")
"""How a connection goes on behind what the server sends, by the lowest bits of the second byte; polite servers wait
for a close frame and answer it."""
STALL = 0x04
"""Bit of the second byte: the server reads nothing but the handshake."""
DELAYS = (0.0, 0.0, 0.01, 0.4)
"""Between pieces, by the next two bits."""
OVERFLOWS: tuple[Any, ...] = ("block", "drop_oldest", "drop_newest", "reconnect")
"""By the next two bits."""
LEAVE_EARLY = 0x80
LIFE = 60.0
"""Seconds after which the client is left."""
LIMIT = 300


class Server(anyio.abc.ByteStream):
    """One connection, as the client sees it."""

    def __init__(self, template: bytes, how: int, size: int) -> None:
        self.template = template
        self.end = ENDS[how & 3]
        self.stalls = bool(how & STALL)
        self.delay = DELAYS[how >> 3 & 3]
        self.size = size
        self.answer: bytes | None = None
        self.sent = bytearray()
        self.close_sent = anyio.Event()
        self.is_closed = False

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self.is_closed:
            raise anyio.ClosedResourceError
        if self.answer is None:
            key = re.findall(rb"Sec-WebSocket-Key: (\S+)", item)[0]
            self.answer = render(self.template, item, key)
            return
        if self.stalls:
            await anyio.sleep_forever()
        self.sent += item
        if has_close(item):
            self.close_sent.set()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.sleep(self.delay)
        if self.is_closed:
            raise anyio.ClosedResourceError
        assert self.answer is not None
        data, self.answer = self.answer[: self.size], self.answer[self.size :]
        if data:
            return data
        if self.end == "mute":
            await anyio.sleep_forever()
        if self.end == "reset":
            raise anyio.BrokenResourceError from ConnectionResetError("reset")
        if self.end == "polite" and not self.close_sent.is_set():
            await self.close_sent.wait()
            return b"\x88\x02\x03\xe8"
        raise anyio.EndOfStream

    async def send_eof(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.is_closed = True
        await anyio.lowlevel.checkpoint()


def has_close(data: bytes) -> bool:
    """Tell whether there is a close frame among these whole frames of a client's, all of them short."""
    at = 0
    while at < len(data):
        if data[at] == 0x88:
            return True
        at += 6 + (data[at + 1] & 0x7F)
    return False


class Consumers:
    """Everything of the user's that takes messages; counts them."""

    def __init__(self, settings: int) -> None:
        self.taken: Counter[str] = Counter()
        self.seconds = 0.3 if settings & SLOW else 0.0

    async def get_auth_message(self) -> str:
        return "auth"

    async def validate_auth_response(self, response: str | bytes) -> bool | None:
        verdict = {"ok": True, "no": False}.get(_text(response))
        self.taken["auth"] += verdict is not None
        return verdict

    def ping(self, frame: str | bytes) -> str | None:
        if _text(frame) != "ping?":
            return None
        self.taken["passive ping"] += 1
        return "pong!"

    def pong(self, frame: str | bytes) -> bool:
        is_pong = _text(frame) == "pong"
        self.taken["pong"] += is_pong
        return is_pong

    def parse(self, frame: str | bytes) -> dict[str, Any]:
        parsed = json.loads(frame)
        if not isinstance(parsed, dict):
            raise TypeError("no object")
        return parsed

    def route_key(self, parsed: dict[str, Any]) -> Any:
        return parsed["channel"]

    def ack(self, parsed: Any) -> bool | None:
        verdict = parsed.get("ack") if isinstance(parsed, dict) else None
        if not isinstance(verdict, bool):
            return None
        self.taken["ack"] += 1
        return verdict

    def match(self, parsed: Any) -> bool:
        return isinstance(parsed, dict) and parsed.get("n") == 7

    async def handle(self, parsed: Any) -> None:
        if self.seconds:
            await anyio.sleep(self.seconds)
        self.taken["handled"] += 1  # what leaving has cut off is counted as dropped


def _text(frame: str | bytes) -> str:
    return frame if isinstance(frame, str) else frame.decode("latin-1")


class Errors(logging.Handler):
    """What is in the log at the level ERROR, which is for bugs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


def configure(settings: int, how: int, consumers: Consumers, connector: Any) -> hs.ClientConfig:
    """Return the client's configuration."""
    fields: dict[str, Any] = {}
    if settings & AUTH:
        fields["auth"] = consumers
    if settings & ROUTED:
        overflow = OVERFLOWS[how >> 5 & 3]
        routes = {key: hs.Route(consumers, capacity=2, overflow=overflow) for key in ("a", "b")}
        fields |= {"router": consumers, "handlers": routes}
        if settings & ACKS:
            fields["subscriptions"] = [hs.Subscription("sub 1", key=1, ack=consumers.ack), "sub 2"]
    else:
        fields["default_handler"] = consumers
    if settings & HEARTBEAT:
        fields["heartbeat"] = hs.Heartbeat(5, "beat", pong=consumers.pong)
    return hs.ClientConfig(
        url="ws://fuzz.test/",
        transport=connector,
        compression="deflate" if settings & DEFLATE else None,
        decode_text=not settings & BYTES,
        max_message_size=LIMIT,
        passive_ping=consumers.ping,
        idle_timeout=25,
        reconnect_strategy=hs.FixedDelay(1, 2),
        **fields,
    )


async def check(data: bytes) -> str:
    """Check one input, and return what came of it."""
    settings, how, size, templates = data[0], data[1], 1 + data[2] * data[2], data[3:].split(NEXT)
    servers: list[Server] = []

    async def open_stream(_: OpenRequest) -> Server:
        await anyio.lowlevel.checkpoint()
        servers.append(Server(templates[min(len(servers), len(templates) - 1)], how, size))
        return servers[-1]

    consumers = Consumers(settings)
    config = configure(settings, how, consumers, StreamConnector(open_stream=open_stream))
    started, before, ended = anyio.current_time(), len(anyio.get_running_tasks()), "left"
    client: Any = None
    life = 3.0 if how & LEAVE_EARLY else LIFE
    try:
        async with hs.connect(config, wait_ready=False) as client:
            with anyio.move_on_after(life):
                await use(client, consumers)
                await client.wait_closed()
    except hs.HyperSocketError as error:
        ended = type(error).__name__
    took = anyio.current_time() - started
    if took > life + 15:
        raise Deviation(f"the client ended after {took} s")
    if len(anyio.get_running_tasks()) != before:
        raise Deviation(f"tasks are left: {anyio.get_running_tasks()}")
    events = happened(client)
    assert_legal(events)
    check_books(client, events, consumers)
    for server in servers:
        check_sent(bytes(server.sent), settings)
    was_ready = "ready" if of(hs.Connected, events) else "never ready"
    did = "messages handled" if consumers.taken["handled"] else "no message"
    last = client.metrics().last_error
    kind = type(last).__name__ if not isinstance(last, hs.ConnectionLostError) else f"lost by {last.by} {last.code}"
    return f"{was_ready}, {did}, {kind}, {ended}"


async def use(client: hs.Client, consumers: Consumers) -> None:
    """Do what users do; what may go wrong then is documented."""
    with anyio.move_on_after(5):
        await client.send("user 1")
    try:
        await client.request("user 2", match=consumers.match, timeout=3)
        consumers.taken["reply"] += 1
    except (hs.RequestTimeoutError, hs.ConnectionLostError):
        pass


def check_books(client: hs.Client, events: list[hs.Event], consumers: Consumers) -> None:
    """See that each message that was received is accounted for, and each drop in an event."""
    metrics = client.metrics()
    told = sum(event.count for event in of(hs.MessageDropped, events))
    if told != metrics.dropped:
        raise Deviation(f"{metrics.dropped} dropped, {told} in events")
    known = consumers.taken.total() + metrics.dropped + metrics.parse_errors + metrics.unrouted
    if known != metrics.messages_received:
        raise Deviation(f"{metrics.messages_received} received, {known} accounted for: {consumers.taken} and {metrics}")


def check_sent(data: bytes, settings: int) -> None:
    """See that what the client has sent on one connection is WebSocket, and in the order that is promised."""
    if settings & DEFLATE:  # perhaps compressed; what it is then is the core's business
        return
    core = ServerProtocol(state=State.OPEN, max_size=None)
    core.receive_data(data)
    if core.parser_exc is not None:
        raise Deviation(f"the client broke the protocol: {core.parser_exc}: {data!r}")
    frames = [frame for frame in core.events_received() if isinstance(frame, Frame)]
    texts = [bytes(frame.data).decode() for frame in frames if frame.opcode is Opcode.TEXT]
    texts = [text for text in texts if text not in ("pong!", "beat")]
    order = [("auth", "sub", "user").index(text.split()[0]) for text in texts]
    if order != sorted(order) or (settings & AUTH and order[:1] not in ([], [0])) or order.count(0) > 1:
        raise Deviation(f"the client sent {texts}")


def inputs(rng: random.Random) -> Iterator[bytes]:
    """Yield conversations, one in four as they were made, the others with some changes."""
    draw = rng.random
    while True:
        settings = int(draw() * 256) & ~(DEFLATE if draw() < 0.7 else 0)
        how = int(draw() * 256) & ~(STALL if draw() < 0.9 else 0)
        parts = [make_conversation(rng, settings) for _ in range(1 + int(draw() * 3))]
        whole, spare = NEXT.join(b"".join(part) for part in parts), [*parts[0], NEXT]
        pieces = 255 if draw() < 0.5 else int(draw() * 25)
        for variant in range(4):
            data = whole
            if variant:
                for _ in range(1 + int(draw() * draw() * 5)):
                    data = mutate(data, rng, spare)
            yield bytes((settings, how, pieces)) + data


async def _check_with_log(data: bytes) -> str:
    errors = Errors()
    logger = logging.getLogger("hypersockets")
    logger.addHandler(errors)
    try:
        outcome = await check(data)
    finally:
        logger.removeHandler(errors)
    if errors.texts:
        raise Deviation(f"in the log: {errors.texts}")
    return outcome


SESSION = Target("session", inputs, partial(check_all_on, TRIO, _check_with_log, least=3))

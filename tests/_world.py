"""A server with numbered feeds, and links that know what they have delivered: one half of a model of everything."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.abc
import attrs
from anyio.abc import ByteStream

from hypersockets._session import Session
from hypersockets._transport import OpenRequest
from hypersockets.testing import Peer, PeerClosed, ScriptedServer
from hypersockets.testing._link import MemoryStream
from tests._through import Tapped

BASE = ("fast", "slow")
"""The feeds that are always wanted."""
HANDLED = (*BASE, "moody")
TAPE = "tape"
SCOPED = ("book", "news")
FEEDS = (*HANDLED, TAPE, *SCOPED)
WITHOUT_ACK = ("news",)
URLS = ("ws://a.test/", "ws://b.test/", "ws://c.test/")
LATENCIES = {URLS[0]: 0.01, URLS[1]: 0.05, URLS[2]: 0.0}
GARBAGE = "{"
DATA = (1, 2)
"""Opcodes of text and binary frames."""


@attrs.define(eq=False)
class Frames:
    """Finds the frames of one direction in its bytes, after the HTTP of the handshake."""

    rest: bytearray = attrs.field(factory=bytearray)
    is_past_http: bool = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return opcode and payload of each frame whose last byte this has brought."""
        self.rest += data
        if not self.is_past_http:
            end = self.rest.find(b"\r\n\r\n")
            if end < 0:
                return []
            self.is_past_http = True
            del self.rest[: end + 4]
        found = []
        while len(self.rest) >= 2:
            size, start = self.rest[1] & 0x7F, 2 + 4 * (self.rest[1] >> 7)
            if size == 126:
                size, start = int.from_bytes(self.rest[2:4], "big"), start + 2
            if len(self.rest) < start + size:
                break
            payload = bytes(self.rest[start : start + size])
            if self.rest[1] & 0x80:
                mask = self.rest[start - 4 : start]
                payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
            found.append((self.rest[0] & 0x0F, payload))
            del self.rest[: start + size]
        return found


class Tap(Tapped):
    """The client's end of a link, which notes what came out of it whole, and when messages went in."""

    def __init__(
        self, inner: MemoryStream, session: Session, old: Tap | None, messages: list[tuple[float, str]]
    ) -> None:
        super().__init__(inner)
        self.link = inner.link
        self.session = session
        self.old = old
        """The connection from which this one is to take over. ``None``: it comes after a loss."""
        self.delivered: list[tuple[str, int]] = []
        """Feed and number of each numbered message, in order."""
        self.garbage = self.others = 0
        self._incoming, self._outgoing = Frames(), Frames()
        self._messages = messages

    @property
    def was_abandoned(self) -> bool:
        """Whether it was to take over and never came to that: what it brought, the old connection brings."""
        return self.session._is_heir

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await super().receive(max_bytes)
        for opcode, payload in self._incoming.feed(data):
            if opcode in DATA and b"\x88" not in payload:  # half a frame that a close frame has filled up
                self._note(payload.decode())
        return data

    def _note(self, text: str) -> None:
        if text == GARBAGE:
            self.garbage += 1
        elif text.startswith("{"):
            message = json.loads(text)
            if message["channel"] in FEEDS:
                self.delivered.append((message["channel"], message["n"]))
                return
            self.others += 1

    def written(self, data: bytes, *, at_once: bool) -> None:
        now = anyio.current_time()
        self._messages += [(now, text.decode()) for opcode, text in self._outgoing.feed(data) if opcode in DATA]


@attrs.define(eq=False)
class Connection:
    """One connection, as the server sees it."""

    peer: Peer
    subscribed: set[str] = attrs.field(factory=set)
    refused: set[str] = attrs.field(factory=set)
    asked: dict[str, int] = attrs.field(factory=dict)
    """How often each feed was asked for."""
    heard: list[int] = attrs.field(factory=list)
    """The numbers of what users have sent, requests too."""
    said: list[tuple[str, int]] = attrs.field(factory=list)
    """Feed and number of what it was sent while the client had not closed it."""
    is_accepted: bool = False
    """Whether the handshake is over: before that no other task of the server's can speak."""
    is_over: bool = False
    """Whether the server has nothing more to say: it is mute, or has ended the connection."""

    @property
    def can_speak(self) -> bool:
        return self.peer.is_open and not self.is_over


class World:
    """All servers, behind one script, and the links to them."""

    def __init__(self, tasks: anyio.abc.TaskGroup, replay: int, capacity: int) -> None:
        self.tasks = tasks
        self.replay = replay
        """How many of the last numbers each new subscriber gets."""
        self.capacity = capacity
        self.slower = 0.0
        self.denials = self.rejects = 0
        self.verdicts: dict[str, list[str]] = defaultdict(list)
        """What the next acks of a feed are to be: ``refuse``, ``late``, ``never``."""
        self.connections: list[Connection] = []
        self.taps: list[Tap] = []
        self.written: list[tuple[float, str]] = []
        """When each message of the client's was written whole, over all connections."""
        self.top: dict[str, int] = dict.fromkeys(FEEDS, 0)
        self.heard_asks: list[tuple[int, Connection, float]] = []
        self.server = ScriptedServer(self.script)

    # The link.

    def connector(self, its_succession: Callable[[], Awaitable[Any]]) -> Any:
        from hypersockets._stream_transport import StreamConnector

        async def open_stream(request: OpenRequest) -> ByteStream:
            succession = await its_succession()
            is_heir = anyio.get_current_task().name == "hypersockets.rotation"
            rotation = succession.rotation
            session = succession.session
            if is_heir:
                assert rotation is not None
                session = rotation.heir
            assert session is not None
            old = session._old
            latency = LATENCIES[request.url] + self.slower
            stream = await self.server.connect(latency=latency, capacity=self.capacity)
            before = next((tap for tap in self.taps if tap.session is old), None) if old is not None else None
            self.taps.append(Tap(stream, session, before, self.written))
            return self.taps[-1]

        return StreamConnector(open_stream=open_stream)

    # The server.

    async def script(self, peer: Peer) -> None:
        if self.rejects:
            self.rejects -= 1
            await peer.reject(503)
            return
        here = Connection(peer)
        self.connections.append(here)
        await peer.accept()
        here.is_accepted = True
        assert str(await peer.receive()).startswith("auth"), "auth comes first"
        if self.denials:
            self.denials -= 1
            if here.can_speak:
                await peer.send("no")
            here.is_over = True
        elif here.can_speak:
            await peer.send("ok")
        while True:
            verb, *words = str(await peer.receive()).split()
            if verb == "beat":
                if here.can_speak:
                    await peer.send('{"channel": "pong"}')
            elif verb == "unsub":
                here.subscribed -= {words[0]}
                here.refused -= {words[0]}
                here.asked[words[0]] += 1
            elif verb == "sub":
                for feed in words[0].split(","):
                    await self._subscribe(here, feed)
            else:
                assert set(BASE) <= here.subscribed | here.refused, "users come after the acks of this connection"
                here.heard.append(int(words[0]))
                if verb == "ask":
                    await self._answer(here, *words)

    async def _subscribe(self, here: Connection, feed: str) -> None:
        assert feed not in here.subscribed, "once each"
        here.asked[feed] = asked = here.asked.get(feed, 0) + 1
        how = self.verdicts[feed].pop(0) if self.verdicts[feed] and feed not in WITHOUT_ACK else "confirm"
        if how == "late":
            self.tasks.start_soon(self._confirm_later, here, feed, asked)
        elif how == "refuse":
            here.refused.add(feed)
            await self._say(here, channel="ack", of=feed, ok=False)
        elif how == "confirm":
            await self._confirm(here, feed)

    async def _confirm_later(self, here: Connection, feed: str, asked: int) -> None:
        await anyio.sleep(0.4)
        if here.asked[feed] == asked:
            with suppress(PeerClosed):
                await self._confirm(here, feed)

    async def _confirm(self, here: Connection, feed: str) -> None:
        here.subscribed.add(feed)
        here.refused.discard(feed)
        if feed not in WITHOUT_ACK:
            await self._say(here, channel="ack", of=feed, ok=True)
        if here.asked[feed] == 1:
            top = self.top[feed]
            for number in range(max(0, top - self.replay), top):
                await self._say(here, channel=feed, n=number)

    async def _say(self, here: Connection, **fields: Any) -> None:
        if here.can_speak:
            await here.peer.send(json.dumps(fields))

    async def _answer(self, here: Connection, number: str, how: str) -> None:
        self.heard_asks.append((int(number), here, anyio.current_time()))
        if how == "late":
            self.tasks.start_soon(self._reply, here, int(number), 0.3)
        elif how == "soon":
            await self._reply(here, int(number), 0.0)

    async def _reply(self, here: Connection, number: int, delay: float) -> None:
        await anyio.sleep(delay)
        with suppress(PeerClosed):
            await self._say(here, channel="reply", id=number, heard=here.heard.count(number))

    # What happens to it.

    async def tick(self, feed: str, count: int) -> None:
        """Publish to everybody who has subscribed, on old and new connections."""
        first = self.top[feed]
        self.top[feed] += count
        for here in self.connections:
            if feed in here.subscribed and here.can_speak:
                texts = [json.dumps({"channel": feed, "n": first + n}) for n in range(count)]
                self.tasks.start_soon(self._send, here, texts)

    async def _send(self, here: Connection, texts: list[str]) -> None:
        with suppress(PeerClosed):
            if here.can_speak:
                await here.peer.send_many(texts)
                here.said += (
                    [(each["channel"], each["n"]) for each in map(json.loads, texts)] if texts != [GARBAGE] else []
                )

    async def garble(self) -> None:
        for here in self.connections:
            if here.can_speak and set(BASE) <= here.subscribed:
                await self._send(here, [GARBAGE])

    async def end(self, here: Connection, how: str) -> None:
        """End a connection, one way or another."""
        if not here.can_speak:
            return
        here.is_over = True
        peer = here.peer
        assert peer.link is not None
        if not here.is_accepted and how in ("close", "half", "mute"):
            how = "cut"
        if how == "cut":
            peer.cut()
        elif how == "close":
            self.tasks.start_soon(self._close, peer)
        elif how == "half":
            with suppress(PeerClosed):
                await peer.send_half(json.dumps({"channel": "fast", "n": -1}))
            peer.cut()
        elif how == "reset":
            peer.reset()
        elif how == "link":
            peer.link.cut()
        else:
            self.tasks.start_soon(self._mute, peer)

    async def _close(self, peer: Peer) -> None:
        with suppress(PeerClosed):
            await peer.close(1012)

    async def _mute(self, peer: Peer) -> None:
        with anyio.move_on_after(100), suppress(PeerClosed):
            await peer.mute()

    def slow_down(self, seconds: float) -> None:
        """Let the links take longer, by so much."""
        self.slower = seconds
        for tap in self.taps:
            for pipe in tap.link._pipes:
                pipe.latency = max(pipe.latency, seconds)

    def heal(self) -> None:
        """Make no more trouble."""
        self.server.accept_all()
        self.rejects = self.denials = 0
        self.verdicts.clear()
        self.slower = 0.0

    @property
    def open(self) -> list[Connection]:
        return [here for here in self.connections if here.peer.is_open]

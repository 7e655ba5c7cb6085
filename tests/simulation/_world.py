"""The servers, all behind one script, and the links to them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import attrs
from anyio.abc import ByteStream

from hypersockets import OpenRequest, StreamConnector
from hypersockets.testing import Peer, PeerClosed, ScriptedServer, frame

from . import _invariants as check
from ._ledger import LOSSY, Ledger
from ._plan import Plan
from ._tap import Tap

if TYPE_CHECKING:
    from ._life import Life

__all__ = ["BASE", "EXTRA", "FEEDS", "RATE", "TAPE", "Connection", "World"]

BASE = ("fast", "slow", LOSSY, "moody")
"""The feeds of the configuration."""
TAPE = "tape"
"""The feed subscribed at run time, and read by iteration."""
EXTRA = "extra"
"""The feed that is subscribed and unsubscribed all the time."""
FEEDS = (*BASE, TAPE, EXTRA)
RATE = 6.5
"""Messages a second, over all feeds."""
_PAUSES = (0.25, 1.0, 2.0, 4.0)
_PING_EVERY = 9.0
"""Seconds, by the servers' clocks, between two of their pings."""
_BACKLOG = 3000
"""Messages that the server keeps for a client that does not read; beyond them it publishes past it."""


@attrs.define(eq=False)
class Connection:
    """One connection, as the server sees it."""

    peer: Peer
    tap: Tap
    accepted_at: float | None = None
    """When it accepted the login."""
    asked: list[str] = attrs.field(factory=list)
    """Every subscription it was asked for, in order, while it has not been asked to end it."""
    subscribed: dict[str, None] = attrs.field(factory=dict)
    refused: set[str] = attrs.field(factory=set)
    """Those that it has refused, and may be asked for again."""
    is_over: bool = False
    """Whether the server has nothing more to say: it is mute, or has ended the connection."""
    backlog: list[str] = attrs.field(factory=list)
    is_speaking: bool = False
    replayed: set[str] = attrs.field(factory=set)
    """Feeds whose last messages it has been sent again."""
    late_acks: list[str] = attrs.field(factory=list)
    last_heard: int = -1
    """The number of the last thing that a user sent."""

    @property
    def can_speak(self) -> bool:
        return self.peer.is_open and not self.is_over


class World:
    """Numbered feeds, published to whoever has subscribed, whatever happens to the connections."""

    def __init__(self, plan: Plan, life: Life) -> None:
        self.plan = plan
        self.life = life
        self.ledger = Ledger(plan.knows_repeats)
        self.server = ScriptedServer(self.script)
        self.connections: list[Connection] = []
        """Those that the server has not seen the end of."""
        self.taps: list[Tap] = []
        """Those that the client has not closed, and the last."""
        self.opened = 0
        self.injected: Counter[str] = Counter()
        """How often each kind of fault did happen."""
        self.armed: list[tuple[str, float]] = []
        """Faults that wait for the next connection that they can happen to, with their knobs."""
        self.slower = 0.0
        """What every link takes more than usual, in seconds."""
        self.skew = 1.0
        """How fast the clocks of the servers go."""
        self.clock = 0.0
        """What the servers' clocks show."""
        self.hammers = False
        """Whether connections are closed as soon as they are ready."""
        self.top = dict.fromkeys(FEEDS, 0)

    def take(self, *kinds: str) -> tuple[str, float] | None:
        """Return the first armed fault of these kinds, which happens now; ``None``: there is none."""
        for index, (kind, knob) in enumerate(self.armed):
            if kind in kinds:
                del self.armed[index]
                self.injected[kind] += 1
                self.life.tell(f"fault {kind} {knob}")
                return kind, knob
        return None

    # The link.

    def connector(self, its_succession: Callable[[], Awaitable[Any]]) -> StreamConnector:
        """Return the client's transport: memory links, each with a tap at the client's end."""

        async def open_stream(_: OpenRequest) -> ByteStream:
            succession = await its_succession()
            rotation, session = succession.rotation, succession.session
            if anyio.get_current_task().name == "hypersockets.rotation":
                session = rotation.heir
            if self.take("refused"):
                raise ConnectionRefusedError("the server refuses the connection")
            plan = self.plan
            stream = await self.server.connect(latency=plan.latency + self.slower, capacity=plan.capacity)
            self.taps = [tap for tap in self.taps if not tap.is_closed] + self.taps[-1:]
            old = next((tap for tap in self.taps if tap.session is session._old), None) if session._old else None
            self._forget_ancestors(old)
            tap = Tap(stream, self, session, old, self.opened)
            self.opened += 1
            self.taps.append(tap)
            return tap

        return StreamConnector(open_stream=open_stream)

    def _forget_ancestors(self, tap: Tap | None) -> None:
        """Let go of connections from which nothing can come any more: else rotations all day would keep each of them."""
        for _ in range(6):
            tap = None if tap is None else tap.old
        if tap is not None:
            self.ledger.drop_repeats(tap)
            tap.old = None

    def tap_of(self, peer: Peer) -> Tap:
        return next(tap for tap in reversed(self.taps) if tap.link is peer.link)

    # The server.

    async def script(self, peer: Peer) -> None:
        """Serve one connection."""
        with suppress(PeerClosed):
            if not await self._spoil_handshake(peer):
                here = Connection(peer, self.tap_of(peer))
                self.connections.append(here)
                try:
                    await self._serve(here)
                finally:
                    here.is_over = True
                    self.connections.remove(here)

    async def _spoil_handshake(self, peer: Peer) -> bool:
        """Do what is armed against a handshake; return whether something was."""
        armed = self.take("bad handshake", "cut in handshake", "silent handshake", "busy 503", "busy 429")
        if armed is None:
            return False
        kind, knob = armed
        if kind.startswith("busy"):
            seconds = 1 + round(7 * knob)
            self.tap_of(peer).retry_after = seconds
            await peer.reject(int(kind[-3:]), {"Retry-After": str(seconds)})
        elif kind == "silent handshake":
            await peer.mute()
        elif kind == "cut in handshake":
            response = peer.accept_response()
            await peer.send_raw(response[: int(len(response) * knob)])
            peer.cut()
        elif knob < 0.3:
            await peer.accept(headers={"Sec-WebSocket-Accept": "bm90IHdoYXQgaXQgc2hvdWxkIGJl"})
        elif knob < 0.6:
            await peer.send_raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            peer.cut()
        else:
            await peer.reject(500 + round(4 * knob))
        return True

    async def _serve(self, here: Connection) -> None:
        peer, life = here.peer, self.life
        text = str(await peer.receive())
        life.judge(check.auth_comes_first, text)
        silent, refused = self.take("auth silent"), self.take("auth refused")
        if silent is not None:
            await peer.mute()
        await self.say(here, "no" if refused else "ok")
        if refused is None:
            here.accepted_at = anyio.current_time()
        while True:
            verb, *words = str(await peer.receive()).split()
            if verb == "beat":
                await self.say(here, "pong")
            elif verb in ("sub", "unsub"):
                await self._subscription(here, verb, words[0])
            elif verb in ("user", "ask"):
                number = int(words[0])
                life.judge(check.users_come_after_acks, here)
                if number not in life.asked_again:
                    life.judge(check.sends_are_in_order, here, number)
                    here.last_heard = number
                if verb == "ask" and words[1] != "never":
                    await self.say(here, f'{{"channel":"reply","id":{number}}}')

    async def _subscription(self, here: Connection, verb: str, feed: str) -> None:
        if verb == "unsub":
            here.subscribed.pop(feed, None)
            here.refused.discard(feed)
            here.asked = [each for each in here.asked if each != feed]
            return
        self.life.judge(check.subscribed_once, here, feed)
        here.asked.append(feed)
        here.refused.discard(feed)
        is_first = len(here.asked) == 1
        if is_first and self.take("acks reordered"):
            here.late_acks = list(BASE)
        if self.life.was_ready and self.take("subscription refused"):
            here.refused.add(feed)
            await self._ack(here, feed, False)
        elif feed in BASE and self.take("ack silent"):
            pass
        elif feed in here.late_acks:
            if feed == BASE[-1]:
                for late in reversed(here.late_acks):
                    await self._confirm(here, late)
                here.late_acks = []
        else:
            await self._confirm(here, feed)

    async def _confirm(self, here: Connection, feed: str) -> None:
        here.subscribed[feed] = None
        await self._ack(here, feed, True)
        if self.take("acks duplicated"):
            await self._ack(here, feed, True)
        if feed not in here.replayed:
            here.replayed.add(feed)
            top = self.top[feed]
            for number in range(max(0, top - self.plan.replay), top):
                await self.say(here, self.message(feed, number))

    async def _ack(self, here: Connection, feed: str, ok: bool) -> None:
        await self.say(here, f'{{"channel":"ack","of":"{feed}","ok":{"true" if ok else "false"}}}')
        if self.hammers and set(BASE) <= here.subscribed.keys() and here.can_speak:
            here.is_over = True
            self.life.tasks.start_soon(close, here.peer, 1012)

    # What it says.

    async def say(self, here: Connection, *texts: str) -> None:
        """Send messages behind those that wait already, unless there is nothing more to say."""
        here.backlog += texts
        if here.is_speaking:
            return
        here.is_speaking = True
        try:
            while here.backlog and here.can_speak:
                said, here.backlog = here.backlog, []
                await here.peer.send_raw(b"".join([frame(1, text.encode()) for text in said]))
        except PeerClosed:
            here.is_over = True
        finally:
            here.is_speaking = False

    def message(self, feed: str, number: int, padding: int = 0) -> str:
        """Return the text of a feed's message."""
        pad = ',"pad":"' + "x" * padding + '"' if padding else ""
        return f'{{"channel":"{feed}","n":{number},"at":{self.clock:.3f}{pad}}}'

    def publish(self, feed: str, count: int, padding: int = 0) -> None:
        """Publish the next messages of a feed to everybody who has subscribed, on old and new connections."""
        first = self.top[feed]
        self.top[feed] += count
        for here in self.connections:
            if feed in here.subscribed and here.can_speak and len(here.backlog) < _BACKLOG:
                here.backlog += [self.message(feed, number, padding) for number in range(first, first + count)]

    def speak(self) -> None:
        """Have sent what was published."""
        for here in self.connections:
            if here.backlog and not here.is_speaking:
                self.life.tasks.start_soon(self.say, here)

    async def run(self) -> None:
        """Publish, at random and at the pace of the plan, until cancelled."""
        rng = random.Random(f"feeds {self.plan.seed}")
        ping_at = 0.0
        while True:
            pause = rng.choice(_PAUSES) * self.plan.pace
            await anyio.sleep(pause)
            self.clock += pause * self.skew
            left = max(1, round(pause * RATE))
            while left:
                count = rng.randint(1, left)
                self.publish(rng.choice(FEEDS), count)
                left -= count
            if self.clock >= ping_at:
                ping_at = self.clock + _PING_EVERY
                for here in self.connections:
                    if here.subscribed and here.can_speak:
                        here.backlog.append("PING")
            self.speak()

    def heal(self) -> None:
        """Make no more trouble."""
        self.armed.clear()
        self.slower, self.skew, self.hammers = 0.0, 1.0, False


async def close(peer: Peer, code: int | None) -> None:
    """Close as servers do, at most so long."""
    with anyio.move_on_after(100), suppress(PeerClosed):
        await peer.close(code, "" if code is None else "the server says so")

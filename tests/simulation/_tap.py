"""The client's end of a link: it notes what has come out of it whole, what went in, and when."""

from __future__ import annotations

import json
import math
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from hypersockets.testing import MemoryStream
from tests._through import Tapped

from . import _invariants as check

if TYPE_CHECKING:
    from ._world import World

__all__ = ["BEAT", "GARBAGE", "MAX_SIZE", "Tap"]

MAX_SIZE = 10_000
"""The client's ``max_message_size``."""
GARBAGE = "{"
BEAT = "beat"
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_KNOWN = {0, 1, 2, _CLOSE, _PING, _PONG}


@attrs.define(eq=False)
class _Scan:
    """Bytes of one direction that are no whole frame yet."""

    rest: bytes = b""
    is_past_http: bool = False
    fragments: bytes | None = None

    def frames(self, data: bytes) -> tuple[list[tuple[int, bytes]], str | None]:
        """Return first byte and payload of each frame that is whole now, and what is wrong with the next one."""
        rest = self.rest + data if self.rest else data
        at, size, found = 0, len(rest), []
        if not self.is_past_http:
            at = rest.find(b"\r\n\r\n") + 4
            if at < 4:
                self.rest = rest
                return [], None
            self.is_past_http = True
        while size - at >= 2:
            head, mask, length = rest[at], rest[at + 1] >> 7, rest[at + 1] & 0x7F
            start = at + 2 + {126: 2, 127: 8}.get(length, 0)
            if size < start:
                break
            if length > 125:
                length = int.from_bytes(rest[at + 2 : start], "big")
            start += 4 * mask
            wrong = self._wrong(head, length)
            if wrong is not None:
                return found, wrong
            if size < start + length:
                break
            payload = rest[start : start + length]
            if mask:
                key = int.from_bytes((rest[start - 4 : start] * (length // 4 + 1))[:length], "big")
                payload = (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")
            found.append((head, payload))
            at = start + length
        self.rest = rest[at:]
        return found, None

    def _wrong(self, head: int, length: int) -> str | None:
        opcode = head & 0x0F
        if head & 0x70 or opcode not in _KNOWN:
            return "protocol"
        if opcode >= _CLOSE and (length > 125 or not head & 0x80):
            return "protocol"
        return "size" if length > MAX_SIZE else None


@attrs.frozen
class Beat:
    """A heartbeat, or a ping of the protocol, that was written."""

    at: float
    held_since: float
    """Since when the link had been too full for what was to be written, without a pause; ``at`` where it was not."""
    payload: bytes


class Tap(Tapped):
    """One connection, as the client's socket sees it."""

    def __init__(self, inner: MemoryStream, world: World, session: Any, old: Tap | None, number: int) -> None:
        super().__init__(inner)
        self.link = inner.link
        self.session = session
        """The library's session whose connection it is."""
        self.old = old
        """The connection from which this one is to take over. ``None``: it comes after a loss."""
        self.number = number
        self.opened_at = anyio.current_time()
        self.is_ready = False
        """Whether the client has said that it is connected, or has rotated, with this one."""
        self.is_closed = False
        self.acks: dict[str, bool] = {}
        """The last verdict that was delivered, by feed."""
        self.beats: deque[Beat] = deque()
        """The unanswered heartbeats."""
        self.pings: deque[Beat] = deque()
        """The unanswered pings of the protocol."""
        self.questions: deque[float] = deque()
        """When each unanswered application ping of the server was delivered."""
        self.last_beat: float | None = None
        self.garbage = 0
        self.wrong: tuple[float, str] | None = None
        """When something malformed was delivered, and of what kind."""
        self.said_goodbye_before = False
        """Whether the client had sent its close frame by then."""
        self.closed_by_peer = False
        """Whether the server's close frame was delivered."""
        self.has_ended = False
        """Whether there is nothing more to read."""
        self.close_code: int | None = None
        """The code of the client's close frame."""
        self.close_sent_at = math.inf
        self.retry_after: float | None = None
        """What the refusal of the handshake asked for."""
        self.drips_until = 0.0
        """Until when bytes come one at a time."""
        self.spans: dict[str, list[list[int]]] = {}
        """The numbers delivered, by feed, as first and last of each unbroken row."""
        self._world = world
        self._in, self._out = _Scan(), _Scan()
        self._held_since = self._held_until = -math.inf
        """When the client last began to wait for the link, and until when it did so without a pause."""

    @property
    def was_abandoned(self) -> bool:
        """Whether it was to take over and never came to that: what it brought, the old connection brings."""
        return bool(self.session._is_heir)

    def had(self, feed: str, number: int) -> bool:
        """Tell whether a message was delivered here."""
        return any(first <= number <= last for first, last in self.spans.get(feed, ()))

    def wanted(self) -> set[str]:
        """Return the feeds that were wanted before it was opened."""
        wanted = self._world.life.wanted
        return {feed for feed, since in wanted.items() if since is not None and since < self.opened_at}

    # The stream.

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if self.drips_until > anyio.current_time():
            await anyio.sleep(0.002)
            max_bytes = 1
        try:
            data = await super().receive(max_bytes)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self.has_ended = True
            raise
        if self.wrong is None and not self.closed_by_peer:
            frames, wrong = self._in.frames(data)
            for head, payload in frames:
                self._take(head, payload)
            if wrong is not None and not self.closed_by_peer:
                self._went_wrong(wrong)
        return data

    async def send(self, item: bytes) -> None:
        began = anyio.current_time()
        if began > self._held_until:
            self._held_since = began
        self._held_until = math.inf
        try:
            await super().send(item)
        finally:
            self._held_until = anyio.current_time()

    def written(self, data: bytes, *, at_once: bool) -> None:
        for head, payload in self._out.frames(data)[0]:
            self._wrote(head & 0x0F, payload)

    async def aclose(self) -> None:
        self.is_closed = True
        if self.garbage and self.was_abandoned:
            self._world.life.garbage -= self.garbage
            self._world.life.garbage_abandoned += self.garbage
        self._world.life.judge(check.rotation_hears_the_old_one_out, self._world.life, self)
        await super().aclose()

    # What passes.

    def _went_wrong(self, what: str) -> None:
        if self.wrong is None:
            self.wrong = anyio.current_time(), what
            self.said_goodbye_before = self.close_code is not None

    def _take(self, head: int, payload: bytes) -> None:
        if self.wrong is not None or self.closed_by_peer:
            return  # nothing that follows counts
        opcode = head & 0x0F
        if opcode == _CLOSE:
            if len(payload) == 1:
                self._went_wrong("protocol")
            self.closed_by_peer = True
        elif opcode == _PONG:
            while self.pings and any(ping.payload == payload for ping in self.pings):
                self.pings.popleft()
        elif opcode <= 2:
            if (opcode == 0) != (self._in.fragments is not None):
                self._went_wrong("protocol")
                return
            whole = payload if self._in.fragments is None else self._in.fragments + payload
            self._in.fragments = None if head & 0x80 else whole
            if head & 0x80:
                self._message(whole)

    def _message(self, payload: bytes) -> None:
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self._went_wrong("text")
            return
        if text == GARBAGE:
            self.garbage += 1
            self._world.life.garbage += 1
        elif text == "pong":
            self.beats.clear()
        elif text == "PING":
            self.questions.append(anyio.current_time())
        elif text[0] == "{":
            _, _, _, feed, rest = text.split('"', 4)  # '{"channel":"fast","n":7,…', and json.loads takes its time
            if feed == "ack":
                parsed = json.loads(text)
                self.acks[parsed["of"]] = parsed["ok"]
            elif feed != "reply":
                self._delivered(feed, int(rest[rest.index(":") + 1 : rest.index(",", 2)]))

    def _delivered(self, feed: str, number: int) -> None:
        spans = self.spans.setdefault(feed, [])
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
        self._world.ledger.delivered(self, feed, number)

    def _wrote(self, opcode: int, payload: bytes) -> None:
        now = anyio.current_time()
        beat = Beat(now, self._held_since if now <= self._held_until else now, payload)
        if opcode == _PING:
            self.pings.append(beat)
        elif opcode == _CLOSE:
            self.close_sent_at = min(now, self.close_sent_at)
            self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
        elif payload == b"beat":
            self.beats.append(beat)
            self.last_beat = now
        elif payload == b"PONG":
            if self.questions:
                self.questions.popleft()
        elif opcode == _TEXT and payload.startswith((b"user", b"ask")):
            self._world.life.wrote(self, payload[:4] == b"user", int(payload.split()[1]))

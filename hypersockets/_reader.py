"""The loop that reads one connection: batches to the dispatch, answers to pings to the sender.

It waits for nothing but the transport and a full inbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import anyio
import attrs
from anyio.lowlevel import checkpoint

from ._bell import Flag
from ._calls import mishaps
from ._core import Core
from ._errors import ConnectionLostError
from ._inbox import Inbox
from ._liveness import Liveness
from ._message import Frame, as_message, frame_size, matcher
from ._sender import Sender
from ._transport import Transport
from ._turn import LONGEST

__all__ = ["Reader"]


@attrs.define(eq=False, repr=False)
class Reader:
    """Reads one connection to its end."""

    _core: Core
    _transport: Transport
    _inbox: Inbox
    _liveness: Liveness
    """Told of signs of life, and when reading stops."""
    _sender: Sender
    """Sends answers to passive pings."""
    _read_to_end: Flag
    """Set when the end of the connection has been seen."""
    _on_batch: Callable[[Sequence[Frame]], None] = attrs.field(kw_only=True, alias="on_batch")
    """Called with the frames of each batch, less what is answered here."""
    _on_lost: Callable[[ConnectionLostError], None] = attrs.field(kw_only=True, alias="on_lost")
    """Called with the loss, after the last frame has been put into the inbox."""
    _on_broken: Callable[[ConnectionLostError], None] = attrs.field(kw_only=True, alias="on_broken")
    """Called if the user's ``framing`` makes it impossible to go on."""
    is_patient: bool = attrs.field(default=False, init=False)
    """Whether the peer's last words are waited for longer while our own full lanes stop the reading."""
    _framing: Callable[[Frame], Iterable[Frame]] | None = attrs.field(default=None, init=False)
    _passive_ping: Callable[[Frame], Frame | None] | None = attrs.field(init=False)
    _is_pong: Callable[[Frame], bool] | None = attrs.field(init=False)
    _looks_at_frames: bool = attrs.field(init=False)
    _pauses: int = attrs.field(init=False)
    """How many checkpoints each batch wants beside its receive."""
    _counted: int = attrs.field(default=0, init=False)
    """How many of the bytes that the transport has received are counted."""
    _blocked: float = attrs.field(default=0.0, init=False)
    """For how many seconds full lanes have stopped the reading, this time aside."""
    _blocked_at: float | None = attrs.field(default=None, init=False)
    """Since when they do. ``None`` while they do not."""

    def __attrs_post_init__(self) -> None:
        config = self._core.config
        self._passive_ping = config.passive_ping
        pong = None if config.heartbeat is None else config.heartbeat.pong
        self._is_pong = None if pong is None else matcher(pong)
        self._looks_at_frames = self._passive_ping is not None or self._is_pong is not None
        self._pauses = 0 if getattr(self._transport, "receive_checkpoints", False) else 1

    async def read(self) -> None:
        """Read until the connection ends."""
        try:
            self._framing = None if self._core.config.framing is None else self._core.config.framing()
        except mishaps() as error:
            self._break(error)
            return
        while True:  # noqa: ASYNC913 - receive is one, unless it does not promise that
            if self._inbox.is_full:
                await self._wait_for_room()
            try:
                batch = await self._transport.receive()
            except ConnectionLostError as error:
                self._inbox.finish(error)
                self._read_to_end.set()
                self._on_lost(error)
                return
            if not self._take(batch):
                return
            # A transport whose receive may never block must not stop the event loop. And handlers that never wait
            # get the turns they need for a batch before the next one comes, or the lanes would always be full.
            for _ in range(self._pauses + len(batch) // LONGEST):
                await checkpoint()

    async def _wait_for_room(self) -> None:
        self._liveness.pause()
        self._blocked_at = anyio.current_time()
        try:
            while self._inbox.is_full:
                await self._inbox.room.wait()
        finally:
            self._blocked, self._blocked_at = self._blocked_for(), None
            self._liveness.resume()

    def _blocked_for(self) -> float:
        return self._blocked + (0.0 if self._blocked_at is None else anyio.current_time() - self._blocked_at)

    async def hear_out(self, seconds: float) -> None:
        """Wait for the peer's last words, for so many seconds at most.

        Who is patient does not count those in which full lanes stopped the reading: what was said then is not lost by
        our slowness. But if the peer reads nothing either, who handles may be waiting for that.
        """
        until, before = anyio.current_time() + seconds, self._blocked_for()
        while not self._read_to_end.is_set:
            is_patient = self.is_patient and self._sender.users_out.is_set
            deadline = until + (self._blocked_for() - before if is_patient else 0.0)
            if deadline <= anyio.current_time():
                break
            with anyio.CancelScope(deadline=deadline):
                await self._read_to_end.wait()

    def _take(self, batch: Sequence[Frame]) -> bool:
        """Put a batch into the inbox, less what is answered here; return whether reading can go on."""
        self._count(batch)
        self._liveness.heard()
        if self._framing is not None:
            return self._reframe(batch, self._framing)
        self._on_batch(self._look_at(batch) if self._looks_at_frames else batch)
        return True

    def _count(self, batch: Sequence[Frame]) -> None:
        counters = self._core.counters
        counters.messages_received += len(batch)
        total: int | None = getattr(self._transport, "payload_received", None)
        if total is None:
            counters.bytes_received += sum(map(frame_size, batch))
        else:
            counters.bytes_received += total - self._counted
            self._counted = total

    def _reframe(self, batch: Sequence[Frame], framing: Callable[[Frame], Iterable[Frame]]) -> bool:
        frames: list[Frame] = []
        for number, message in enumerate(batch):
            try:
                for frame in framing(message):
                    if not isinstance(frame, (str, bytes)):
                        raise TypeError(f"framing gave {type(frame).__name__}; it must give str or bytes")
                    frames.append(frame)
            except mishaps() as error:
                # What it gave before was received, and what it cannot look at any more is counted.
                self._on_batch(self._look_at(frames))
                self._core.dropped(None, len(batch) - number, "framing")
                self._break(error)
                return False
        self._on_batch(self._look_at(frames) if self._looks_at_frames else frames)
        return True

    def _break(self, error: BaseException) -> None:
        """End the reading: ``framing`` has raised."""
        lost = ConnectionLostError(f"framing raised {type(error).__name__}", code=1007, by="us")
        lost.__cause__ = error
        self._inbox.finish(lost)
        self._read_to_end.set()
        self._on_broken(lost)

    def _look_at(self, frames: Iterable[Frame]) -> list[Frame]:
        """Answer passive pings, note pongs; return the other frames."""
        others: list[Frame] = []
        for frame in frames:
            try:
                if self._passive_ping is not None:
                    reply = self._passive_ping(frame)
                    if reply is not None:
                        self._sender.reply(as_message(reply))
                        continue
                if self._is_pong is not None and self._is_pong(frame):
                    self._liveness.beat_answered()
                    continue
            except mishaps() as error:
                self._core.parse_failed(error)
                continue
            others.append(frame)
        return others

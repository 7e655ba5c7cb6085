"""Writing down what happens on real connections, while they are used."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import anyio
import attrs

from .._errors import ConnectionLostError, HandshakeRejectedError
from .._message import frame_size
from .._stream_transport import StreamConnector
from .._transport import Connector, OpenRequest, Transport
from ._recording import HEADER, Kind, RecordedEvent, to_line

__all__ = ["record"]


def record(
    path: str | os.PathLike[str], connector: Connector | None = None, *, contents_sent: bool = False
) -> Connector:
    """Return what a client takes as its transport to connect as ever, and to write down what happens in a file.

    The file is written over, now, and then grows by one line per message, each at once: all of it is there when the
    program is killed. What :meth:`Recording.load` makes of it, :func:`replay` plays.

    Not recorded are the URL, the headers, pings and pongs, and the contents of what is sent, for they hold tokens;
    only the size. But **what the server sends is recorded whole**: look for secrets before you share it.

    Args:
        path: Of the file.
        connector: What opens the connections; ``None`` is the default one, as with ``transport="stream"``.
        contents_sent: Record what is sent as well, tokens included.

    Raises:
        OSError: The file cannot be written. When that happens later on, it ends the client.
    """
    path = Path(path)
    path.write_text(HEADER, encoding="ascii", newline="\n")
    return _RecordingConnector(path, StreamConnector() if connector is None else connector, contents_sent)


@attrs.define(eq=False, repr=False)
class _Tape:
    """Where the events of one connection go."""

    _file: TextIO
    _connection: int
    _began: float
    """When the first connection began."""
    _contents_sent: bool
    is_open: bool = False
    """True once the handshake was accepted."""
    left_with: int | None = None
    """The code with which the client closes; ``None`` while it does not."""
    _has_ended: bool = False

    def opened(self, subprotocol: str | None) -> None:
        self.is_open = True
        self._write("opened", subprotocol=subprotocol)

    def received(self, messages: Sequence[str | bytes]) -> None:
        for message in messages:
            self._write("received", message=message)

    def sent(self, messages: Sequence[str | bytes]) -> None:
        """Write what is sent, before anything can answer it."""
        for message in messages:
            self._write("sent", message=message if self._contents_sent else None, size=frame_size(message))

    def lost(self, error: ConnectionLostError) -> None:
        if error.by == "peer":
            reason = "" if error.reason == str(error) else error.reason  # the sentence stands in for an empty one
            self.end("closed", code=error.code, reason=reason)
        elif error.by == "network":
            self.end("cut")
        else:
            self.end("left", code=error.code)

    def end(self, kind: Kind, **fields: Any) -> None:
        """Write how it ended; only the first counts, and nothing comes after it."""
        self._write(kind, **fields)
        self._has_ended = True

    def _write(self, kind: Kind, **fields: Any) -> None:
        if not self._has_ended:
            at = round(anyio.current_time() - self._began, 6)
            self._file.write(to_line(RecordedEvent(connection=self._connection, at=at, kind=kind, **fields)))


@attrs.define(eq=False, repr=False)
class _RecordingConnector:
    _path: Path
    _connector: Connector
    _contents_sent: bool
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count)
    _began: float | None = None
    """When the first connection began. ``None`` before."""

    def open(self, request: OpenRequest) -> AbstractAsyncContextManager[Transport]:
        """Open as the connector beneath does."""
        return self._recording(request)

    @asynccontextmanager
    async def _recording(self, request: OpenRequest) -> AsyncGenerator[Transport, None]:
        with self._tape() as tape:
            try:
                async with self._connector.open(request) as transport:
                    tape.opened(getattr(transport, "subprotocol", None))
                    yield _RecordingTransport(transport, tape)
            except HandshakeRejectedError as error:
                if not tape.is_open:  # the block's own is none of ours
                    tape.end("rejected", code=error.status, retry_after=error.retry_after)
                raise
            finally:
                if tape.is_open:
                    tape.end("left", code=tape.left_with)
                else:
                    tape.end("failed")

    @contextmanager
    def _tape(self) -> Generator[_Tape, None, None]:
        self._began = anyio.current_time() if self._began is None else self._began
        with self._path.open("a", encoding="ascii", newline="\n", buffering=1) as file:
            yield _Tape(file, next(self._numbers), self._began, self._contents_sent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)  # what a connector may have beside `open`


@attrs.define(eq=False, repr=False)
class _RecordingTransport:
    _transport: Transport
    _tape: _Tape

    async def receive(self) -> Sequence[str | bytes]:
        """Receive, and write down what came or how it ended."""
        try:
            messages = await self._transport.receive()
        except ConnectionLostError as error:
            self._tape.lost(error)
            raise
        self._tape.received(messages)
        return messages

    async def send(self, message: str | bytes) -> None:
        """Write down that it is sent, and send."""
        self._tape.sent((message,))
        await self._transport.send(message)

    async def ping(self) -> float:
        """Ping; that is not written down."""
        return await self._transport.ping()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close; how it ended is written down at the end."""
        self._tape.left_with = self._tape.left_with or code
        await self._transport.close(code, reason)

    def __getattr__(self, name: str) -> Any:
        # What a transport may have besides: absent here where it is absent there.
        value = getattr(self._transport, name)
        if name == "send_nowait":
            return partial(self._send_nowait, value)
        return partial(self._send_all, value) if name == "send_many" else value

    def _send_nowait(self, send_nowait: Callable[[str | bytes], int | None], message: str | bytes) -> int | None:
        left = send_nowait(message)
        if left is not None:
            self._tape.sent((message,))
        return left

    async def _send_all(
        self, send_many: Callable[[Sequence[str | bytes]], Awaitable[None]], messages: Sequence[str | bytes]
    ) -> None:
        if messages:  # else it ends what was begun without waiting
            self._tape.sent(messages)
        await send_many(messages)

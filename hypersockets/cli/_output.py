"""Standard output and standard error, written to by threads: a slow pipe must not stop the pings.

What is written while the thread is busy waits, bounded, and goes out in one piece. The thread is a daemon,
and ``os.write`` holds no lock: the interpreter can exit though nobody ever reads the other end.
"""

from __future__ import annotations

import os
import queue
import select
import stat
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TextIO

import anyio
from anyio.from_thread import BlockingPortal

__all__ = ["Output", "open_output"]

_LIMIT = 2**20
"""Bytes that may wait for the thread."""
_PATIENCE = 1.0
"""Seconds that what a thread has said may take to come to the event loop, which waits for nothing else then."""


class Output:
    """Lines on their way to a file descriptor. Made by :func:`open_output`."""

    def __init__(self, fd: int, encoding: str, portal: BlockingPortal, on_error: Callable[[], None]) -> None:
        self._fd = fd
        self._encoding = encoding
        self._portal = portal
        self._on_error = on_error
        self._waiting: list[bytes] = []
        self._size = 0
        """Bytes in ``_waiting``."""
        self._batches: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._is_busy = False
        """True iff the thread has a batch."""
        self._progress = anyio.Event()
        self._stopping = os.pipe()
        """Ends when the threads should."""
        self._lock = threading.Lock()
        """Never held for longer than it takes to read or set these two."""
        self._is_left = False
        """Whether the portal is about to end."""
        self._calls = 0
        """Calls of a thread that the event loop has yet to make."""
        self.error: OSError | None = None
        """Why nothing can be written any more. ``None`` while it can."""

    async def write(self, line: str) -> None:
        """Take a line, and wait if too much waits already. After an error it is thrown away."""
        while self._size > _LIMIT:
            await self._progress.wait()
        if self.error is None:
            data = line.encode(self._encoding, "backslashreplace") + b"\n"
            self._waiting.append(data)
            self._size += len(data)
            self._hand_over()

    async def flush(self) -> None:
        """Wait until everything is written, or cannot be."""
        while self._is_busy:
            await self._progress.wait()

    def _hand_over(self) -> None:
        if self._waiting and not self._is_busy:
            self._is_busy = True
            batch, self._waiting, self._size = self._waiting, [], 0
            self._batches.put(b"".join(batch))

    # What the threads do.

    def run(self) -> None:
        """Write batch after batch, until told to stop."""
        while (batch := self._batches.get()) is not None:
            error = self._write_all(batch)
            self._tell(self._written, error)

    def _write_all(self, batch: bytes) -> OSError | None:
        rest = memoryview(batch)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # somebody we share it with has made it non-blocking
                select.select((), (self._fd,), ())
            except OSError as error:
                return error
        return None

    def watch(self) -> None:
        """Wait until whoever reads the pipe has gone: while there is nothing to write, no write would tell."""
        poll = select.poll()
        poll.register(self._fd, 0)  # errors are always reported
        poll.register(self._stopping[0], select.POLLIN)
        ready = [fd for fd, _ in poll.poll()]
        os.close(self._stopping[0])
        if self._stopping[0] not in ready:
            self._tell(self._gone)

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        """Have the event loop call a function, unless it is about to leave: the portal drops what comes after."""
        with self._lock:
            if self._is_left:
                return
            self._calls += 1
        self._portal.start_task_soon(self._told, function, *args)

    # What the event loop does.

    def _told(self, function: Callable[..., None], *args: object) -> None:
        with self._lock:
            self._calls -= 1
        function(*args)
        self._progress.set()
        self._progress = anyio.Event()

    def _written(self, error: OSError | None) -> None:
        self._is_busy = False
        if error is not None:
            self._fail(error)
        self._hand_over()

    def _gone(self) -> None:
        self._fail(BrokenPipeError())

    def _fail(self, error: OSError) -> None:
        """Throw away what waits, and tell why; only the first error counts."""
        if self.error is None:
            self.error = error
            self._waiting, self._size = [], 0
            self._on_error()

    async def stop(self) -> None:
        """Let the threads end, the one that writes after what it has; wait only for what they have said already."""
        self._batches.put(None)
        os.close(self._stopping[1])
        with self._lock:
            self._is_left = True
        while self._calls:
            await self._progress.wait()


@asynccontextmanager
async def open_output(stream: TextIO | None, on_error: Callable[[], None] = lambda: None) -> AsyncGenerator[Output]:
    """Write to a stream's descriptor by a thread; leaving does not wait for it: see :meth:`Output.flush`.

    Args:
        stream: ``sys.stdout`` or ``sys.stderr``; ``None`` (it was closed when Python started) is like /dev/null.
        on_error: Called once, in the event loop, when it turns out that nothing can be written any more.
    """
    if stream is None:  # its number is free, and must not become that of a socket
        fd, encoding = os.open(os.devnull, os.O_WRONLY), "utf-8"
    else:
        fd, encoding = stream.fileno(), stream.encoding
    async with BlockingPortal() as portal:
        output = Output(fd, encoding, portal, on_error)
        threading.Thread(target=output.run, name="hypersockets output", daemon=True).start()
        if hasattr(select, "poll") and stat.S_ISFIFO(os.fstat(fd).st_mode):
            # A file is kept open by whoever polls it, so this thread is told when to end.
            threading.Thread(target=output.watch, name="hypersockets output's reader", daemon=True).start()
        else:
            os.close(output._stopping[0])
        try:
            yield output
        finally:
            with anyio.move_on_after(_PATIENCE, shield=True):
                await output.stop()

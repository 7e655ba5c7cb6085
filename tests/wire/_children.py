"""Processes that tests start, and end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

HERE = Path(__file__).parent


class Child:
    """A process with what it prints, errors included."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        self.process = process
        self._output = BufferedByteReceiveStream(process.stdout)

    async def line(self) -> str:
        """Wait for the next line that it prints."""
        try:
            return (await self._output.receive_until(b"\n", 2**16)).decode()
        except anyio.IncompleteRead:
            raise EOFError(f"it printed no more; rest: {self._output.buffer!r}") from None

    async def lines(self) -> AsyncIterator[str]:
        """Yield what it prints until it ends."""
        with suppress(EOFError):
            while True:
                yield await self.line()

    async def wait_for(self, text: str) -> str:
        """Wait until it prints a line with a certain text; return that line."""
        seen = []
        try:
            with anyio.fail_after(10):
                while text not in (line := await self.line()):
                    seen.append(line)
        except (EOFError, TimeoutError) as error:
            raise AssertionError(f"{text!r} was never printed, but {seen}") from error
        return line

    async def kill(self) -> None:
        """End it as the power does."""
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> None:
        """Ask it to end, and wait until it has."""
        self.process.terminate()
        await self.process.wait()


@asynccontextmanager
async def child(*command: str) -> AsyncIterator[Child]:
    """Run a program; it is killed on leaving."""
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "env": _environment()}
    async with await anyio.open_process(command, **how) as process:
        try:
            yield Child(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()


@asynccontextmanager
async def script(name: str, *args: str) -> AsyncIterator[tuple[Child, int]]:
    """Run a Python script of this folder, which prints "ready" and its port; yield the process and the port."""
    async with child(sys.executable, str(HERE / name), *args) as running:
        yield running, int((await running.wait_for("ready")).split()[1])


@contextmanager
def running_script(name: str) -> Iterator[int]:
    """Do as :func:`script`, but outside any event loop; yield the port."""
    command = [sys.executable, str(HERE / name), "0"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=_environment()) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().split()[1])
        finally:
            process.kill()


def _environment() -> dict[str, str]:
    # Unbuffered: what such a process prints is waited for.
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

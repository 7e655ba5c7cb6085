"""Debian's nats-server as a child process, and a second connection to publish through."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.wire._children import Child, child, free_port

TOKEN = "s3cr3t"


class NatsServer:
    """Can be killed and started again, on the same ports."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("nats-server")
        if program is None:
            pytest.fail("!!!!! nats-server is missing, NOTHING WAS TESTED: apt-get install nats-server !!!!!")
        self._program = program
        self.port, self.web_port = free_port(), free_port()
        self.url = f"ws://127.0.0.1:{self.web_port}"
        self._config = folder / "nats.conf"
        self._config.write_text(f"""
            listen: "127.0.0.1:{self.port}"
            ping_interval: "1s"
            ping_max: 1
            authorization {{ token: "{TOKEN}", timeout: 2 }}
            websocket {{ listen: "127.0.0.1:{self.web_port}", no_tls: true, compression: true }}
        """)
        self._life = AsyncExitStack()
        self._process: Child

    async def start(self) -> None:
        """Start it, and return when it accepts connections."""
        self._process = await self._life.enter_async_context(child(self._program, "-c", str(self._config)))
        await self._process.wait_for("Server is ready")

    async def kill(self) -> None:
        """Let it die without a word, with all that it holds."""
        await self._process.kill()
        await self._life.aclose()

    async def __aenter__(self) -> NatsServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        """Open a connection of NATS's own kind, which knows nothing of WebSockets."""
        async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
            publisher = Publisher(stream)
            await stream.send(f"CONNECT {json.dumps({'verbose': False, 'auth_token': TOKEN})}\r\n".encode())
            await publisher.flush()
            yield publisher


class Publisher:
    """Publishes, in order."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._lines = BufferedByteReceiveStream(stream)

    async def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Send messages; what the server has read of them nobody knows."""
        commands = (b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(data), data) for subject, data in messages)
        await self._stream.send(b"".join(commands))

    async def flush(self) -> None:
        """Wait until the server has read all."""
        await self._stream.send(b"PING\r\n")
        while (line := await self._lines.receive_until(b"\r\n", 2**16)) != b"PONG":
            assert not line.startswith(b"-ERR"), line
            if line == b"PING":
                await self._stream.send(b"PONG\r\n")

"""The other server of the benchmarks: holds thousands of connections, answers their pings and says nothing itself.

`python -m benchmarks.idle_server` prints its port as a line of JSON, and what it saw when its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

from benchmarks.frames import CLOSE, PING, PONG, frame
from benchmarks.generator import response_to
from benchmarks.peers._probe import allow_many_files, stay_on

seen: Counter[str] = Counter()


class Connection(asyncio.Protocol):
    """One client. All that it sends are frames of less than 126 bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""
        self.is_open = False

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.is_open:
            if b"\r\n\r\n" not in self.buffer:
                return
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            self.transport.write(response_to(head, "idle"))
            self.is_open = True
            seen["connections"] += 1
        while len(self.buffer) >= 6 and len(self.buffer) >= (stop := 6 + (self.buffer[1] & 0x7F)):
            self._handle(self.buffer[0] & 0x0F, self.buffer[2:6], self.buffer[6:stop])
            self.buffer = self.buffer[stop:]

    def _handle(self, opcode: int, key: bytes, masked: bytes) -> None:
        payload = bytes(byte ^ key[at % 4] for at, byte in enumerate(masked))
        if opcode == PING:
            seen["pings"] += 1
            self.transport.write(frame(PONG, payload))
        elif opcode == CLOSE:
            self.transport.write(frame(CLOSE, payload))
            self.transport.close()
        else:
            seen["messages"] += 1


async def main() -> None:
    stay_on("".join(sys.argv[1:]).removeprefix("--cores="))
    allow_many_files()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    print(json.dumps(dict(seen)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

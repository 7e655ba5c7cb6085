"""A numbered feed that can be replayed from any number, on connections that are dropped all the time.

`python -m benchmarks.soak_server --rate N` prints its port as a line of JSON. Who sends `from N every S` gets all
numbers from N on, `from 0` those that are yet to come, and from then on the oldest connection is dropped every S
seconds: half-closed, reset, or closed with 1012, in turn. It ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from contextlib import suppress
from itertools import cycle

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from benchmarks.peers._probe import stay_on

TICK = 0.01
"""Seconds between two rounds of messages."""
MOST = 4 * 2**20
"""Bytes that may wait for a client that reads too slowly; what it does not get now it gets later."""
BURST = 20_000
"""Messages that are written at once to a client that has fallen behind."""
HEAD = b"\x81\x40"
"""Of a text frame of 64 bytes."""


async def main(rate: int) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin, over.set)
    began = loop.time()
    due: dict[ServerConnection, int] = {}
    """The next number of each subscriber, oldest first."""
    drop = math.inf

    def newest() -> int:
        return int((loop.time() - began) * rate)

    async def handle(connection: ServerConnection) -> None:
        nonlocal drop
        with suppress(ConnectionClosed):  # dropped without a close frame
            async for message in connection:
                _, start, _, every = str(message).split()
                due[connection], drop = int(start) or newest() + 1, float(every)
        due.pop(connection, None)

    async def drop_all_the_time() -> None:
        dropped = loop.time()
        for how in cycle(("half-close", "reset", "close")):
            while loop.time() < dropped + drop:  # noqa: ASYNC110 - it changes with each subscription
                await asyncio.sleep(TICK)
            dropped = loop.time()
            connection = next(iter(due), None)
            if connection is None:
                continue
            del due[connection]
            if how == "half-close":
                connection.transport.write_eof()
            elif how == "reset":
                connection.transport.abort()
            else:
                await connection.close(1012)

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, close_timeout=2) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        dropping = asyncio.create_task(drop_all_the_time())
        while not over.is_set():
            last = newest()
            for connection, first in due.items():
                # Behind the reply to a close frame nothing may be written.
                if connection.state is State.OPEN and connection.transport.get_write_buffer_size() < MOST:
                    end = min(last + 1, first + BURST)
                    connection.transport.write(b"".join(HEAD + b"%64d" % number for number in range(first, end)))
                    due[connection] = end
            await asyncio.sleep(TICK)
        dropping.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=20_000, help="messages per second")
    parser.add_argument("--cores", default="", help="where to run; numbers with commas between")
    arguments = parser.parse_args()
    stay_on(arguments.cores)
    asyncio.run(main(arguments.rate))

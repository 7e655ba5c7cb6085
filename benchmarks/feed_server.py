"""A numbered feed by the `websockets` library: a process of its own, for what rotates and reconnects.

`python -m benchmarks.feed_server --rate N` prints its port as a line of JSON. Who sends anything gets all numbers from
then on, in text. It ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.peers._probe import stay_on

TICK = 0.005
"""Seconds between two rounds of messages."""


async def main(rate: int) -> None:
    subscribers: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        async for _ in connection:
            subscribers.add(connection)
        subscribers.discard(connection)

    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin, over.set)
    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        began, number = loop.time(), 0
        while not over.is_set():
            while number < (loop.time() - began) * rate:
                number += 1
                broadcast(subscribers, f"{number:>64}")
            await asyncio.sleep(TICK)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=10_000, help="messages per second")
    parser.add_argument("--cores", default="", help="where to run; numbers with commas between")
    arguments = parser.parse_args()
    stay_on(arguments.cores)
    asyncio.run(main(arguments.rate))

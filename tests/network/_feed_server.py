"""A feed by the ``websockets`` library, which numbers what it sends and records what it gets.

Arguments: its address, its port, and the number of its first connection. ``SIGUSR1``: print the record; ``SIGTERM``:
do so and die in the same moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

TICK = 0.02
"""Seconds between two messages of a channel."""
RECORD: dict[int, dict[str, Any]] = {}
"""Per connection: ``opening`` (in order), ``counted`` (the client's numbers), ``sent`` (how many, per channel)."""


class Conversation:
    """One connection."""

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.is_accepted = False
        self.stopped = asyncio.Event()
        self.opening: list[str] = []
        self.counted: list[int] = []
        self.sent: dict[str, int] = {}
        self.tasks: list[asyncio.Task[None]] = []
        RECORD[number] = {"opening": self.opening, "counted": self.counted, "sent": self.sent}

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    async def run(self) -> None:
        try:
            async for message in self.connection:
                what, _, rest = str(message).partition(" ")
                if what == "ping":
                    await self.connection.send("pong")
                elif what == "count":
                    self.counted.append(int(rest))
                elif what == "stop":
                    self.stopped.set()
                    await asyncio.gather(*self.tasks)
                    await self.connection.send(json.dumps({"channel": "end"}))
                else:
                    self.open(what, rest)
        except ConnectionClosed:
            pass
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def open(self, what: str, rest: str) -> None:
        """Take what a client sends on a new connection, and record it at once, in whatever order it comes."""
        self.opening.append(f"{what} {rest}")
        if what == "auth" and rest == "secret":
            self.start(self.accept())
        elif what == "sub" and self.is_accepted:
            self.start(self.feed(rest))
        else:
            self.start(self.connection.close(4403, "auth first"))

    async def accept(self) -> None:
        await asyncio.sleep(0.05)  # time for what must not come yet
        self.is_accepted = True
        self.opening.append("accepted")
        await self.connection.send("accepted")

    async def feed(self, channel: str) -> None:
        await self.connection.send(json.dumps({"ack": channel}))
        self.sent[channel] = 0
        while not self.stopped.is_set():
            message = {"channel": channel, "connection": self.number, "n": self.sent[channel]}
            self.sent[channel] += 1
            await self.connection.send(json.dumps(message))
            await asyncio.sleep(TICK)


async def main(host: str, port: int, first: int) -> None:
    async def handle(connection: ServerConnection) -> None:
        await Conversation(connection, first + len(RECORD)).run()

    def tell() -> None:
        print("record", json.dumps(RECORD), flush=True)

    def die() -> None:
        tell()
        os._exit(0)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, tell)
    loop.add_signal_handler(signal.SIGTERM, die)
    # It too notices that a client is dead, but asks less often than proxies cut silent connections.
    async with serve(handle, host, port, ping_interval=3, ping_timeout=2, close_timeout=0.5):
        print("ready", flush=True)
        await loop.create_future()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

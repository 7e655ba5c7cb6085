"""websockets on asyncio: the bare loop."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.frames import ECHO_SIZE, SIZE
from benchmarks.peers._idle import measure_idle
from benchmarks.peers._probe import Options, Probe, expected_of, options


async def ingest(ws: ClientConnection, chosen: Options) -> None:
    count = 0
    message: str | bytes = b""
    probe = Probe(chosen, lambda: count)
    probe.start()
    async for message in ws:  # noqa: B007
        count += 1
    probe.finish(count - 1, expected_of(message), "websockets")


async def ingest_json(ws: ClientConnection, chosen: Options) -> None:
    count = 0
    parsed = None
    probe = Probe(chosen, lambda: count)
    probe.start()
    async for message in ws:
        parsed = orjson.loads(message)
        count += 1
    probe.finish(count - 1, expected_of(parsed), "websockets", "orjson")


async def echo(ws: ClientConnection, chosen: Options) -> None:
    times: list[float] = []
    probe = Probe(chosen, lambda: len(times))
    probe.start()
    while not probe.is_over:
        message = f"{len(times):0{ECHO_SIZE}}"
        started = time.perf_counter()
        await ws.send(message)
        answer = await ws.recv()
        times.append(time.perf_counter() - started)
        assert answer == message
    probe.finish(len(times), None, "websockets", times=times)


async def send(ws: ClientConnection, chosen: Options) -> None:
    count = 0
    message = "x" * SIZE
    probe = Probe(chosen, lambda: count)

    async def sender() -> None:
        nonlocal count
        while not probe.is_over:
            await ws.send(message)
            count += 1

    probe.start()
    await asyncio.gather(*(sender() for _ in range(100)))
    probe.finish(count, None, "websockets")


async def idle(chosen: Options) -> None:
    every: dict[str, Any] = {} if chosen.ping is None else {"ping_interval": chosen.ping}

    async def one() -> ClientConnection:
        return await connect(chosen.url, compression=None, proxy=None, **every)

    await measure_idle(chosen, one, "websockets")


async def main() -> None:
    chosen = options()
    if chosen.mode == "idle":
        await idle(chosen)
        return
    work = {"json": ingest_json, "echo": echo, "sink": send}.get(chosen.mode, ingest)
    open_connection = partial(connect, chosen.url, compression=chosen.compression, proxy=None)
    async with open_connection(ssl=context) if (context := chosen.ssl_context) else open_connection() as ws:
        await work(ws, chosen)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())

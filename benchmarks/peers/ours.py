"""hypersockets, the whole pipeline: router, route key, lane, one async handler call for each message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import orjson

import hypersockets as hs
from benchmarks.frames import ECHO_SIZE, KEYS, SIZE, channel
from benchmarks.peers._idle import measure_idle
from benchmarks.peers._probe import Options, Probe, expected_of, fail, options


class FirstLetter:
    """A router that leaves frames as they are: all data of the benchmarks begin with a brace."""

    def parse(self, frame: str | bytes) -> str | bytes:
        return frame

    def route_key(self, message: str | bytes) -> str | bytes:
        return message[:1]


class Feed:
    """A router of JSON."""

    def parse(self, frame: str | bytes) -> Any:
        return orjson.loads(frame)

    def route_key(self, message: Any) -> str:
        return message["channel"]  # type: ignore[no-any-return]


def config(chosen: Options, router: hs.MessageRouter, handlers: dict[Any, Any], **more: Any) -> hs.ClientConfig:
    return hs.ClientConfig(
        url=chosen.url,
        router=router,
        handlers=handlers,
        ssl_context=chosen.ssl_context,
        proxy=None,
        compression=chosen.compression,
        transport="trio-websocket" if chosen.transport == "trio-websocket" else "stream",
        reconnect_strategy=hs.NeverReconnect(),
        **more,
    )


async def ingest(chosen: Options) -> None:
    count = 0
    end: str | None = None

    async def on_message(message: str | bytes) -> None:
        nonlocal count
        count += 1

    async def on_end(message: str) -> None:
        nonlocal end
        end = message

    probe = Probe(chosen, lambda: count)
    handlers = {b"{" if chosen.mode == "binary" else "{": on_message, "E": on_end}
    async with hs.connect(config(chosen, FirstLetter(), handlers)) as client:
        probe.start()
        await client.wait_closed()
    probe.finish(count, expected_of(end or ""), "hypersockets", "anyio", "websockets")


async def ingest_json(chosen: Options) -> None:
    counts = [0] * KEYS
    end: Any = None

    def handler(number: int) -> Callable[[Any], Any]:
        async def on_message(message: Any) -> None:
            counts[number] += 1

        return on_message

    async def on_end(message: Any) -> None:
        nonlocal end
        end = message

    probe = Probe(chosen, lambda: sum(counts))
    handlers = {channel(number): handler(number) for number in range(KEYS)}
    async with hs.connect(config(chosen, Feed(), {**handlers, "END": on_end})) as client:
        probe.start()
        await client.wait_closed()
    if len(set(counts)) != 1:
        fail(f"all channels are sent equally often, but were counted: {counts}")
    probe.finish(sum(counts), expected_of(end or ""), "hypersockets", "orjson")


async def echo(chosen: Options) -> None:
    times: list[float] = []
    started = 0.0
    message = ""
    probe = Probe(chosen, lambda: len(times))
    over = anyio.Event()

    async def send_next() -> None:
        nonlocal started, message
        message = f"{len(times):0{ECHO_SIZE}}"
        started = time.perf_counter()
        await client.send(message)

    async def on_message(answer: str) -> None:
        times.append(time.perf_counter() - started)
        assert answer == message
        if probe.is_over:
            over.set()
        else:
            await send_next()

    async with hs.connect(config(chosen, FirstLetter(), {"0": on_message})) as client:
        probe.start()
        await send_next()
        await over.wait()
    probe.finish(len(times), None, "hypersockets", times=times)


async def send(chosen: Options) -> None:
    count = 0
    message = "x" * SIZE
    probe = Probe(chosen, lambda: count)

    async def on_message(message: str) -> None:
        fail(f"nothing is sent to this client, but there came {message!r}")

    async def sender() -> None:
        nonlocal count
        while not probe.is_over:
            await client.send(message)
            count += 1

    async with hs.connect(config(chosen, FirstLetter(), {"{": on_message})) as client:
        probe.start()
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(sender)
    probe.finish(count, None, "hypersockets")


async def idle(chosen: Options) -> None:
    more: dict[str, Any] = {"heartbeat": hs.Heartbeat(interval=30, message="ping")}
    if chosen.ping is not None:
        more = {"ping_interval": chosen.ping}

    async def on_message(message: str) -> None:
        fail(f"nothing is sent to this client, but there came {message!r}")

    async def hold(ready: asyncio.Event) -> None:
        async with hs.connect(config(chosen, FirstLetter(), {"{": on_message}, **more)) as client:
            ready.set()
            del ready  # what only the measuring needs is no client's memory
            await client.wait_closed()
            fail("an idle client has ended")

    async def one() -> object:
        ready = asyncio.Event()
        task = asyncio.create_task(hold(ready))  # a client is entered and left in one task
        await ready.wait()
        return task

    await measure_idle(chosen, one, "hypersockets")


async def main(chosen: Options) -> None:
    work = {"json": ingest_json, "echo": echo, "sink": send, "idle": idle}.get(chosen.mode, ingest)
    await work(chosen)


if __name__ == "__main__":
    command = options()
    anyio.run(partial(main, command), backend=command.backend)

"""trio-websocket: the bare loop."""

from __future__ import annotations

import time

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from benchmarks.frames import ECHO_SIZE
from benchmarks.peers._probe import Options, Probe, expected_of, options


async def ingest(ws: WebSocketConnection, chosen: Options) -> None:
    count = 0
    message: str | bytes = b""
    probe = Probe(chosen, lambda: count)
    probe.start()
    try:
        while True:
            message = await ws.get_message()
            count += 1
    except ConnectionClosed:
        pass
    probe.finish(count - 1, expected_of(message), "trio-websocket", "wsproto", "trio")


async def echo(ws: WebSocketConnection, chosen: Options) -> None:
    times: list[float] = []
    probe = Probe(chosen, lambda: len(times))
    probe.start()
    while not probe.is_over:
        message = f"{len(times):0{ECHO_SIZE}}"
        started = time.perf_counter()
        await ws.send_message(message)
        answer = await ws.get_message()
        times.append(time.perf_counter() - started)
        assert answer == message
    probe.finish(len(times), None, "trio-websocket", "wsproto", "trio", times=times)


async def main() -> None:
    chosen = options()
    async with open_websocket_url(chosen.url) as ws:
        await (echo if chosen.mode == "echo" else ingest)(ws, chosen)


if __name__ == "__main__":
    trio.run(main)

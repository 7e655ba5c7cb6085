"""httpx-ws: the bare loop."""

from __future__ import annotations

import asyncio

from httpx_ws import WebSocketDisconnect, aconnect_ws

from benchmarks.peers._probe import Probe, expected_of, options


async def main() -> None:
    chosen = options()
    count = 0
    message = ""
    probe = Probe(chosen, lambda: count)
    async with aconnect_ws(chosen.url.replace("ws:", "http:", 1)) as ws:
        probe.start()
        try:
            while True:
                message = await ws.receive_text()
                count += 1
        except WebSocketDisconnect:
            pass
    probe.finish(count - 1, expected_of(message), "httpx-ws", "wsproto")


if __name__ == "__main__":
    asyncio.run(main())

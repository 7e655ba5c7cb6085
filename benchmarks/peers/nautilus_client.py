"""nautilus_trader's WebSocketClient: Rust, which calls a Python handler with the bytes of each message."""

from __future__ import annotations

import asyncio

from nautilus_trader.core.nautilus_pyo3 import WebSocketClient, WebSocketConfig

from benchmarks.peers._probe import Probe, expected_of, options


async def main() -> None:
    chosen = options()
    count = 0
    last = b""

    def handler(message: bytes) -> None:
        nonlocal count, last
        count += 1
        last = message

    probe = Probe(chosen, lambda: count)
    # It would connect again after a close; so this server does not close.
    config = WebSocketConfig(chosen.url + "&close=0", [])
    client = await WebSocketClient.connect(asyncio.get_running_loop(), config, handler)
    probe.start()
    # Its handler does nothing more than the others' loops do.
    while not last.startswith(b"END"):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    probe.finish(count - 1, expected_of(last), "nautilus_trader")
    await client.disconnect()


if __name__ == "__main__":
    asyncio.run(main())

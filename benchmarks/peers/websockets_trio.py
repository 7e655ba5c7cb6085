"""websockets on trio: the bare loop."""

from __future__ import annotations

import trio
from websockets.trio.client import connect

from benchmarks.peers._probe import Probe, expected_of, options


async def main() -> None:
    chosen = options()
    count = 0
    message: str | bytes = b""
    probe = Probe(chosen, lambda: count)
    async with connect(chosen.url, compression=None, proxy=None) as ws:
        probe.start()
        async for message in ws:  # noqa: B007
            count += 1
    probe.finish(count - 1, expected_of(message), "websockets", "trio")


if __name__ == "__main__":
    trio.run(main)

"""aiohttp: the bare loop."""

from __future__ import annotations

import asyncio

import aiohttp

from benchmarks.peers._probe import Probe, expected_of, options


async def main() -> None:
    chosen = options()
    count = 0
    message = None
    probe = Probe(chosen, lambda: count)
    async with aiohttp.ClientSession() as session, session.ws_connect(chosen.url) as ws:
        probe.start()
        async for message in ws:  # noqa: B007
            count += 1
    assert message is not None
    probe.finish(count - 1, expected_of(message.data), "aiohttp")


if __name__ == "__main__":
    asyncio.run(main())

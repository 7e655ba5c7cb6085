"""Our own transport alone: it decodes batches of messages, and nobody routes or handles them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import anyio

import hypersockets as hs
from benchmarks.peers._probe import Options, Probe, expected_of, options


async def main(chosen: Options) -> None:
    count = 0
    batch: Sequence[str | bytes] = ()
    probe = Probe(chosen, lambda: count)
    request = hs.OpenRequest(url=chosen.url, proxy=None, ssl_context=chosen.ssl_context)
    async with hs.StreamConnector().open(request) as transport:
        probe.start()
        try:
            while True:
                batch = await transport.receive()
                count += len(batch)
        except hs.ConnectionLostError:
            pass
    probe.finish(count - 1, expected_of(batch[-1]), "hypersockets")


if __name__ == "__main__":
    command = options()
    anyio.run(partial(main, command), backend=command.backend)

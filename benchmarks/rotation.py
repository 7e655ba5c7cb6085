"""Rotate once a second under load, over a real socket, and count what is lost, doubled or out of order.

`python -m benchmarks.rotation [--seconds 60] [--rate 10000]` does it on both backends, then the same with a plain
reconnect in place of each rotation; for that the server replays nothing, so there the losses are the server's share.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from functools import partial

import anyio
import attrs

import hypersockets as hs
from benchmarks.peers._probe import stay_on
from benchmarks.processes import CLIENTS, ROOT, SERVERS, environment


@attrs.define
class Tally:
    """What was handled, by the numbers of the server."""

    handled: int = 0
    newest: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    pauses: list[float] = attrs.field(factory=list)
    """Seconds between messages, the longest of each change of connection."""
    _seen: set[int] = attrs.field(factory=set)
    _last_at: float = 0.0
    _longest: float = 0.0

    async def handle(self, message: str) -> None:
        number, now = int(message), time.perf_counter()
        if self._last_at:
            self._longest = max(self._longest, now - self._last_at)
        self._last_at = now
        self.handled += 1
        if number in self._seen:
            self.doubled += 1
        elif number < self.newest:
            self.out_of_order += 1
            self.lost -= 1
        else:
            self.lost += number - self.newest - 1 if self.newest else 0
            self.newest = number
        self._seen.add(number)

    def change_is_over(self) -> None:
        """Take note of the longest pause since the last change."""
        self.pauses.append(self._longest)
        self._longest = 0.0


async def run(port: int, seconds: float, *, rotates: bool) -> tuple[Tally, hs.Metrics]:
    tally = Tally()
    config = hs.ClientConfig(
        url=f"ws://127.0.0.1:{port}",
        proxy=None,
        subscriptions=["all"],
        default_handler=tally,
        sequence=lambda message: ("feed", int(message)),
        reconnect_strategy=hs.FixedDelay(0),
    )
    async with hs.connect(config) as client:
        began = anyio.current_time()
        await anyio.sleep(0.5)
        tally._longest = 0.0
        for number in range(int(seconds)):
            await anyio.sleep_until(began + number + 0.5)
            if rotates:
                await client.rotate()
            else:
                await client.reconnect()
                await client.wait_connected()
            await anyio.sleep(0.4)
            tally.change_is_over()
        return tally, client.metrics()


def measure(seconds: float, rate: int, backend: str, *, rotates: bool) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.feed_server", f"--rate={rate}", SERVERS],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["port"]
        tally, metrics = anyio.run(partial(run, port, seconds, rotates=rotates), backend=backend)
    finally:
        server.communicate()
    pauses = sorted(1000 * pause for pause in tally.pauses)
    print(
        f"{backend:8} {'rotation ' if rotates else 'reconnect'} x {len(pauses)}: {tally.handled} handled "
        f"({tally.handled / seconds:.0f}/s), {tally.lost} lost, {tally.doubled} doubled, {tally.out_of_order} out of "
        f"order, {metrics.gaps} gaps, {metrics.dropped} dropped; longest pause {pauses[-1]:.1f} ms "
        f"(median of the changes {pauses[len(pauses) // 2]:.1f} ms)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=int, default=10_000, help="messages per second")
    arguments = parser.parse_args()
    stay_on(CLIENTS.partition("=")[2])
    for rotates in (True, False):
        for backend in ("asyncio", "trio"):
            measure(arguments.seconds, arguments.rate, backend, rotates=rotates)


if __name__ == "__main__":
    main()

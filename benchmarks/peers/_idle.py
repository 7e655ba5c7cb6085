"""What one idle connection costs: memory, then CPU. The same for every peer."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable

from benchmarks.peers._probe import Options, allow_many_files, cpu_time, resident, say

_BATCH = 100


async def measure_idle(chosen: Options, connect: Callable[[], Awaitable[object]], *packages: str) -> None:
    """Open connections in batches, report the memory of each, and the CPU time of all while they are held.

    Args:
        chosen: How many connections, and for how many seconds they are held.
        connect: Opens one connection that stays open, and returns when it is.
        packages: Whose versions to report.
    """
    allow_many_files()
    kept = [await connect()]  # what is loaded or made once is no connection's cost
    gc.collect()
    before = resident()
    for _ in range(chosen.clients // _BATCH):
        kept += await asyncio.gather(*(connect() for _ in range(_BATCH)))
    await asyncio.sleep(1)
    gc.collect()
    report = {"total": len(kept), "memory": (resident() - before) / (len(kept) - 1)}
    if chosen.hold:
        started = cpu_time()
        await asyncio.sleep(chosen.hold)
        report["cpu"] = (cpu_time() - started) / chosen.hold * 100
    say(report, *packages)
    os._exit(0)  # closing thousands of connections is not what is measured

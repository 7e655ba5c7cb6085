"""A link with a delay, for kernels without netem: two TUN devices, and packets carried from one to the other.

Arguments: the seconds in each direction, then for each end a namespace and its address.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.network._netns import enter

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h


def tun(namespace: str, address: str) -> int:
    """Make a device in a namespace; return the descriptor that its packets come from and go to."""
    enter(namespace)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"satellite", IFF_TUN | IFF_NO_PI))
    for command in (f"addr add {address}/30 dev satellite", "link set satellite up mtu 1400"):
        subprocess.run(["ip", *command.split()], check=True)
    return device


async def main(delay: float, one: int, other: int) -> None:
    loop = asyncio.get_running_loop()

    def put(device: int, packet: bytes) -> None:
        with suppress(OSError):  # a full queue, or a device that is down: packets may be lost
            os.write(device, packet)

    def carry(source: int, sink: int) -> None:
        with suppress(BlockingIOError):
            while packet := os.read(source, 2**16):
                loop.call_later(delay, put, sink, packet)

    loop.add_reader(one, carry, one, other)
    loop.add_reader(other, carry, other, one)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    _, seconds, *ends = sys.argv
    asyncio.run(main(float(seconds), tun(*ends[:2]), tun(*ends[2:])))

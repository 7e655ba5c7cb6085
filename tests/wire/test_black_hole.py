"""A connection whose traffic is dropped without a word is noticed, whatever drops it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import pytest

from hypersockets.testing import ScriptedServer
from tests.wire._dark import WAYS, closes_in_time, is_noticed, ticking
from tests.wire._tunnel import Tunnel

pytestmark = [pytest.mark.anyio, pytest.mark.wire]

CLONE_NEWNET = 0x40000000  # linux/sched.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h


@asynccontextmanager
async def tunnelled() -> AsyncIterator[tuple[str, Tunnel]]:
    async with ScriptedServer(ticking) as server, server.listen() as url:
        port = urlsplit(url).port
        assert port is not None
        async with Tunnel(port).run() as tunnel:
            yield f"ws://127.0.0.1:{tunnel.port}", tunnel


@pytest.mark.parametrize("way", WAYS)
async def test_a_proxy_that_forwards_nothing_any_more(way: str, transport: str, report: Callable[[str], None]) -> None:
    """The connection stays open and takes what we write; only answers tell that it is dead."""
    async with tunnelled() as (url, tunnel):

        async def go_dark() -> None:
            tunnel.go_dark()

        async def heal() -> None:
            """New connections work."""

        await is_noticed(url, way, transport, go_dark=go_dark, heal=heal, report=report)


async def test_leaving_a_black_hole_takes_bounded_time(transport: str, report: Callable[[str], None]) -> None:
    """No answer to our close frame will ever come; close_timeout says how long it is awaited."""
    async with tunnelled() as (url, tunnel):

        async def go_dark() -> None:
            tunnel.go_dark()

        took = await closes_in_time(url, transport, go_dark=go_dark)
    report(f"left after {took * 1e3:.0f} ms (close_timeout 500 ms)")
    assert 0.4 < took < 1.5


class Namespace:
    """This thread in a network of its own, in which packets can be dropped. Nothing is left of it afterwards."""

    def run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(
                f"!!!!! NO RIGHTS for `{' '.join(command)}`, BLACK HOLE NOT TESTED: {done.stderr.strip()} !!!!!"
            )

    async def go_dark(self) -> None:
        self.run("iptables", "-A", "INPUT", "-i", "lo", "-j", "DROP")

    async def heal(self) -> None:
        self.run("iptables", "-F", "INPUT")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    if shutil.which("iptables") is None:
        pytest.fail("!!!!! iptables is missing, BLACK HOLE NOT TESTED: apt-get install iptables !!!!!")
    with _network_of_our_own():
        yield Namespace()


@contextmanager
def _network_of_our_own() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            why = os.strerror(ctypes.get_errno())
            pytest.skip(f"!!!!! NO RIGHTS to make a network namespace, BLACK HOLE NOT TESTED: {why} !!!!!")
        try:
            with socket.socket() as any_socket:
                request = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
                flags = struct.unpack("16sh14x", request)[1] | IFF_UP
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))
            yield
        finally:
            assert libc.setns(home, CLONE_NEWNET) == 0
    finally:
        os.close(home)


async def test_packets_dropped_by_the_kernel(
    namespace: Namespace, transport: str, report: Callable[[str], None]
) -> None:
    """In a network namespace: what we write is never acknowledged, and attempts meet silence until it heals."""
    async with ScriptedServer(ticking) as server, server.listen() as url:
        await is_noticed(url, "heartbeat", transport, go_dark=namespace.go_dark, heal=namespace.heal, report=report)

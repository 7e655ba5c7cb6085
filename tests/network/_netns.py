"""A client, a router and a server, each in a network namespace of its own, and what goes wrong between them.

    client --- wifi, or cell ---> router ---> server

Nothing in there knows a way to anywhere else. The addresses are those of RFC 5737, for documentation.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

SERVER = "198.51.100.2"
"""The server's address."""
WIFI, CELL, SATELLITE = "192.0.2.1", "192.0.2.5", "192.0.2.9"
"""The router's addresses on the ways of the client to it; the client's own are one higher."""
SATELLITE_CLIENT = "192.0.2.10"
CLONE_NEWNET = 0x40000000  # linux/sched.h


@attrs.frozen
class Network:
    """Three namespaces; each command ends before the next line of a test is run."""

    prefix: str

    @property
    def client(self) -> str:
        """The client's namespace."""
        return f"{self.prefix}-client"

    @property
    def router(self) -> str:
        """The router's namespace: packets are lost here, or rewritten."""
        return f"{self.prefix}-router"

    @property
    def server(self) -> str:
        """The server's namespace; proxies stand beside the server."""
        return f"{self.prefix}-server"

    @property
    def namespaces(self) -> tuple[str, ...]:
        return self.client, self.router, self.server

    def ip(self, namespace: str, commands: str) -> None:
        """Configure a namespace with ``ip``, one command a line."""
        _run("ip", "-n", namespace, "-batch", "-", text=commands)

    def on_router(self, *command: str) -> str:
        """Run a program on the router; return what it printed."""
        return _run("ip", "netns", "exec", self.router, *command)

    def add_rules(self, *rules: str) -> None:
        """Let each packet that the router passes on meet some rules of iptables."""
        for rule in rules:
            self.on_router("iptables", "-A", "FORWARD", *rule.split())

    def heal(self) -> None:
        """Pass on all packets again."""
        self.on_router("iptables", "-F", "FORWARD")

    def caught(self) -> list[int]:
        """Return for each rule how many packets it has caught."""
        lines = self.on_router("iptables", "-nvxL", "FORWARD").splitlines()[2:]
        return [int(line.split()[0]) for line in lines]

    def ports_in_use(self, port: int) -> list[str]:
        """Return the client's ends of the connections to a port of the server."""
        which = ("-Htn", "state", "established", "sport", "=", f":{port}")
        lines = _run("ip", "netns", "exec", self.server, "ss", *which).splitlines()
        return [line.split()[3].rpartition(":")[2] for line in lines]

    def _build(self) -> None:
        for namespace in self.namespaces:
            _run("ip", "netns", "add", namespace)
        self.ip(
            self.router,
            f"""
            link add to-wifi type veth peer name wifi netns {self.client}
            link add to-cell type veth peer name cell netns {self.client}
            link add to-server type veth peer name eth netns {self.server}
            addr add {WIFI}/30 dev to-wifi
            addr add {CELL}/30 dev to-cell
            addr add 198.51.100.1/30 dev to-server
            link set to-wifi up
            link set to-cell up
            link set to-server up
            link set lo up
            """,
        )
        self.ip(
            self.client,
            f"""
            addr add 192.0.2.2/30 dev wifi
            addr add 192.0.2.6/30 dev cell
            link set lo up
            link set wifi up
            link set cell up
            route add default via {WIFI}
            """,
        )
        self.ip(
            self.server,
            f"""
            addr add {SERVER}/30 dev eth
            link set lo up
            link set eth up
            route add default via 198.51.100.1
            """,
        )
        # It routes, and says "unreachable" as often as it is so.
        self.on_router("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0")

    def _remove(self) -> None:
        """Remove all three with whatever still runs there, after a failure too."""
        for namespace in filter(_exists, self.namespaces):
            pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
            for pid in map(int, pids.stdout.split()):
                if pid != os.getpid():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
        left = [*filter(_exists, self.namespaces)]
        assert not left, f"could not be removed: {left}"


@contextmanager
def network() -> Iterator[Network]:
    """Make a network, with this thread at the client's place in it; nothing is left of it afterwards."""
    made = Network(f"hs{os.getpid()}")
    # Who is told to end cleans up first, as after Ctrl-C.
    at_sigterm = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        made._build()
        with _inside(made.client):
            yield made
    finally:
        made._remove()
        signal.signal(signal.SIGTERM, at_sigterm)


@contextmanager
def _inside(namespace: str) -> Iterator[None]:
    """Let this thread, and what it starts, be in a namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(namespace)
        try:
            yield
        finally:
            _set_namespace(home)
    finally:
        os.close(home)


def enter(namespace: str) -> None:
    """Move this thread into a namespace that has a name."""
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _set_namespace(there)
    finally:
        os.close(there)


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@functools.cache
def what_is_missing() -> str:
    """Return what this machine lacks for such a network; nothing if it lacks nothing."""
    programs = [each for each in ("ip", "ss", "iptables", "conntrack", "nginx", "haproxy") if not shutil.which(each)]
    if programs:
        return f"MISSING: {', '.join(programs)}"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "NO RIGHTS for /dev/net/tun"
    try:
        with network() as made:
            made.add_rules("-m conntrack --ctstate INVALID", "-m statistic --mode nth --every 20 --packet 0")
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
        return f"NO RIGHTS to make a network (be root): {str(why).strip()}"
    return ""


def _exists(namespace: str) -> bool:
    return Path(f"/run/netns/{namespace}").exists()


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=10)
    if done.returncode:
        raise subprocess.CalledProcessError(
            done.returncode, command, done.stdout, f"`{shlex.join(command)}`: {done.stderr}"
        )
    return done.stdout

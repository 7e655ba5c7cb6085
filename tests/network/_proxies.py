"""nginx and haproxy in front of the feed, at the server's place, with all that such proxies do to clients."""

from __future__ import annotations

import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timezone
from email.utils import formatdate
from pathlib import Path
from typing import Any

import attrs
import trustme

from tests.network._netns import SERVER, Network
from tests.wire._children import Child, child

FEED = 9000
"""The port of the feed that stands behind."""
IDLE, GRACE, LIMIT, PAUSE = 1, 1, 2, 5
"""Seconds: how long a connection may be silent where that is watched; how long a reload leaves old ones alone; how much
time a rate limit wants between two; for how long "later" is away, at the most."""

STATUSES = (400, 401, 403, 404, 410, 425, 426, 429, 500, 502, 503, 504)
"""What nginx can be told to say instead of passing a handshake on. (It never says 408, but cuts.)"""

# name: port
NGINX = {"plain": 8000, "idle": 8001, "limited": 8002, "later": 8003, "moved": 8004, "bearer": 8005}
NGINX_TLS = {"tls": 8010, "mutual": 8011, "expired": 8012, "wrong host": 8013, "leaves tls": 8014}
HAPROXY = {"haproxy": 8020, "haproxy idle": 8021, "haproxy tls": 8022}
PORTS = {**NGINX, **NGINX_TLS, **HAPROXY}


@attrs.frozen
class Certificates:
    """One private authority, and what it has issued to a server and to a client."""

    folder: Path
    ca: trustme.CA = attrs.field(factory=trustme.CA)

    def __attrs_post_init__(self) -> None:
        past: dict[str, Any] = {
            "not_before": datetime(2020, 1, 1, tzinfo=timezone.utc),
            "not_after": datetime(2020, 2, 1, tzinfo=timezone.utc),
        }
        self.ca.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        for name, certificate in (
            ("server", self.ca.issue_cert(SERVER)),
            ("expired", self.ca.issue_cert(SERVER, **past)),
            ("wrong-host", self.ca.issue_cert("other.example")),
            ("client", self.ca.issue_cert("client@feed.example")),
        ):
            # One file with both, as haproxy wants it.
            certificate.private_key_and_cert_chain_pem.write_to_path(str(self.folder / f"{name}.pem"))

    def trusted(self, *, as_client: bool = False) -> ssl.SSLContext:
        """Return a context for clients, which can show a certificate if asked to."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if as_client:
            context.load_cert_chain(self.folder / "client.pem")
        return context


@attrs.define(eq=False)
class Proxies:
    """Both proxies, running."""

    folder: Path
    back_at: int
    """When "later" says it will be back, in seconds of the wall clock."""
    nginx: Child
    haproxy: Child
    certificates: Certificates

    def url(self, name: str) -> str:
        """Return where a client connects to."""
        return f"{'wss' if name in NGINX_TLS or name == 'haproxy tls' else 'ws'}://{SERVER}:{PORTS[name]}"

    def say(self, what: int | str | None) -> None:
        """Let nginx refuse handshakes with a status, or "later" do so; ``None``: pass them on."""
        for flag in self.folder.glob("say-*"):
            flag.unlink()
        if what is not None:
            (self.folder / f"say-{what}").touch()

    def reload(self, proxy: str) -> None:
        """Let a proxy read its configuration again, as after an edit: new processes, and soon no old ones."""
        running, signum = {"nginx": (self.nginx, signal.SIGHUP), "haproxy": (self.haproxy, signal.SIGUSR2)}[proxy]
        running.process.send_signal(signum)

    async def handshakes(self, name: str) -> list[tuple[float, int]]:
        """End nginx; return the time (wall clock) and the status of each request to one of its ports."""
        with suppress(ProcessLookupError):
            self.nginx.process.send_signal(signal.SIGQUIT)  # it writes of a connection when that has ended
        await self.nginx.process.wait()
        lines = [line.split() for line in (self.folder / "access.log").read_text().splitlines()]
        return sorted(
            (float(ended) - float(took), int(status)) for port, ended, took, status in lines if int(port) == PORTS[name]
        )


@asynccontextmanager
async def proxies(network: Network, folder: Path, certificates: Certificates) -> AsyncIterator[Proxies]:
    """Run both; what is left of them at the end goes with their namespace."""
    back_at = int(time.time()) + PAUSE
    (folder / "nginx.conf").write_text(_nginx(folder, certificates.folder, back_at))
    (folder / "haproxy.cfg").write_text(_haproxy(certificates.folder))
    inside = ("ip", "netns", "exec", network.server)
    async with (
        child(*inside, "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")) as nginx,
        child(*inside, "haproxy", "-W", "-f", str(folder / "haproxy.cfg")) as haproxy,
    ):
        await nginx.wait_for("start worker process ")
        await haproxy.wait_for("Loading success")
        yield Proxies(folder, back_at, nginx, haproxy, certificates)


def _nginx(folder: Path, certificates: Path, back_at: int) -> str:
    on = f"proxy_pass http://127.0.0.1:{FEED};"
    refusals = " ".join(f"if (-f {folder}/say-{status}) {{ return {status}; }}" for status in STATUSES)
    later = f"add_header Retry-After '{formatdate(back_at, usegmt=True)}' always; return 503;"
    shown = {"expired": "expired", "wrong host": "wrong-host"}
    locations = {
        "plain": f"{refusals} {on}",
        "idle": f"{on} proxy_read_timeout {IDLE}s;",
        "limited": f"limit_req zone=one; limit_req_status 429; error_page 429 @limited; {on}",
        "later": f"if (-f {folder}/say-later) {{ {later} }} {on}",
        "moved": f"return 307 ws://{SERVER}:{PORTS['plain']}$request_uri;",
        "bearer": f"if ($http_authorization != 'Bearer fresh') {{ return 401; }} {on}",
        "leaves tls": f"return 302 http://{SERVER}:{PORTS['plain']}$request_uri;",
    }
    servers = []
    for name, port in NGINX.items():
        servers.append(f"server {{ listen {port}; location / {{ {locations[name]} }} {_limited(name)} }}")
    for name, port in NGINX_TLS.items():
        certificate = certificates / f"{shown.get(name, 'server')}.pem"
        client = f"ssl_client_certificate {certificates}/ca.pem; ssl_verify_client on;" if name == "mutual" else ""
        servers.append(
            f"server {{ listen {port} ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate}; {client}"
            f" location / {{ {locations.get(name, on)} }} }}"
        )
    temporary = " ".join(f"{each}_temp_path {folder}/{each};" for each in ("proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""
        user root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr notice;
        worker_shutdown_timeout {GRACE}s;
        events {{ worker_connections 64; }}
        http {{
            log_format attempts '$server_port $msec $request_time $status';
            access_log {folder}/access.log attempts;
            client_body_temp_path {folder}/body; {temporary}
            limit_req_zone $server_port zone=one:64k rate={60 // LIMIT}r/m;
            proxy_http_version 1.1; proxy_connect_timeout 1s; proxy_read_timeout 1h; proxy_send_timeout 1h;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
            {"".join(servers)}
        }}
    """


def _limited(name: str) -> str:
    return f"location @limited {{ add_header Retry-After {LIMIT} always; return 429; }}" if name == "limited" else ""


def _haproxy(certificates: Path) -> str:
    return f"""
global
    hard-stop-after {GRACE}s
defaults
    mode http
    retries 0
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    timeout http-request 2s
    timeout tunnel 1h
listen all
    bind :{PORTS["haproxy"]}
    bind :{PORTS["haproxy tls"]} ssl crt {certificates}/server.pem alpn http/1.1
    server feed 127.0.0.1:{FEED}
listen idle
    bind :{PORTS["haproxy idle"]}
    timeout tunnel {IDLE}s
    server feed 127.0.0.1:{FEED}
"""

"""No client at all: the ceiling of the generator in each mode, found by throwing away what it sends."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

from benchmarks.frames import CLOSE, ECHO_SIZE, SIZE, TEXT, build, masked_frame
from benchmarks.peers._probe import Options, Probe, options

_REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


def connect(chosen: Options) -> socket.socket:
    url = urlsplit(chosen.url)
    assert url.port is not None
    sock = socket.create_connection(("127.0.0.1", url.port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if (context := chosen.ssl_context) is not None:
        sock = context.wrap_socket(sock, server_hostname="localhost")
    sock.sendall(_REQUEST.format(path=f"{url.path}?{url.query}").encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # byte by byte, so that none of the flood is lost to the count
        head += sock.recv(1)
    return sock


def ingest(sock: socket.socket, chosen: Options) -> None:
    block = build(chosen.mode)
    received = 0
    buffer = bytearray(2**18)
    probe = Probe(chosen, lambda: received * block.frames // len(block.data))
    probe.start()
    while size := sock.recv_into(buffer):
        received += size
    probe.finish(received // len(block.data) * block.frames, None)


def send(sock: socket.socket, chosen: Options) -> None:
    many = 1000
    block = masked_frame(TEXT, b"x" * SIZE) * many
    count = 0
    probe = Probe(chosen, lambda: count)
    probe.start()
    while not probe.is_over:
        sock.sendall(block)
        count += many
    sock.sendall(masked_frame(CLOSE, b""))
    while sock.recv(2**16):
        pass
    probe.finish(count, None)


def echo(sock: socket.socket, chosen: Options) -> None:
    times: list[float] = []
    frame = masked_frame(TEXT, b"x" * ECHO_SIZE)
    probe = Probe(chosen, lambda: len(times))
    probe.start()
    while not probe.is_over:
        started = time.perf_counter()
        sock.sendall(frame)
        got = len(sock.recv(2**12))
        times.append(time.perf_counter() - started)
        assert got == len(frame) - 4  # servers do not mask
    probe.finish(len(times), None, times=times)


def main() -> None:
    chosen = options()
    with connect(chosen) as sock:
        {"echo": echo, "sink": send}.get(chosen.mode, ingest)(sock, chosen)


if __name__ == "__main__":
    main()

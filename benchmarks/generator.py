"""The server of the benchmarks: a process of its own on raw sockets, never the bottleneck.

`python -m benchmarks.generator [--certificate PEM]` prints its ports as a line of JSON and serves one connection
after the other, each as its URL's path says, and prints a line of JSON about each. It ends with its standard input.

    /text /json /varied /binary /deflate   floods for `?for=SECONDS`, then says how much, then closes (`&close=0`: not)
    /echo                                  sends back what comes
    /sink                                  counts what comes
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cache
from urllib.parse import parse_qs, urlsplit

from benchmarks.frames import BINARY, CLOSE, PING, PONG, TEXT, Block, build, end, frame
from benchmarks.peers._probe import stay_on

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PATIENCE = 30.0  # seconds; a client that hangs must not hang the server

block_of = cache(build)


def accept_key(key: bytes) -> bytes:
    """Answer a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


def response_to(head: bytes, mode: str) -> bytes:
    """Return the 101 to a request; compression is agreed on in one mode only, with no context taken over."""
    fields = dict(line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    headers = {name.lower(): value.strip() for name, value in fields.items()}
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept_key(headers[b"sec-websocket-key"]),
    ]
    if mode == "deflate":
        if b"permessage-deflate" not in headers.get(b"sec-websocket-extensions", b""):
            raise ValueError("the client did not offer permessage-deflate")
        lines.append(b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover")
    return b"\r\n".join(lines) + b"\r\n\r\n"


class Frames:
    """The frames that a client sends."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield opcode, start and end of each payload, which is in `buffer` and masked by the four bytes before it."""
        while data := self.sock.recv(2**18):
            self.buffer += data
            buffer, at, size = self.buffer, 0, len(self.buffer)
            while size - at >= 6:
                length, start = buffer[at + 1] & 0x7F, at + 6
                if length == 126:
                    length, start = buffer[at + 2] << 8 | buffer[at + 3], at + 8
                elif length == 127:
                    raise ValueError("no client of the benchmarks sends frames of 64 KiB")
                if start + length > size:
                    break
                yield buffer[at] & 0x0F, start, start + length
                at = start + length
            del buffer[:at]

    def payload(self, start: int, stop: int) -> bytes:
        """Return a payload without its mask."""
        size = stop - start
        key = (bytes(self.buffer[start - 4 : start]) * (size // 4 + 1))[:size]
        plain = int.from_bytes(self.buffer[start:stop], "big") ^ int.from_bytes(key, "big")
        return plain.to_bytes(size, "big")


def flood(sock: socket.socket, mode: str, block: Block, seconds: float, close: bool) -> int:
    """Send whole blocks for a time, then how many frames that were; return it."""
    blocks, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        sock.sendall(block.data)
        blocks += 1
    count = blocks * block.frames
    sock.sendall(frame(TEXT, end(mode, count)))
    if close:
        sock.sendall(frame(CLOSE, (1000).to_bytes(2, "big")))
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
    while sock.recv(2**16):  # until the client has gone
        pass
    return count


def answer(sock: socket.socket, echo: bool) -> int:
    """Count data frames until the client closes; send them back if asked to."""
    count, frames = 0, Frames(sock)
    for opcode, start, stop in frames:
        if opcode in {TEXT, BINARY}:
            count += 1
            if echo:
                sock.sendall(frame(opcode, frames.payload(start, stop)))
        elif opcode in {PING, CLOSE}:
            sock.sendall(frame(PONG if opcode == PING else CLOSE, frames.payload(start, stop)))
            if opcode == CLOSE:
                break
    return count


def serve(sock: socket.socket) -> dict[str, object]:
    """Do the handshake and what the path says; return what was done."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := sock.recv(4096)):
            raise ValueError("the client left during the handshake")
        head += data
    target = urlsplit(head.split(b" ", 2)[1].decode())
    mode, query = target.path.strip("/"), parse_qs(target.query)
    block = None if mode in {"echo", "sink"} else block_of(mode)
    sock.sendall(response_to(head, mode))
    if block is None:
        return {"mode": mode, "count": answer(sock, mode == "echo")}
    seconds, close = float(query["for"][0]), query.get("close") != ["0"]
    return {"mode": mode, "count": flood(sock, mode, block, seconds, close)}


def serve_all(listeners: dict[socket.socket, ssl.SSLContext | None]) -> None:
    """Serve one connection after the other, for ever."""
    while True:
        for listener in select.select(list(listeners), [], [])[0]:
            sock, _ = listener.accept()
            with closing(sock):
                sock.settimeout(_PATIENCE)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
                try:
                    context = listeners[listener]
                    with context.wrap_socket(sock, server_side=True) if context else sock as stream:
                        report = serve(stream)
                except (OSError, ValueError, KeyError) as error:  # the client's run fails by itself
                    report = {"error": f"{type(error).__name__}: {error}"}
                print(json.dumps(report), flush=True)


def stop_with_stdin() -> None:
    """End the process when its standard input ends: with the runner, however that ends."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificate", help="a PEM file with key and certificate; without it there is no TLS")
    parser.add_argument("--cores", default="", help="where to run; numbers with commas between")
    options = parser.parse_args()
    stay_on(options.cores)
    stop_with_stdin()
    plain = socket.create_server(("127.0.0.1", 0))
    listeners: dict[socket.socket, ssl.SSLContext | None] = {plain: None}
    ports = {"port": plain.getsockname()[1]}
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
        secure = socket.create_server(("127.0.0.1", 0))
        listeners[secure] = context
        ports["tls_port"] = secure.getsockname()[1]
    print(json.dumps(ports), flush=True)
    serve_all(listeners)


if __name__ == "__main__":
    main()

"""Writes WebSocket frames as fast as a socket takes them, and prints when which frame of the client arrived.

A line on standard output is: seconds of the machine's monotonic clock, opcode, payload. Standard library only:
what is measured against it should be the client.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time

PAYLOAD = b'{"channel":"trades","price":"61234.50","size":"0.0125","side":"buy","id":123456789012,"x":"12345678"}'
BLOCK = (bytes([0x81, len(PAYLOAD)]) + PAYLOAD) * 640  # some 64 KiB
KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


class Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")
        self.close = threading.Event()
        self.pongs: list[bytes] = []

    def handshake(self) -> None:
        key = b""
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"sec-websocket-key":
                key = value.strip()
        accept = base64.b64encode(hashlib.sha1(key + KEY).digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.sock.sendall(head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")

    def read(self) -> None:
        while head := self.file.read(2):
            opcode, size = head[0] & 15, head[1] & 127  # all that this client sends is short
            mask = self.file.read(4)
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.file.read(size)))
            print(f"{time.monotonic()} {opcode} {payload!r}", flush=True)
            if opcode == 9:
                self.pongs.append(bytes([0x8A, size]) + payload)
            if opcode == 8:
                self.close.set()
                return

    def write(self) -> None:
        while not self.close.is_set():
            self.sock.sendall(BLOCK)
            while self.pongs:
                self.sock.sendall(self.pongs.pop(0))
        self.sock.sendall(b"\x88\x02\x03\xe8")


with socket.create_server(("127.0.0.1", 0)) as server:
    print("ready", server.getsockname()[1], flush=True)
    accepted, _ = server.accept()
with accepted:
    connection = Connection(accepted)
    connection.handshake()
    reader = threading.Thread(target=connection.read)
    reader.start()
    connection.write()
    reader.join()

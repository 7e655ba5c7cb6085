"""Responses to the opening handshake: valid ones, with a thing or two about them.

In them ``{accept}`` stands for what proves that the server has read the key, ``{request}`` for the request itself (an
echo server's answer), and ``{secret}`` for what the client keeps out of its texts.
"""

from __future__ import annotations

import random

__all__ = ["SECRET", "make_response"]

SECRET = "hunter2"

STATUS = (
    "400 Bad Request",
    "401 No",
    "403 Forbidden",
    "404 Not Found",
    "429 Slow down",
    "500 Oops",
    "503 Busy",
    "200 OK",
)
REDIRECTS = ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")
ODD_LINES = (
    "HTTP/1.0 101 Switching Protocols",
    "HTTP/1.1 101",
    "HTTP/1.1 101 ",
    "HTTP/2 101 Yes",
    "http/1.1 101 Yes",
    "HTTP/1.1  101 Yes",
    "HTTP/1.1 0101 Yes",
    "HTTP/1.1 099 Yes",
    "HTTP/1.1 600 Yes",
    "HTTP/1.1 999999999999999999999 Yes",
    "HTTP/1.1 1_01 Yes",
    "HTTP/1.1 ١٠١ Yes",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 100 Continue",
    "ICY 200 OK",
    "SSH-2.0-OpenSSH_9.2",
    "{request}",
    "",
)
UPGRADES = ("Upgrade: websocket",) * 60 + (
    *("UPGRADE:WebSocket", "Upgrade: websocket, h2c", "Upgrade: h2c", "Upgrade:", "Upgrade: {secret}", ""),
    *("Upgrade: websocket\r\nUpgrade: websocket", "Upgrade : websocket", "Upgrade: websocket/13", "Upgrade: \x00"),
)
CONNECTIONS = ("Connection: Upgrade",) * 60 + (
    *("connection: keep-alive, upgrade", "Connection: keep-alive\r\nConnection: Upgrade", "Connection: close"),
    *("Connection:", "Connection: ,,Upgrade", "Connection: Upgrade;q=1", 'Connection: "Upgrade"', ""),
)
ACCEPTS = ("Sec-WebSocket-Accept: {accept}",) * 60 + (
    *("sec-websocket-accept:{accept}", "Sec-WebSocket-Accept: {accept} ", "Sec-WebSocket-Accept: {accept}=", ""),
    "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Accept: {accept}",
    *("Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "Sec-WebSocket-Accept: {secret}"),
)
EXTENSIONS = (
    *(
        "permessage-deflate",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits=9",
    ),
    *("permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=8"),
    *(
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "x-webkit-deflate",
    ),
    *(
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=x",
        "foo; bar={secret}",
    ),
    *("permessage-deflate; server_max_window_bits=\xb2", "permessage-deflate; server_max_window_bits=1_0", "", ","),
    *(
        "permessage-deflate, permessage-deflate",
        'permessage-deflate; client_max_window_bits="10"',
        "permessage-deflate;",
    ),
    *("permessage-deflate; client_no_context_takeover; client_no_context_takeover", "permessage-deflate=1", "=", '"'),
)
PROTOCOLS = ("chat", "chat, superchat", "", "superchat", "CHAT", "{secret}", ",", '"chat"', "chat;v=1", "ch at")
LOCATIONS = (
    *(
        "/next",
        "ws://scripted.test/next",
        "http://scripted.test/a?token={secret}",
        "https://other.test/",
        "?x={secret}",
    ),
    *("ws://alice:{secret}@other.test/", "//other.test", "", "http://", "ftp://x.test/", "ws://[::1", "ws://[v9.x]/"),
    *(
        "ws://x.test:99999/",
        "ws://x.test:0x1/",
        "ws://%zz/",
        "ws://\xff.test/",
        "ws://" + "a" * 300 + ".test/",
        "mailto:x",
    ),
    *("ws://xn--\x80/", "http:///path", "ws://a..b/", "#top", "//", "///", "\\\\x\\y", "ws://x.test:/", "ws:next"),
)
WAITS = (
    *("7", "0", "-1", "1.5", "9" * 400, "1e9", "inf", "nan", "", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "0x10"),
    *(
        "Wed, 21 Oct 9999 07:28:00 GMT",
        "Wed, 99 Oct 2015 07:28:00 GMT",
        "Wed, 21 Oct 2030 07:28:00 -9999",
        "1 Jan 0 0:0",
    ),
    *("Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359", "{secret}"),
)
OTHERS = (
    *("Content-Length: 0", "Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999999999999"),
    *(
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Date: now",
        "Server: x",
        "X-Echo: {secret}",
        ": x",
        "x",
    ),
    *(
        "Set-Cookie: a={secret}",
        " folded: yes",
        "X: \x00",
        "X: \xff\xfe",
        "X-{secret}: y",
        "{secret} is no header",
        "é: x",
    ),
    *(
        "X: " + "y" * 8100,
        "X: " + "y" * 8190,
        "X: " + "y" * 8200,
        "X: " + "y" * 70_000,
        "{request}",
        "\r",
        "\n",
        "A:b\nC:d",
    ),
)
BODIES = (
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\n",
    "\x81\x02hi",
    "\x81\x02hi\x88\x00",
    "\x89\x00\x81",
    "\xff",
)


def make_response(rng: random.Random) -> str:
    """Return a response to the handshake, one character a byte."""
    draw = rng.random
    kind = draw()
    extra: list[str] = []
    if kind < 0.64:
        line = "HTTP/1.1 101 Switching Protocols"
    elif kind < 0.80:
        line = "HTTP/1.1 " + rng.choice(REDIRECTS)
        extra += ["Location: " + rng.choice(LOCATIONS) for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 2)))]
    elif kind < 0.95:
        line = "HTTP/1.1 " + rng.choice(STATUS)
        extra += ["Retry-After: " + rng.choice(WAITS) for _ in range(rng.choice((0, 1, 1, 2)))]
    else:
        line = rng.choice(ODD_LINES)
    lines = [rng.choice(UPGRADES), rng.choice(CONNECTIONS), rng.choice(ACCEPTS)]
    if draw() < 0.35:
        lines.append("Sec-WebSocket-Extensions: " + rng.choice(EXTENSIONS))
    if draw() < 0.3:
        lines.append("Sec-WebSocket-Protocol: " + rng.choice(PROTOCOLS))
    if draw() < 0.25:
        lines += rng.choices(OTHERS, k=rng.choice((1, 1, 2, 3)))
    if draw() < 0.02:
        lines += ["X: y"] * rng.choice((122, 123, 124, 125, 126, 127, 128, 129, 300))
    lines += extra
    if draw() < 0.2:
        rng.shuffle(lines)
    head = "\r\n".join([line, *filter(None, lines)])
    return head + "\r\n\r\n" + (rng.choice(BODIES) if draw() < 0.5 else "")

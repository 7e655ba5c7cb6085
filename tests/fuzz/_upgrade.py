"""Target ``upgrade``: the opening handshake, answered with anything.

It succeeds if the response is valid, and only if it could be taken for that; else a ``ConnectError`` comes out (a
``HandshakeRejectedError`` for what is HTTP and no 101), within ``open_timeout``, after a bounded number of bytes, and
none of its texts holds a secret, even where the server sends ours back.

An input: a byte of settings, a byte for the pieces in which bytes arrive, and responses, one for each connection,
between bytes 0x1D; see ``_responses`` for what stands for what in them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
from websockets.utils import accept_key

import hypersockets as hs
from hypersockets._stream_transport import StreamConnector
from hypersockets._transport import OpenRequest

from ._backends import check_all_on
from ._mutation import mutate
from ._responses import SECRET, make_response
from ._target import Deviation, Target

__all__ = ["UPGRADE"]

DEFLATE, PROTOCOLS, ENDLESS, MUTE, RESET, TRIO = 0x01, 0x02, 0x04, 0x08, 0x10, 0x80
"""Bits of the settings: what is offered; how it ends (else it just does); on which backend."""
NEXT = b"\x1d"
URL = f"ws://alice:{SECRET}@scripted.test/feed?token={SECRET}"
HEADERS = {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET}
OFFERED = ("chat", "superchat")
TIMEOUT = 10.0
MOST = 130 * 8192 + 2 * 65536
"""Bytes that may be read of one response: 128 lines, and what was read with them."""

_LINE = re.compile(rb"HTTP/1\.1 101 [\t -~\x80-\xff]*")
_HEADER = re.compile(rb"([!#-'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")


class Server(anyio.abc.ByteStream):
    """The server's answer, as the client reads it."""

    def __init__(self, settings: int, size: int, template: bytes) -> None:
        self.settings = settings
        self.size = size
        self.template = template
        self.key = b""
        self.answer = b""
        self.taken = 0
        self.is_accepted = False

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self.answer:
            return
        self.key = re.findall(rb"Sec-WebSocket-Key: (\S+)", item)[0]
        self.answer = render(self.template, item, self.key)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if self.taken > 2 * MOST and not self.is_accepted:
            raise Deviation("it reads for ever")
        data = self.answer[self.taken : self.taken + min(max_bytes, self.size)]
        if not data:
            if self.settings & MUTE:
                await anyio.sleep_forever()
            if self.settings & RESET:
                raise anyio.BrokenResourceError from ConnectionResetError("reset")
            if not self.settings & ENDLESS or self.is_accepted:
                raise anyio.EndOfStream
            data = (self.answer[-64:] or b"?") * 512
        self.taken += len(data)
        return data

    async def send_eof(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


def render(template: bytes, request: bytes, key: bytes) -> bytes:
    """Return what a template stands for."""
    accept = accept_key(key.decode()).encode()
    text = template.replace(b"{accept}", accept).replace(b"{secret}", SECRET.encode())
    return text.replace(b"{request}", request.rstrip())


def is_valid(answer: bytes, key: bytes, settings: int) -> bool:
    """Tell whether nothing can be said against a response (RFC 6455 section 4.1), by the letter."""
    head, end, _ = answer.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    found = [_HEADER.fullmatch(each) for each in lines]
    if (
        not end
        or not _LINE.fullmatch(line)
        or None in found
        or len(lines) > 120
        or max(map(len, head.split(b"\r\n"))) > 8000
    ):
        return False
    headers: dict[bytes, list[bytes]] = {}
    for each in found:
        assert each is not None
        headers.setdefault(each[1].lower(), []).append(each[2])
    protocol = headers.get(b"sec-websocket-protocol")
    extension = headers.get(b"sec-websocket-extensions")
    return (
        [each.lower() for each in headers.get(b"upgrade", [])] == [b"websocket"]
        and [each.lower() for each in headers.get(b"connection", [])] == [b"upgrade"]
        and headers.get(b"sec-websocket-accept") == [accept_key(key.decode()).encode()]
        and (protocol is None or (bool(settings & PROTOCOLS) and protocol in ([b"chat"], [b"superchat"])))
        and (extension is None or (bool(settings & DEFLATE) and extension == [b"permessage-deflate"]))
    )


def shown(error: BaseException) -> str:
    """Return all text that a traceback would show, but the lines of code."""
    texts: list[str] = []
    chain: BaseException | None = error
    while chain is not None:
        texts += [str(chain), repr(chain)]
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return "\n".join(texts)


def says_it_in_its_own_words(answer: bytes) -> bool:
    """Tell whether the server wrote the secret where its own words are shown: the reason phrase, a redirect's path."""
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    line, *lines = head.split("\r\n")
    places = [each for each in lines if each[:9].lower() == "location:"]
    plain = [re.split("[?#]", each)[0].rpartition("@")[2] for each in places]
    return any(SECRET in each for each in [line, *plain])


async def check(data: bytes) -> str:
    """Check one input, and return what came of it."""
    settings, size, templates = data[0], 1 + data[1] * data[1], data[2:].split(NEXT)
    servers: list[Server] = []

    async def open_stream(_: OpenRequest) -> Server:
        await anyio.lowlevel.checkpoint()
        servers.append(Server(settings, size, templates[min(len(servers), len(templates) - 1)]))
        return servers[-1]

    asked = OpenRequest(
        url=URL,
        headers=HEADERS,
        subprotocols=OFFERED if settings & PROTOCOLS else (),
        compression="deflate" if settings & DEFLATE else None,
        open_timeout=TIMEOUT,
        max_message_size=1000,
    )
    started = anyio.current_time()
    before = len(anyio.get_running_tasks())
    outcome, error = "", None
    try:
        async with StreamConnector(open_stream=open_stream).open(asked) as transport:
            check_success(transport, servers[-1])
            outcome = await listen(transport)
    except hs.ConnectError as failed:
        outcome, error = type(failed).__name__, failed
    last = servers[-1]
    if len(anyio.get_running_tasks()) != before:
        raise Deviation(f"tasks are left: {anyio.get_running_tasks()}")
    if anyio.current_time() - started > TIMEOUT + 2:
        raise Deviation(f"it took {anyio.current_time() - started} s")
    if error is not None:
        check_failure(error, servers, settings)
        if isinstance(error, hs.HandshakeRejectedError):
            outcome += f" {error.status // 100}xx" + ("" if error.retryable else ", for good")
        elif type(error) is hs.ConnectError:
            outcome += ": " + re.sub(r"wss?://\S+ ", "", str(error))[:75]
    if last.taken > MOST and error is not None:
        raise Deviation(f"it read {last.taken} bytes of a response")
    return outcome if len(servers) == 1 else f"redirected, {outcome}"


def check_success(transport: Any, server: Server) -> None:
    """Look whether the response could be taken for one that upgrades, and nothing was chosen that was not offered."""
    server.is_accepted = True
    head = server.answer.partition(b"\r\n\r\n")[0].lower()
    if not re.match(rb"http/1\.[01] 0*101 ", head) or b"websocket" not in head or b"upgrade" not in head:
        raise Deviation(f"this upgraded: {server.answer!r}")
    if accept_key(server.key.decode()).encode() not in server.answer:
        raise Deviation(f"this upgraded without the key: {server.answer!r}")
    offered = OFFERED if server.settings & PROTOCOLS else ()
    if transport.subprotocol is not None and transport.subprotocol not in offered:
        raise Deviation(f"subprotocol {transport.subprotocol}")
    if transport._protocol._core.extensions and not server.settings & DEFLATE:
        raise Deviation("an extension that was not offered")


async def listen(transport: Any) -> str:
    """Take what comes behind the handshake, for a second; return what that was."""
    count = 0
    with anyio.move_on_after(1):
        try:
            while count < 1000:
                count += len(await transport.receive())
        except hs.ConnectionLostError as error:
            return f"open, {'messages' if count else 'nothing'}, then {error.by} {error.code}"
    return f"open, {'messages' if count else 'nothing'}"


def check_failure(error: hs.ConnectError, servers: list[Server], settings: int) -> None:
    """Look at an error: whether there should be one, and what it shows."""
    last = servers[-1]
    if is_valid(last.answer, last.key, settings):
        raise Deviation(f"{error!r} for a valid response: {last.answer!r}") from error
    if SECRET in shown(error) and not any(says_it_in_its_own_words(each.answer) for each in servers):
        raise Deviation(f"a secret is shown: {shown(error)!r}") from error
    if isinstance(error, hs.HandshakeRejectedError):
        if not (100 <= error.status < 600 and error.status != 101):
            raise Deviation(f"rejected with {error.status}") from error
        if error.retry_after is not None and not 0 <= error.retry_after < float("inf"):
            raise Deviation(f"retry after {error.retry_after}") from error


def inputs(rng: random.Random) -> Iterator[bytes]:
    """Yield responses, half of them as they were made, the others with a change or two."""
    draw = rng.random
    spare = [
        b"\r\n",
        b"\r\n\r\n",
        b"{accept}",
        b"{secret}",
        b"{request}",
        b"HTTP/1.1 101 Yes\r\n",
        b": ",
        b"Upgrade",
        NEXT,
    ]
    while True:
        count = 1 if draw() < 0.8 else 2
        whole = NEXT.join(make_response(rng).encode("latin-1", "replace") for _ in range(count))
        settings = int(draw() * 4) | (ENDLESS, MUTE, RESET, 0, 0, 0, 0, 0)[int(draw() * 8)] | (draw() < 0.3) * TRIO
        pieces = 255 if draw() < 0.6 else int(draw() * 30)
        for variant in range(4):
            data = whole
            if variant > 1:
                for _ in range(1 + int(draw() * draw() * 3)):
                    data = mutate(data, rng, spare)
            yield bytes((settings, pieces)) + data


UPGRADE = Target("upgrade", inputs, partial(check_all_on, TRIO, check, least=2))

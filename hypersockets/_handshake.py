"""The opening handshake: what is asked, what may be answered, and what a refusal becomes.

Rules of this file: no text holds a header's value, a query or user info; what the server chose is
shown masked and cut.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

import anyio
import attrs
from anyio.abc import ByteStream
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidHeader, InvalidURI
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.proxy import Proxy
from websockets.streams import StreamReader
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI, parse_uri

from ._checks import check_headers
from ._endings import STREAM_ERRORS
from ._errors import ConfigurationError, ConnectError, HandshakeRejectedError
from ._frame_scan import CONTROL_SIZE
from ._redact import mask_text, mask_url
from ._transport import OpenRequest
from ._version import __version__

__all__ = [
    "Head",
    "accept",
    "ask",
    "broken",
    "decode_user_info",
    "exchange",
    "header_dict",
    "headers_to_send",
    "new_core",
    "parse_retry_after",
    "parse_target",
    "read_head",
    "rejection",
    "wrong",
]

_KEPT = 16384  # characters of a refusal's headers: the events keep their errors, and there may be 1 MiB of these
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_READ_SIZE = 65536

# The core would write every header and payload into the log at the level DEBUG.
_SILENT = logging.Logger("hypersockets.silent")
_SILENT.disabled = True


def parse_target(url: str) -> WebSocketURI:
    """Return the parts of a checked URL.

    Raises:
        ConfigurationError: The host name cannot be written in a DNS query.
    """
    try:
        target = parse_uri(url)
        decode_user_info(target, url)
    except (InvalidURI, ValueError):
        # Their texts show the whole URL.
        raise ConfigurationError(f"url is {mask_url(url)!r}: its host name or user info cannot be encoded") from None
    return target


def decode_user_info(parsed: WebSocketURI | Proxy, url: str) -> None:
    """Set the user info that ``url`` holds; websockets before 17 left it percent-encoded.

    Raises:
        ValueError: It is not UTF-8, or has a control character (RFC 7617 section 2): in SOCKS 4 a NUL ends the user,
            and what follows names the host.
    """
    parts = urlsplit(url)
    if parts.username is not None:
        parsed.username = unquote(parts.username, errors="strict")
        parsed.password = unquote(parts.password or "", errors="strict")
        if _CONTROL.search(parsed.username + parsed.password):
            raise ValueError("a control character")


class _Core(ClientProtocol):
    """The core, but a close frame may come between the fragments of a message (RFC 6455 section 5.4).

    By itself it takes that for a broken protocol, and answers 1002 where an echo is due.
    """

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # of the message that is never ended
        super().recv_frame(frame)


def new_core(request: OpenRequest) -> ClientProtocol:
    """Return the protocol core of one connection, for which the handshake is done outside of it.

    The core would wait for the end of a refusal's body, for as long as the server likes.
    """
    deflate = ClientPerMessageDeflateFactory(client_max_window_bits=True, compress_settings={"memLevel": 5})
    return _Core(
        parse_target(request.url),
        extensions=[deflate] if request.compression else None,
        subprotocols=[Subprotocol(each) for each in request.subprotocols] or None,
        state=State.OPEN,
        # The core counts control frames too, which are no messages: the exact limit is StreamProtocol's.
        max_size=None if request.max_message_size is None else request.max_message_size + CONTROL_SIZE,
        logger=_SILENT,
    )


def headers_to_send(core: ClientProtocol, request: OpenRequest) -> dict[str, tuple[str, str]]:
    """Return the headers of the handshake's request, by their names in lower case; the user's win over ours.

    Raises:
        ConfigurationError: A header cannot be sent.
    """
    ours = [*core.connect().headers.raw_items(), ("User-Agent", f"hypersockets/{__version__}")]
    headers = {name.lower(): (name, value) for name, value in ours}
    for name, value in check_headers("headers", request.headers).items():
        headers[name.lower()] = (name, value)
    return headers


def ask(core: ClientProtocol, request: OpenRequest) -> bytes:
    """Return the bytes of the handshake's request.

    Raises:
        ConfigurationError: A header cannot be sent.
    """
    headers = headers_to_send(core, request).values()
    lines = [f"GET {core.uri.resource_name} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@attrs.frozen
class Head:
    """The head of an HTTP response, and what came in one packet with it."""

    response: Response
    raw: bytes
    """The head's own bytes."""
    rest: bytes
    """The bytes after it."""


async def read_head(stream: ByteStream, who: str) -> Head:
    """Read the head of an HTTP response. A body is not read.

    Its size is bounded by the core's parser: 128 lines of 8 KiB.

    Args:
        stream: Where the request was sent to.
        who: Whose response it is, for the text of errors.

    Raises:
        ConnectError: It is not HTTP, or the connection broke or ended.
    """
    reader = StreamReader()
    # "proxy" means here: there is no body to be read, and HTTP/1.0 will do.
    parser = Response.parse(reader.read_line, reader.read_exact, reader.read_to_eof, proxy=True)
    raw = b""
    while True:
        try:
            next(parser)
        except StopIteration as done:
            rest = bytes(reader.buffer)
            return Head(done.value, raw[: len(raw) - len(rest)], rest)
        except EOFError as error:
            raise ConnectError(f"{who} ended the connection in the middle of its response to the handshake") from error
        except Exception:  # whatever the parser raises means the same; nothing is awaited in it
            # Its text quotes the peer, which may have sent back our own request, token and all.
            raise ConnectError(f"{who} did not answer the handshake in HTTP") from None
        data = await _read(stream, who)
        raw += data
        if data:
            reader.feed_data(data)
        else:
            reader.feed_eof()


async def _read(stream: ByteStream, who: str) -> bytes:
    try:
        return await stream.receive(_READ_SIZE)
    except anyio.EndOfStream:
        return b""
    except STREAM_ERRORS as error:
        raise broken(who, error) from error


def broken(who: str, error: Exception) -> ConnectError:
    """Return the error for a stream that broke before the handshake was over."""
    why = mask_text(str(error.__cause__ or error)) or "reset"
    return ConnectError(f"the connection broke during the handshake with {who}: {why}")


async def exchange(stream: ByteStream, request: bytes, who: str) -> Head:
    """Send the request of a handshake and read the head of the response.

    Raises:
        ConnectError: The connection broke or ended, or the response is not HTTP.
    """
    try:
        await stream.send(request)
    except STREAM_ERRORS as error:
        raise broken(who, error) from error
    return await read_head(stream, who)


def accept(core: ClientProtocol, response: Response, request: OpenRequest) -> None:
    """Check the server's response and take over what it chose.

    Raises:
        HandshakeRejectedError: It is not 101.
        ConnectError: It is a 101 that breaks the protocol.
    """
    if response.status_code != 101:
        raise rejection(request, response)
    try:
        core.process_response(response)
    except InvalidHandshake as error:
        raise wrong(request, error.name if isinstance(error, InvalidHeader) else "") from None


def wrong(request: OpenRequest, header: str = "") -> ConnectError:
    """Return the error for a 101 that breaks the protocol, by one of its headers or otherwise.

    Without the text of what found it, which quotes the peer: that may have sent back our own headers.
    """
    why = f"its {header} header is missing or wrong" if header else "it broke the protocol"
    return ConnectError(f"{mask_url(request.url)} answered the handshake wrongly: {why}")


def header_dict(headers: Headers) -> dict[str, str]:
    """Return headers with names in lower case; the values of a repeated one are joined by commas."""
    return {name.lower(): ", ".join(headers.get_all(name)) for name in headers}


def rejection(request: OpenRequest, response: Response, why: str = "") -> HandshakeRejectedError:
    """Return the error for a response that is not 101; with ``why``, for a redirect that is not followed."""
    headers = header_dict(response.headers)
    phrase = mask_text(f"{response.status_code} {response.reason_phrase}".strip())
    return HandshakeRejectedError(
        f"{mask_url(request.url)} refused the handshake: HTTP {phrase}{why}",
        status=response.status_code,
        headers=_beginning(headers),
        retry_after=parse_retry_after(headers.get("retry-after", "")),
        retryable=not why,
    )


def _beginning(headers: Mapping[str, str]) -> dict[str, str]:
    """Return as many of the headers as fit into :data:`_KEPT` characters."""
    kept: dict[str, str] = {}
    room = _KEPT
    for name, value in headers.items():
        room -= len(name) + len(value)
        if room < 0:
            break
        kept[name] = value
    return kept


def parse_retry_after(text: str) -> float | None:
    """Return what a ``Retry-After`` header asks for, in seconds, at least 0; ``None`` if it makes no sense."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        seconds = float(text)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:  # "-0000": the date is in UTC, and its author's zone is not known
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())

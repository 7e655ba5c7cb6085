"""From a URL to a byte stream: TCP, TLS, and the way through a proxy.

A proxy that cannot be used is an error, never a direct connection.
"""

from __future__ import annotations

import math
import ssl

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream
from websockets.exceptions import InvalidProxy
from websockets.headers import build_authorization_basic, build_host
from websockets.proxy import Proxy, get_proxy, parse_proxy
from websockets.uri import WebSocketURI

from ._endings import STREAM_ERRORS, cutting_on_error
from ._errors import ConfigurationError, ConnectError
from ._handshake import decode_user_info, exchange, parse_target
from ._redact import mask_text, mask_url
from ._transport import FROM_ENVIRONMENT, OpenRequest
from ._version import __version__

__all__ = ["dial"]

_SOCKS_PORT = 1080


async def dial(request: OpenRequest) -> ByteStream:
    """Open the byte stream on which the handshake is to be done.

    Raises:
        ConfigurationError: The proxy or the host cannot be what was meant.
        ConnectError: No connection, or TLS failed; not worth a retry when the certificate does not verify.
    """
    target = parse_target(request.url)
    proxy = _proxy_for(target, request.proxy)
    if proxy is None:
        stream = await _connect(target.host, target.port)
    elif proxy.scheme.startswith("socks"):
        stream = await _through_socks(proxy, target)
    else:
        stream = await _through_http(proxy, target)
    return await _start_tls(stream, target.host, request.ssl_context) if target.secure else stream


def _proxy_for(target: WebSocketURI, setting: str | None) -> Proxy | None:
    url = get_proxy(target) if setting == FROM_ENVIRONMENT else setting
    if url is None:
        return None
    where = "the proxy from the environment" if setting == FROM_ENVIRONMENT else "proxy"
    try:
        proxy = parse_proxy(url)
        decode_user_info(proxy, url)
    except (InvalidProxy, ValueError) as error:
        why = error.msg if isinstance(error, InvalidProxy) else "its port or its user info cannot be read"
        # The cause's text shows the whole URL.
        hint = "use a URL such as 'http://host:port' or 'socks5h://host:port'"
        raise ConfigurationError(f"{where} is {mask_url(url)!r}: {why}; {hint}") from None
    if proxy.scheme.startswith("socks") and proxy.port == 80 and not url.rstrip("/").endswith(":80"):
        proxy.port = _SOCKS_PORT  # websockets takes HTTP's port for every scheme's default
    return proxy


async def _connect(host: str, port: int) -> ByteStream:
    try:
        return await anyio.connect_tcp(host, port)
    except OSError as error:
        raise ConnectError(f"could not connect to {_address(host, port)}: {_why(error)}") from error
    except UnicodeError:
        raise ConfigurationError(f"the host name {mask_text(host)!r} cannot be looked up") from None


def _address(host: str, port: int) -> str:
    return build_host(host, port, False, always_include_port=True)


def _why(error: OSError) -> str:
    """Say what stands behind anyio's "All connection attempts failed"."""
    cause = error.__cause__
    reasons = getattr(cause, "exceptions", (cause or error,))  # a group when several addresses were tried
    return mask_text("; ".join(dict.fromkeys(str(reason) for reason in reasons)))


async def _start_tls(stream: ByteStream, host: str, context: ssl.SSLContext | None) -> ByteStream:
    async with cutting_on_error(stream):
        try:
            return await TLSStream.wrap(
                stream,
                hostname=host,
                ssl_context=context or ssl.create_default_context(),
                # WebSocket has a closing handshake of its own, and most servers just cut.
                standard_compatible=False,
            )
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message
            raise ConnectError(f"the certificate of {host} does not verify: {why}", retryable=False) from error
        except (anyio.EndOfStream, *STREAM_ERRORS) as error:
            why = mask_text(str(error.__cause__ or error)) or "the connection ended"
            raise ConnectError(f"the TLS handshake with {host} failed: {why}") from error


async def _through_http(proxy: Proxy, target: WebSocketURI) -> ByteStream:
    """Ask an HTTP proxy for a tunnel (RFC 9110 section 9.3.6), for ``ws://`` too."""
    stream = await _connect(proxy.host, proxy.port)
    if proxy.scheme == "https":
        stream = await _start_tls(stream, proxy.host, None)
    where = _address(target.host, target.port)
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}", f"User-Agent: hypersockets/{__version__}"]
    if proxy.user_info is not None:
        lines.append(f"Proxy-Authorization: {build_authorization_basic(*proxy.user_info)}")
    who = f"the proxy {_address(proxy.host, proxy.port)}"
    async with cutting_on_error(stream):
        # What a server says comes after our handshake, so nothing can follow this head.
        head = await exchange(stream, ("\r\n".join(lines) + "\r\n\r\n").encode(), who)
        status = head.response.status_code
        if not 200 <= status < 300:
            phrase = mask_text(f"{status} {head.response.reason_phrase}".strip())
            raise ConnectError(f"{who} refused a tunnel to {where}: HTTP {phrase}")
    return stream


async def _through_socks(proxy: Proxy, target: WebSocketURI) -> ByteStream:
    try:
        from python_socks import ProxyType
        from python_socks.async_.anyio.v2 import Proxy as SocksProxy
    except ImportError as error:
        hint = "pip install hypersockets[proxy]"
        raise ConfigurationError(f"a {proxy.scheme}:// proxy needs python-socks: {hint}") from error
    who = f"the proxy {_address(proxy.host, proxy.port)}"
    by_proxy = proxy.scheme in ("socks4a", "socks5h")  # who looks up the host's name
    socks = SocksProxy(
        ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else ProxyType.SOCKS4,
        proxy.host,
        proxy.port,
        proxy.username,
        proxy.password,
        rdns=by_proxy,
    )
    try:
        # open_timeout is the limit; python-socks has one of its own otherwise.
        return (await socks.connect(target.host, target.port, timeout=math.inf)).anyio_stream
    except UnicodeError:
        raise ConfigurationError(f"{who}: its user info, or the host's name, cannot be sent to it") from None
    except Exception as error:  # python-socks has no one root for its errors, and lets anyio's pass
        why = mask_text(str(error)) or "the connection broke"
        raise ConnectError(f"{who} gave no connection to {target.host}: {why}") from error

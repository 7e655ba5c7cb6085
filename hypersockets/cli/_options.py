"""What the command line may say, and what configuration that makes.

No complaint shows a value that may be a secret: argparse would show arguments that it does not know.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import hypersockets as hs

from .._checks import check_message

__all__ = ["listen_config", "parse"]

_BACKENDS = ("asyncio", "trio")
_COMMANDS = ("demo", "listen")

_DEMO = """\
Start a server on this machine, connect a client to it, break the connection in every way that a real server does, and
count what that cost. Exits with 0 only if nothing was lost or out of order. Takes about eight seconds.
"""

_LISTEN = """\
Print every message of a WebSocket server on standard output, one per line, and
what happens to the connection on standard error, in lines that begin with a #.
After every loss the connection is restored: auth first, then the subscriptions.

A text message stands on its line as it came; if it holds line breaks or other
control characters, it is printed as a JSON string, in double quotes. A binary
message is printed as base64:... (RFC 4648).
"""

_EPILOG = """\
Everybody on this machine can see the arguments of a command (ps shows them).
Name secrets instead: env:NAME stands for the value of an environment variable,
file:PATH for the contents of a file without the line break at its end.

exit codes:
  0    the server has closed and no retry is allowed, or nobody reads standard
       output any more
  1    the connection was given up
  2    a bad URL or option
  130  Ctrl-C (143: SIGTERM); the connection was closed first
"""


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (try {self.prog} --help)\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options.

    Raises:
        SystemExit: There is nothing to do, or nothing that can be done; it has been said why.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = _parser()
    command = next((each for each in arguments if not each.startswith("-")), None)
    if command is not None and command not in _COMMANDS:
        hint = "; to print what a server sends: hypersockets listen URL" if "://" in command else ""
        parser.error(f"the command must be one of {', '.join(_COMMANDS)}{hint}")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        names = [each.partition("=")[0] for each in unknown if each.startswith("--")]
        what = f"no such option: {', '.join(names)}" if names else "too many arguments; put quotes around spaces"
        parser.error(what)
    if options.command is None:
        parser.print_help()
        parser.exit(2)
    if options.command == "listen":
        native = options.transport == "trio-websocket"
        if native and options.backend == "asyncio":
            parser.error("--transport trio-websocket needs --backend trio")
        options.backend = options.backend or ("trio" if native else "asyncio")
    return options


def _parser() -> _Parser:
    parser = _Parser(prog="hypersockets", description="A WebSocket client that survives.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"hypersockets {hs.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="see a client survive every kind of break", description=_DEMO, allow_abbrev=False
    )
    demo.add_argument("--backend", choices=_BACKENDS, default="asyncio", help="the event loop (default: asyncio)")
    listen = commands.add_parser(
        "listen",
        help="print the messages of a server, one per line",
        description=_LISTEN,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_listen_options(listen)
    return parser


def _add_listen_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", metavar="URL", help="ws:// or wss://")
    add("--subscribe", metavar="TEXT", action="append", default=[], help="sent on every connection; repeatable")
    add("--auth", metavar="TEXT", type=_secret, help="sent first on every connection: text, env:NAME or file:PATH")
    add("--heartbeat", metavar="SECONDS=TEXT", type=_beat, help="sent every so many seconds")
    add("--passive-ping", metavar="PING=PONG", type=_ping, help="answer the message PING with PONG, unprinted")
    header_help = "sent with the handshake; repeatable; the value may be env:NAME"
    add("--header", metavar="'NAME: VALUE'", action="append", default=[], type=_header, help=header_help)
    add("--max-attempts", metavar="N", type=int, help="retries before giving up; 0: none (default: never give up)")
    add("--backend", choices=_BACKENDS, help="the event loop (default: asyncio; trio for trio-websocket)")
    add(
        "--transport",
        choices=("stream", "trio-websocket"),
        default="stream",
        help="who reads and writes (default: stream)",
    )


def _secret(text: str) -> str:
    kind, _, name = text.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise argparse.ArgumentTypeError(f"the environment variable {name!r} is not set")
        return os.environ[name]
    if kind == "file":
        try:
            return Path(name).read_text(encoding="utf-8").removesuffix("\n")
        except OSError as error:
            raise argparse.ArgumentTypeError(f"the file {name!r} cannot be read: {error.strerror}") from None
        except ValueError:
            raise argparse.ArgumentTypeError(f"the file {name!r} does not hold UTF-8 text") from None
    return text


def _beat(text: str) -> hs.Heartbeat:
    seconds, equals, message = text.partition("=")
    try:
        return hs.Heartbeat(float(seconds if equals else ""), message)
    except hs.ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError:
        raise argparse.ArgumentTypeError("it must be SECONDS=TEXT, such as 30=ping") from None


def _ping(text: str) -> tuple[str, str]:
    ping, equals, pong = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("it must be PING=PONG, such as ping=pong")
    return ping, pong


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError("it must be 'NAME: VALUE'")
    value = value.strip()
    return name, _secret(value) if value.startswith("env:") else value


class _Auth:
    """Sends a text; no answer is expected."""

    def __init__(self, text: str) -> None:
        check_message("--auth", text)
        self._text = text

    async def get_auth_message(self) -> str:
        return self._text


def listen_config(options: argparse.Namespace) -> hs.ClientConfig:
    """Return the configuration that the options of ``listen`` make.

    Raises:
        ConfigurationError: One of them cannot work.
    """
    headers = dict(options.header)
    if len(headers) < len(options.header):
        raise hs.ConfigurationError("--header: a name is given twice")
    ping = options.passive_ping
    return hs.ClientConfig(
        url=options.url,
        headers=headers,
        subscriptions=options.subscribe,
        auth=None if options.auth is None else _Auth(options.auth),
        heartbeat=options.heartbeat,
        passive_ping=None if ping is None else hs.TextPassivePing(ping[0], reply=ping[1]),
        reconnect_strategy=hs.ExponentialBackoff(1, 60, options.max_attempts, jitter=0.5),
        transport=options.transport,
        # After Ctrl-C nobody wants to wait long for a server that does not answer.
        close_timeout=1,
        drain_timeout=1,
    )

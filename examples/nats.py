"""A NATS subscriber over WebSocket, made of nothing but a configuration: it prints what comes on its subjects."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio

import hypersockets as hs


class Framing(bytearray):  # what has come and is not whole yet: NATS packs lines and payloads into frames as it likes
    def __call__(self, frame: str | bytes) -> Iterator[bytes]:
        self.extend(frame.encode() if isinstance(frame, str) else frame)
        while (end := self.find(b"\r\n")) >= 0:
            if self.startswith(b"MSG "):  # MSG <subject> <sid> [reply-to] <size>, then a payload of that size
                end += 2 + int(self[:end].split()[-1])
            if len(self) < end + 2:
                return
            yield bytes(self[:end])
            del self[: end + 2]


class Router:  # a message is a subject and a payload; a line of the protocol is one without a subject
    def parse(self, frame: bytes) -> tuple[str | None, bytes]:
        head, _, payload = frame.partition(b"\r\n")
        return (head.split()[1].decode(), payload) if head.startswith(b"MSG ") else (None, head)

    def route_key(self, message: tuple[str | None, bytes]) -> str | None:
        return message[0]

    def is_done(self, message: tuple[str | None, bytes]) -> bool | None:
        return message == (None, b"PONG") or None  # it answers the PING behind a SUB, so both were read


async def login(channel: hs.AuthChannel) -> None:
    await channel.receive()  # the server speaks first: INFO {…}
    options = json.dumps({"verbose": False, "auth_token": os.environ["NATS_TOKEN"]})
    await channel.send(f"CONNECT {options}\r\nPING\r\n")
    if (answer := await channel.receive()) != b"PONG":
        raise hs.AuthenticationRejectedError(str(answer))


def config(url: str, handlers: Mapping[str, Callable[..., Any]]) -> hs.ClientConfig:
    router, ping = Router(), hs.TextPassivePing(b"PING", reply="PONG\r\n")
    wanted = [hs.Subscription(f"SUB {name} {sid}\r\nPING\r\n", ack=router.is_done) for sid, name in enumerate(handlers)]
    return hs.ClientConfig(
        url=url, auth=login, subscriptions=wanted, framing=Framing, router=router, handlers=handlers, passive_ping=ping
    )


async def main(url: str, *subjects: str, **overrides: Any) -> None:
    async with hs.connect(config(url, dict.fromkeys(subjects, print)), **overrides) as client:
        await client.wait_closed()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], *sys.argv[2:]) if len(sys.argv) > 2 else sys.exit("usage: nats.py URL SUBJECT…")

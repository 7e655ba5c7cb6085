"""Auth as a conversation: the server speaks first, and wants its challenge signed.

`API_SECRET=… python examples/auth_challenge.py wss://HOST/PATH`
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio

import hypersockets as hs


def signed_by(secret: str) -> Callable[[hs.AuthChannel], Awaitable[None]]:
    async def login(channel: hs.AuthChannel) -> None:
        """Run first on every connection. Returning means accepted."""
        challenge = json.loads(await channel.receive())["challenge"]
        answer = hmac.new(secret.encode(), challenge.encode(), hashlib.sha256).hexdigest()
        await channel.send(json.dumps({"answer": answer}))
        verdict = json.loads(await channel.receive())
        if verdict["status"] == "rejected":
            raise hs.AuthenticationRejectedError(verdict["why"])  # ends the client: another try would not help
        if verdict["status"] != "welcome":
            raise RuntimeError(f"the server is {verdict['status']}")  # any other exception: another attempt

    return login


def config(url: str, secret: str = "secret") -> hs.ClientConfig:
    return hs.ClientConfig(
        url=url,
        auth=signed_by(secret),
        auth_timeout=5,  # for the whole conversation
        subscriptions=['{"subscribe": "orders"}'],  # sent only after the server's welcome
    )


async def main(url: str, **overrides: Any) -> None:
    try:
        async with hs.connect(config(url, os.environ["API_SECRET"]), **overrides) as client:
            async for message in client:
                print(message)
    except hs.AuthenticationRejectedError as error:
        print("rejected:", error)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: API_SECRET=… python examples/auth_challenge.py wss://HOST/PATH")
    with suppress(KeyboardInterrupt):
        anyio.run(main, sys.argv[1])

"""Auth as one message: a signature over a timestamp and a token that soon expires.

`API_KEY=… API_SECRET=… python examples/auth_signature.py wss://HOST/PATH`
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sys
import time
from contextlib import suppress
from typing import Any

import anyio
import attrs

import hypersockets as hs


async def fetch_token() -> str:
    """Stand for a call to the service that gives out tokens. Should it fail, the attempt fails, and is retried."""
    await anyio.sleep(0.05)
    return secrets.token_hex(8)


@attrs.frozen
class SignedAuth:
    key: str
    secret: str = attrs.field(repr=False)

    async def get_auth_message(self) -> str:
        # Asked anew on every connection, so neither the token nor the timestamp is ever an old one.
        token, timestamp = await fetch_token(), str(int(time.time() * 1000))
        signature = hmac.new(self.secret.encode(), f"{timestamp}{token}".encode(), hashlib.sha256).hexdigest()
        return json.dumps({"op": "auth", "key": self.key, "token": token, "time": timestamp, "signature": signature})

    async def validate_auth_response(self, response: str | bytes) -> bool | None:
        answer = json.loads(response)
        return answer["ok"] if answer.get("op") == "auth" else None  # None: not an answer to auth, ask me again


def config(url: str, key: str = "key", secret: str = "secret") -> hs.ClientConfig:
    return hs.ClientConfig(url=url, auth=SignedAuth(key, secret), subscriptions=['{"op": "subscribe", "to": "fills"}'])


async def main(url: str, **overrides: Any) -> None:
    async with hs.connect(config(url, os.environ["API_KEY"], os.environ["API_SECRET"]), **overrides) as client:
        async for message in client:
            print(message)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: API_KEY=… API_SECRET=… python examples/auth_signature.py wss://HOST/PATH")
    with suppress(KeyboardInterrupt):
        anyio.run(main, sys.argv[1])

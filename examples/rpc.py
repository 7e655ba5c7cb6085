"""Ask by id, many questions at a time, on a connection that may break: JSON-RPC, and what looks like it.

Run it with `python examples/rpc.py wss://HOST/PATH METHOD…`; it calls all methods at once.
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import anyio

import hypersockets as hs


class Rpc:
    """Calls over one client; each has an id of its own, by which its reply is found, however many are in flight."""

    def __init__(self, client: hs.Client) -> None:
        self._client = client
        self._ids = itertools.count(1)

    async def call(self, method: str, *, repeatable: bool = False, **params: Any) -> Any:
        number = next(self._ids)
        call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        # Lost on its way, a call may have been carried out or not: only what may be done twice is sent again.
        reply = await self._client.request(json.dumps(call), reply_key=number, timeout=10, retry=repeatable)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']['message']}")
        return reply["result"]


async def notified(message: dict[str, Any]) -> None:
    print(f"notified: {message['method']}")  # what is no reply is routed as ever


async def main(url: str, *methods: str, **overrides: Any) -> None:
    config = hs.ClientConfig(
        url=url,
        router=hs.JsonRouter("method"),
        reply_key=lambda message: message.get("id"),  # of a parsed message; None: not a reply
        default_handler=notified,
    )
    async with hs.connect(config, **overrides) as client, anyio.create_task_group() as tasks:
        rpc = Rpc(client)

        async def show(method: str) -> None:
            print(f"{method}: {await rpc.call(method, repeatable=True)}")

        for method in methods:
            tasks.start_soon(show, method)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/rpc.py wss://HOST/PATH METHOD…")
    anyio.run(lambda: main(*sys.argv[1:]))

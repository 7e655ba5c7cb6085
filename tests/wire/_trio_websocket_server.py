"""A server by the ``trio-websocket`` library, which does as it is told. Arguments: its port (0: any)."""

from __future__ import annotations

import signal
import sys
from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket


async def handle(request: WebSocketRequest) -> None:
    connection = await request.accept()
    try:
        while True:
            await obey(connection, await connection.get_message())
    except ConnectionClosed:
        pass


async def obey(connection: WebSocketConnection, message: str | bytes) -> None:
    what, _, rest = message.partition(" ") if isinstance(message, str) else ("", "", "")
    if what == "close":
        code, _, reason = rest.partition(" ")
        await connection.aclose(int(code), reason)
    elif what == "count":
        for number in range(int(rest)):
            await connection.send_message(str(number))
    else:
        await connection.send_message(message)


async def main(port: int) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            serve = partial(serve_websocket, handle, "127.0.0.1", port, None, max_message_size=2**24)
            server = await nursery.start(serve)
            print("ready", server.port)
            async for _ in signals:
                nursery.cancel_scope.cancel()


trio.run(main, int(sys.argv[1]))

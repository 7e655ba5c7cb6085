"""A server by the ``websockets`` library, which does as it is told. Arguments: its port (0: any)."""

from __future__ import annotations

import asyncio
import signal
import sys

from websockets.asyncio.server import ServerConnection, serve


async def handle(connection: ServerConnection) -> None:
    async for message in connection:
        what, _, rest = str(message).partition(" ") if isinstance(message, str) else ("", "", "")
        if what == "close":
            code, _, reason = rest.partition(" ")
            await connection.close(int(code), reason)
        elif what == "count":
            for number in range(int(rest)):
                await connection.send(str(number))
        elif what == "fragments":
            await connection.send(rest)
            await connection.send(iter(rest))
        else:
            await connection.send(message)


async def main(port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # It pings its clients more often than anybody would.
    async with serve(handle, "127.0.0.1", port, ping_interval=0.1, ping_timeout=0.5, max_size=2**24) as server:
        print("ready", server.sockets[0].getsockname()[1])
        await stop.wait()


asyncio.run(main(int(sys.argv[1])))

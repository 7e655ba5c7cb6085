"""The rest of a client's life: what a session and its supervisor await only when things go badly."""

from __future__ import annotations

import json
from typing import Any

import anyio

import hypersockets as hs
from hypersockets.testing import Opcode, Peer, ScriptedServer, frame
from tests._everything import Everything
from tests._live import message

BIG = "x" * 600_000


class Trouble(Everything):
    """Redirects, refusals, floods, broken frames, a write that fails, a handler that closes the client."""

    async def script(self, peer: Peer) -> None:
        """Serve one connection: the first two are part of one attempt."""
        if peer.number == 0:
            await peer.reject(302, {"Location": "/elsewhere"})
        elif peer.number == 1:
            await peer.reject(503, {"Retry-After": "0.1"})
        elif peer.number == 2:
            await self._flood(peer)
        elif peer.number == 3:
            await self._leave_no_room(peer)
        elif peer.number == 4:
            await self._fall_silent(peer)
        else:
            await peer.accept()
            await anyio.sleep(0.02)
            await peer.send_many([message("closer", 0), message("late", 1), message("late", 2)])
            peer.cut()

    async def _flood(self, peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(0.02)  # the client has its streams by then
        # A stray pong counts for nothing; the flood is more than one turn of whoever has to do with it.
        for key in ("plain", "stream"):
            await peer.send_many([message(key, n) for n in range(1100)])
        await peer.send_many([message("big", n, text=BIG) for n in range(4)])
        await anyio.sleep(0.2)
        await peer.send_raw(frame(Opcode.TEXT, b"reserved bits", rsv=1))
        await peer.receive()  # lets the client linger

    async def _fall_silent(self, peer: Peer) -> None:
        await peer.accept()
        with anyio.move_on_after(0.1):
            await peer.stall()
        assert peer.link is not None
        await peer.send(message("plain", 100))
        peer.link.cut()  # what was sent arrives, but nothing can be written from now on
        await anyio.sleep(1)

    async def _leave_no_room(self, peer: Peer) -> None:
        await peer.accept()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.stall)
            await anyio.sleep(0.02)  # the client has almost filled the link by then; its pongs do
            for _ in range(8):
                await peer.ping(b"x" * 125)
            await anyio.sleep(0.02)
            await peer.send_raw(frame(Opcode.CLOSE, b"\x03\xe9"))
            await anyio.sleep(1.5)
            tasks.cancel_scope.cancel()

    def parse(self, text: str | bytes) -> Any:  # type: ignore[override]
        """Parse at once, but for the late ones."""
        parsed = json.loads(text)
        return self._parsed_late(parsed) if parsed["channel"] == "late" else parsed

    async def _parsed_late(self, parsed: Any) -> Any:
        await anyio.sleep(0.1)
        return parsed

    async def on_closer(self, _: Any) -> None:
        await anyio.sleep(0.05)
        await hs.current_client().aclose()
        await anyio.sleep(0.02)
        self.taken["handled"] += 1

    def config(self, server: ScriptedServer) -> hs.ClientConfig:
        self.server = server
        return hs.ClientConfig(
            url=server.url,
            transport=server.connector(latency=0.001),
            heartbeat=hs.Heartbeat(0.5, "beat", pong=self.is_pong, timeout=self._a_second),
            idle_timeout=self._a_second,
            ping_interval=0.05,
            router=self,
            handlers={
                "big": hs.Route(self.on_slow, capacity=1),
                "plain": self.on_plain,
                "late": self.on_slow,
                "closer": self.on_closer,
            },
            reconnect_strategy=self.strategy,
            name="trouble",
        )

    async def _a_second(self) -> float:
        await anyio.sleep(0.001)
        return 1.0

    async def _body(self, client: hs.Client) -> None:
        await client.subscribe(hs.Subscription(self.first_subscription))
        stream = client.messages("stream")
        async for _ in stream:
            self.taken["streamed"] += 1
            if self.taken["streamed"] == 70:
                break
        await self._session(client, 2)
        await client.send("y" * 65_000)  # that almost fills the link
        await self._session(client, 3)
        await client.send("z" * 70_000)  # that is more than it takes while nobody reads
        await client.wait_closed()

    async def _session(self, client: hs.Client, number: int) -> None:
        async for event in client.events():
            if isinstance(event, hs.Connected) and event.epoch == number:
                return


class GivesUp(Everything):
    """The strategy gives up while handlers have work: they may finish it."""

    async def script(self, peer: Peer) -> None:
        await peer.send_many([message("slow", n) for n in range(3)])
        self.strategy.gives_up = True
        peer.cut()

    def parse(self, text: str | bytes) -> Any:  # type: ignore[override]
        return json.loads(text)

    def config(self, server: ScriptedServer) -> hs.ClientConfig:
        self.server = server
        return hs.ClientConfig(
            url=server.url,
            transport=server.connector(latency=0.001),
            router=self,
            handlers={"slow": self.on_slow},
            reconnect_strategy=self.strategy,
            name="gives up",
        )

    async def _body(self, client: hs.Client) -> None:
        await anyio.sleep_forever()

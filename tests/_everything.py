"""A client's whole life in one scenario: whatever a session and its supervisor await, they await it here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import happened, message

LATENCY = 0.01
STEP = 0.004
"""Seconds that each of the user's callables takes."""


async def _a_moment() -> None:
    await anyio.sleep(STEP)


class GivesUpWhenTold:
    """A strategy that can be told to give up."""

    gives_up = False

    def next_delay(self, attempt: int) -> float | None:
        return None if self.gives_up else 0.2


class Everything:
    """The scenario, and what the user's side of it has counted."""

    def __init__(self, *, login: bool = False, body_raises: BaseException | None = None) -> None:
        self.login = login
        self.body_raises = body_raises
        """What the body raises when it is cancelled; ``None``: it lets that pass."""
        self.is_in_body = self.left_body = False
        self.client: hs.Client | None = None
        self.server: ScriptedServer | None = None
        self.strategy = GivesUpWhenTold()
        self.bomb = anyio.Event()
        """A handler that waits for it raises."""
        self.boom = ZeroDivisionError("boom")
        self.taken: Counter[str] = Counter()
        """Frames and messages, by whom they came to."""
        self.is_torn = False

    # The server.

    async def script(self, peer: Peer) -> None:
        """Serve one connection: each one ends in another way."""
        await self._welcome(peer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._answer, peer)
            if peer.number == 0:
                await peer.send_many([message("slow", n) for n in range(6)])
                await peer.send_many(
                    [message("echo", n) for n in range(3)] + ["PING", "{", message("nobody", 0), message("admin", 0)]
                )
                await peer.send(message("bomb", 0))
                await anyio.sleep(0.1)
                await peer.send_many([message("stream", n) for n in range(3)])
                await anyio.sleep(0.2)
                await peer.send_many([message("slow", n) for n in range(6, 9)])
                assert self.server is not None
                self.server.refuse(1)
                peer.cut()
            elif peer.number == 1:
                await peer.send_many([message("plain", 0), message("stream", 3), "PING"])
            elif peer.number == 2:
                await anyio.sleep(0.1)
                await peer.send_many([message("slow", 9), message("echo", 9)])
                await peer.close(1012, "restarting")
            else:
                await anyio.sleep(0.05)
                await peer.send_many([message("slow", n) for n in range(10, 13)])

    async def _welcome(self, peer: Peer) -> None:
        if self.login:
            await peer.send("challenge")
        await peer.receive()
        await peer.send_many(["PING", message("nobody", 1), "ok"])

    async def _answer(self, peer: Peer) -> None:
        while True:
            got = str(await peer.receive())
            if got.startswith("sub "):
                await peer.send(message("ack", 0, of=got[4:]))
            elif got.startswith("ask "):
                await peer.send(message("reply", 0, of=got[4:]))
            elif got == "beat":
                await peer.send("pong")

    # What the user plugs in.

    async def url(self) -> str:
        await _a_moment()
        return "ws://scripted.test/"

    async def headers(self) -> dict[str, str]:
        await _a_moment()
        return {"X-Feed": "everything"}

    async def get_auth_message(self) -> str:
        await _a_moment()
        return "let me in"

    async def validate_auth_response(self, response: str | bytes) -> bool | None:
        await _a_moment()
        if response != "ok":
            return None
        self.taken["verdict"] += 1
        return True

    async def challenged(self, channel: hs.AuthChannel) -> None:
        self.taken["login"] += await channel.receive() == "challenge"
        await channel.send("let me in")
        while await channel.receive() != "ok":
            self.taken["login"] += 1
        self.taken["login"] += 1

    def passive_ping(self, frame: str | bytes) -> str | None:
        if frame != "PING":
            return None
        self.taken["ping"] += 1
        return "PONG"

    def is_pong(self, frame: str | bytes) -> bool:
        self.taken["pong"] += frame == "pong"
        return frame == "pong"

    async def beat(self) -> str:
        await _a_moment()
        return "beat"

    async def beat_interval(self) -> float:
        await _a_moment()
        return 0.11

    async def first_subscription(self, resume: hs.ResumePoint) -> str:
        await _a_moment()
        return "sub first"

    def ack(self, name: str) -> Callable[[Any], bool | None]:
        def is_ack(parsed: Any) -> bool | None:
            if parsed["channel"] != "ack" or parsed["of"] != name:
                return None
            self.taken["ack"] += 1
            return True

        return is_ack

    async def batch(self, entries: Sequence[hs.Subscription]) -> list[Any]:
        await _a_moment()
        return [entry.message for entry in entries]

    async def parse(self, frame: str | bytes) -> Any:
        await _a_moment()
        return json.loads(frame)

    def route_key(self, parsed: Any) -> str:
        return str(parsed["channel"])

    async def on_ready(self, client: hs.Client, resume: hs.ResumePoint) -> None:
        await _a_moment()
        self.taken["hook"] += 0

    def sequence(self, parsed: Any) -> tuple[str, int] | None:
        return ("echo", 2 * parsed["n"]) if parsed["channel"] == "echo" else None

    async def on_gap(self, gap: hs.GapDetected, client: hs.Client) -> None:
        await _a_moment()
        with suppress(hs.ClientClosedError):  # the books count what is raised as a message
            await client.resubscribe("first")

    # Handlers.

    async def on_slow(self, _: Any) -> None:
        await anyio.sleep(0.03)
        self.taken["handled"] += 1

    async def on_echo(self, parsed: Any) -> None:
        await hs.current_client().send(f"echo {parsed['n']}")
        self.taken["handled"] += 1

    async def on_admin(self, _: Any) -> None:
        client = hs.current_client()
        await client.subscribe(hs.Subscription("sub mine", key="mine", unsubscribe="unsub mine", ack=self.ack("mine")))
        await client.unsubscribe("mine")
        self.taken["handled"] += 1

    def on_plain(self, _: Any) -> None:
        self.taken["handled"] += 1

    async def on_bomb(self, _: Any) -> None:
        try:
            with anyio.move_on_after(2):
                await self.bomb.wait()
        finally:
            if self.bomb.is_set():
                raise self.boom
        self.taken["handled"] += 1

    # The client.

    def config(self, server: ScriptedServer) -> hs.ClientConfig:
        """Return the configuration: a small link, so that long messages have to wait for it."""
        self.server = server
        server.refuse(1)
        slow = hs.Route(self.on_slow, capacity=2, stale_after=0.1)
        return hs.ClientConfig(
            url=self.url,
            headers=self.headers,
            transport=server.connector(latency=LATENCY, capacity=1000),
            auth=self.challenged if self.login else self,
            send_limit=hs.SendLimit(1, 0.002) if self.login else None,
            batch_subscriptions=self.batch if self.login else None,
            subscriptions=[hs.Subscription(self.first_subscription, key="first", ack=self.ack("first")), "sub plain"],
            heartbeat=hs.Heartbeat(self.beat_interval, self.beat, pong=self.is_pong),
            passive_ping=self.passive_ping,
            ping_interval=0.07,
            idle_timeout=5,
            router=self,
            sequence=self.sequence,
            on_gap=self.on_gap,
            handlers={
                "slow": slow,
                "echo": self.on_echo,
                "admin": self.on_admin,
                "plain": self.on_plain,
                "bomb": self.on_bomb,
            },
            reconnect_strategy=self.strategy,
            reconnection_delay_offset=0.1,
            on_ready=self.on_ready,
            name="everything",
        )

    async def live(self, server: ScriptedServer) -> None:
        """Be the user."""
        async with hs.connect(self.config(server)) as client:
            self.is_in_body = True
            try:
                await self._body(client)
                self.left_body = True
            except anyio.get_cancelled_exc_class():
                if self.body_raises is not None:
                    raise self.body_raises  # noqa: B904
                raise

    async def _body(self, client: hs.Client) -> None:
        stream = client.messages("stream")
        await client.send("hello")
        await client.request("ask me", match=lambda parsed: parsed["channel"] == "reply", timeout=5, retry=True)
        self.taken["reply"] += 1
        await client.subscribe(hs.Subscription("sub late", key="late", unsubscribe="unsub late", ack=self.ack("late")))
        async for _ in stream:
            self.taken["streamed"] += 1
            if self.taken["streamed"] == 2:
                break
        await client.resubscribe("late")
        await client.unsubscribe("late")
        for _ in range(2):  # the second begins at once, for nothing else is being written, and the rest has to wait
            await client.send("x" * 3000)
        async for event in client.events():
            if isinstance(event, hs.Disconnected):
                break
        await client.send("while away")
        await client.wait_connected()
        await client.reconnect("moving")
        await client.wait_connected()
        while not (isinstance(event := await client.recv_event(), hs.Disconnected) and event.code == 1012):
            pass
        await client.wait_connected()
        await client.subscribe("sub more")
        with suppress(hs.ConnectError, hs.ConnectionLostError):  # where the server is gone meanwhile
            await client.rotate()
        await anyio.sleep(0.1)

    # What must hold afterwards.

    def assert_legal(self) -> None:
        """Check events, state and books of a client that has ended."""
        assert self.client is not None
        client, events = self.client, happened(self.client)
        kinds = [type(event) for event in events]
        assert client.connection_state is hs.ConnectionState.CLOSED
        assert kinds.count(hs.Closed) == 1
        assert kinds[-1] is hs.Closed
        sessions = [kind for kind in kinds if kind in (hs.Connected, hs.Disconnected)]
        assert sessions == [hs.Connected, hs.Disconnected] * kinds.count(hs.Connected)
        attempts = [kind for kind in kinds if kind in (hs.Connecting, hs.Connected)]
        assert hs.Connected not in [
            two for one, two in zip(attempts, attempts[1:], strict=False) if one is hs.Connected
        ]
        assert [event.at for event in events] == sorted(event.at for event in events)
        self._assert_books()

    def _assert_books(self) -> None:
        """Check that each message received was handled, is still to be had, or was counted."""
        assert self.client is not None
        metrics, taken = self.client.metrics(), self.taken
        handled = taken.total() if hasattr(taken, "total") else sum(taken.values())
        accounted = handled + metrics.handler_errors + metrics.dropped + metrics.unrouted + metrics.parse_errors
        assert metrics.messages_received == accounted + metrics.queued, (metrics, taken)
        assert not self.client._core.requests.pending
        assert all(not len(lane) for lane in self.client._core.lanes if lane.handler is not None)

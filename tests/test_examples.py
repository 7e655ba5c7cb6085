"""Every example does what it says, on both backends, with a loss in the middle."""

from __future__ import annotations

import ast
import hashlib
import hmac
import itertools
import json
import random
import runpy
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest

import hypersockets as hs
from examples import (
    auth_challenge,
    auth_signature,
    custom_strategy,
    going_away,
    iteration,
    market_routing,
    monitoring,
    nats,
    order_book,
    quickstart,
    resume,
    rpc,
    typed_messages,
)
from hypersockets.testing import Peer, ScriptedServer
from tests._as_user import run_pytest

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = [*sorted(EXAMPLES.glob("*.py")), EXAMPLES / "testing_a_bot" / "bot.py"]


async def play(main: Callable[..., Awaitable[None]], server: ScriptedServer, *args: str, seconds: float = 60) -> None:
    """Run an example for some virtual seconds, or until it ends."""
    with anyio.move_on_after(seconds):
        await main(server.url, *args, transport=server.connector())


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_each_is_short_and_says_how_it_is_run(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 60 lines; without an argument it shows its usage and fails."""
    assert len(program.read_text(encoding="utf-8").splitlines()) <= 60
    monkeypatch.setattr(sys, "argv", [str(program)])
    with pytest.raises(SystemExit, match="usage: ") as caught:
        runpy.run_path(str(program), run_name="__main__")
    assert program.name in str(caught.value.code)
    assert f"test_{program.stem}" in {name.partition("__")[0] for name in globals()}


async def test_quickstart(capsys: pytest.CaptureFixture[str]) -> None:
    """Trades are handled in order across a cut and a server gone mute; the subscription comes again each time."""

    async def script(peer: Peer) -> None:
        assert await peer.receive_json() == {"action": "subscribe", "channel": "trades"}
        for price in (1, 2):
            await peer.send_json({"channel": "trades", "price": 10 * peer.number + price})
        if peer.number == 0:
            peer.cut()
        elif peer.number == 1:
            await peer.mute()
        while await peer.receive() == "ping":
            await peer.send("pong")

    async with ScriptedServer(script) as server:
        await play(quickstart.main, server, seconds=200)
        beats = server.peers[2].received.count("ping")
    lines = printed(capsys)
    assert [line for line in lines if line.startswith("trade")] == [f"trade at {n}" for n in (1, 2, 11, 12, 21, 22)]
    events = [line.split()[0] for line in lines if not line.startswith("trade")]
    assert events == ["connected,", "disconnected:", "attempt"] * 2 + ["connected,"]
    assert beats >= 4


async def test_iteration(capsys: pytest.CaptureFixture[str]) -> None:
    """One loop yields the messages of two sessions, text and binary, and leaving it closes with 1000."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            assert await peer.receive() == "hello"
            await peer.send("one")
            await peer.send(b"\x02")
            peer.cut()
        else:
            await peer.send("bye")
            await peer.receive()

    async with ScriptedServer(script) as server:
        await play(iteration.main, server)
        assert (server.connection_count, server.peers[1].close_code, server.peers[1].received) == (2, 1000, [])
    assert printed(capsys) == ["text: one", "binary: 1 bytes", "text: bye", "received 3 messages in 2 session(s)"]


async def test_auth_signature(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection gets a signature that is right, over a token of its own; only then it is subscribed."""
    monkeypatch.setenv("API_KEY", "k3y")
    monkeypatch.setenv("API_SECRET", "s3cr3t")
    tokens = []

    async def script(peer: Peer) -> None:
        auth = await peer.receive_json()
        signed = hmac.new(b"s3cr3t", f"{auth['time']}{auth['token']}".encode(), hashlib.sha256).hexdigest()
        assert (auth["op"], auth["key"], auth["signature"]) == ("auth", "k3y", signed)
        assert abs(time.time() * 1000 - int(auth["time"])) < 60_000
        tokens.append(auth["token"])
        await anyio.sleep(1)
        assert len(peer.received) == 1
        if peer.number == 3:
            await peer.send_json({"op": "auth", "ok": False})
            return
        await peer.send_json({"op": "notice"})  # no answer to auth, so a message like others
        await peer.send_json({"op": "auth", "ok": True})
        assert await peer.receive_json() == {"op": "subscribe", "to": "fills"}
        await peer.send(f"fill {peer.number}")
        peer.cut()

    async with ScriptedServer(script) as server:
        with pytest.raises(hs.AuthenticationRejectedError):
            await play(auth_signature.main, server)
    assert len(set(tokens)) == 4
    notice = '{"op": "notice"}'
    assert printed(capsys) == [notice, "fill 0", notice, "fill 1", notice, "fill 2"]


async def test_auth_challenge(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each challenge is answered; a server that is busy is tried again; one that rejects is the end."""
    monkeypatch.setenv("API_SECRET", "s3cr3t")
    verdicts = [
        {"status": "welcome"},
        {"status": "busy"},
        {"status": "welcome"},
        {"status": "rejected", "why": "expired"},
    ]

    async def script(peer: Peer) -> None:
        challenge = f"challenge {peer.number}"
        await peer.send_json({"challenge": challenge})
        answer = hmac.new(b"s3cr3t", challenge.encode(), hashlib.sha256).hexdigest()
        assert await peer.receive_json() == {"answer": answer}
        await peer.send_json(verdicts[peer.number])
        assert await peer.receive_json() == {"subscribe": "orders"}
        await peer.send(f"order {peer.number}")
        peer.cut()

    async with ScriptedServer(script) as server:
        await play(auth_challenge.main, server)
        assert server.connection_count == 4
    assert printed(capsys) == ["order 0", "order 2", "rejected: expired"]


async def test_market_routing(capsys: pytest.CaptureFixture[str]) -> None:
    """All trades come at once and in order; of the quotes that wait for their slow handler, the newest of a market."""

    async def script(peer: Peer) -> None:
        for market in market_routing.MARKETS:
            assert await peer.receive_json() == {"subscribe": market}
        first = 100 * peer.number
        for number in range(first, first + 100):
            for market in market_routing.MARKETS:
                await peer.send_json({"market": market, "kind": "trade", "id": number, "price": 7})
                await peer.send_json({"market": market, "kind": "quote", "bid": number})
        if peer.number == 0:
            peer.cut()
        await peer.receive()

    async with ScriptedServer(script) as server:
        await play(market_routing.main, server)
    lines = printed(capsys)
    for market in market_routing.MARKETS:
        trades = [line for line in lines if line.startswith(f"{market} trade")]
        assert trades == [f"{market} trade {number} at 7" for number in range(200)]
        quotes = [int(line.split()[-1]) for line in lines if line.startswith(f"{market} quote")]
        assert quotes == sorted(quotes)
        assert quotes[-1] == 199
        assert len(quotes) < 20


async def test_typed_messages(capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes become objects by their channel; what is no such object, or no UTF-8, is skipped and counted."""

    async def script(peer: Peer) -> None:
        assert await peer.receive_json() == {"subscribe": "trades"}
        await peer.send_json({"channel": "trades", "price": 100.5, "size": 2})
        await peer.send_json({"channel": "trades", "price": "dear", "size": 2})
        await peer.send_json({"channel": "gossip"})
        await peer.send_json({"channel": "status", "text": "ö"})
        await peer.close(1000)

    async with ScriptedServer(script) as server:
        with anyio.move_on_after(60):
            await typed_messages.main(server.url, transport=server.connector(), reconnect_strategy=hs.NeverReconnect())
    assert printed(capsys) == ["2 at 100.5", "status: ö", "2 skipped"]


async def test_json_router_from_bytes() -> None:
    """The one-liner for dictionaries: no text is decoded on the way to orjson."""
    frames: list[Any] = []

    def loads(frame: Any) -> Any:
        frames.append(frame)
        return orjson.loads(frame)

    async def script(peer: Peer) -> None:
        await peer.send_json({"channel": "trades", "price": 7})
        await peer.close(1000)

    got: list[Any] = []
    async with ScriptedServer(script) as server:
        config = hs.ClientConfig(
            url=server.url,
            transport=server.connector(),
            decode_text=False,
            router=hs.JsonRouter(loads=loads),
            handlers={"trades": got.append},
            reconnect_strategy=hs.NeverReconnect(),
        )
        async with hs.connect(config) as client:
            await client.wait_closed()
    assert [type(frame) for frame in frames] == [bytes]
    assert got == [{"channel": "trades", "price": 7}]


async def test_custom_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    """Lost while the market is open: back in a second. Lost on Friday evening: back when it opens on Monday."""
    start = datetime(2024, 3, 1, 19, 59, tzinfo=timezone.utc)  # a Friday
    assert start.weekday() == 4

    def now() -> datetime:
        return start + timedelta(seconds=anyio.current_time())

    opened: list[datetime] = []

    async def script(peer: Peer) -> None:
        opened.append(now())
        await peer.accept()
        await anyio.sleep(10 if peer.number == 0 else 3600)
        peer.cut()

    async def main(url: str, **overrides: Any) -> None:
        strategy = custom_strategy.config(url, now).reconnect_strategy
        await custom_strategy.main(url, reconnect_strategy=strategy, **overrides)

    async with ScriptedServer(script) as server:
        await play(main, server, seconds=timedelta(days=3).total_seconds())
    assert opened[1] - opened[0] < timedelta(seconds=11)
    assert opened[2] == datetime(2024, 3, 4, 13, 30, tzinfo=timezone.utc)
    lines = printed(capsys)
    assert [line.partition("(")[0] for line in lines[:4]] == ["Connecting", "Connected", "Disconnected", "Reconnecting"]


async def test_going_away(capsys: pytest.CaptureFixture[str]) -> None:
    """Trades come on both connections for a while; each is printed once, in order; a place that is not there is no loss."""
    places: list[str] = []
    newest = 0

    async def script(peer: Peer) -> None:
        nonlocal newest
        assert peer.request is not None
        places.append(peer.request.path)
        assert await peer.receive_json() == {"subscribe": "trades"}
        await peer.send_many(
            [json.dumps({"channel": "trades", "id": n}) for n in range(max(1, newest - 2), newest + 1)]
        )
        if peer.number == 0:
            for number in range(1, 11):
                await peer.send_json({"channel": "trades", "id": number})
                newest = number
                if number in (3, 6):
                    where = "ws://nowhere.test/" if number == 3 else server.url + "moved"
                    await peer.send_json({"channel": "going away", "url": where})
                await anyio.sleep(0.1)
        await peer.send_many([json.dumps({"channel": "trades", "id": n}) for n in range(newest + 1, 11)])
        await peer.receive()

    async with ScriptedServer(script) as server:
        reach = server.connector()

        class Network:
            def open(self, request: hs.OpenRequest) -> Any:
                if "nowhere" in request.url:
                    raise hs.ConnectError("there is nobody")
                return reach.open(request)

        with anyio.move_on_after(30):
            await going_away.main(server.url, transport=Network())
    assert places == ["/", "/moved"]
    lines = printed(capsys)
    assert [line for line in lines if line.startswith("trade")] == [f"trade {n}" for n in range(1, 11)]
    assert [line.partition(" ")[0] for line in lines if not line.startswith("trade")] == [
        "going",
        "staying:",
        "going",
        "moved",
    ]


async def test_monitoring(capsys: pytest.CaptureFixture[str]) -> None:
    """It tells of a loss, of a return, of dropped messages and of silence; the numbers come every ten seconds."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.send("hello")
            await anyio.sleep(3)
            await peer.close(1012, "restarting")
        else:
            await peer.send_many(["tick"] * 150)
            await anyio.sleep(100)

    async with ScriptedServer(script) as server:
        await play(monitoring.main, server)
    lines = printed(capsys)
    told = [line.split(maxsplit=1)[1] for line in lines if not line.startswith("received")]
    assert told[:2] == ["up", "lost (1012): restarting"]
    assert told[2].startswith("up again after ")
    assert sum(int(line.split()[0]) for line in told if line.endswith("dropped: drop_oldest")) == 50
    assert told[-1] == "nothing for 30 s"
    reports = [line for line in lines if line.startswith("received")]
    assert len(reports) == 5
    assert reports[0].startswith("received=151 queued=0 dropped=50 latency=0.0 ms")


async def test_resume(capsys: pytest.CaptureFixture[str]) -> None:
    """Over ten cuts of all kinds: nothing lost, nothing doubled, nothing out of order, and nothing asked for twice."""
    total, asked, got = 2000, [], []

    def trade(number: int) -> str:
        return json.dumps({"channel": "trades", "number": number})

    async def script(peer: Peer) -> None:
        request = await peer.receive_json()
        first = request["after"] + 1
        asked.append(first)
        if peer.number == 10:
            await peer.send_many(map(trade, range(first, total + 1)))
            got.append(total)
            await peer.receive()
        end = first + 10 * peer.number
        await peer.send_many(map(trade, range(first, end)))
        kind = peer.number % 4
        if kind == 0:
            peer.cut()
        elif kind == 1:
            await peer.send_half(trade(end))
            peer.cut()
        elif kind == 2:
            await anyio.sleep(1)
            await peer.send_many(map(trade, range(end, end + 5)))  # thrown away with the connection
            peer.reset()
        else:
            await peer.send(trade(end))
            end += 1
            await peer.close(1012)
        got.append(end - 1)

    async with ScriptedServer(script) as server:
        await play(resume.main, server, seconds=1000)
        assert server.connection_count == 11
    assert asked == [1, *(last + 1 for last in got[:-1])]
    lines = printed(capsys)
    assert [line.partition(",")[0] for line in lines[:-1]] == [f"session {n}" for n in range(1, 12)]
    assert lines[-1] == "in all: 2000 handled, 0 lost, 0 doubled or out of order"


class BookServer:
    """Order books that change ten times a second, over a link with a latency; some changes are not sent."""

    markets = ("btc", "eth")
    skipped = frozenset({("btc", 110), ("btc", 112), ("btc", 140), ("eth", 175), ("eth", 176)})
    """Market and number. 110 and 112 are one gap and another while the first is being mended."""

    def __init__(self) -> None:
        self.rng = random.Random(4)
        self.number = 100
        self.books = {market: {"100": 1} for market in self.markets}
        self.truth: dict[tuple[str, int], dict[str, int]] = {}
        self.away: set[int] = set()
        """Numbers of changes while nobody was connected."""

    def message(self, kind: str, market: str, levels: dict[str, int]) -> str:
        return json.dumps({"kind": kind, "market": market, "number": self.number, "levels": levels})

    def change(self) -> list[str]:
        self.number += 1
        texts = []
        for market, book in self.books.items():
            levels = {str(self.rng.randrange(100, 110)): self.rng.randrange(3) for _ in range(2)}
            book.update(levels)
            self.truth[market, self.number] = {price: size for price, size in book.items() if size}
            if (market, self.number) not in self.skipped:
                texts.append(self.message("change", market, levels))
        return texts

    async def answer(self, peer: Peer) -> None:
        while True:
            verb, market = str(await peer.receive()).split()
            if verb == "subscribe":
                await peer.send(self.message("snapshot", market, self.books[market]))

    async def script(self, peer: Peer) -> None:
        await peer.accept()
        for _ in range(5):
            self.change()
            self.away.add(self.number)
        with anyio.move_on_after(5.05):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.answer, peer)
                while True:
                    await anyio.sleep(0.1)
                    if len(peer.received) >= 2:
                        await peer.send_many(self.change())
        peer.cut()


async def test_order_book(capsys: pytest.CaptureFixture[str]) -> None:
    """A gap costs the changes of its own market until the snapshot; the other misses none, and both are right."""
    server_side = BookServer()
    async with ScriptedServer(server_side.script) as server:
        with anyio.move_on_after(14):
            await order_book.main(server.url, *server_side.markets, transport=server.connector(latency=0.12))
        received = [peer.received for peer in server.peers]
    lines = printed(capsys)
    rebuilt = [["unsubscribe btc", "subscribe btc"], ["unsubscribe eth", "subscribe eth"]]
    begin = ["subscribe btc", "subscribe eth"]
    # A snapshot that is ahead of the last change, as on each new connection, is no gap.
    assert received == [[*begin, *rebuilt[0] * 3], [*begin, *rebuilt[1]], begin]
    assert [line for line in lines if "lacks" in line] == ["btc lacks 1"] * 3 + ["eth lacks 2"]
    shown: dict[str, list[int]] = {market: [] for market in server_side.markets}
    for line in lines:
        where, _, book = line.partition(": ")
        if book:
            market, number = where.split()
            shown[market].append(int(number))
            assert ast.literal_eval(book) == server_side.truth[market, int(number)]
    for market, unseen in [("btc", {110, 111, 112, 140, 141, 142}), ("eth", {175, 176, 177, 178})]:
        assert shown[market] == sorted(shown[market])
        assert set(range(101, shown[market][-1])) - set(shown[market]) - server_side.away == unseen
        assert shown[market][-1] > 210


Pack = Callable[[bytes], list[bytes]]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def in_one(data: bytes) -> list[bytes]:
    return [data]


def at_random(data: bytes) -> list[bytes]:
    rng = random.Random(len(data))
    cuts = [0, *sorted(rng.randrange(len(data)) for _ in range(len(data) // 20)), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(cuts)]  # empty frames too


class Nats:
    """A server of which one connection is cut off in the middle of a message."""

    subjects = ("trades", "news.x")

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self.sent: list[tuple[str, bytes]] = []

    async def say(self, peer: Peer, *parts: bytes) -> None:
        await peer.send_many(self.pack(b"".join(parts)))

    async def lines(self, peer: Peer, n: int) -> list[str]:
        got: list[str] = []
        while len(got) < n:
            got += str(await peer.receive()).splitlines()
        return got

    def message(self, number: int) -> bytes:
        subject = self.subjects[number % 2]
        # Payloads that look like the protocol, or are nothing.
        payload = (b"", b"PING\r\n", b"MSG trades 0 3\r\nx\r\n", b"%d" % number)[number % 4]
        self.sent.append((subject, payload))
        return b"MSG %s %d %s%d\r\n%s\r\n" % (
            subject.encode(),
            number % 2,
            b"reply.to " if number % 3 == 0 else b"",
            len(payload),
            payload,
        )

    async def script(self, peer: Peer) -> None:
        await self.say(peer, b'INFO {"server_id":"x","auth_required":true}\r\n', b"PING\r\n")
        hello = await self.lines(peer, 3)
        hello.remove("PONG")
        assert hello[1] == "PING"
        if json.loads(hello[0].removeprefix("CONNECT "))["auth_token"] != "s3cr3t":
            await self.say(peer, b"-ERR 'Authorization Violation'\r\n")
            return
        await self.say(peer, b"PONG\r\n")
        wanted = ["SUB trades 0", "PING", "SUB news.x 1", "PING"]
        assert await self.lines(peer, 4) == wanted
        start = 20 * peer.number
        # The first messages come before the last subscription is confirmed.
        await self.say(peer, b"PONG\r\n", self.message(start), b"PONG\r\nPING\r\n")
        assert await self.lines(peer, 1) == ["PONG"]
        await self.say(peer, *map(self.message, range(start + 1, start + 20)))
        if peer.number == 0:
            await self.say(peer, b"-ERR 'Slow'\r\n+OK\r\nMSG trades 0 100\r\nonly half of ")
            peer.cut()
        await peer.receive()


@pytest.mark.parametrize("pack", [bytewise, in_one, at_random])
async def test_nats(pack: Pack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its frames look like, each message is printed once, in order, and half of one spoils nothing."""
    monkeypatch.setenv("NATS_TOKEN", "s3cr3t")
    server_side = Nats(pack)
    async with ScriptedServer(server_side.script) as server:
        await play(nats.main, server, *Nats.subjects)
        assert server.connection_count == 2
    lines = printed(capsys)
    for subject in Nats.subjects:
        sent = [str(message) for message in server_side.sent if message[0] == subject]
        assert len(sent) == 20
        assert [line for line in lines if line.startswith(f"('{subject}'")] == sent
    assert len(lines) == 40


@pytest.mark.parametrize("pack", [bytewise, in_one])
async def test_nats__rejected(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong token ends the client at once."""
    monkeypatch.setenv("NATS_TOKEN", "wrong")
    async with ScriptedServer(Nats(pack).script) as server:
        with pytest.raises(hs.AuthenticationRejectedError, match="Authorization Violation"):
            await play(nats.main, server, *Nats.subjects)
        assert server.connection_count == 1


async def test_rpc(capsys: pytest.CaptureFixture[str]) -> None:
    """Every call gets its own result, though the replies come in another order and a loss hits all of them."""

    async def script(peer: Peer) -> None:
        calls = [await peer.receive_json() for _ in range(3)]
        if peer.number == 0:
            peer.cut()
            return
        await peer.send_json({"jsonrpc": "2.0", "method": "progress"})
        for call in sorted(calls, key=lambda call: -call["id"]):
            await peer.send_json({"jsonrpc": "2.0", "id": call["id"], "result": call["method"].upper()})
        await peer.receive()

    async with ScriptedServer(script) as server:
        await play(rpc.main, server, "one", "two", "three")
        assert server.connection_count == 2
    assert sorted(printed(capsys)) == ["notified: progress", "one: ONE", "three: THREE", "two: TWO"]


async def test_rpc__an_error() -> None:
    """What the server refuses is raised, with its words."""

    async def script(peer: Peer) -> None:
        call = await peer.receive_json()
        await peer.send_json(
            {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32601, "message": "no such method"}}
        )
        await peer.receive()

    async with ScriptedServer(script) as server:
        with pytest.raises(BaseExceptionGroup) as raised:
            await play(rpc.main, server, "nothing")
    assert str(raised.value.exceptions[0]) == "nothing: no such method"


def test_bot(tmp_path: Path) -> None:
    """The example of tests for one's own bot passes as a user runs it, copied elsewhere; and goes red with a bad bot."""
    folder = tmp_path / "my_bot"
    shutil.copytree(EXAMPLES / "testing_a_bot", folder, ignore=shutil.ignore_patterns("__pycache__"))
    passed, said = run_pytest(tmp_path)
    assert passed == 10, said
    code = (folder / "bot.py").read_text(encoding="utf-8")
    bad = code.replace("self.is_live = False\n                        print", "print")
    assert bad != code
    (folder / "bot.py").write_text(bad, encoding="utf-8")
    passed, said = run_pytest(tmp_path)
    assert not passed
    assert "6 failed, 4 passed" in said

"""Real input: a server that nobody here wrote, and a client made of nothing but ``examples/nats.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

import hypersockets as hs
from examples import nats
from tests.wire._nats import TOKEN, NatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.wire]

KILLS = 3
BURST = 500
TAIL = 5_000
"""Messages per subject: before a marker, and in flight when the server is killed."""
SUBJECTS = ("trades.btc", "trades.eth", "news")
MARKER = b"marker"


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_TOKEN", TOKEN)


class Ledger:
    """What was handled, per burst and subject."""

    def __init__(self) -> None:
        self.burst = 0
        self.handled: dict[tuple[int, str], list[bytes]] = {}
        self.markers: set[str] = set()
        self.all_marked = anyio.Event()

    def next_burst(self) -> None:
        self.burst += 1
        self.markers.clear()
        self.all_marked = anyio.Event()

    async def on_message(self, message: tuple[str, bytes]) -> None:
        subject, payload = message
        # Which burst it belongs to is in it: a message from the past would show as one.
        burst, _, what = payload.partition(b":")
        self.handled.setdefault((int(burst), subject), []).append(what)
        if what == MARKER and int(burst) == self.burst:
            self.markers.add(subject)
            if self.markers == set(SUBJECTS):
                self.all_marked.set()


def numbered(burst: int, numbers: range) -> list[tuple[str, bytes]]:
    return [(subject, b"%d:%d" % (burst, number)) for number in numbers for subject in SUBJECTS]


@pytest.mark.usefixtures("token")
async def test_survives_kills_of_the_server(tmp_path: Path, transport: str, report: Callable[[str], None]) -> None:
    """After each kill every subscription is back; up to each marker all is handled once and in order."""
    ledger = Ledger()
    handlers = dict.fromkeys(SUBJECTS, ledger.on_message)
    quickly = hs.FixedDelay(0.05)
    async with NatsServer(tmp_path) as server:
        config = nats.config(server.url, dict.fromkeys(SUBJECTS[:-1], ledger.on_message))
        async with hs.connect(config, handlers=handlers, transport=transport, reconnect_strategy=quickly) as client:
            # One of the subscriptions is made at run time.
            ack = config.subscriptions[0].ack
            await client.subscribe(hs.Subscription(f"SUB {SUBJECTS[-1]} 9\r\nPING\r\n", ack=ack))
            for burst in range(1, KILLS + 2):
                ledger.next_burst()
                with anyio.fail_after(10):
                    while client.epoch < burst:
                        await client.recv_event()
                    async with server.publisher() as publisher:
                        await publisher.publish(numbered(burst, range(BURST)))
                        await publisher.publish((subject, b"%d:%s" % (burst, MARKER)) for subject in SUBJECTS)
                        await publisher.flush()
                        await ledger.all_marked.wait()
                        if burst <= KILLS:
                            await publisher.publish(numbered(burst, range(BURST, BURST + TAIL)))
                            await server.kill()
                            await server.start()
        assert client.epoch == KILLS + 1
        assert client.metrics().parse_errors == 0
    before = [b"%d" % number for number in range(BURST)]
    tail = [b"%d" % number for number in range(BURST, BURST + TAIL)]
    arrived = 0
    for burst in range(1, KILLS + 2):
        for subject in SUBJECTS:
            handled = ledger.handled.pop((burst, subject))
            assert handled[: BURST + 1] == [*before, MARKER]
            rest = handled[BURST + 1 :]
            assert rest == tail[: len(rest)]  # in order, each once, none between missing
            arrived += len(rest)
    assert not ledger.handled
    report(
        f"{KILLS} kills; {(KILLS + 1) * len(SUBJECTS) * (BURST + 1)} messages up to the markers: all handled once, in "
        f"order; in flight when killed: {KILLS * len(SUBJECTS) * TAIL}, of which {arrived} had arrived"
    )


@pytest.mark.usefixtures("token")
async def test_answers_its_pings(tmp_path: Path, transport: str) -> None:
    """The server cuts off who leaves a PING unanswered for a second; this one it keeps."""
    pings = 0
    enough = anyio.Event()

    async with NatsServer(tmp_path) as server:
        config = nats.config(server.url, {"news": print})
        answer = config.passive_ping
        assert answer is not None

        def counted(frame: str | bytes) -> str | bytes | None:
            nonlocal pings
            reply = answer(frame)
            pings += reply is not None
            if pings == 3:
                enough.set()
            return reply

        async with hs.connect(config, transport=transport, passive_ping=counted) as client:
            with anyio.fail_after(10):
                await enough.wait()
            assert client.epoch == 1
            assert client.is_connected


async def test_a_wrong_token(tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is rejected in the server's own words, and not tried again."""
    monkeypatch.setenv("NATS_TOKEN", "wrong")
    async with NatsServer(tmp_path) as server:
        with anyio.fail_after(10), pytest.raises(hs.AuthenticationRejectedError, match="Authorization Violation"):
            async with hs.connect(nats.config(server.url, {"news": print}), transport=transport):
                pass

"""Memory under a hostile server: nothing that it chooses is kept without a bound of count and of size."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets._events import WHOLE, EventLog
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, Recorder, happened, idle, message, of, settings, wait_for

pytestmark = pytest.mark.anyio
MIB = 2**20


async def test_the_headers_of_refusals_take_no_memory() -> None:
    """The events keep their errors, and these the server's headers: a part of them, however many there were."""
    head = b"HTTP/1.1 503 No\r\nRetry-After: 1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 8000) for n in range(120))

    async def script(peer: Peer) -> None:
        await peer.send_raw(head + b"\r\n")
        peer.cut()

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server), wait_ready=False) as client:
            await wait_for(client, hs.ErrorOccurred, 3)
            for failed in of(hs.ErrorOccurred, happened(client)):
                assert isinstance(failed.error, hs.HandshakeRejectedError)
                assert failed.error.retry_after == 1
                assert failed.error.headers["x-0"].startswith("yyy")
                assert sum(map(len, [*failed.error.headers, *failed.error.headers.values()])) <= 32_768


async def growth(make: Callable[[int], str], count: int = 40, **fields: Any) -> int:
    """Return how many bytes more a client holds after ``count`` messages of about 1 MiB, one in a good second."""

    async def script(peer: Peer) -> None:
        for n in range(10 + count):
            await peer.send(make(n) + " " * 16)
            await anyio.sleep(1.1)
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, on_handler_error="continue", **fields)):
            await anyio.sleep(11.5)
            tracemalloc.start()
            try:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
                await anyio.sleep(1.1 * count)
                gc.collect()
                return tracemalloc.get_traced_memory()[0] - before
            finally:
                tracemalloc.stop()


def pad(n: int) -> str:
    return f"{n} " + "x" * MIB


async def test_frames_that_cannot_be_parsed_are_not_kept() -> None:
    """The events keep their errors, and these their causes: of the newest alone, since a cause may hold the frame."""
    assert await growth(lambda n: "{" + pad(n), router=ROUTER, default_handler=print) < 20 * MIB


async def test_messages_that_a_handler_fails_on_are_not_kept() -> None:
    """The frames of a traceback hold what the handler was given: those of the newest errors alone are kept."""

    async def fails(message: Any) -> None:
        raise ValueError("no")

    assert await growth(pad, default_handler=fails) < 20 * MIB


async def test_ids_of_any_size_are_known_again_by_little() -> None:
    """``message_id`` may be as large as the message, and thousands are remembered."""

    def fields(n: int) -> str:
        return json.dumps({"channel": "a", "id": pad(n), "n": n})

    def identity(parsed: Any) -> Any:
        return ("a", parsed["id"])

    assert await growth(fields, router=ROUTER, default_handler=lambda _: None, message_id=identity) < 5 * MIB


@pytest.mark.parametrize("identity", [lambda parsed: parsed["n"], lambda parsed: ("a", parsed["n"])])
async def test_ids_that_all_have_one_hash_cost_no_more_than_others(identity: Callable[[Any], Any]) -> None:
    """The hash of an int is no secret: thousands in one dictionary that share it would stop the event loop for seconds."""
    handler = Recorder()

    async def script(peer: Peer) -> None:
        await peer.send_many([message("a", n * (2**61 - 1)) for n in range(10, 3010)])
        await peer.send(message("a", 10 * (2**61 - 1)))
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, default_handler=handler, message_id=identity)
        async with hs.connect(config) as client:
            await handler.wait_handled(3001)
            assert client._core.recent is not None
            seen = client._core.recent._seen
            assert len({hash(each) for each in seen}) == len(seen) == 3000
            assert client.metrics().parse_errors == 0


@pytest.mark.parametrize("key", [lambda parsed: parsed["k"], lambda parsed: (1, (parsed["k"], 2))])
async def test_sequences_of_any_name_take_little(key: Callable[[Any], Any]) -> None:
    """The key of a sequence is kept, in its gaps' events too: a large one is refused, as a ``ParseError``."""

    async def script(peer: Peer) -> None:
        for n, k in [(1, "small"), (1, pad(0)), (3, pad(0)), (2**64, "x"), (2, 2**64), (3, "small")]:
            await peer.send(json.dumps({"channel": "a", "k": k, "n": n}))
        await idle(peer)

    def sequence(parsed: Any) -> Any:
        return key(parsed), parsed["n"]

    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, default_handler=lambda _: None, sequence=sequence)
        async with hs.connect(config) as client:
            gap = await wait_for(client, hs.GapDetected)
            assert (gap.expected, gap.got) == (2, 3)
            assert client.metrics().parse_errors == 4
            assert client.metrics().gaps == 1
            failed = of(hs.ErrorOccurred, happened(client))
            assert isinstance(failed[0].error.__cause__, ValueError)


def test_an_old_error_of_a_message_keeps_its_text_and_its_count() -> None:
    """A listener that is far behind still learns what there was, how often, and of the newest why as well."""
    log = EventLog()
    for n in range(WHOLE + 1):
        error = hs.ParseError(f"number {n}")
        error.__cause__ = ValueError(n)
        make = partial(hs.ErrorOccurred, at=float(n), epoch=1, name="x", error=error)
        log.emit_merged(n * 10.0, ("parse", n), lambda count, make=make: make(count=count), 7)  # type: ignore[misc]
    events = [event for event in log.kept if isinstance(event, hs.ErrorOccurred)]
    assert [(str(event.error), event.count) for event in events] == [(f"number {n}", 7) for n in range(WHOLE + 1)]
    assert [event.error.__cause__ is None for event in events] == [True] + [False] * WHOLE
    for _ in range(2000):
        log.emit(hs.Rotated(at=0.0, epoch=1, name="x", age=1.0))
    log.emit_merged(1e6, "parse", lambda count: events[-1])
    assert log.kept[-1] is events[-1], "and what is gone is not looked for"


class Undecided:
    """Asks for a verdict, and finds none in what comes."""

    async def get_auth_message(self) -> str:
        return "hello"

    async def validate_auth_response(self, response: str | bytes) -> bool | None:
        return None


async def test_a_server_that_talks_on_during_auth() -> None:
    """What comes before a verdict waits, up to what all lanes may hold; then the reading stops, and the time runs out."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        while True:
            await peer.send(b"x" * 100_000)
            sent += 1

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, auth=Undecided(), auth_timeout=7), wait_ready=False) as client:
            failed = await wait_for(client, hs.ErrorOccurred)
            assert isinstance(failed.error, hs.AuthenticationTimeoutError)
            assert failed.at == 7
            assert sent < 80 * MIB / 100_000


async def test_replies_to_nobody_are_not_kept() -> None:
    """An id that no request waits for is a message like others; of those that were answered nothing is left."""
    seen: list[int] = []

    async def script(peer: Peer) -> None:
        while True:
            asked = int(str(await peer.receive()))
            replies = [*range(asked + 1, asked + 1000), asked, asked]
            await peer.send_many([json.dumps({"channel": "a", "id": number}) for number in replies])

    async with ScriptedServer(script) as server:
        config = settings(
            server, router=ROUTER, reply_key=lambda m: m["id"], default_handler=lambda m: seen.append(m["id"])
        )
        async with hs.connect(config) as client:
            for number in (0, 5000):
                reply = await client.request(str(number), reply_key=number, timeout=5)
                assert reply["id"] == number
            await wait_all_tasks_blocked()
            assert len(seen) == 2000
            assert not client._core.requests.pending
            assert not client._core.requests._by_key

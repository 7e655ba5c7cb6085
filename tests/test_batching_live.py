"""Many subscriptions in few messages: what the user's callable is given, and what comes of what it gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import happened, idle, of, settings, wait_for
from tests._pacing import Counting

pytestmark = pytest.mark.anyio


def sub(name: str, **fields: Any) -> hs.Subscription:
    """Subscribe to a channel; ``name ok`` and ``name no`` are its acks."""
    verdicts = {f"{name} ok": True, f"{name} no": False}
    return hs.Subscription(name, **{"key": name, "ack": verdicts.get, **fields})


class Pairs:
    """Two channels per message; remembers what it was given."""

    def __init__(self, *failures: Any) -> None:
        self.given: list[list[Any]] = []
        self.failures = list(failures)

    def __call__(self, entries: Sequence[hs.Subscription]) -> Any:
        self.given.append([entry.message for entry in entries])
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Exception):
            raise failure
        return pairs(entries) if failure is None else failure


def pairs(entries: Sequence[hs.Subscription]) -> list[str]:
    names = [str(entry.message) for entry in entries]
    return [json.dumps(names[at : at + 2]) for at in range(0, len(names), 2)]


async def acks(peer: Peer) -> None:
    """Confirm each channel by itself."""
    while True:
        for name in reversed(json.loads(await peer.receive())):
            await peer.send(f"{name} ok")


@pytest.mark.parametrize("is_async", [True, False])
async def test_all_are_given_at_once_on_each_connection(is_async: bool) -> None:
    """In order; the messages it returns are sent in order, and each entry has its own ack."""
    given = Pairs()

    async def later(entries: Sequence[hs.Subscription]) -> Any:
        await anyio.sleep(1)
        return iter(given(entries))

    async with ScriptedServer(acks) as server:
        config = settings(server, subscriptions=map(sub, "abcde"), batch_subscriptions=later if is_async else given)
        async with hs.connect(config) as client:
            assert client.is_connected
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
    assert given.given == [[*"abcde"], [*"abcde"]]
    sent = ['["a", "b"]', '["c", "d"]', '["e"]']
    assert [peer.received for peer in server.peers] == [sent, sent]


async def test_callable_messages_are_resolved_before() -> None:
    """For this ``ResumePoint``; the entry is otherwise the user's own, its key included."""
    seen: list[hs.Subscription] = []

    async def since(point: hs.ResumePoint) -> str:
        return f"since {point.epoch}"

    def batch(entries: Sequence[hs.Subscription]) -> Iterator[str]:
        seen.extend(entries)
        yield " ".join(str(entry.message) for entry in entries)

    plain = hs.Subscription("plain", unsubscribe="out")
    async with ScriptedServer(idle) as server:
        entries = [plain, hs.Subscription(since, key="k"), hs.Subscription(since)]
        async with hs.connect(settings(server, subscriptions=entries, batch_subscriptions=batch)) as client:
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
            await wait_all_tasks_blocked()
            assert [peer.received for peer in server.peers] == [["plain since 0 since 0"], ["plain since 1 since 1"]]
    assert seen[0] is plain
    assert [entry.effective_key for entry in seen[:3]] == ["plain", "k", since]


async def test_an_entry_without_ack_is_confirmed_when_the_last_message_is_sent() -> None:
    """Not before: its channel may stand in any of them."""
    counting = Counting(hs.SendLimit(1, 5))
    async with ScriptedServer(counting.script) as server:
        config = settings(
            server,
            subscriptions=[sub(name, ack=None) for name in "abcdef"],
            batch_subscriptions=pairs,
            send_limit=counting.limit,
        )
        async with hs.connect(config):
            assert anyio.current_time() == pytest.approx(10.01)
    counting.assert_kept()
    assert len(counting.got) == 3


async def test_at_run_time_it_is_given_what_is_unsent_then() -> None:
    """Several that became wanted together share a message."""
    batch = Pairs()
    async with ScriptedServer(acks) as server:
        async with hs.connect(settings(server, subscriptions=[sub("a")], batch_subscriptions=batch)) as client:
            async with anyio.create_task_group() as group:
                for name in "bcd":
                    group.start_soon(client.subscribe, sub(name))
            await client.subscribe(sub("e"))
    assert batch.given[0] == ["a"]
    assert sorted(name for given in batch.given[1:-1] for name in given) == ["b", "c", "d"]
    assert len(batch.given) == 3
    assert batch.given[-1] == ["e"]


async def test_no_message_is_an_answer() -> None:
    """Then there is nothing to send; what has no ack is confirmed."""
    async with ScriptedServer(idle) as server:
        config = settings(server, subscriptions=["a", "b"], batch_subscriptions=lambda entries: ())
        async with hs.connect(config) as client:
            assert client.is_connected
            assert server.peers[0].received == []


BAD = [
    (LookupError("S3cr3t"), "the batch_subscriptions callable raised LookupError"),
    (hs.ClientClosedError("another client's"), "the batch_subscriptions callable raised ClientClosedError"),
    (
        '{"op": "S3cr3t"}',
        "the batch_subscriptions callable gave something of type str; it must give a list of messages",
    ),
    (b"S3cr3t", "something of type bytes; it must give a list of messages, and of a single one too"),
    ({"op": "S3cr3t"}, "something of type dict; it must give a list"),
    (17, "something 17; it must give a list"),
    ([{"op": "S3cr3t"}], "the batch_subscriptions callable gave no message: .* not dict; serialize"),
    (["\ud800"], "gave no message: a text message must be Unicode"),
]


@pytest.mark.parametrize(("bad", "text"), BAD)
async def test_a_failure_fails_the_attempt(bad: Any, text: str) -> None:
    """As other callables do: a ``ConnectError`` that says what was wrong, without secrets, and a retry."""
    batch = Pairs(bad)
    async with ScriptedServer(acks) as server:
        async with hs.connect(settings(server, subscriptions=[sub("a")], batch_subscriptions=batch)) as client:
            assert anyio.current_time() == 1
            [failed] = of(hs.ErrorOccurred, happened(client))
            assert type(failed.error) is hs.ConnectError
            assert re.search(text, str(failed.error))
            assert "S3cr3t" not in str(failed.error)
            if isinstance(bad, Exception):
                assert failed.error.__cause__ is bad


async def test_a_generator_that_raises_fails_the_attempt() -> None:
    """Nothing of what it gave before is sent."""

    def fragile() -> Iterator[str]:
        yield "one"
        raise LookupError("S3cr3t")

    async with ScriptedServer(acks) as server:
        config = settings(server, subscriptions=[sub("a")], batch_subscriptions=Pairs(fragile()))
        async with hs.connect(config) as client:
            [failed] = of(hs.ErrorOccurred, happened(client))
            assert str(failed.error) == "the batch_subscriptions callable raised LookupError"
            assert server.peers[0].received == []


async def test_a_failure_at_run_time_leaves_the_session_alone() -> None:
    """An ``ErrorOccurred``, once; whoever subscribes gets it, and the entry stays wanted: the next session asks again."""
    batch = Pairs(None, LookupError("no"))
    async with ScriptedServer(acks) as server:
        async with hs.connect(settings(server, subscriptions=[sub("a")], batch_subscriptions=batch)) as client:
            with pytest.raises(hs.ConnectError):
                await client.subscribe(sub("b"))
            assert client.epoch == 1
            assert len(of(hs.ErrorOccurred, happened(client))) == 1
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
    assert batch.given == [["a"], ["b"], ["a", "b"]]


async def test_an_entry_whose_own_callable_fails_at_run_time_is_left_out() -> None:
    """The others are asked for."""
    batch = Pairs()

    def fails(_: hs.ResumePoint) -> str:
        raise LookupError("no")

    async with ScriptedServer(acks) as server:
        async with hs.connect(settings(server, batch_subscriptions=batch)) as client:
            client._core.subscriptions.want(hs.Subscription(fails, key="broken"))
            await client.subscribe(sub("b"))
            assert [str(event.error) for event in of(hs.ErrorOccurred, happened(client))] == [
                "the subscription callable raised LookupError"
            ]
    assert batch.given == [["b"]]


async def test_what_is_unsubscribed_while_the_callable_waits_is_not_asked_for() -> None:
    """It is called again, for the others; for none it is not."""
    given: list[list[Any]] = []

    async def batch(entries: Sequence[hs.Subscription]) -> list[str]:
        given.append([entry.message for entry in entries])
        await anyio.sleep(1)
        return pairs(entries)

    async with ScriptedServer(acks) as server:
        config = settings(server, subscriptions=map(sub, "ab"), batch_subscriptions=batch)
        async with hs.connect(config, wait_ready=False) as client:
            await anyio.sleep(0.5)
            await client.unsubscribe("a")
            await client.wait_connected()
            assert given == [["a", "b"], ["b"]]
            with anyio.move_on_after(0.5):
                await client.subscribe(sub("c"))
            await client.unsubscribe("c")
            await anyio.sleep(2)
            assert given == [["a", "b"], ["b"], ["c"]]
            assert server.peers[0].received == ['["b"]']


async def test_a_refusal_is_of_its_entry_alone() -> None:
    """Acks stay per entry."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send_many(["a ok", "b ok"])
        await peer.receive()
        await peer.send_many(["d no", "c ok"])
        await idle(peer)

    refused: list[str] = []

    async def subscribe(client: hs.Client, name: str) -> None:
        try:
            await client.subscribe(sub(name))
        except hs.SubscriptionRefusedError:
            refused.append(name)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, subscriptions=map(sub, "ab"), batch_subscriptions=pairs)) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(subscribe, client, "c")
                group.start_soon(subscribe, client, "d")
    assert refused == ["d"]

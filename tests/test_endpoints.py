"""Which URL is tried next: the decision, and a client with several servers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest
from anyio.abc import ByteStream
from hypothesis import given, strategies as st

import hypersockets as hs
from hypersockets._endpoints import COOLDOWN, Endpoints
from hypersockets.testing import Peer, ScriptedServer
from tests._live import FAST, happened, idle, of, wait_for

URLS = ("a", "b", "c")


def failing(endpoints: Endpoints, now: float) -> Any:
    """Fail the current URL, and return the one that is tried then."""
    endpoints.failed(now)
    return endpoints.current


# The decision.


def test_a_failed_url_gives_way_to_the_next() -> None:
    """In order, around; one that cools is passed over."""
    endpoints = Endpoints(URLS)
    assert endpoints.current == "a"
    assert [failing(endpoints, 0), failing(endpoints, 1)] == ["b", "c"]
    endpoints = Endpoints(URLS)
    endpoints.failed(0, "b")
    assert endpoints.current == "a"
    assert failing(endpoints, 1) == "c"


def test_when_all_cool_the_first_to_be_over_it_is_tried() -> None:
    """And they take turns when all failed at the same time: delays may be 0."""
    endpoints = Endpoints(URLS)
    assert [failing(endpoints, at) for at in (0, 1, 2, 3, 4, 5)] == ["b", "c", "a", "b", "c", "a"]
    endpoints = Endpoints(URLS)
    assert [failing(endpoints, 0) for _ in range(6)] == ["b", "c", "a", "b", "c", "a"]


def test_a_url_is_as_good_as_any_when_it_has_cooled_down() -> None:
    """At the very end of the cooldown, not before."""
    for now, following in ((COOLDOWN - 1, "c"), (COOLDOWN, "b")):
        endpoints = Endpoints(URLS)
        endpoints.failed(0, "b")
        assert failing(endpoints, now) == following


def test_a_lost_session_has_its_own_url_again() -> None:
    """However long ago the others failed: it was ready, so it does not cool."""
    endpoints = Endpoints(URLS)
    endpoints.failed(0)
    endpoints.succeeded()
    endpoints.lost(10)
    assert endpoints.current == "b"
    endpoints.lost(COOLDOWN + 1)
    assert endpoints.current == "b"


def test_a_lost_session_whose_url_failed_meanwhile_has_another() -> None:
    """A rotation to the same URL was refused: the session stays there, but is not made again there at once."""
    for lost_at, then in ((COOLDOWN - 1, "b"), (COOLDOWN, "a")):
        endpoints = Endpoints(URLS)
        endpoints.failed(0, "a")
        assert endpoints.current == "a"
        endpoints.lost(lost_at)
        assert endpoints.current == then


def test_a_rotation_goes_to_the_preferred_one() -> None:
    """The first of the list that is not cooling, whatever the current one is; and its outcome is told by its URL."""
    endpoints = Endpoints(URLS)
    endpoints.failed(0)
    endpoints.succeeded()
    assert endpoints.best(COOLDOWN - 1) == "b"
    assert endpoints.best(COOLDOWN) == "a"
    endpoints.failed(COOLDOWN, "a")
    assert (endpoints.current, endpoints.best(COOLDOWN + 1)) == ("b", "b")
    assert endpoints.best(2 * COOLDOWN) == "a"
    endpoints.succeeded("a")
    assert endpoints.current == "a"


def test_a_url_that_is_not_in_the_list_changes_nothing() -> None:
    """A rotation may go to one that the server named."""
    endpoints = Endpoints(URLS)
    endpoints.succeeded("elsewhere")
    endpoints.failed(0, "elsewhere")
    assert (endpoints.current, endpoints.best(0)) == ("a", "a")


def test_only_a_url_from_elsewhere_needs_remembering() -> None:
    """One of the list comes round again, and a callable gives the URL of each attempt anew."""
    assert [Endpoints(URLS).know(url) for url in (*URLS, "elsewhere")] == [True] * len(URLS) + [False]
    assert Endpoints(lambda: "anywhere").know("elsewhere")


def test_a_callable_is_the_only_one() -> None:
    """It decides itself; a failure asks it again."""

    def url() -> str:
        raise AssertionError("this file asks nobody")

    endpoints = Endpoints(url)
    assert failing(endpoints, 0) is url
    endpoints.lost(1)
    assert endpoints.best(1) is url
    assert repr(endpoints) == "<Endpoints 1 of 1, failed: [0]>"


@attrs.define
class Model:
    """What anybody would write on paper: until when each URL cools."""

    until: dict[str, float] = attrs.field(factory=dict)

    def cooling(self, url: str, now: float) -> bool:
        return self.until.get(url, now) > now


@given(
    st.sampled_from(["a", "ab", "abc", "abcde"]),
    st.lists(
        st.tuples(
            st.sampled_from(["failed", "failed", "other failed", "succeeded", "lost"]),
            st.integers(0, 4),
            st.sampled_from([0.0, 0.5, 1.0, 29.0, 31.0, 60.0]),
        ),
        max_size=40,
    ),
)
def test_a_cooling_url_is_never_chosen_while_another_is_not(letters: str, steps: list[tuple[str, int, float]]) -> None:
    """If all cool, it is the earliest; else the next in order; and ``best`` is the first in order."""
    urls = tuple(letters)
    endpoints, model, now = Endpoints(urls), Model(), 0.0

    def expected(order: Iterable[str]) -> str:
        candidates = list(order)
        warm = [url for url in candidates if not model.cooling(url, now)]
        return warm[0] if warm else min(candidates, key=model.until.__getitem__)

    def around() -> Iterable[str]:
        index = urls.index(before) + 1
        return urls[index:] + urls[:index]

    for step, which, wait in steps:
        now += wait
        before: Any = endpoints.current
        other = urls[which % len(urls)]
        if step == "failed":
            endpoints.failed(now)
            model.until[before] = now + COOLDOWN
            assert endpoints.current == expected(around())
        elif step == "other failed":
            endpoints.failed(now, other)
            model.until[other] = now + COOLDOWN
            assert endpoints.current == before
        elif step == "succeeded":
            endpoints.succeeded(other)
            model.until.pop(other, None)
            assert endpoints.current == other
        else:
            endpoints.lost(now)
            assert endpoints.current == (expected(around()) if model.cooling(before, now) else before)
        assert endpoints.best(now) == expected(urls)


# A client.


@attrs.define
class Cluster:
    """Three servers, in memory."""

    servers: list[ScriptedServer]
    asked: list[tuple[float, str]] = attrs.field(factory=list)
    """When and where to: all attempts, those of rotations too."""

    async def open_stream(self, request: hs.OpenRequest) -> ByteStream:
        host = request.url[-1]
        self.asked.append((anyio.current_time(), host))
        return await self.servers["abc".index(host)].connect()

    def connect(self, url: Any, **fields: Any) -> AbstractAsyncContextManager[hs.Client]:
        fields = {"reconnect_strategy": FAST, "ping_interval": None, **fields}
        return hs.connect(hs.ClientConfig(url=url, transport=hs.StreamConnector(self.open_stream), **fields))


@asynccontextmanager
async def cluster(a: Any, b: Any, c: Any = idle) -> AsyncIterator[Cluster]:
    async with ScriptedServer(a) as one, ScriptedServer(b) as two, ScriptedServer(c) as three:
        yield Cluster([one, two, three])


async def rejects(peer: Peer) -> None:
    await peer.reject(503)


async def lasts(peer: Peer) -> None:
    await peer.accept()
    await anyio.sleep(COOLDOWN)
    peer.cut()


@pytest.mark.anyio
async def test_from_server_to_server_and_back() -> None:
    """A failed attempt moves on; a lost session has its own again first; the preferred one comes round again."""
    async with cluster([rejects, idle], [lasts, rejects, idle]) as here:
        async with here.connect(["ws://a", "ws://b", "ws://c"]) as client:
            here.servers[2].refuse(1)
            await wait_for(client, hs.Connected, 2)
            assert here.asked == [(0, "a"), (1, "b"), (62, "b"), (63, "c"), (64, "a")]


@pytest.mark.anyio
async def test_while_it_cools_the_others_take_turns() -> None:
    """Two that fail one after the other do not keep a third from being tried before either is tried again."""
    async with cluster(rejects, rejects, [rejects, idle]) as here:
        async with here.connect(["ws://a", "ws://b", "ws://c"]):
            assert here.asked == [(0, "a"), (1, "b"), (2, "c"), (3, "a"), (4, "b"), (5, "c")]


@pytest.mark.anyio
@pytest.mark.parametrize("rotation", [None, "break-before-make"])
async def test_a_rotation_comes_back_to_the_preferred_server(rotation: Any) -> None:
    """Once that has cooled down, not before; and a session that is lost there has it again."""
    async with cluster([rejects, lasts, idle], idle) as here:
        async with here.connect(["ws://a", "ws://b"], rotation=rotation) as client:
            await client.rotate()
            await anyio.sleep_until(COOLDOWN)
            await client.rotate()
            await wait_for(client, hs.Disconnected)
            await client.wait_connected()
            assert here.asked == [(0, "a"), (1, "b"), (1, "b"), (60, "a"), (121, "a")]


@pytest.mark.anyio
async def test_a_rotation_that_fails_says_something_about_its_server() -> None:
    """It cools: the next rotation goes elsewhere, and so does the next attempt if it was the session's own."""
    async with cluster([rejects, rejects, idle], [lasts, idle]) as here:
        async with here.connect(["ws://a", "ws://b"]) as client:
            await anyio.sleep_until(COOLDOWN)
            with pytest.raises(hs.HandshakeRejectedError):
                await client.rotate()
            assert client.is_connected
            await client.rotate()
            assert here.asked == [(0, "a"), (1, "b"), (60, "a"), (60, "b")]
    async with cluster([lasts, rejects, idle], idle) as here:
        async with here.connect(["ws://a", "ws://b"]) as client:
            began = here.asked[0][0]
            await anyio.sleep(30)
            with pytest.raises(hs.HandshakeRejectedError):
                await client.rotate()
            await wait_for(client, hs.Connected, 2)
            assert [(at - began, url) for at, url in here.asked] == [(0, "a"), (30, "a"), (61, "b")]


@pytest.mark.anyio
@pytest.mark.parametrize(("preferred", "asked"), [([rejects, rejects], "abab"), ([idle, rejects], "aab")])
async def test_a_rotation_that_breaks_before_it_fails(preferred: Any, asked: str) -> None:
    """The lost session's own server is next, or the one behind if it was that which failed."""
    async with cluster(preferred, idle) as here:
        async with here.connect(["ws://a", "ws://b"], rotation="break-before-make") as client:
            await anyio.sleep_until(COOLDOWN)
            with pytest.raises(hs.HandshakeRejectedError):
                await client.rotate()
            await client.wait_connected()
            assert "".join(host for _, host in here.asked) == asked


@pytest.mark.anyio
async def test_a_rotation_to_a_server_that_is_not_in_the_list(caplog: pytest.LogCaptureFixture) -> None:
    """What is lost there is made again there first, as any lost session; and the log says where it was lost."""
    async with cluster(idle, idle, lasts) as here:
        async with here.connect(["ws://a", "ws://b"]) as client:
            await client.rotate("ws://c")
            await wait_for(client, hs.Connected, 2)
            assert here.asked == [(0, "a"), (0, "c"), (61, "c")]
    assert "connection to ws://c lost" in caplog.text


@pytest.mark.anyio
async def test_the_log_and_the_events_say_which_url_without_its_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """Of several, or of a callable's; the client's own name is the first host."""
    urls = ["ws://user:SECRET@a", "ws://user:SECRET@b"]
    with caplog.at_level(logging.WARNING, "hypersockets"):
        async with cluster(rejects, [lasts, idle]) as here:
            async with here.connect(urls) as client:
                await wait_for(client, hs.Connected, 2)
        async with cluster(rejects, idle) as here:
            given_out = iter(urls)
            async with here.connect(lambda: next(given_out)):
                pass
    assert [record.getMessage().partition(":")[2].partition(": ")[0] for record in caplog.records] == [
        " attempt to ws://***@a failed",
        " connection to ws://***@b lost after 60.0 s",
        " attempt to ws://***@a failed",
    ]
    assert [event.url for event in of(hs.Connecting, happened(client))] == ["ws://***@a", "ws://***@b", "ws://***@b"]
    assert "SECRET" not in caplog.text + repr(happened(client))


@pytest.mark.anyio
async def test_a_callable_that_raises_has_no_url_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    """The warning does without."""
    count = 0

    def url() -> str:
        nonlocal count
        count += 1
        if count == 1:
            raise ValueError
        return "ws://a"

    async with cluster(idle, idle) as here:
        async with here.connect(url):
            assert caplog.messages == ["client: attempt failed: the url callable raised ValueError"]

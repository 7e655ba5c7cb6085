"""What holds of a life, at any time and at its quiet points."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

import hypersockets as hs
from tests._life_of_everything import Life
from tests._live import assert_legal, happened, names, of
from tests._pacing import violations
from tests._world import BASE, FEEDS, HANDLED, TAPE, Connection

__all__ = ["check_now", "check_quiet", "settle"]


def check_now(life: Life) -> None:
    """Check what holds at any time."""
    client, events = life.client, happened(life.client)
    # What handlers raise ends no attempt.
    assert_legal([each for each in events if not isinstance(getattr(each, "error", None), ValueError)])
    kinds = names(events)
    sessions = [kind for kind in kinds if kind in ("Connected", "Disconnected")]
    is_breaking = client._core._untold is not None  # a rotation, of which only its outcome is told
    assert is_breaking or client.is_connected == (sessions[-1] == "Connected")
    assert client.epoch == kinds.count("Connected") + kinds.count("Rotated")
    if life.limit is not None:
        assert violations([at for at, _ in life.world.written], life.limit) == 0


async def settle(life: Life) -> None:
    """Make no more trouble, and wait until nothing is under way."""
    life.world.heal()
    await anyio.sleep(12)
    for _ in range(400):
        if _is_calm(life):
            before = len(life.world.connections)
            await anyio.sleep(0.9)  # what is on its way to the client, and a late ack or reply, needs a moment
            if _is_calm(life) and len(life.world.connections) == before:
                return
        await anyio.sleep(0.37)
    raise AssertionError(f"it does not come to rest: {life.client!r} {life.world.open} {life.busy}")


def _is_calm(life: Life) -> bool:
    core, rotation = life.client._core, life.client._supervisor._succession.rotation
    is_idle = not life.busy and not core.outbox and life.client.metrics().queued == 0
    return is_idle and core.session is not None and rotation is None and len(life.world.open) == 1


def check_quiet(life: Life) -> None:
    """Check what holds when nothing is under way, and a session is ready."""
    check_now(life)
    assert life.client.is_connected
    life.books.note_repeat()
    _check_subscriptions(life)
    _check_messages(life)
    _check_requests(life)
    _check_sends(life)
    core = life.client._core
    assert not core.outbox
    assert not core.watchers
    for lane in core.lanes:
        lane.settle()
    assert core.lanes.budget.used == 0
    assert life.resumed == sorted(set(life.resumed)), "once for each session, in order"
    assert life.resumed[-1] == life.client.epoch - 1


def _check_subscriptions(life: Life) -> None:
    (here,) = life.world.open
    known = {feed for feed, at in life.troubled.items() if at == len(life.world.connections)}
    wanted = {str(each.key) for each in life.client._core.subscriptions}
    assert here.subscribed - known == wanted - here.refused - known, "the server's view"
    for feed in FEEDS:
        live = any(scope.feed == feed and scope.end is None for scope in life.scopes)
        if feed not in life.troubled:
            assert (feed in wanted) == (life.kept[feed] or live), feed
    assert set(BASE) <= wanted


def _check_messages(life: Life) -> None:
    routed, metrics = life.books.routed, life.client.metrics()
    for feed in FEEDS:
        _check_routed(life, feed, routed[feed])
    for feed in (*HANDLED, TAPE):
        assert life.handled[feed] == routed[feed], f"of {feed} all is handled once, in order"
    unread = 0
    for scope in life.scopes:
        mine = routed[scope.feed][scope.start : scope.end]
        assert scope.got == mine[: len(scope.got)], "a block has all from its beginning on"
        assert scope.end is not None or len(scope.got) == len(mine)
        unread += len(mine) - len(scope.got)
    abandoned = sum(len(tap.delivered) + tap.garbage for tap in life.world.taps if tap.was_abandoned)
    garbage = sum(tap.garbage for tap in life.world.taps if not tap.was_abandoned)
    assert garbage <= metrics.parse_errors <= garbage + sum(tap.garbage for tap in life.world.taps if tap.was_abandoned)
    assert unread <= metrics.dropped, "what a block leaves unread is counted"
    cancelled = sum(outcome == ["cancelled"] for outcome in life.outcomes.values())  # its reply may have come too late
    assert metrics.dropped <= unread + abandoned + cancelled + sum(
        tap.others for tap in life.world.taps if tap.was_abandoned
    ), "nothing else is taken away"
    for here in life.world.connections:
        tap = next(tap for tap in life.world.taps if tap.link is here.peer.link)
        was_left = here.peer.close_code == 1000 and not here.is_over and not tap.was_abandoned
        if was_left and tap.session._ready_at is not None:
            assert set(here.said) <= set(tap.delivered), "what comes before the answer to our close is read"
    uncovered = 0
    for feed, numbers in routed.items():
        if feed not in (*HANDLED, TAPE):
            spans = [(scope.start, scope.end) for scope in life.scopes if scope.feed == feed]
            uncovered += sum(
                not any(start <= at and (end is None or at < end) for start, end in spans) for at in range(len(numbers))
            )
    assert metrics.unrouted == uncovered, "what belongs to nobody is counted"
    assert metrics.handler_errors == life.raised
    assert metrics.queued == 0
    found = [(gap.key, gap.expected, gap.got) for gap in of(hs.GapDetected, happened(life.client))]
    assert found == life.books.gaps, "each lost stretch is a gap"
    assert metrics.gaps == len(found)
    for feed in FEEDS:  # what was found during a call is one more call, with the newest
        assert [gap for gap in life.gaps if gap[0] == feed] == [gap for gap in found if gap[0] == feed]


def _check_routed(life: Life, feed: str, routed: Sequence[int]) -> None:
    """Check that what came from the links went to the lanes: once, in order, the old connection's first."""
    at = 0
    earlier: set[int] = set()
    for tap in life.world.taps:
        if tap.was_abandoned:
            continue
        mine = [number for key, number in tap.delivered if key == feed]
        repeats = set() if tap.old is None else {number for key, number in tap.old.delivered if key == feed}
        for number in mine:
            if number in repeats:
                continue
            if at < len(routed) and routed[at] == number:
                at += 1
            else:
                assert tap.old is not None, f"{feed} {number} was delivered, and not handled"
                assert number in earlier, f"{feed} {number} was delivered, and not handled in its place"
        earlier.update(mine)
    assert at == len(routed), f"{feed} {routed[at:]} were handled too often"


def _check_requests(life: Life) -> None:
    requests = life.client._core.requests
    assert not requests.pending
    assert not requests._by_key
    has_lost = life._losses() > 0
    for number, (retry, how, is_short) in life.asks.items():
        assert len(life.outcomes[number]) == 1, "each request ends exactly once"
        (outcome,) = life.outcomes[number]
        if outcome == "lost":
            assert not retry
            assert has_lost
        if outcome == "timeout" and not retry:
            _check_not_lost(life, number)
        if outcome == "timeout":
            assert is_short or how == "never", "with patience and an answer it has its reply"
        if outcome == "reply":
            assert how != "never"
    heard: dict[tuple[Connection, Connection], list[int]] = {}
    latest: dict[int, Connection] = {}
    order: dict[Connection, list[int]] = {}
    for number, here, _ in life.world.heard_asks:
        order.setdefault(here, []).append(number)
        if number in latest:
            heard.setdefault((latest[number], here), []).append(number)
            retry, _, _ = life.asks[number]
            life.resent += 1
            if not retry:
                assert has_lost, "only what a loss cut off is sent again"
        latest[number] = here
    for (before, _), numbers in heard.items():
        assert numbers == sorted(numbers, key=order[before].index), "what a loss hit is sent again in its order there"


def _check_not_lost(life: Life, number: int) -> None:
    """Check that a request that timed out had no loss behind it: that would have been the end of it."""
    heard_at = [at for each, _, at in life.world.heard_asks if each == number]
    if heard_at:
        lost_at = [each.at for each in happened(life.client) if isinstance(each, (hs.Disconnected, hs.Rotated))]
        # A rotation waits for the old connection's last words.
        assert not [at for at in lost_at if heard_at[0] < at < life.ended_at[number] - 2.5], "a loss fails it"


def _check_sends(life: Life) -> None:
    assert life.sent | life.cancelled | set(life.asks) == set(range(life.numbers)), "every call has returned"
    asks = set(life.asks)
    before: list[int] = []
    for here in life.world.connections:
        heard = [number for number in here.heard if number not in asks]
        assert heard == sorted(set(heard)), "in order, none twice on one connection"
        again = [number for number in before if heard and number >= heard[0]]
        assert again[: len(heard)] == heard[: len(again)], "of the write that was cut off, all is sent again, in order"
        before = heard or before
    written = [int(text.split()[1]) for _, text in life.world.written if text.startswith("user")]
    assert written == sorted(set(written)), "over all connections each was handed to a socket once, in order"
    assert life.sent <= set(written), "cut off half-way, it was sent on the next"

"""The guarantees of the design, as functions that say whether they hold: each names the number of its guarantee.

`GUARANTEES` is the table of what is checked where, and of what a simulation cannot see of it.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import anyio

import hypersockets as hs

from ._ledger import LOSSY, Violated

if TYPE_CHECKING:
    from ._life import Life
    from ._tap import Beat, Tap
    from ._world import Connection

__all__ = ["ALWAYS", "GUARANTEES", "PARTLY", "QUIET"]

SECRETS = ("s3cret-auth", "s3cret-header", "s3cret-query", "s3cret-user")
SLACK = 1.6
"""Seconds for the way there and back, on the slowest link."""
INBOX_MESSAGES = 700
"""What inbox, link and one read hold of a flood's messages (2 kB each), beside the lanes."""

GUARANTEES: dict[int, list[str]] = {number: [] for number in range(1, 15)}
ALWAYS: list[Callable[[Life], None]] = []
"""Checked every virtual second, or every five in longer lives."""
QUIET: list[Callable[[Life], None]] = []
"""Checked when nothing is under way."""
PARTLY = {
    6: "a flood lasts no virtual time: that the reader checkpoints is not seen, only that everything else goes on",
    8: "the attempts that lives come to, not 0 to 10^6",
    10: "sockets are memory links here; cancelled by scopes alone, at the moments that lives come to",
    12: "the secrets of the configuration, in logs, events, errors and reprs; bad headers are not tried",
    13: "messages between link and handler, by count; not the process's memory",
    14: "no compression, so no bombs",
}
_F = TypeVar("_F", bound=Callable[..., None])


def _of(number: int, *when: list[Callable[[Life], None]]) -> Callable[[_F], _F]:
    def register(function: _F) -> _F:
        GUARANTEES[number].append(function.__name__)
        for each in when:
            each.append(function)
        return function

    return register


# 1 to 3: the order of things on each connection. The server looks.


@_of(1)
def auth_comes_first(text: str) -> None:
    if not text.startswith("auth "):
        raise Violated(1, f"the first message on a connection was {text!r}")


@_of(1)
def users_come_after_acks(here: Connection) -> None:
    missing = here.tap.wanted() - here.tap.acks.keys()
    if here.accepted_at is None or missing:
        raise Violated(1, f"a user's message came before the acks of {sorted(missing)}")


@_of(3)
def subscribed_once(here: Connection, feed: str) -> None:
    if here.accepted_at is None:
        raise Violated(1, f"{feed} was subscribed before the login was accepted")
    if feed in here.asked and feed not in here.refused:
        raise Violated(3, f"{feed} was subscribed twice on one connection")


@_of(2)
def connected_after_acks(life: Life, tap: Tap) -> None:
    missing = tap.wanted() - tap.acks.keys()
    if missing:
        raise Violated(2, f"it said that it is connected, and acks of {sorted(missing)} have not come")


@_of(2, ALWAYS)
def is_connected_tells_the_truth(life: Life) -> None:
    if life.client._core._untold is None and life.client.is_connected != (life.ready is not None):
        raise Violated(2, f"is_connected is {life.client.is_connected}, and the events say the contrary")
    if life.client.is_connected and life.ready is not None and life.ready.is_closed:
        raise Violated(2, "it says that it is connected, and its socket is closed")


@_of(3)
def subscriptions_are_restored(life: Life, here: Connection) -> None:
    assert here.accepted_at is not None
    wanted = [feed for feed, since in life.wanted.items() if since is not None and since < here.accepted_at]
    asked = [feed for feed in here.asked if feed in wanted]
    if asked != wanted:
        raise Violated(3, f"wanted are {wanted}, and the server was asked for {here.asked}")


# 4, 5: what was received is handled. The rest of it is in `Ledger`.

GUARANTEES[4] += ["Ledger.handled"]
GUARANTEES[5] += ["Ledger.handled"]


@_of(5, QUIET)
def all_is_handled(life: Life) -> None:
    for feed in life.world.ledger.piles:
        waiting = life.world.ledger.waiting(feed)
        if waiting:
            raise Violated(5, f"of {feed} {waiting[:9]} were delivered and never handled")


@_of(5, QUIET)
def losses_are_counted(life: Life) -> None:
    metrics = life.client.metrics()
    if life.dropped[LOSSY] != life.world.ledger.skipped:
        raise Violated(5, f"{life.world.ledger.skipped} messages were skipped, events tell of {life.dropped[LOSSY]}")
    if not life.garbage <= metrics.parse_errors <= life.garbage + life.garbage_abandoned:
        raise Violated(5, f"{life.garbage} messages cannot be parsed, {metrics.parse_errors} are counted")
    if metrics.handler_errors != life.raised:
        raise Violated(5, f"handlers raised {life.raised} times, {metrics.handler_errors} are counted")
    if metrics.unrouted > 0 or metrics.queued:
        raise Violated(5, f"{metrics.unrouted} messages count as unrouted, {metrics.queued} as queued")
    if metrics.dropped != sum(life.dropped.values()):
        raise Violated(5, f"{metrics.dropped} messages were dropped, events tell of {life.dropped}")


@_of(5)
def strays_are_answers(channel: str) -> None:
    if channel not in ("ack", "reply"):
        raise Violated(5, f"a message of {channel} did not come to its handler")


@_of(4)
def one_at_a_time(life: Life, feed: str) -> None:
    if feed in life.running:
        raise Violated(4, f"two messages of {feed} are handled at a time")


@_of(5)
def rotation_hears_the_old_one_out(life: Life, tap: Tap) -> None:
    """What comes before the answer to our close frame is read: that is the barrier of a rotation.

    Who leaves reads no more, on no connection.
    """
    if life.left_at < math.inf:
        return
    is_old = life.ready is not None and life.ready.old is tap
    if is_old and not (tap.closed_by_peer or tap.has_ended or tap.wrong):
        waited = anyio.current_time() - tap.close_sent_at
        if tap.close_code == 1000 and waited < life.close_timeout - 1e-6:
            raise Violated(5, f"the old connection was left after {waited:.3f} s, before its close frame came")


# 6, 7: it goes on, and notices who does not.


@_of(6, ALWAYS)
def sends_go_on(life: Life) -> None:
    since = max(life.sending_since, life.ready_since, life.jammed_until)
    if life.client.is_connected and since + 4 < anyio.current_time():
        raise Violated(6, f"a send has been waiting since {since:.3f} with a session that is ready")


@_of(6, ALWAYS)
def sends_are_known(life: Life) -> None:
    if life.lost_sends:
        raise Violated(6, f"these sends returned, and were never written whole: {sorted(life.lost_sends)}")


@_of(6)
def written_in_order(life: Life, number: int) -> None:
    if number <= life.last_written:
        raise Violated(6, f"the user's message {number} was written after {life.last_written}")


@_of(1)
def users_come_after_ready(tap: Tap) -> None:
    missing = tap.wanted() - tap.acks.keys()
    if missing:
        raise Violated(1, f"a user's message was written before the acks of {sorted(missing)}")


@_of(6)
def sends_are_in_order(here: Connection, number: int) -> None:
    if number <= here.last_heard:
        raise Violated(6, f"the server heard {number} after {here.last_heard} on one connection")


@_of(6, ALWAYS)
def pongs_go_on(life: Life) -> None:
    tap = life.live
    since = math.inf if tap is None or not tap.questions else tap.questions[0]
    if max(since, life.jammed_until) + SLACK < anyio.current_time():
        raise Violated(6, f"the server's ping of {since:.3f} has no answer")


@_of(6, ALWAYS)
def beats_go_on(life: Life) -> None:
    tap = life.live
    if tap is not None:
        last = life.ready_since if tap.last_beat is None else max(tap.last_beat, life.ready_since)
        if max(last, life.jammed_until) + life.plan.beat[0] + SLACK < anyio.current_time():
            raise Violated(6, f"the last heartbeat was at {last:.3f}")


@_of(7, ALWAYS)
def silence_is_noticed(life: Life) -> None:
    tap, now = life.live, anyio.current_time()
    if tap is None:
        return
    for what, due_at, timeout in _unanswered(life, tap):
        if max(due_at, life.paused_at) + timeout + SLACK < now:
            raise Violated(7, f"the {what} of {due_at:.3f} has no answer, and the session goes on")


@_of(7)
def alarms_are_true(life: Life, tap: Tap | None, error: object, at: float) -> None:
    if tap is None or not isinstance(error, hs.HeartbeatTimeoutError):
        return
    if not any(due_at + timeout <= at + 1e-6 for _, due_at, timeout in _unanswered(life, tap)):
        raise Violated(7, f"{error}: and all that is old enough was answered")


def _unanswered(life: Life, tap: Tap) -> list[tuple[str, float, float]]:
    """Return of what kinds something is unanswered, when the oldest was due, and how long it may wait from then."""
    kinds = (("ping", tap.pings, life.plan.ping), ("heartbeat", tap.beats, life.plan.beat))
    return [(what, _due(life, sent[0], interval), timeout) for what, sent, (interval, timeout) in kinds if sent]


def _due(life: Life, beat: Beat, interval: float) -> float:
    """Return when a beat was due: it waits from then, though a long message before it may have held it up."""
    number = max(1, math.ceil((beat.held_since - life.ready_since) / interval - 1e-9))
    return min(beat.at, life.ready_since + number * interval)


# 8, 9: the delays.


@_of(8)
def delay_is_within_bounds(
    life: Life, attempt: int, delay: float, retry_after: float | None, was_ready: bool, spent: float
) -> None:
    longest = min(life.initial_delay * 2.0 ** min(attempt - 1, 60), life.max_delay)
    floor = 0.0 if retry_after is None else min(retry_after, life.max_delay) + spent
    offset = life.plan.offset if was_ready else 0.0
    low, high = max(longest * (1 - life.plan.jitter), floor) + offset, max(longest, floor) + offset
    if not (math.isfinite(delay) and low - 1e-6 <= delay <= high + 1e-6):
        raise Violated(8, f"the delay of attempt {attempt} is {delay}, not in [{low}, {high}]")


@_of(9)
def attempts_are_counted(life: Life, attempt: int) -> None:
    if attempt != life.attempts + 1 and not life.broke:
        raise Violated(9, f"attempt {attempt} comes after {life.attempts}: a session counts when it was stable")


@_of(9)
def waits_are_kept(life: Life, at: float) -> None:
    if life.retry_at is not None and not life.retry_at - 1e-6 <= at <= life.retry_at + 8.5:
        raise Violated(9, f"the attempt promised for {life.retry_at:.3f} came at {at:.3f}")


# 10, 11: the end.


@_of(10)
def ending_is_bounded(life: Life, seconds: float) -> None:
    # Cancelled: for the close frame, and nothing else.
    bound = 1.0 if life.ending.endswith("cancel") else life.drain_timeout + life.close_timeout + 2.0
    if seconds > bound + 1e-6:
        raise Violated(10, f"the end ({life.ending}) took {seconds:.3f} s, and {bound} s is the most")


@_of(10)
def request_is_bounded(seconds: float, timeout: float) -> None:
    if seconds > timeout + 1e-6:
        raise Violated(10, f"a request with a timeout of {timeout} s took {seconds:.3f} s")


@_of(10)
def nothing_is_left(life: Life, tasks: list[str]) -> None:
    open_taps = [tap.number for tap in life.world.taps if not tap.is_closed]
    if tasks or open_taps:
        raise Violated(10, f"after the end there are tasks {tasks} and open connections {open_taps}")


@_of(11)
def one_plain_exception(life: Life, outcome: BaseException | None) -> None:
    expected: dict[str, type[BaseException] | None] = {
        "raise": ZeroDivisionError,
        "exhaust": hs.ReconnectExhaustedError,
        "hammer": hs.ReconnectExhaustedError,
    }
    kind = expected.get(life.ending)
    if type(outcome) is not (kind or type(None)):
        raise Violated(11, f"the end ({life.ending}) raised {outcome!r}")


@_of(11)
def closed_comes_last(life: Life) -> None:
    if life.closed_events != 1 or life.last_event != "Closed":
        raise Violated(11, f"{life.closed_events} events Closed, and the last event is {life.last_event}")


# 12 to 14.


@_of(12)
def no_secret_is_told(text: str) -> None:
    found = [secret for secret in SECRETS if secret in text]
    if found:
        raise Violated(12, f"a secret ({found[0]}) is in: {text[:300]}")


@_of(12)
def no_error_tells_a_secret(error: BaseException) -> None:
    no_secret_is_told("".join(traceback.format_exception(type(error), error, error.__traceback__)) + repr(error))


@_of(13, ALWAYS)
def memory_is_bounded(life: Life) -> None:
    for feed, piles in life.world.ledger.piles.items():
        for pile in piles:
            if len(pile.numbers) > life.capacities.get(feed, 10_000) + INBOX_MESSAGES and pile.tap is life.ready:
                raise Violated(13, f"{len(pile.numbers)} messages of {feed} wait in memory")


@_of(14, ALWAYS)
def malformed_ends_a_connection(life: Life) -> None:
    for tap in life.world.taps:
        if tap.wrong is not None:
            at, what = tap.wrong
            code = {"protocol": 1002, "text": 1007, "size": 1009}[what]
            if tap.close_code not in (None, code, 1011) and not tap.said_goodbye_before:
                raise Violated(14, f"after a frame with a wrong {what} the client closed with {tap.close_code}")
            if not tap.is_closed and anyio.current_time() > at + 12 + SLACK:
                raise Violated(14, f"a frame with a wrong {what} came at {at:.3f}, and the connection goes on")

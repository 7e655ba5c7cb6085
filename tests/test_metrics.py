"""Metrics: counters that run, snapshots that stand."""

from __future__ import annotations

import attrs
import pytest

from hypersockets._metrics import Counters, Metrics
from hypersockets._state import ConnectionState

FIELDS = [
    "messages_sent",
    "messages_received",
    "bytes_sent",
    "bytes_received",
    "reconnect_count",
    "connection_state",
    "connected_since",
    "connect_attempts",
    "parse_errors",
    "handler_errors",
    "unrouted",
    "dropped",
    "gaps",
    "queued",
    "latency",
    "last_error",
]


def test_fields() -> None:
    """A snapshot has the numbers of the contract; the counters have those that are counted, under the same names."""
    assert [field.name for field in attrs.fields(Metrics)] == FIELDS
    counted = {field.name for field in attrs.fields(Counters)}
    assert counted == set(FIELDS) - {"connection_state", "queued"}


def test_new_counters() -> None:
    """Everything begins at 0, and what has not happened yet is ``None``."""
    snapshot = attrs.asdict(Counters().snapshot(connection_state=ConnectionState.DISCONNECTED, queued=0))
    assert snapshot.pop("connection_state") is ConnectionState.DISCONNECTED
    nothing = {name: snapshot.pop(name) for name in ("connected_since", "latency", "last_error")}
    assert nothing == {"connected_since": None, "latency": None, "last_error": None}
    assert set(snapshot.values()) == {0}


def test_snapshot_stands() -> None:
    """Each number comes out under its name, and does not change as the counting goes on."""
    counters = Counters()
    numbers = {name: number for number, name in enumerate(attrs.fields_dict(Counters), start=1)}
    for name, number in numbers.items():
        setattr(counters, name, number)
    snapshot = counters.snapshot(connection_state=ConnectionState.CONNECTED, queued=77)
    for name in numbers:
        setattr(counters, name, 0)
    expected = {**numbers, "connection_state": ConnectionState.CONNECTED, "queued": 77}
    assert attrs.asdict(snapshot, recurse=False) == expected
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        snapshot.queued = 0  # type: ignore[misc]


def test_errors_are_not_taken_apart() -> None:
    """The last error is in the snapshot as it was raised, even one that is a class of attrs."""

    @attrs.define
    class Refused(Exception):
        why: str

    for error in (OSError("x"), Refused("x")):
        counters = Counters(last_error=error)
        assert counters.snapshot(connection_state=ConnectionState.CLOSED, queued=0).last_error is error

"""The life of a client: each move is legal or a bug."""

from __future__ import annotations

import itertools

import pytest

from hypersockets._state import MOVES, ConnectionState, check_move

S = ConnectionState

# Written anew from the contract, so that a slip in the table shows.
LEGAL = {
    (S.DISCONNECTED, S.CONNECTING),
    (S.CONNECTING, S.AUTHENTICATING),
    (S.CONNECTING, S.SUBSCRIBING),
    (S.CONNECTING, S.CONNECTED),
    (S.AUTHENTICATING, S.SUBSCRIBING),
    (S.AUTHENTICATING, S.CONNECTED),
    (S.SUBSCRIBING, S.CONNECTED),
    (S.RECONNECTING, S.CONNECTING),
    (S.CLOSING, S.CLOSED),
    *((state, S.RECONNECTING) for state in (S.CONNECTING, S.AUTHENTICATING, S.SUBSCRIBING, S.CONNECTED)),
    *((state, S.CLOSING) for state in S if state not in (S.CLOSING, S.CLOSED)),
}


def test_names() -> None:
    """The states are those of the contract."""
    assert [state.name for state in S] == [
        "DISCONNECTED",
        "CONNECTING",
        "AUTHENTICATING",
        "SUBSCRIBING",
        "CONNECTED",
        "RECONNECTING",
        "CLOSING",
        "CLOSED",
    ]


@pytest.mark.parametrize(("old", "new"), list(itertools.product(S, S)), ids=lambda state: state.name)
def test_every_move(old: ConnectionState, new: ConnectionState) -> None:
    """A legal move gives the new state, any other, standing still included, raises and names both."""
    if (old, new) in LEGAL:
        assert check_move(old, new) is new
    else:
        with pytest.raises(RuntimeError, match=rf"illegal move from {old.name} to {new.name}"):
            check_move(old, new)


def test_closed_is_final_and_never_far() -> None:
    """Nothing follows ``CLOSED``; from everywhere else it is at most two moves away."""
    assert not MOVES[S.CLOSED]
    assert all(S.CLOSING in MOVES[state] for state in S if state not in (S.CLOSING, S.CLOSED))


def test_table_cannot_be_changed() -> None:
    """There is one table, for all clients."""
    with pytest.raises(TypeError):
        MOVES[S.CLOSED] = frozenset(S)  # type: ignore[index]

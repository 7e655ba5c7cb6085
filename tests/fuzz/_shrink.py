"""Make an input that fails as small as it can be while it still fails."""

from __future__ import annotations

from collections import Counter

from ._target import Found, Target

__all__ = ["failure", "shrink"]

_TRIES = 3000


def failure(target: Target, data: bytes) -> str:
    """Return how this input fails; nothing if it does not."""
    try:
        target.check_all([data], Counter())
    except Found as found:
        return f"{type(found.__cause__).__name__}: {found.__cause__}"
    return ""


def shrink(target: Target, data: bytes) -> tuple[bytes, str]:
    """Return the smallest input found that fails as this one does (with the same type of error), and how it does."""
    why = failure(target, data)
    if not why:
        return data, "failed once, and not when it was tried again"
    kind = why.partition(":")[0]
    tries = 0
    piece = max(1, len(data) // 2)
    while piece and tries < _TRIES:
        at, before = 0, data
        while at < len(data) and tries < _TRIES:
            shorter = data[:at] + data[at + piece :]
            tries += 1
            if (new := failure(target, shorter)).partition(":")[0] == kind:
                data, why = shorter, new
            else:
                at += piece
        if data == before or piece > 1:
            piece //= 2
    for at in range(len(data)):  # plain bytes say less than others, and so show what counts
        plainer = data[:at] + b"\0" + data[at + 1 :]
        if data[at] and (new := failure(target, plainer)).partition(":")[0] == kind:
            data, why = plainer, new
    return data, why

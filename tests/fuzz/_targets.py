"""All targets, by name."""

from __future__ import annotations

from ._lane import LANE
from ._target import Target

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {each.name: each for each in (LANE,)}

"""All targets, by name."""

from __future__ import annotations

from ._lane import LANE
from ._session import SESSION
from ._target import Target
from ._upgrade import UPGRADE

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {each.name: each for each in (LANE, SESSION, UPGRADE)}

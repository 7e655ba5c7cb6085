"""``python -m hypersockets``: the command line."""

from __future__ import annotations

import sys

from hypersockets.cli import main

__all__: list[str] = []

sys.exit(main())

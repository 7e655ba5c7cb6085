"""The command line: ``hypersockets demo`` and ``hypersockets listen``.

Exit codes: 0 all went well, 1 it did not, 2 it was asked for wrongly, 130 and 143 a signal ended it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial

import hypersockets as hs

from . import _options, _signals
from ._listen import listen

__all__ = ["main"]

_GRACE = 4.0
"""Seconds that ``listen`` gets after a signal, to take leave of the server and to print what it has received."""

# What the log says, the events say as well.
_QUIET = logging.NullHandler()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: The arguments; ``None``: those of this process.
    """
    logging.getLogger("hypersockets").addHandler(_QUIET)
    try:
        options = _options.parse(argv)
        if options.command == "demo":
            from ._demo import demo  # it takes the testing package along

            return _signals.run(partial(demo, options.backend), backend=options.backend, grace=0)
        config = _options.listen_config(options)
        return _signals.run(partial(listen, config), backend=options.backend, grace=_GRACE)
    except SystemExit as done:  # argparse has said all there is to say
        return int(done.code or 0)
    except hs.ConfigurationError as error:
        print(f"hypersockets listen: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before anything ran that could catch the signal
        return 130

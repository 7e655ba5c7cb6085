"""What the demo prints: aligned lines with a time, in colour on a terminal."""

from __future__ import annotations

import os
import shutil
from typing import TextIO

import anyio
import attrs

__all__ = ["Screen"]

_COLOURS = {"BREAK": 31, "Disconnected": 31, "ErrorOccurred": 33, "Reconnecting": 33, "Connected": 32}
"""SGR codes (ECMA-48 section 8.3.117): red, yellow, green."""


@attrs.define(eq=False, repr=False)
class Screen:
    """Prints to a stream. Made inside the event loop, whose clock starts at 0 here. Times are in seconds."""

    stream: TextIO | None
    """``None``: nobody reads, or nobody does any more."""
    has_colours: bool = False
    width: int | None = None
    """Columns to which events are cut; ``None``: not at all."""
    _start: float = attrs.field(factory=anyio.current_time)

    @classmethod
    def on(cls, stream: TextIO | None) -> Screen:
        """Return a screen that suits the stream; ``None``: it was closed when Python started."""
        if stream is None or not stream.isatty():
            return cls(stream)
        # https://no-color.org: any value but the empty one.
        return cls(stream, not os.environ.get("NO_COLOR"), shutil.get_terminal_size().columns)

    def event(self, who: str, what: str, words: str, *, at: float | None = None) -> None:
        """Print what happened.

        Args:
            who: ``"server"`` or ``"client"``.
            what: In one word.
            words: And in several.
            at: When, by the event loop's clock; ``None``: now.
        """
        seconds = (anyio.current_time() if at is None else at) - self._start
        text = f"{seconds:6.2f}  {who}  {what:<13}  {words}"[: self.width]
        if self.has_colours and what in _COLOURS:
            text = text.replace(what, f"\033[{_COLOURS[what]}m{what}\033[0m", 1)
        self.line(text)

    def line(self, text: str = "") -> None:
        """Print a line. When nobody reads any more nothing happens: the demo has a result all the same."""
        if self.stream is not None:
            try:
                print(text, file=self.stream, flush=True)
            except BrokenPipeError:
                # What is left in Python's buffer would fail once more when the interpreter ends.
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), self.stream.fileno())
                self.stream = None

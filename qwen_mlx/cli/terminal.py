"""One output stream: whether a person looks at it, whether it may be coloured, and what may be written to it."""

from __future__ import annotations

import os
import re
import time
from typing import TextIO

# Everything but newline and tab: text from a model must not move the cursor, change the title or read the clipboard.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_ERASE_LINE = "\r\x1b[K"


def clean(text: str) -> str:
    """`text` without control characters other than newline and tab."""
    return _CONTROLS.sub("", text)


class Terminal:
    """A text stream that may or may not be a terminal. What is not one gets the text as it is, without colour."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_terminal = bool(stream.isatty())
        known = os.environ.get("TERM", "") not in ("", "dumb")
        self.colour = self.is_terminal and known and not os.environ.get("NO_COLOR")
        self.movable = self.is_terminal and known  # a line can be erased and written again
        self.column = 0  # characters since the last newline

    def write(self, text: str, *, dim: bool = False) -> None:
        """Write and flush."""
        if self.is_terminal:
            text = clean(text)
        if not text:
            return
        self.column = len(text) - text.rfind("\n") - 1 + (self.column if "\n" not in text else 0)
        self.stream.write(f"{_DIM}{text}{_PLAIN}" if dim and self.colour else text)
        self.stream.flush()

    def line(self, text: str = "", *, dim: bool = False) -> None:
        self.write(text, dim=dim)
        self.write("\n")

    def end_line(self) -> None:
        """Begin a new line unless the cursor is at the start of one."""
        if self.column:
            self.write("\n")

    def bold(self, text: str) -> str:
        """`text` with the codes for bold, for a prompt that readline writes."""
        # \x01 and \x02 tell readline that what is between them takes no room.
        return f"\x01{_BOLD}\x02{text}\x01{_PLAIN}\x02" if self.colour else text


class StatusLine:
    """A line that says what is going on and disappears; nothing at all where lines cannot be erased."""

    def __init__(self, terminal: Terminal, interval: float = 0.1) -> None:
        self._terminal = terminal
        self._interval = interval
        self._written = float("-inf")
        self._visible = False

    def show(self, text: str) -> None:
        now = time.monotonic()
        if not self._terminal.movable or now - self._written < self._interval:
            return
        self._written, self._visible = now, True
        self._terminal.stream.write(_ERASE_LINE + clean(text))
        self._terminal.stream.flush()

    def clear(self) -> None:
        if self._visible:
            self._terminal.stream.write(_ERASE_LINE)
            self._terminal.stream.flush()
            self._visible = False

"""Text of a model made fit for a terminal, piece by piece."""

from __future__ import annotations

import re

# Escape sequences (CSI, OSC, two-character ones), then what a terminal or a line counter would stumble over.
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]|\x1b")
_NEWLINE = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f]")
# What may still grow into one of the above when the next piece comes.
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[ -/]*)?|\r)\Z")
_LONGEST_HELD = 256


class Sanitizer:
    """Removes escape sequences and control characters, and makes every kind of line end "\\n".

    Pieces may be cut anywhere: `feed` of all pieces, then `flush`, gives what one `feed` of the whole gives.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        text = self._held + text
        self._held = ""
        unfinished = _UNFINISHED.search(text)
        if unfinished and len(unfinished.group()) <= _LONGEST_HELD:
            self._held = unfinished.group()
            text = text[: unfinished.start()]
        return _clean(text)

    def flush(self) -> str:
        """What was held back, at the end of the text."""
        text, self._held = self._held, ""
        return _clean(text)


def sanitize(text: str) -> str:
    """A whole text, see `Sanitizer`."""
    return _clean(text)


def _clean(text: str) -> str:
    text = _ESCAPE.sub("", text) if "\x1b" in text else text
    return _CONTROL.sub("", _NEWLINE.sub("\n", text))

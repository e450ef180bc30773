"""Holds tool calls back from an answer while it streams."""

from __future__ import annotations

from qwen_mlx.text.tool_calls import OPEN


class HeldCalls:
    """Gives the text in front of the first tool call as soon as it is certain to be text; the rest at the end."""

    def __init__(self) -> None:
        self._held = ""
        self.opened = False

    def feed(self, text: str) -> str:
        """The part that may be shown now."""
        self._held += text
        if self.opened:
            return ""
        place = self._held.find(OPEN)
        if place < 0:
            place = len(self._held) - _begun(self._held)
        else:
            self.opened = True
        shown, self._held = self._held[:place], self._held[place:]
        return shown

    def finish(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return held


def _begun(text: str) -> int:
    """How many characters at the end of `text` may be the beginning of the marker."""
    return next((n for n in range(min(len(OPEN) - 1, len(text)), 0, -1) if OPEN.startswith(text[-n:])), 0)

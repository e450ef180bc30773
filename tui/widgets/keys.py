"""The line of keys at the foot of a whole screen, which breaks between keys where the terminal is narrow."""

from __future__ import annotations

from rich.cells import cell_len
from textual.content import Content

from tui.widgets.hint import Hint, content_of

_GAP = " · "


class Keys(Hint):
    """As `Hint`; `lines` at most are shown, so the least important keys come last."""

    def __init__(self, *keys: tuple[str, str, str], lines: int = 2) -> None:
        super().__init__(*keys)
        self.set_classes("keys")
        self._lines = lines

    def on_resize(self) -> None:
        self._lay_out()

    def show(self, *keys: tuple[str, str, str]) -> None:
        if keys != self.keys:
            self.keys = keys
            self._lay_out()

    def _lay_out(self) -> None:
        width = self.content_size.width
        if width:
            rows = broken(self.keys, width)[: self._lines]
            self.update(Content("\n").join([content_of(row) for row in rows]))


def broken(keys: tuple[tuple[str, str, str], ...], width: int) -> list[tuple[tuple[str, str, str], ...]]:
    """The keys in lines of at most `width` cells."""
    lines: list[list[tuple[str, str, str]]] = [[]]
    room = width
    for key, word, action in keys:
        need = cell_len(f"{key} {word}") + (len(_GAP) if lines[-1] else 0)
        if need > room and lines[-1]:
            lines.append([])
            room, need = width, need - len(_GAP)
        lines[-1].append((key, word, action))
        room -= need
    return [tuple(line) for line in lines]

"""The line at the bottom: what is going on, in words, and the keys that matter now."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from tui.wording import shorten

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class StatusBar(Widget):
    """`state` on the left, `hints` as (key, word) pairs on the right, as many as there is room for."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES = {"status--key", "status--muted", "status--busy", "status--failed"}

    state: reactive[str] = reactive("")
    tone: reactive[str] = reactive("muted")
    hints: reactive[tuple[tuple[str, str], ...]] = reactive(())

    def render(self) -> Content:
        width = self.size.width
        state = shorten(self.state, width)
        left = Content.styled(state, self.get_visual_style(f"status--{self.tone}"))
        key, muted = self.get_visual_style("status--key"), self.get_visual_style("status--muted")
        shown: list[Content] = []
        room = width - left.cell_length - 2
        for name, word in self.hints:
            hint = Content.assemble((name, key), " ", (word, muted))
            if hint.cell_length + (3 if shown else 0) > room:
                break
            room -= hint.cell_length + (3 if shown else 0)
            shown.append(hint)
        right = Content("   ").join(shown)
        gap = max(0, width - left.cell_length - right.cell_length)
        return Content.assemble(left, " " * gap, right)

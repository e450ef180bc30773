"""The line on top: what is talked about, and the model with its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from tui.text_mode import CLASS as TEXT
from tui.wording import brief, meter, shorten

_METER = 8


@dataclass(frozen=True)
class Facts:
    """What the line shows. Zeros and empty strings are not shown."""

    title: str = ""
    model: str = ""
    backend: str = ""
    context_used: int = 0
    context: int = 0
    speed: float = 0.0


class HeaderBar(Widget):
    """Leaves out the least important parts where the terminal is narrow."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES = {"header--brand", "header--muted", "header--full"}

    facts: reactive[Facts] = reactive(Facts())
    training: reactive[str] = reactive("")
    """How far a training run is; "" when there is none."""

    def render(self) -> Content:
        width = self.size.width
        facts = self.facts
        right = self._numbers(width)
        right_width = right.cell_length
        brand = "◆ qwen-mlx" if width >= 40 or not facts.title else "◆"
        room = width - cell_len(brand) - right_width - 5
        title = shorten(facts.title, room) if room >= 8 else ""
        left = Content.assemble(
            (brand, self.get_visual_style("header--brand")),
            ("  " + title if title else "", self.get_visual_style("header--muted")),
        )
        gap = max(1, width - left.cell_length - right_width)
        return Content.assemble(left, " " * gap, right)

    def _numbers(self, width: int) -> Content:
        facts = self.facts
        muted = self.get_visual_style("header--muted")
        parts: list[Content] = []
        if self.training:
            parts.append(Content.styled(self.training, self.get_visual_style("header--brand")))
        if facts.model:
            parts.append(Content.styled(shorten(facts.model, max(12, width // 3)), "bold"))
        if facts.backend and width >= 70:
            parts.append(Content.styled(facts.backend, muted))
        if facts.context and width >= 50:
            part = facts.context_used / facts.context
            full = self.get_visual_style("header--full")
            text = f"{brief(facts.context_used)} of {brief(facts.context)}"
            bar = meter(part, _METER) + " " if width >= 100 and not self.app.has_class(TEXT) else ""
            if not facts.context_used:
                bar, text = "", f"{brief(facts.context)} context"
            parts.append(Content.styled(bar + text, full if part >= 0.8 else muted))
        if facts.speed and width >= 80:
            parts.append(Content.styled(f"{facts.speed:.0f} tok/s", muted))
        return Content.styled(" · ", muted).join(parts)

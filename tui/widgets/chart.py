"""Curves over steps. With the app as text only, what they show in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from tui.training import plot
from tui.training.plot import Cell, Curve
from tui.wording import shorten

_LEGEND = "━━"
_EMPTY = "Nothing to show yet."
_LOWEST = 3  # rows of a chart that is worth its axes


class Chart(Widget):
    """Takes its curves from `show`; draws them anew for whatever size it has.

    Args:
        title: stands before the legend.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES = {
        "chart--axis", "chart--raw", "chart--train", "chart--valid", "chart--other",
        "chart--1", "chart--2", "chart--3", "chart--4", "chart--5", "chart--6",
    }  # fmt: skip

    def __init__(self, title: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self._title = title
        self._curves: tuple[Curve, ...] = ()
        self._log = False
        self._right = 0.0
        self._empty = _EMPTY

    def show(self, curves: Sequence[Curve], *, log: bool = False, right: float = 0.0, empty: str = _EMPTY) -> None:
        """Draw these curves.

        Args:
            log: the left axis is logarithmic.
            right: the axis of steps goes as far as this.
            empty: what to say while there is no point.
        """
        self._curves, self._log, self._right, self._empty = tuple(curves), log, right, empty
        self.refresh()

    def render(self) -> Content:
        width, height = self.size.width, self.size.height
        if width < 1 or height < 1:
            return Content("")
        if self.app.has_class("-text"):
            return Content("\n".join(self._words()[:height]))
        legend = self._legend(width)
        frame = plot.frame_of(self._curves, self._log, self._right)
        if frame is None:
            gap = "\n" * max(1, (height - 1) // 2)
            note = Content.styled(shorten(self._empty, width).center(width), self._style("axis"))
            return Content.assemble(legend, gap, note) if height > 2 else note
        rows = height - 2
        if rows < _LOWEST:  # a strip: the curve, and its range in the legend
            cells = plot.draw(self._curves, frame, width, max(1, height - 1))
            return Content("\n").join([legend, *map(self._line, cells)][:height])
        labels = plot.value_labels(frame, rows)
        margin = max(cell_len(text) for text in labels.values()) + 1
        cells = plot.draw(self._curves, frame, max(1, width - margin), rows)
        axis = self._style("axis")
        lines = [legend]
        lines += [
            Content.assemble((f"{labels.get(row, ''):>{margin - 1}} ", axis), self._line(line))
            for row, line in enumerate(cells)
        ]
        steps = plot.step_labels(frame, max(1, width - margin))
        lines.append(Content.styled(" " * margin + steps, axis))
        return Content("\n").join(lines)

    def _line(self, cells: Sequence[Cell]) -> Content:
        """Neighbours of one style are one piece."""
        parts: list[tuple[str, str]] = []
        for character, style in cells:
            if parts and parts[-1][1] == style:
                parts[-1] = (parts[-1][0] + character, style)
            else:
                parts.append((character, style))
        return Content.assemble(*((text, self._style(style)) if style else text for text, style in parts))

    def _style(self, name: str) -> Style:
        return self.get_visual_style(f"chart--{name}")

    def _legend(self, width: int) -> Content:
        """Title, and for each curve its sign, name and latest value, as far as there is room."""
        axis = self._style("axis")
        parts = [Content.styled(self._title, "bold")] if self._title else []
        room = width - cell_len(self._title)
        for curve in self._curves:
            if not curve.name:
                continue
            last = f" {plot.number(curve.points[-1][1])}" if curve.points else ""
            sign = f"{_LEGEND[0]}{curve.mark}{_LEGEND[0]}" if curve.mark else _LEGEND
            part = Content.assemble((sign, self._style(curve.style)), f" {curve.name}", (last, axis))
            if part.cell_length + 3 > room:
                break
            room -= part.cell_length + 3
            parts.append(part)
        if self._log and room > 12:
            parts.append(Content.styled("log scale", axis))
        return Content("   ").join(parts)

    def _words(self) -> list[str]:
        """A sentence per curve."""
        found = [self._title] if self._title else []
        for curve in self._curves:
            if not curve.name or not curve.points:
                continue
            (first, start), (last, now) = curve.points[0], curve.points[-1]
            step, lowest = min(curve.points, key=lambda point: point[1])
            found.append(
                f"{curve.name}: {plot.number(start)} at step {round(first):,}, {plot.number(now)} at step "
                f"{round(last):,}, lowest {plot.number(lowest)} at step {round(step):,}."
            )
        return found if len(found) > bool(self._title) else [self._empty]

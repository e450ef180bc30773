"""Curves drawn with braille dots, two across and four down in every cell. Pure functions on numbers and characters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tui.training.series import Point

_EMPTY = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_LABEL_ROWS = 4  # rows from one label of the left axis to the next

Cell = tuple[str, str]
"""A character and the name of its style; "" is empty ground."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        style: a name that the widget knows a colour for.
        mark: a character that stands on the line, so that it can be told from others without colours.
        every: cells from one mark to the next; 0 marks every point.
    """

    name: str
    points: Sequence[Point]
    style: str
    mark: str = ""
    every: int = 0


@dataclass(frozen=True)
class Frame:
    """What part of the plane a chart shows: `low` and `high` are values, or their logarithms when `log`."""

    left: float
    right: float
    low: float
    high: float
    log: bool = False

    def height_of(self, value: float) -> float | None:
        """0 at the bottom and 1 at the top; None for what cannot be shown."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return None
        placed = math.log10(value) if self.log else value
        return (placed - self.low) / (self.high - self.low)

    def value_at(self, height: float) -> float:
        placed = self.low + height * (self.high - self.low)
        return 10.0 ** min(placed, 308.0) if self.log else placed


def frame_of(curves: Iterable[Curve], log: bool = False, right: float = 0.0) -> Frame | None:
    """The frame that shows all points, and steps up to `right`; None when there is nothing to show."""
    steps, values = [], []
    for curve in curves:
        for step, value in curve.points:
            if math.isfinite(value) and (value > 0 or not log):
                steps.append(step)
                values.append(math.log10(value) if log else value)
    if not values:
        return None
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        around = 0.5 if log else 0.05 * abs(high) or 0.05
        low, high = low - around, high + around
    first, last = min(steps), max(*steps, right)
    return Frame(first, last if last > first else first + 1, low, high, log)


@dataclass
class _Canvas:
    """Dots that were set, by cell, and whose they are."""

    width: int
    height: int
    bits: list[list[int]] = field(init=False)
    styles: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.bits = [[0] * self.width for _ in range(self.height)]
        self.styles = [[""] * self.width for _ in range(self.height)]
        self.marks: dict[tuple[int, int], str] = {}

    def column(self, x: int, low: int, high: int, style: str) -> None:
        """Dots from `low` to `high`, both counted from the top and included, of the dot column `x`."""
        cell, dots = x // 2, _DOTS[x % 2]
        for y in range(low, high + 1):
            row = y // 4
            self.bits[row][cell] |= dots[y % 4]
            self.styles[row][cell] = style

    def mark(self, x: int, y: int, character: str, style: str) -> None:
        self.marks[y // 4, x // 2] = character
        self.styles[y // 4][x // 2] = style

    def cells(self) -> list[list[Cell]]:
        return [
            [
                (self.marks.get((row, column)) or (chr(_EMPTY + bits) if bits else " "), self.styles[row][column])
                for column, bits in enumerate(line)
            ]
            for row, line in enumerate(self.bits)
        ]


def draw(curves: Sequence[Curve], frame: Frame, width: int, height: int) -> list[list[Cell]]:
    """`height` rows of `width` cells; later curves lie over earlier ones."""
    canvas = _Canvas(width, height)
    for curve in curves:
        _line(canvas, curve, frame)
    return canvas.cells()


def _line(canvas: _Canvas, curve: Curve, frame: Frame) -> None:
    across, down = 2 * canvas.width - 1, 4 * canvas.height - 1
    columns: dict[int, list[int]] = {}  # of each dot column: first, last, lowest and highest dot
    dots: list[tuple[int, int]] = []
    for step, value in curve.points:
        height = frame.height_of(value)
        if height is None:
            continue
        x = round((step - frame.left) / (frame.right - frame.left) * across)
        y = round((1 - height) * down)
        if not (0 <= x <= across and 0 <= y <= down):
            continue
        dots.append((x, y))
        held = columns.setdefault(x, [y, y, y, y])
        held[1], held[2], held[3] = y, min(held[2], y), max(held[3], y)
    before: tuple[int, int] | None = None
    for x, (first, last, low, high) in columns.items():
        if before is not None:
            _join(canvas, before, (x, first), curve.style)
        canvas.column(x, low, high, curve.style)
        before = (x, last)
    if curve.mark:
        _marks(canvas, dots, curve)


def _join(canvas: _Canvas, start: tuple[int, int], end: tuple[int, int], style: str) -> None:
    """A straight line between two dots, column by column and without gaps."""
    (x0, y0), (x1, y1) = start, end
    if x1 <= x0:
        return
    before = y0
    for x in range(x0 + 1, x1 + 1):
        y = y0 + round((y1 - y0) * (x - x0) / (x1 - x0))
        middle = (before + y) // 2
        if x - 1 > x0:
            canvas.column(x - 1, min(before, middle), max(before, middle), style)
        canvas.column(x, min(middle, y), max(middle, y), style)
        before = y


def _marks(canvas: _Canvas, dots: Sequence[tuple[int, int]], curve: Curve) -> None:
    next_cell = -1
    for place, (x, y) in enumerate(dots):
        if x // 2 >= next_cell or place == len(dots) - 1:
            canvas.mark(x, y, curve.mark, curve.style)
            next_cell = x // 2 + curve.every


# ------------------------------------------------------------------------------------------------------------- axes


def value_labels(frame: Frame, height: int) -> dict[int, str]:
    """Row -> label of the left axis."""
    rows = sorted({*range(0, height - 1, _LABEL_ROWS), height - 1})
    if len(rows) > 2 and rows[-1] - rows[-2] < 2:
        rows.pop(-2)
    return {row: number(frame.value_at(1 - row / max(1, height - 1))) for row in rows}


def step_labels(frame: Frame, width: int) -> str:
    """The line under the chart: the first step, the last, and what is between where there is room."""
    line = [" "] * width
    count = max(2, min(6, width // 14))
    taken = -1
    for place in range(count):
        text = f"{round(frame.left + (frame.right - frame.left) * place / (count - 1)):,}"
        start = min(round((width - 1) * place / (count - 1)) - (len(text) // 2 if place else 0), width - len(text))
        if place and start <= taken + 1:
            continue
        line[start : start + len(text)] = text
        taken = start + len(text)
    return "".join(line[:width])


def number(value: float) -> str:
    """A number in at most six characters: "0.0012", "1.234", "12.3", "1.2e-05"."""
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e5):
        return f"{value:.0e}" if len(f"{value:.1e}") > 7 else f"{value:.1e}"
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.3f}" if size < 10 else f"{value:.1f}"

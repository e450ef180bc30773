"""A table as one widget, where Textual has one for each cell: a grid of hundreds is laid out anew at every append."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from textual.app import ComposeResult
from textual.content import Content
from textual.css.styles import RulesMap
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual
from textual.widgets._markdown import MarkdownTable

Row = Sequence[Content]
_LEAST = 4  # cells that a column keeps, where there is room for that many


class Grid(Visual):
    """Cells in a grid of thin lines; what does not fit into a column is wrapped.

    Args:
        rows: the first one is the head, in bold.
        before: a grid with the same rows but for the last one; what it has computed is taken over.
    """

    def __init__(self, rows: Sequence[Row], before: Grid | None = None) -> None:
        self._rows = rows
        known: list[list[int]] = before._naturals[: len(before._rows) - 1] if before is not None else []
        self._naturals: list[list[int]] = [*known, *([_natural(cell) for cell in row] for row in rows[len(known) :])]
        self._drawn: dict[tuple[object, ...], list[Strip]] = {}
        if before is not None:
            self._drawn = {key: strips for key, strips in before._drawn.items() if key[0] != len(before._rows) - 1}
        self._wanted = [max(column, default=0) for column in zip(*self._naturals)]
        self.drawn = 0  # rows that were drawn and not taken over

    @property
    def _besides(self) -> int:
        """Cells of a line that are not text: its vertical lines, and a blank at each side of each text."""
        return 3 * len(self._wanted) + 1

    def widths(self, width: int) -> list[int]:
        """How many cells the text of each column gets: what it wants, or a fair share."""
        room = max(width - self._besides, len(self._wanted))
        widths = list(self._wanted)
        left = len(widths)
        for column in sorted(range(len(widths)), key=lambda column: self._wanted[column]):
            share = max(room // left, min(_LEAST, room - left + 1), 1)
            widths[column] = max(1, min(self._wanted[column], share))
            room -= widths[column]
            left -= 1
        return widths

    # ------------------------------------------------------------------------------------------------- drawing

    def render_strips(self, width: int, height: int | None, style: Style, options: RenderOptions) -> list[Strip]:
        widths = self.widths(width)
        line = (style + Style(foreground=options.get_style("$panel").foreground)).rich_style
        lines = [_ruler(widths, "┌┬┐", line)]
        for number in range(len(self._rows)):
            lines += [_ruler(widths, "├┼┤", line)] if number else []
            lines += self._row(number, widths, style, line, options)
        lines.append(_ruler(widths, "└┴┘", line))
        if height is not None:
            lines = lines[:height]
        lines = [strip.crop(0, width) if strip.cell_length > width else strip for strip in lines]
        if options.selection is not None and options.selection_style is not None:
            lines = [_selected(strip, options, y) for y, strip in enumerate(lines)]
        return [strip.apply_offsets(0, y) for y, strip in enumerate(lines)]

    def _row(self, number: int, widths: list[int], style: Style, line: object, options: RenderOptions) -> list[Strip]:
        key = (number, tuple(widths), style, line)
        if key not in self._drawn:
            self.drawn += 1
            plain = RenderOptions(options.get_style, {})
            if number == 0:
                style = style + Style(bold=True)
            cells = [
                cell.render_strips(width, None, style, plain) or [Strip.blank(width, style.rich_style)]
                for cell, width in zip(self._rows[number], widths)
            ]
            blank = style.rich_style
            self._drawn[key] = [
                Strip.join(
                    part
                    for strips, width in zip(cells, widths)
                    for part in (
                        Strip([Segment("│", line)]),  # type: ignore[arg-type]
                        Strip([Segment(" ", blank)]),
                        strips[y].extend_cell_length(width + 1, blank)
                        if y < len(strips)
                        else Strip.blank(width + 1, blank),
                    )
                )
                for y in range(max(map(len, cells), default=1))
            ]
            end = Strip([Segment("│", line)])  # type: ignore[arg-type]
            self._drawn[key] = [Strip.join([strip, end]) for strip in self._drawn[key]]
        return self._drawn[key]

    # ------------------------------------------------------------------------------------------------- sizes

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return sum(self._wanted) + self._besides

    def get_minimal_width(self, rules: RulesMap) -> int:
        return len(self._wanted) + self._besides

    def get_height(self, rules: RulesMap, width: int) -> int:
        widths = self.widths(width)
        heights = [
            max((max(1, cell.get_height({}, room)) for cell, room in zip(row, widths)), default=1) for row in self._rows
        ]
        return sum(heights) + len(heights) + 1


def _natural(cell: Content) -> int:
    return max(1, cell.get_optimal_width({}, 0))


def _ruler(widths: list[int], corners: str, style: object) -> Strip:
    left, middle, right = corners[0], corners[1], corners[2]
    text = left + middle.join("─" * (width + 2) for width in widths) + right
    return Strip([Segment(text, style)])  # type: ignore[arg-type]


def _selected(strip: Strip, options: RenderOptions, y: int) -> Strip:
    """A line of the table with the part that the mouse has marked."""
    assert options.selection is not None and options.selection_style is not None
    span = options.selection.get_span(y)
    if span is None:
        return strip
    begin, end = span[0], strip.cell_length if span[1] == -1 else span[1]
    marked = strip.crop(begin, end).apply_style(options.selection_style.rich_style)
    return Strip.join([strip.crop(0, begin), marked, strip.crop(end)])


class StreamTable(MarkdownTable):
    """A table that grows by its new rows only."""

    def compose(self) -> ComposeResult:
        headers, rows = self._get_headers_and_rows()
        self._blocks.clear()
        self._show(headers, rows, None)
        return iter(())

    @property
    def grid(self) -> Grid:
        """What is shown."""
        assert isinstance(self.visual, Grid)
        return self.visual

    def _show(self, headers: list[Content], rows: list[list[Content]], before: Grid | None) -> None:
        self._headers, self._rows = headers, rows
        width = len(headers)
        even = [[*row[:width], *[Content("")] * (width - len(row))] for row in rows]
        self.update(Grid([headers, *even], before))

    async def grow(self, newer: MarkdownTable) -> bool:
        """Take over the rows of `newer`, which was parsed from more text; False when it is not a continuation."""
        headers, rows = newer._get_headers_and_rows()
        if not isinstance(self.visual, Grid) or len(rows) < len(self._rows):
            return False
        if [str(cell) for cell in headers] != [str(cell) for cell in self._headers]:
            return False
        # Only the last row can have changed: a row is final once its line has ended.
        self._show(headers, rows, self.grid if self._rows else None)
        return True

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """What is selected of the lines as they are drawn."""
        lines = self.grid.render_strips(
            *(max(1, self.content_size.width), None, Style(), RenderOptions(lambda style: Style(), {}))
        )
        return selection.extract("\n".join(strip.text.rstrip() for strip in lines)), "\n"

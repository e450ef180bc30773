"""Two or more runs beside each other: their curves in one chart, and in what they differ."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen

from qwen_mlx.events import RunRecord
from tui.training.comparing import best_of, judged_alike, table_of, train_points, valid_points
from tui.training.plot import Curve
from tui.training.series import Series, smoothed
from tui.widgets.chart import Chart
from tui.widgets.keys import Keys
from tui.widgets.still import Still
from tui.wording import pad

SIGNS = "ABCDEF"  # how runs are told apart without colours
_SMOOTHING = 0.9
_APART = 14  # cells from one sign on a line to the next


class CompareScreen(Screen[None], inherit_bindings=False):
    """At most six runs, because no more can be told apart."""

    CSS_PATH = "training.tcss"
    BINDINGS = [
        Binding("escape,q", "leave", "Leave", show=False, id="compare.leave"),
        Binding("g", "log", "Logarithmic or not", show=False, id="compare.log"),
        Binding("v", "other", "Train or valid loss", show=False, id="compare.other"),
    ]

    def __init__(self, records: Sequence[RunRecord]) -> None:
        super().__init__()
        self._records = records[: len(SIGNS)]
        self._log = False
        self._valid = any(valid_points(record) for record in self._records)

    def compose(self) -> ComposeResult:
        count = f"  {len(self._records)} runs beside each other"
        yield Still(Content.assemble(("◆ Training", "bold $primary"), (count, "$secondary")), id="bar")
        with Vertical(id="compared"):
            yield Chart(id="over")
            with VerticalScroll(id="differences"):
                yield Still("")
        yield Keys(("v", "train or valid loss", "other"), ("g", "log scale", "log"), ("esc", "leave", "leave"))

    def on_mount(self) -> None:
        self._paint()
        self.query_one("#differences").focus()

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    def _paint(self) -> None:
        curves = []
        for place, record in enumerate(self._records):
            points = valid_points(record) if self._valid else train_points(record)
            shown = list(Series(points)) if self._valid else smoothed(list(Series(points)), _SMOOTHING)
            curves.append(Curve(record.entry.name, shown, str(place + 1), SIGNS[place], _APART))
        self.query_one(Chart).show(curves, log=self._log, empty="These runs have no such numbers.")
        self.query_one("#differences Still", Still).update(self._table())

    def _table(self) -> Content:
        rows = table_of(self._records)
        best = best_of(self._records)
        first = max(len(name) for name, _ in rows) + 2
        room = max(8, min(28, (self.size.width - 4 - first) // len(self._records) - 1))
        heads = [
            (pad(f"{SIGNS[place]} {record.entry.name}{' ★' if place == best else ''}", room) + " ", "bold")
            for place, record in enumerate(self._records)
        ]
        lines = [Content.assemble(" " * first, *heads)]
        for name, words in rows:
            cells = [pad(word, room) + " " for word in words]
            lines.append(Content.assemble((pad(name, first), "$secondary"), *cells))
        if not judged_alike(self._records):
            lines.append(Content.styled("Not judged by the same data: the losses cannot be compared.", "$secondary"))
        return Content("\n").join(lines)

    def action_log(self) -> None:
        self._log = not self._log
        self._paint()

    def action_other(self) -> None:
        """Show the train loss instead of the valid loss, or back."""
        self._valid = not self._valid
        self._paint()

    def action_leave(self) -> None:
        self.dismiss(None)

"""How small a model should become."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from qwen_mlx.events import ModelEntry
from tui.quantizing import PRESETS, estimate
from tui.widgets.hint import Hint
from tui.widgets.still import Still
from tui.wording import size

_FEW = 2_000_000_000  # weights; below, 3 bits leave little


class QuantizeScreen(ModalScreen[str | None]):
    """Enter gives the name of a preset, escape nothing."""

    CSS_PATH = "dialog.tcss"
    BINDINGS = [Binding("escape", "leave", "Leave it", show=False, id="quantize.leave")]

    def __init__(self, model: ModelEntry) -> None:
        super().__init__()
        self._model = model

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="quantize"):
            yield Still(
                Content.assemble(("Make it smaller ", "bold $primary"), (self._model.name, "$secondary")),
                classes="heading",
            )
            yield OptionList(*(Option(self._row(*preset), id=preset[0]) for preset in PRESETS), id="hits")
            yield Still(self._note(), classes="note")
            yield Hint(("↑↓", "choose", ""), ("enter", "begin", "begin"), ("esc", "leave it", "leave"))

    def on_mount(self) -> None:
        listing = self.query_one(OptionList)
        listing.highlighted = 0
        listing.focus()

    def _row(self, name: str, bits: float, purpose: str) -> Content:
        amount = f"~{size(estimate(self._model, bits))}"
        return Content.assemble((name.ljust(10), "bold"), f"{amount:>9}  ", (purpose, "$secondary"))

    def _note(self) -> str:
        text = f"It has {size(self._model.size)} now, and stays. The new one stands beside it; answers wait meanwhile."
        if self._model.parameters is not None and self._model.parameters < _FEW:
            text += " A small model loses more by rounding: quality or max suit it best."
        return text

    @on(OptionList.OptionSelected)
    def chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(event.option.id)

    def action_begin(self) -> None:
        option = self.query_one(OptionList).highlighted_option
        self.dismiss(option.id if option is not None else None)

    def action_leave(self) -> None:
        self.dismiss(None)

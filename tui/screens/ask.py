"""One short question with one line for the answer, or with none but yes and no."""

from __future__ import annotations

from collections.abc import Callable

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input

from tui.widgets.hint import Hint
from tui.widgets.still import Still


class AskScreen(ModalScreen[str | None]):
    """Enter gives what is written ("" where nothing can be), escape None.

    Args:
        text: says more about it.
        yes: what enter does, in a word or two.
        value: stands in the line at first; None for a question without a line.
        check: raises ValueError for an answer that cannot be meant.
    """

    CSS_PATH = "dialog.tcss"
    BINDINGS = [
        Binding("escape,n", "leave", "Leave it", show=False, id="ask.leave"),
        Binding("enter,y", "answer", "Yes", show=False, id="ask.answer"),
    ]

    def __init__(
        self, title: str, text: str, yes: str, value: str | None = None, check: Callable[[str], object] = str
    ) -> None:
        super().__init__()
        self._title, self._text, self._yes, self._value, self._check = title, text, yes, value, check

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Still(Content.styled(self._title, "bold $primary"), classes="heading")
            yield Still(Content(self._text))
            if self._value is not None:
                yield Input(self._value, id="title", compact=True)
            yield Still("", id="problem")
            yield Hint(("enter", self._yes, "answer"), ("esc", "leave it", "leave"))

    def on_mount(self) -> None:
        self.query_one("#problem").display = False
        for line in self.query(Input):
            line.focus()

    @on(Input.Submitted)
    def action_answer(self) -> None:
        written = next((line.value for line in self.query(Input)), "")
        try:
            self._check(written)
        except ValueError as problem:
            shown = self.query_one("#problem", Still)
            shown.update(Content(str(problem)))
            shown.display = True
            return
        self.dismiss(written)

    def action_leave(self) -> None:
        self.dismiss(None)

"""Asks for a new title."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from tui.widgets.still import Still


class RenameScreen(ModalScreen[str]):
    """Enter gives the new title, escape nothing."""

    CSS_PATH = "dialog.tcss"
    BINDINGS = [Binding("escape", "leave", "Leave it", show=False, id="rename.leave")]

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Still("Rename the conversation", classes="heading")
            yield Input(self._title, id="title", compact=True)
            yield Still("enter keep · esc leave it", classes="hint")

    @on(Input.Submitted)
    def keep(self, event: Input.Submitted) -> None:
        self.dismiss(" ".join(event.value.split()))

    def action_leave(self) -> None:
        self.dismiss(None)

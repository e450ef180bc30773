"""Every key, by what one wants to do."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen

from tui.bindings import GROUPS, KEYS, all_shown
from tui.widgets.still import Still

_NOTE = (
    "The mouse works everywhere: click a conversation, an example, a line of thinking; drag over text to select it. "
    "All commands, with a search, are under ctrl+p."
)


class HelpScreen(ModalScreen[None]):
    """Any of its keys closes it again."""

    CSS_PATH = "dialog.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (112, "-wide")]
    BINDINGS = [Binding("escape,f1,question_mark,q", "leave", "Close", show=False, id="help.leave")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="dialog", classes="help"):
            yield Still("Keys", classes="heading")
            with Grid(id="groups"):
                for group in GROUPS:
                    yield Still(_table(group), classes="group")
            yield Still(_NOTE, classes="note")
            yield Still("esc close", classes="hint")

    def action_leave(self) -> None:
        self.dismiss(None)


def _table(group: str) -> Content:
    rows = [Content.styled(group, "bold $primary")]
    keys = [(all_shown(key.keys), key.title) for key in KEYS if key.group == group]
    width = max(len(name) for name, _ in keys) + 2
    rows += [Content.assemble((name.ljust(width), "bold"), (title, "$secondary")) for name, title in keys]
    return Content("\n").join(rows)

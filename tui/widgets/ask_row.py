"""The question whether a model may read a file.

It stands above the prompt and never takes a key that was meant for it: letters go on to the prompt, and what is marked
at first is "No", so that an enter too many allows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message

from tui.bindings import bindings
from tui.tool_runs import Allowed, Asking, brief_call
from tui.widgets.still import Still
from tui.wording import shorten

_CHOICES: tuple[tuple[Allowed, str], ...] = (("no", "No"), ("once", "Once"), ("always", "Always in this conversation"))


class Choice(Still):
    """One of the answers; a button."""

    BINDINGS = bindings("choice")
    can_focus = True

    @dataclass
    class Pressed(Message):
        """This is the answer."""

        allowed: Allowed

    def __init__(self, allowed: Allowed, word: str) -> None:
        super().__init__(Content(f" {word} "), classes="choice", id=f"allow-{allowed}")
        self.allowed = allowed

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.action_press()

    def action_press(self) -> None:
        self.post_message(self.Pressed(self.allowed))

    def action_other(self, step: int) -> None:
        row = [child for child in self.parent.children if isinstance(child, Choice)] if self.parent else [self]
        row[(row.index(self) + step) % len(row)].focus()


class AskRow(Vertical):
    """Shown while a call waits for a person."""

    @dataclass
    class Answered(Message):
        """What the person said."""

        allowed: Allowed

    def __init__(self) -> None:
        super().__init__(id="ask")
        self._asking: Asking | None = None
        self._text = Still("", classes="question", markup=False)

    def compose(self) -> ComposeResult:
        yield self._text
        with Horizontal():
            for allowed, word in _CHOICES:
                yield Choice(allowed, word)

    @property
    def asking(self) -> Asking | None:
        return self._asking

    def show(self, asking: Asking | None, title: str | None = None) -> bool:
        """Ask, or stop asking; whether it is another question than before. `title` names another conversation."""
        if asking is self._asking:
            return False
        self._asking = asking
        self.display = asking is not None
        if asking is not None:
            where = f" in “{shorten(title, 30)}”" if title is not None else ""
            path = shorten(brief_call(asking.call), 60) or "(nothing)"
            self._text.update(
                Content.assemble(
                    (f"? The model{where} wants to read ", "bold"),
                    (path, "$primary"),
                    f"  below {shorten(str(asking.folder), 50)}",
                )
            )
        return True

    def take_focus(self) -> None:
        """Mark "No"; the arrows lead to the others."""
        self.query_one("#allow-no", Choice).focus()

    @on(Choice.Pressed)
    def pressed(self, event: Choice.Pressed) -> None:
        event.stop()
        self.post_message(self.Answered(event.allowed))

"""One of a few values on one line: `‹ LoRA ›`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.message import Message
from textual.widgets import Static


class Choice(Static):
    """Left and right, space, and a click on either half choose.

    Args:
        options: value and the word for it.
        value: what is chosen at first.
    """

    ALLOW_SELECT = False
    can_focus = True
    BINDINGS = [
        Binding("right,space", "choose(1)", "Next value", show=False, id="formchoice.next"),
        Binding("left", "choose(-1)", "Previous value", show=False, id="formchoice.previous"),
    ]

    @dataclass
    class Changed(Message):
        """A person chose another value."""

        choice: Choice
        value: str

        @property
        def control(self) -> Choice:
            return self.choice

    def __init__(self, options: Sequence[tuple[str, str]], value: str, id: str | None = None) -> None:
        super().__init__(id=id, classes="choice")
        self.options = tuple(options)
        self._value = value
        self._paint()

    @property
    def value(self) -> str:
        return self._value

    @value.setter
    def value(self, value: str) -> None:
        """Choose without telling anybody."""
        self._value = value
        self._paint()

    @property
    def word(self) -> str:
        return dict(self.options).get(self._value, self._value)

    def _paint(self) -> None:
        self.update(Content.assemble(("‹ ", "$secondary"), (self.word, "bold"), (" ›", "$secondary")))

    def action_choose(self, step: int) -> None:
        """The value `step` places further, the first one after the last."""
        values = [value for value, _ in self.options]
        place = values.index(self._value) + step if self._value in values else 0
        self.value = values[place % len(values)]
        self.post_message(self.Changed(self, self._value))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.focus()
        self.action_choose(-1 if event.x < 2 else 1)

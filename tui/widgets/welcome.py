"""What an empty conversation shows: where one is, and what could be asked."""

from __future__ import annotations

from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList

from qwen_mlx.events import ModelInfo
from tui.widgets.still import Still
from tui.wording import brief, size

EXAMPLES = ("What is 27 + 48?", "Reverse the word planet", "Which command checks my machine?")
_KEYS = (("enter", "send"), ("ctrl+j", "new line"), ("ctrl+p", "commands"), ("f1", "help"))


class Welcome(VerticalScroll):
    """A choice of questions that the demo model can answer; each is sent by a click, or by enter."""

    can_focus = False

    @dataclass
    class Picked(Message):
        """Send this question."""

        text: str

    def compose(self) -> ComposeResult:
        with Vertical(id="card"):
            yield Still("◆ qwen-mlx", classes="brand")
            yield Still("Qwen on your own machine. Nothing you write leaves it.", classes="motto")
            yield Still("", classes="model")
            yield Still("Try one of these", classes="invite")
            yield OptionList(*(Content.assemble(("› ", "$primary"), text) for text in EXAMPLES), id="examples")
            hints = Content("   ").join(Content.assemble((key, "$primary"), f" {word}") for key, word in _KEYS)
            yield Still(hints, classes="keys")

    def on_mount(self) -> None:
        self.query_one("#examples", OptionList).highlighted = None

    def show(self, model: ModelInfo | None) -> None:
        """Say which model answers."""
        text = ""
        if model is not None:
            precision = f"{model.bits:g}-bit"
            parts = [model.name, f"{brief(model.parameters)} parameters", precision, size(model.memory), model.backend]
            text = " · ".join(parts)
        self.query_one(".model", Still).update(Content(text))

    @on(OptionList.OptionSelected)
    def picked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Picked(EXAMPLES[event.option_index]))

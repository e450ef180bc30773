"""What an empty conversation shows: where one is, what could be asked, and which real model would fit this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from qwen_mlx.events import KnownModel, ModelInfo
from tui.downloads import Download, describe
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

    @dataclass
    class Wanted(Message):
        """Download the model that is offered, or (not wanted) do not offer it again."""

        wanted: bool

    def compose(self) -> ComposeResult:
        with Vertical(id="card"):
            yield Still("◆ qwen-mlx", classes="brand")
            yield Still("Qwen on your own machine. Nothing you write leaves it.", classes="motto")
            yield Still("", classes="model")
            yield Still("Try one of these", classes="invite")
            yield OptionList(*(Content.assemble(("› ", "$primary"), text) for text in EXAMPLES), id="examples")
            with Vertical(id="offer"):
                yield Still("", classes="about")
                yield OptionList(id="answers")
            hints = Content("   ").join(Content.assemble((key, "$primary"), f" {word}") for key, word in _KEYS)
            yield Still(hints, classes="keys")

    def on_mount(self) -> None:
        self.query_one("#examples", OptionList).highlighted = None
        self.query_one("#offer").display = False

    def show(self, model: ModelInfo | None) -> None:
        """Say which model answers."""
        text = ""
        if model is not None:
            parts = [model.name, f"{brief(model.parameters)} parameters", f"{model.bits:.1f} bits", *_amounts(model)]
            text = " · ".join([*parts, model.backend])
        self.query_one(".model", Still).update(Content(text))

    def offer(self, model: KnownModel | None, unfinished: str | None = None) -> None:
        """Offer a model, or to go on with a download that was not finished; with neither, say nothing."""
        card = self.query_one("#offer")
        card.display = model is not None or unfinished is not None
        if not card.display:
            return
        if unfinished is not None:
            about = Content.assemble("The download of ", (unfinished, "bold"), " was not finished.")
            take = "go on with it"
        else:
            assert model is not None
            numbers = f" fits this machine: ~{size(model.size)} on disk, ~{size(model.memory)} of memory."
            about = Content.assemble("This demo knows little. ", (model.name, "bold"), numbers)
            take = f"download {model.name}"
        self.query_one("#offer .about", Still).update(about)
        answers = self.query_one("#answers", OptionList)
        answers.clear_options()
        answers.add_option(Option(Content.assemble(("↓ ", "$primary"), (take, ""), ("  f4", "$primary")), id="take"))
        answers.add_option(Option(Content.assemble(("× ", "$secondary"), ("not now", "$secondary")), id="leave"))
        answers.highlighted = None

    def follow(self, download: Download | None) -> None:
        """While a download goes on, say how far it is."""
        if download is None or not self.display:
            return
        card = self.query_one("#offer")
        card.display = True
        self.query_one("#offer .about", Still).update(Content(f"{download.name}: {describe(download)}"))
        self.query_one("#answers", OptionList).clear_options()

    @on(OptionList.OptionSelected, "#examples")
    def picked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Picked(EXAMPLES[event.option_index]))

    @on(OptionList.OptionSelected, "#answers")
    def answered(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Wanted(event.option.id == "take"))


def _amounts(model: ModelInfo) -> list[str]:
    """What it takes on the disk and in memory: two numbers, as a CPU may unpack the weights."""
    try:
        stored = sum(file.stat().st_size for file in Path(model.folder).iterdir() if file.is_file())
    except OSError:
        return [f"{size(model.memory)} in memory"]
    return [f"{size(stored)} on disk", f"{size(model.memory)} in memory"]

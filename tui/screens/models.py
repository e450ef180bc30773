"""The models of this machine: use one, get another, delete what is not needed."""

from __future__ import annotations

import asyncio

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from qwen_mlx.errors import QwenError
from qwen_mlx.events import ModelEntry
from tui.clock import Clock
from tui.downloads import Downloads, Ended, describe
from tui.notices import complain
from tui.widgets.still import Still
from tui.wording import ago, pad, sentence, size

POLL_SECONDS = 0.25
_MARKS = {"fits": "●", "tight": "◐", "too big": "○"}


class ModelsScreen(ModalScreen[str | None]):
    """Enter uses the marked model; its name is the result.

    Args:
        loaded: the name of the model in use.
    """

    CSS_PATH = "dialog.tcss"
    BINDINGS = [
        Binding("escape,ctrl+l", "leave", "Leave", show=False, id="models.leave"),
        Binding("down", "mark(1)", "Next", show=False, id="models.down", priority=True),
        Binding("up", "mark(-1)", "Previous", show=False, id="models.up", priority=True),
        Binding("ctrl+g", "get", "Download what is written", show=False, id="models.get", priority=True),
        Binding("ctrl+x", "stop", "Stop the download", show=False, id="models.stop", priority=True),
        Binding("ctrl+d", "delete", "Delete the marked model", show=False, id="models.delete", priority=True),
    ]

    def __init__(self, downloads: Downloads, clock: Clock, loaded: str | None) -> None:
        super().__init__()
        self._downloads = downloads
        self._shelf = downloads.shelf
        self._clock = clock
        self._loaded = loaded
        self._models: list[ModelEntry] = []
        self._shown: list[ModelEntry] = []
        self._doomed: ModelEntry | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="models"):
            yield Still("Models", classes="heading")
            yield Input(id="query", placeholder="Filter, or what to download: qwen3:0.6b, org/repository", compact=True)
            yield OptionList(id="hits", markup=False)
            yield Still("", classes="note")
            yield Still("enter use · ctrl+g download what is written · ctrl+d delete · esc leave", classes="hint")

    async def on_mount(self) -> None:
        self._say("Looking…")
        self.set_interval(POLL_SECONDS, self._poll)
        await self._refresh()

    async def _refresh(self) -> None:
        try:
            self._models = await asyncio.to_thread(self._shelf.models)
        except QwenError as error:
            complain(self, error)
        self.call_after_refresh(self._paint)  # the list knows its width then

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    # ------------------------------------------------------------------------------------------------- the list

    @on(Input.Changed)
    def changed(self) -> None:
        self._doomed = None
        self._paint()

    def _paint(self) -> None:
        words = self._written.lower().split()
        self._shown = [model for model in self._models if all(word in model.name.lower() for word in words)]
        listing = self.query_one(OptionList)
        marked = listing.highlighted or 0
        now, width = self._clock.wall(), max(40, listing.size.width - 3)
        listing.clear_options()
        listing.add_options([Option(_row(model, self._loaded, now, self._clock, width)) for model in self._shown])
        listing.highlighted = min(marked, len(self._shown) - 1) if self._shown else None
        self._explain()

    def _explain(self) -> None:
        """The line under the list: what goes on, or what could be done."""
        download = self._downloads.current
        if self._doomed is not None:
            self._say(f"Delete {self._doomed.name} and free {size(self._doomed.size)}? ctrl+d again deletes it.")
        elif download is not None:
            self._say(f"{download.name}: {describe(download)} · ctrl+x stops, what is here is kept")
        elif not self._shown and self._written:
            self._say(f"No model here is called so. ctrl+g downloads {self._written}.")
        elif self._models and all(not model.removable for model in self._models):
            self._say("Only the demo model is here. Write qwen3:0.6b and press ctrl+g for a real one.")
        else:
            self._say("")

    def _say(self, text: str) -> None:
        note = self.query_one(".note", Still)
        note.update(Content(text))
        note.display = bool(text)

    @property
    def _written(self) -> str:
        return self.query_one(Input).value.strip()

    @property
    def _marked(self) -> ModelEntry | None:
        place = self.query_one(OptionList).highlighted
        return self._shown[place] if place is not None and place < len(self._shown) else None

    def action_mark(self, step: int) -> None:
        listing = self.query_one(OptionList)
        if listing.option_count:
            listing.highlighted = min(max((listing.highlighted or 0) + step, 0), listing.option_count - 1)
            self._doomed = None
            self._explain()

    # --------------------------------------------------------------------------------------------------- actions

    @on(Input.Submitted)
    def use(self) -> None:
        if (model := self._marked) is None:
            self.action_get()
        elif model.problem is not None:
            self.notify(f"{model.name} cannot be used: {model.problem}.", severity="warning", markup=False)
        else:
            self.dismiss(model.name)

    @on(OptionList.OptionSelected)
    def clicked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.use()

    def action_get(self) -> None:
        """Download what is written."""
        if self._downloads.current is not None:
            self.notify("One download at a time; ctrl+x stops it.")
        elif self._written:
            self._downloads.start(self._written)
            self._explain()

    def action_stop(self) -> None:
        self._downloads.stop()
        self._explain()

    async def action_delete(self) -> None:
        """Asks first: the second press deletes."""
        model = self._marked
        if model is None:
            return
        if not model.removable or model.name == self._loaded:
            why = "it is in use" if model.name == self._loaded else "it is part of the program"
            self.notify(f"{model.name} is not deleted: {why}.", markup=False)
        elif self._doomed != model:
            self._doomed = model
            self._explain()
        else:
            self._doomed = None
            try:
                freed = await asyncio.to_thread(self._shelf.delete, model.name)
                self.notify(f"{model.name} is deleted; {size(freed)} are free.", markup=False)
            except QwenError as error:
                complain(self, error)
            await self._refresh()

    async def _poll(self) -> None:
        if self._downloads.current is None:
            return
        ended = self._downloads.poll()
        if ended is not None:
            self.notify(message_of(ended), severity="error" if ended.error else "information", markup=False)
            self.query_one(Input).value = ""
            await self._refresh()
        elif self._doomed is None:
            self._explain()

    def action_leave(self) -> None:
        self.dismiss(None)


def message_of(ended: Ended) -> str:
    """How a download ended, as a sentence."""
    if ended.error is None:
        return f"{ended.name} is here. ctrl+l chooses it."
    return sentence(ended.error) if ended.error else f"{ended.name}: stopped; the next download goes on from there."


def _row(model: ModelEntry, loaded: str | None, now: float, clock: Clock, width: int) -> Content:
    """`▌ name   4.5 bits   1.2 GB   ● fits   3h`."""
    facts = [
        f"{model.bits:.1f} bits" if model.bits else "",
        size(model.size),
        f"{_MARKS.get(model.fits, '')} {model.fits}" if model.fits and not model.problem else (model.problem or ""),
        ago(model.used, now, clock) if model.used else "",
    ]
    widths = (10, 9, 12, 7)
    tail = "".join(f" {fact:>{room}}" for fact, room in zip(facts, widths))
    name = pad(model.name, max(8, width - cell_len(tail) - 2))
    mark = "▌" if model.name == loaded else " "
    style = "$error" if model.problem else "$secondary"
    return Content.assemble((mark, "$primary"), " ", (name, "bold" if model.name == loaded else ""), (tail, style))

"""The training runs of this machine: look at one, begin one, go on with one, compare some, delete one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.screen import Screen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from qwen_mlx.errors import QwenError
from qwen_mlx.events import RunEntry
from tui.notices import complain
from tui.training.rows import heading, row
from tui.widgets.keys import Keys
from tui.widgets.still import Still
from tui.wording import sentence, size

if TYPE_CHECKING:
    from tui.screens.training_desk import TrainingDesk

REFRESH_SECONDS = 3.0
_BESIDES = 7  # cells of a line: padding and scrollbar
_HINTS = (
    *(("enter", "open", "open"), ("n", "new", "new"), ("r", "resume", "resume"), ("space", "mark", "mark")),
    *(("c", "compare the marked", "compare"), ("d", "delete", "delete"), ("esc", "leave", "leave")),
)


class RunsScreen(Screen[None], inherit_bindings=False):
    """Looks again every few seconds: another process may train as well."""

    CSS_PATH = "training.tcss"
    BINDINGS = [
        Binding("escape,f5,q", "leave", "Leave", show=False, id="runs.leave"),
        Binding("n", "new", "New run", show=False, id="runs.new"),
        Binding("r", "resume", "Go on with the marked run", show=False, id="runs.resume"),
        Binding("space", "mark", "Mark for comparing", show=False, id="runs.mark"),
        Binding("c", "compare", "Compare the marked runs", show=False, id="runs.compare"),
        Binding("d,delete", "delete", "Delete", show=False, id="runs.delete"),
    ]

    def __init__(self, desk: TrainingDesk) -> None:
        super().__init__()
        self._desk = desk
        self._entries: list[RunEntry] = []
        self._chosen: list[str] = []
        self._doomed: str | None = None
        self._read = False

    def compose(self) -> ComposeResult:
        yield Still(
            Content.assemble(("◆ Training", "bold $primary"), ("  runs of this machine", "$secondary")), id="bar"
        )
        yield Still("", id="columns")
        yield OptionList(id="runs", markup=False)
        yield Still("", id="none")
        yield Still("", classes="say")
        yield Keys(*_HINTS)

    async def on_mount(self) -> None:
        self.query_one("#none").display = False
        self.set_interval(REFRESH_SECONDS, self.refresh_runs)
        self.query_one(OptionList).focus()
        await self.refresh_runs()

    async def on_screen_resume(self) -> None:
        if self._read:
            await self.refresh_runs()

    async def refresh_runs(self) -> None:
        """Look again at what is there."""
        if self.app.screen is not self:
            return
        try:
            self._entries = await asyncio.to_thread(self._desk.workshop.runs)
        except QwenError as error:
            complain(self, error)
            return
        self._read = True
        self._chosen = [folder for folder in self._chosen if any(entry.folder == folder for entry in self._entries)]
        self.call_after_refresh(self._paint)

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    # ------------------------------------------------------------------------------------------------- painting

    def _paint(self) -> None:
        if not self.is_attached:
            return
        listing = self.query_one(OptionList)
        width = max(30, self.size.width - _BESIDES)
        marked = self.marked
        now = self._desk.clock.wall()
        self.query_one("#columns", Still).update(heading(width))
        options = [
            Option(row(entry, entry.folder in self._chosen, now, width, self._desk.clock), id=entry.folder)
            for entry in self._entries
        ]
        listing.clear_options()
        listing.add_options(options)
        places = [place for place, entry in enumerate(self._entries) if marked and entry.folder == marked.folder]
        listing.highlighted = next(iter([*places, 0]), 0) if options else None
        empty = self._read and not self._entries
        listing.display = not empty
        self.query_one("#columns").display = not empty
        none = self.query_one("#none", Still)
        none.display = empty
        none.update(Content("Nothing has been trained here yet. Press n to begin: you need a file of examples."))
        self._explain()

    def _explain(self) -> None:
        entry = self.marked
        text = ""
        if entry is not None and self._doomed == entry.folder:
            text = f"Delete {entry.name} with all it has learnt? d again deletes it."
        elif entry is not None and entry.problem is not None:
            text = sentence(entry.problem)
        elif entry is not None:
            best = f" · lowest valid loss {entry.best_loss:.4g} at step {entry.best_step}" if entry.best_loss else ""
            text = f"{entry.folder}{best}"
        if len(self._chosen) > 1:
            text = f"{len(self._chosen)} runs are marked: c compares them. {text}"
        self.query_one(".say", Still).update(Content(text))

    @property
    def marked(self) -> RunEntry | None:
        """The run under the cursor."""
        option = self.query_one(OptionList).highlighted_option
        folder = option.id if option is not None else None
        return next((entry for entry in self._entries if entry.folder == folder), None)

    @on(OptionList.OptionHighlighted)
    def moved(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if self.marked is None or self._doomed != self.marked.folder:
            self._doomed = None
        self._explain()

    # -------------------------------------------------------------------------------------------------- actions

    @on(OptionList.OptionSelected)
    async def selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        await self.action_open()

    async def action_open(self) -> None:
        if (entry := self.marked) is not None:
            await self._desk.watch(entry.folder)

    def action_new(self) -> None:
        self._desk.new()

    async def action_resume(self) -> None:
        """Go on with the marked run."""
        if (entry := self.marked) is not None:
            await self._desk.resume(entry)

    def action_mark(self) -> None:
        """Mark the run for comparing, or not any more; the cursor goes on."""
        entry = self.marked
        if entry is None:
            return
        self._chosen = (
            [folder for folder in self._chosen if folder != entry.folder]
            if entry.folder in self._chosen
            else [*self._chosen, entry.folder]
        )
        self._paint()
        self.query_one(OptionList).action_cursor_down()

    async def action_compare(self) -> None:
        """Compare the marked runs."""
        if len(self._chosen) < 2:
            self.notify("Mark two or more runs with space first.")
            return
        await self._desk.compare(self._chosen)

    async def action_delete(self) -> None:
        """Asks first: the second press deletes."""
        entry = self.marked
        if entry is None:
            return
        if entry.state == "running":
            self.notify(f"{entry.name} is being trained: stop it first.", markup=False)
        elif self._doomed != entry.folder:
            self._doomed = entry.folder
            self._explain()
        else:
            self._doomed = None
            try:
                freed = await asyncio.to_thread(self._desk.workshop.delete, entry.folder)
                self.notify(f"{entry.name} is deleted; {size(freed)} are free.", markup=False)
            except QwenError as error:
                complain(self, error)
            await self.refresh_runs()

    def action_leave(self) -> None:
        self.dismiss(None)

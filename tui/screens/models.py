"""The models of this machine and those it could have: use one, get another, make one smaller, delete one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from qwen_mlx.errors import QwenError
from qwen_mlx.events import KnownModel, ModelEntry
from tui import downloads, quantizing
from tui.clock import Clock
from tui.downloads import Downloads
from tui.notices import complain
from tui.preferences import Preferences
from tui.quantizing import Quantizer
from tui.screens.models_rows import known_row, matching, matching_known, row
from tui.screens.quantize import QuantizeScreen
from tui.widgets.hint import Hint
from tui.widgets.still import Still
from tui.wording import size

POLL_SECONDS = 0.25
Line = ModelEntry | KnownModel
_HINTS = (
    *(("enter", "use", "use"), ("ctrl+g", "download", "get"), ("ctrl+t", "shrink", "quantize")),
    *(("ctrl+s", "begin with it", "default"), ("ctrl+d", "delete", "delete"), ("esc", "leave", "leave")),
)


class ModelsScreen(ModalScreen[str | None]):
    """Enter uses the marked model; its name is the result.

    Args:
        loaded: the name of the model in use.
        keep: writes a preference.
    """

    CSS_PATH = "dialog.tcss"
    BINDINGS = [
        Binding("escape,ctrl+l", "leave", "Leave", show=False, id="models.leave"),
        Binding("down", "mark(1)", "Next", show=False, id="models.down", priority=True),
        Binding("up", "mark(-1)", "Previous", show=False, id="models.up", priority=True),
        Binding("pagedown", "mark(8)", "Next page", show=False, id="models.page_down", priority=True),
        Binding("pageup", "mark(-8)", "Previous page", show=False, id="models.page_up", priority=True),
        Binding("ctrl+g", "get", "Download", show=False, id="models.get", priority=True),
        Binding("ctrl+x", "stop", "Stop what is going on", show=False, id="models.stop", priority=True),
        Binding("ctrl+t", "quantize", "Make it smaller", show=False, id="models.quantize", priority=True),
        Binding("ctrl+s", "default", "Begin with it", show=False, id="models.default", priority=True),
        Binding("ctrl+d", "delete", "Delete the marked model", show=False, id="models.delete", priority=True),
    ]

    def __init__(
        self,
        downloads: Downloads,
        quantizer: Quantizer,
        preferences: Preferences,
        keep: Callable[..., None],
        clock: Clock,
        loaded: str | None,
    ) -> None:
        super().__init__()
        self._downloads = downloads
        self._quantizer = quantizer
        self._preferences = preferences
        self._keep = keep
        self._shelf = downloads.shelf
        self._clock = clock
        self._loaded = loaded
        self._models: list[ModelEntry] = []
        self._known: list[KnownModel] = []
        self._lines: dict[str, Line] = {}
        self._doomed: ModelEntry | None = None
        self._wanted: KnownModel | None = None  # enter once more downloads it

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="models"):
            yield Still("Models", classes="heading")
            yield Input(id="query", placeholder="Search: 8b, coder, org/repository", compact=True)
            yield OptionList(id="hits", markup=False)
            yield Still("", classes="note")
            yield Hint(*_HINTS)

    async def on_mount(self) -> None:
        self._say("Looking…")
        self.set_interval(POLL_SECONDS, self._poll)
        await self._refresh()

    async def _refresh(self) -> None:
        try:
            self._models = await asyncio.to_thread(self._shelf.models)
            self._known = self._known or await asyncio.to_thread(self._shelf.known)
        except QwenError as error:
            complain(self, error)
        self.call_after_refresh(self._paint)  # the list knows its width then

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    # ------------------------------------------------------------------------------------------------- the list

    @on(Input.Changed)
    def changed(self) -> None:
        self._calm()
        self._paint()

    def _paint(self) -> None:
        words = self._written.lower().split()
        here = matching(self._models, words)
        others = matching_known(self._known, words, (model.name for model in self._models))
        listing = self.query_one(OptionList)
        marked = self._marked_id
        now, width = self._clock.wall(), max(30, listing.size.width - 3)
        default = self._preferences.default_model
        self._lines = {f"here {model.name}": model for model in here}
        rows = [row(model, self._loaded, default, now, self._clock, width) for model in here]
        options = [Option(content, id=f"here {model.name}") for content, model in zip(rows, here)]
        if others:
            gap = "\n" if options else ""
            heading = Content.styled(f"{gap}Published, with an estimate of what they take", "bold $secondary")
            options.append(Option(heading, disabled=True))
            options += [Option(known_row(model, width), id=f"known {model.name}") for model in others]
            self._lines |= {f"known {model.name}": model for model in others}
        listing.clear_options()
        listing.add_options(options)
        places = [place for place, option in enumerate(options) if not option.disabled]
        again = [place for place in places if options[place].id == marked]
        listing.highlighted = next(iter([*again, *places]), None)
        self._explain()

    def _explain(self) -> None:
        """The line under the list: what goes on, or what could be done."""
        download, work, marked = self._downloads.current, self._quantizer.current, self._marked
        if self._doomed is not None:
            self._say(f"Delete {self._doomed.name} and free {size(self._doomed.size)}? ctrl+d again deletes it.")
        elif self._wanted is not None and marked is self._wanted:
            self._say(f"Download {self._wanted.name}, about {size(self._wanted.size)}? enter again begins.")
        elif download is not None:
            self._say(f"{download.name}: {downloads.describe(download)} · ctrl+x stops, what is here is kept")
        elif work is not None:
            self._say(f"{work.name}, {work.preset}: {quantizing.describe(work)} · ctrl+x stops")
        elif self._unfinished is not None and not self._written:
            self._say(f"The download of {self._unfinished} was not finished: ctrl+g goes on, ctrl+x forgets it.")
        elif isinstance(marked, KnownModel):
            self._say(
                f"{marked.repository}: about {size(marked.size)} to download, {size(marked.memory)} of memory at 8,192 "
                f"tokens, {_verdict(marked.fits)}."
            )
        elif not self._lines and self._written:
            self._say(f"No model is called so. ctrl+g downloads {self._written}.")
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
    def _unfinished(self) -> str | None:
        return self._preferences.download if self._downloads.current is None else None

    @property
    def _marked_id(self) -> str | None:
        option = self.query_one(OptionList).highlighted_option
        return option.id if option is not None else None

    @property
    def _marked(self) -> Line | None:
        return self._lines.get(self._marked_id or "")

    def _calm(self) -> None:
        """Nothing waits for a second press any more."""
        self._doomed = self._wanted = None

    def action_mark(self, step: int) -> None:
        listing = self.query_one(OptionList)
        places = [place for place, option in enumerate(listing.options) if not option.disabled]
        if places:
            now = listing.highlighted if listing.highlighted in places else places[0]
            listing.highlighted = places[min(max(places.index(now) + step, 0), len(places) - 1)]

    @on(OptionList.OptionHighlighted)
    def moved(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if self._marked not in (self._doomed, self._wanted):
            self._calm()
        self._explain()

    # --------------------------------------------------------------------------------------------------- actions

    @on(Input.Submitted)
    def action_use(self) -> None:
        """Use the marked model; one that is not here is downloaded, when asked for twice."""
        marked = self._marked
        if marked is None:
            self.action_get()
        elif isinstance(marked, KnownModel):
            if self._wanted is marked:
                self.action_get()
            else:
                self._wanted = marked
                self._explain()
        elif marked.problem is not None:
            self.notify(f"{marked.name} cannot be used: {marked.problem}.", severity="warning", markup=False)
        else:
            self.dismiss(marked.name)

    @on(OptionList.OptionSelected)
    def clicked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.action_use()

    def action_get(self) -> None:
        """Download the marked published model, or what is written, or what was not finished."""
        marked = self._marked
        wanted = self._written or self._unfinished
        if isinstance(marked, KnownModel) and (self._wanted is marked or not wanted or self._written):
            wanted = marked.name
        if self._downloads.current is not None:
            self.notify("One download at a time; ctrl+x stops it.")
        elif wanted:
            self._calm()
            self._downloads.start(wanted)
            self._explain()

    def action_stop(self) -> None:
        """Stop the download, else the quantization, else forget the download that was not finished."""
        if self._downloads.current is not None:
            self._downloads.stop()
        elif self._quantizer.current is not None:
            self._quantizer.stop()
        elif self._unfinished is not None:
            self._keep(download=None)
        self._explain()

    def action_quantize(self) -> None:
        """Make the marked model smaller, with a preset."""
        model = self._marked
        if not isinstance(model, ModelEntry):
            self.notify("Only a model that is here can be made smaller.")
        elif (reason := quantizing.refusal(model)) is not None:
            self.notify(reason, markup=False)
        elif self._quantizer.current is not None:
            self.notify("One at a time; ctrl+x stops it.")
        else:
            self.app.push_screen(QuantizeScreen(model), lambda preset: self._begin(model, preset))

    def _begin(self, model: ModelEntry, preset: str | None) -> None:
        if preset is None:
            return
        try:
            self._quantizer.start(model, preset)
        except RuntimeError as error:
            self.notify(f"{model.name} cannot be made smaller now: {error}.", severity="error", markup=False)
        self._explain()

    def action_default(self) -> None:
        """Begin with the marked model from now on, or with the one used last."""
        model = self._marked
        if not isinstance(model, ModelEntry):
            self.notify("Only a model that is here can be begun with.")
            return
        undo = self._preferences.default_model == model.name
        self._keep(default_model=None if undo else model.name)
        said = "the one used last" if undo else model.name
        self.notify(f"The app begins with {said} from now on.", markup=False)
        self._paint()

    async def action_delete(self) -> None:
        """Asks first: the second press deletes."""
        model = self._marked
        if not isinstance(model, ModelEntry):
            return
        if not model.removable or model.name == self._loaded:
            why = "it is in use" if model.name == self._loaded else "it is part of the program"
            self.notify(f"{model.name} is not deleted: {why}.", markup=False)
        elif self._doomed != model:
            self._calm()
            self._doomed = model
            self._explain()
        else:
            self._calm()
            try:
                freed = await asyncio.to_thread(self._shelf.delete, model.name)
                self.notify(f"{model.name} is deleted; {size(freed)} are free.", markup=False)
            except QwenError as error:
                complain(self, error)
            await self._refresh()

    async def _poll(self) -> None:
        """Take what happened to the download and to the quantization."""
        if self._downloads.current is None and self._quantizer.current is None:
            return
        said = [(downloads.message_of(ended), bool(ended.error)) for ended in [self._downloads.poll()] if ended]
        said += [(quantizing.message_of(made), bool(made.error)) for made in [self._quantizer.poll()] if made]
        for text, failed in said:
            self.notify(text, severity="error" if failed else "information", markup=False)
        if said:
            self.query_one(Input).value = ""
            await self._refresh()
        elif self._doomed is None and self._wanted is None:
            self._explain()

    def action_leave(self) -> None:
        self.dismiss(None)


def _verdict(fits: str) -> str:
    return {"fits": "which fits", "tight": "which would be tight", "too big": "too much for this machine"}[fits]

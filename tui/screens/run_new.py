"""A new run: what it learns from and how, with what that will look like and take beside it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer

from qwen_mlx.errors import QwenError
from tui.notices import complain
from tui.training import paths
from tui.training.data_look import DataLook
from tui.training.fields import ADAPTER_ONLY, BY_KEY, GROUPS, Config, Field, changes_of, method_of, name_for, values_of
from tui.training.forecast import Forecaster, Line, lines_of
from tui.widgets.form_row import FormRow
from tui.widgets.keys import Keys
from tui.widgets.masked_text import MaskedText
from tui.widgets.still import Still
from tui.wording import sentence, size

if TYPE_CHECKING:
    from tui.screens.training_desk import TrainingDesk

POLL_SECONDS = 0.1
CALM_SECONDS = 0.5  # without a change, before data and memory are looked at
_READ_AT_ONCE = 3_000_000_000  # bytes of a model that may be read for a forecast nobody asked for
_PACKED_AT_ONCE = 300_000_000  # the same where it must be packed first
WIDE = 110
_OFFERING = ("data.train", "data.valid", "model.path")
_TONES = {"": "", "muted": "$secondary", "good": "$success", "tight": "$warning", "bad": "$error"}
_HINTS = (("ctrl+s", "start", "start"), ("tab", "next field", ""), ("esc", "leave, it is kept", "leave"))


class NewRunScreen(Screen[None], inherit_bindings=False):
    """What is filled in is kept by the desk until a run has begun with it."""

    CSS_PATH = "training.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    BINDINGS = [
        Binding("escape", "leave", "Leave; what is written is kept", show=False, id="newrun.leave"),
        Binding("ctrl+s", "start", "Start the run", show=False, id="newrun.start", priority=True),
        Binding("ctrl+f", "forecast", "Forecast now", show=False, id="newrun.forecast", priority=True),
        Binding("ctrl+d", "read", "Data or form", show=False, id="newrun.read", priority=True),
    ]

    def __init__(self, desk: TrainingDesk) -> None:
        super().__init__()
        self._desk = desk
        self._presets: dict[str, Config] = {}
        self._models: dict[str, int] = {}  # names and sizes
        self._recent: list[str] = []
        self._values: dict[str, str] = {}
        self._touched: set[str] = set()
        self._problems: dict[str, str] = {}
        self._data = DataLook(desk.workshop)
        self._forecaster = Forecaster(desk.ask_forecast)
        self._calm: Timer | None = None
        self._wrong = ""
        self._ready = False

    def compose(self) -> ComposeResult:
        yield Still(Content.assemble(("◆ Training", "bold $primary"), ("  a new run", "$secondary")), id="bar")
        with Horizontal(id="new"):
            yield VerticalScroll(id="form", can_focus=False)
            with Vertical(id="beside"):
                yield Still("", id="forecast")
                yield Still("", id="found")
                yield MaskedText()
        yield Still("", id="strip")
        yield Still("", classes="say")
        yield Keys(*_HINTS)

    async def on_mount(self) -> None:
        try:
            self._presets, self._models, self._recent = await asyncio.to_thread(self._desk.look)
        except QwenError as error:
            complain(self, error)
            return
        self._values = self._begin()
        form = self.query_one("#form")
        for number, (heading, fields) in enumerate(GROUPS):  # one after the other: keys are heard in between
            title = Still(heading, classes="group -first" if not number else "group")
            await form.mount_all([title, *(self._row(field) for field in fields)])
        if self.focused is None or not isinstance(self.focused.parent, Horizontal):  # who was quick is left where he is
            self.row("data.train").take_focus()
        self.set_interval(POLL_SECONDS, self._poll)
        self._ready = True
        self._changed()

    def _row(self, field: Field) -> FormRow:
        if field.key == "preset":
            field = Field(field.key, field.label, field.help, "choice", tuple((name, name) for name in self._presets))
        return FormRow(field, self._values.get(field.key, ""), picks=field.key in _OFFERING)

    def _begin(self) -> dict[str, str]:
        """What the form says at first: what was left in it, else the usual."""
        name = "lora" if "lora" in self._presets else next(iter(self._presets), "lora")
        values = dict.fromkeys(BY_KEY, "")
        values |= values_of(self._presets.get(name, {}))
        values |= {"preset": name, "method": method_of(self._presets.get(name, {})), "data.train": ""}
        values |= {"data.valid": "0.05", "model.path": self._desk.model or "demo", "log.samples": ""}
        draft, self._touched = self._desk.draft
        return values | draft

    def row(self, key: str) -> FormRow:
        return self.query_one(f"#row-{BY_KEY[key].id}", FormRow)

    # -------------------------------------------------------------------------------------------------- the form

    @on(FormRow.Changed)
    def changed(self, event: FormRow.Changed) -> None:
        event.stop()
        key = event.row.field.key
        if self._values.get(key) == event.value:
            return  # what we wrote ourselves comes back later
        self._values[key] = event.value
        self._touched.add(key)
        if key in ("preset", "method"):
            self._set_preset(event.value, by_hand=key == "preset")
        self._changed()

    def _set_preset(self, name: str, by_hand: bool) -> None:
        """Fill in a preset; with a method, leave what the person has written."""
        config = self._presets.get(name)
        if config is None:
            return
        kept = {"data.train", "data.valid", "model.path", "log.samples"} | (set() if by_hand else self._touched)
        values = {key: value for key, value in values_of(config).items() if key not in kept}
        values |= {"preset": name, "method": method_of(config)}
        if by_hand:
            self._touched -= set(values)
        self._values |= values
        for key, value in values.items():
            self.row(key).value = value

    def _changed(self) -> None:
        """Say what is wrong at once; look at data and memory when nothing has changed for a moment."""
        if not self._ready:
            return
        if "name" not in self._touched:
            values = self._values
            self._values["name"] = name_for(values["data.train"], values["model.path"], values["method"])
            self.row("name").value = self._values["name"]
        full = self._values["method"] == "full"
        for key in ADAPTER_ONLY:
            if key in BY_KEY:
                self.row(key).set_class(full, "-idle")
        self._desk.draft = (dict(self._values), self._touched)
        self._problems = self._desk.workshop.problems(self._changes)
        if not self._values["name"].strip():
            self._problems["name"] = "it needs a name"
        self._show_problems()
        if self._calm is not None:
            self._calm.stop()
        self._calm = self.set_timer(CALM_SECONDS, self._look)

    @property
    def _changes(self) -> list[str]:
        return changes_of(self._values)

    @property
    def _data_changes(self) -> tuple[str, ...]:
        """Those that decide what the tokens are."""
        return tuple(change for change in self._changes if change.startswith(("data.", "model.path")))

    def _show_problems(self) -> None:
        shown = dict(self._problems)
        # An empty field is not wrong, it is not filled in yet.
        if not self._values["data.train"].strip():
            shown.pop("data.train", None)
        if self._data.error and self._data.is_of(self._data_changes):
            shown[self._data.blamed] = self._data.error
        for key in BY_KEY:
            self.row(key).show_problem(_short(shown.get(key, "")))
        rest = [text for key, text in shown.items() if key not in BY_KEY]
        self._wrong = sentence(rest[0]) if rest else ""
        self._say()

    def _say(self) -> None:
        """What is wrong with all of it; else what the field with the focus is about."""
        row = (
            next((node for node in self.focused.ancestors if isinstance(node, FormRow)), None) if self.focused else None
        )
        about = f"{row.field.label}: {row.field.help}" if row is not None else ""
        text = Content.styled(self._wrong, "$error") if self._wrong else Content(about)
        self.query_one(".say", Still).update(text)

    @on(events.DescendantFocus)
    def focus_moved(self) -> None:
        self._say()

    @on(FormRow.Left)
    def left(self, event: FormRow.Left) -> None:
        event.stop()
        self.focus_next() if event.step > 0 else self.focus_previous()

    @on(FormRow.PicksWanted)
    def picks_wanted(self, event: FormRow.PicksWanted) -> None:
        event.stop()
        self.run_worker(self._offer(event.row), group=f"picks {event.row.id}", exclusive=True)

    async def _offer(self, row: FormRow) -> None:
        typed = row.value
        if row.field.key == "model.path":
            found = [name for name in self._models if typed.lower() in name.lower() and name != typed]
            # The field begins filled in: what is there already must not hide the others.
            found = found or ([name for name in self._models if name != typed] if typed in self._models else [])
        elif row.field.key == "data.valid" and typed.strip(" 0123456789.,%") == "":
            found = []
        else:
            found = await asyncio.to_thread(paths.candidates, typed, self._recent)
        if row.value == typed:
            row.show_picks(found)

    # ---------------------------------------------------------------------------------------- data and forecast

    def _look(self) -> None:
        """Begin to look at the data, if that is something else now, and at memory and time."""
        if not self._values["data.train"].strip():
            self._data.forget()
        elif not any(key.startswith(("data.", "model.path")) or not key for key in self._problems):
            self._data.want(self._data_changes)
            self._ask_forecast()
        self._paint()

    def _ask_forecast(self) -> None:
        """Ask, once the data is known to be in order: reading it again costs little then."""
        wanted = self._data.done and not self._problems and not self._is_costly
        if wanted and self._desk.trainer.current is None:
            self._forecaster.want(self._changes)
        else:
            self._forecaster.forget()

    @property
    def _is_costly(self) -> bool:
        """Whether a forecast takes so long that nobody wants one with every key: it reads, or even packs, the model."""
        held = self._models.get(self._values["model.path"].strip(), 0)
        return held > (_PACKED_AT_ONCE if self._values["method"] == "qlora" else _READ_AT_ONCE)

    def _poll(self) -> None:
        news, rows = self._forecaster.poll(), self._data.rows
        if self._data.poll():
            news = True
            if self._data.rows is not rows:
                self.query_one(MaskedText).show(self._data.rows)
            if not self._data.busy:
                self._show_problems()
                self._ask_forecast()
        if news:
            self._paint()

    # ------------------------------------------------------------------------------------------------- painting

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    def _paint(self) -> None:
        if not self._ready or not self.is_attached:
            return
        width = self.size.width
        narrow = width < WIDE
        room = max(30, width - (6 if narrow else 74))
        lines = self._forecast_lines(room)
        box = self.query_one("#forecast", Still)
        box.update(_content(lines))
        box.set_class(any(line.tone == "bad" for line in lines), "-bad")
        self.query_one("#found", Still).update(_content(self._data.lines()))
        self.query_one("#strip", Still).update(_content(self._strip(width - 4)))
        if not self._values["data.train"].strip():
            self.query_one(MaskedText).show((), "The first examples come here; what is learnt of them is underlined.")
        reading = self.has_class("-reading")
        more = (("ctrl+d", "form" if reading else "data", "read"),) if narrow else ()
        self.query_one(Keys).show(_HINTS[0], *more, *_HINTS[1:])

    def _forecast_lines(self, room: int) -> list[Line]:
        maker, found = self._forecaster, [Line("Forecast")]
        if self._desk.trainer.current is not None:
            return [*found, Line(f"{self._desk.trainer.current.name} is being trained: one run at a time.", "tight")]
        if maker.error:
            return [*found, Line(sentence(maker.error), "bad")]
        if self._is_costly and not maker.busy and self._data.done and not maker.is_of(self._changes):
            old = lines_of(maker.forecast, room) if maker.forecast is not None else []
            about = size(self._models[self._values["model.path"].strip()])
            return [*found, *old, Line(f"ctrl+f computes it; it reads the model for that, {about}.", "muted")]
        if maker.forecast is not None:
            shown = lines_of(maker.forecast, room)
            again = [Line("Computing it again…", "muted")] if maker.busy else []
            return [*found, *shown, *again]
        if maker.busy:
            wait = " when the answer has ended" if self._desk.answering else ""
            return [*found, Line(f"Computing it{wait}…", "muted")]
        return [*found, Line("Memory, steps and time, once there is data to learn from.", "muted")]

    def _strip(self, width: int) -> list[Line]:
        """The same in two lines, for narrow terminals."""
        if self._data.error:
            return [Line("")]
        lines = self._forecast_lines(width)[1:]
        train = self._data.train
        data = f"{train.examples:,} examples, {train.tokens:,} tokens" if train is not None else ""
        steps = lines[1].text if len(lines) > 1 else ""
        return [lines[0], Line(" · ".join(part for part in (steps, data) if part), "muted")]

    # -------------------------------------------------------------------------------------------------- actions

    def action_forecast(self) -> None:
        """Ask for the forecast now, whatever it costs."""
        if self._ready and not self._problems and self._data.done and self._desk.trainer.current is None:
            self._forecaster.want(self._changes)
            self._paint()

    def action_read(self) -> None:
        """On a narrow terminal: data and forecast in the place of the form, or back."""
        self.toggle_class("-reading")
        if self.has_class("-reading"):
            self.query_one(MaskedText).focus()
        else:
            self.row("data.train").take_focus()
        self.call_after_refresh(self._paint)

    async def action_start(self) -> None:
        """Begin the run, if nothing is wrong."""
        if not self._ready:
            return
        self._problems = self._desk.workshop.problems(self._changes)
        if not self._values["data.train"].strip():
            self._refuse("data.train", "What should it learn from? Give a file.")
        elif self._problems:
            key = next(iter(self._problems))
            self._show_problems()
            self._refuse(key, f"Not started: {sentence(self._problems[key])}")
        elif self._data.error and self._data.is_of(self._data_changes):
            self._refuse(self._data.blamed, f"Not started: {sentence(self._data.error)}")
        elif (reason := self._desk.busy_reason) is not None:
            self.notify(reason, markup=False)
        else:
            self._data.stop()
            self._forecaster.forget()
            await self._desk.start(self._values["name"], self._changes)

    def _refuse(self, key: str, text: str) -> None:
        self.notify(text, severity="warning", markup=False)
        if key in BY_KEY:
            self.remove_class("-reading")
            self.row(key).take_focus()

    def action_leave(self) -> None:
        self._data.stop()
        self._forecaster.forget()
        self.dismiss(None)


def _content(lines: list[Line]) -> Content:
    return Content("\n").join([Content.styled(line.text, _TONES[line.tone]) for line in lines])


def _short(problem: str) -> str:
    """Without the name of the key, which the label says better."""
    if problem.startswith("'") and "' cannot be used; " in problem:
        return problem.partition("' cannot be used; ")[2]
    for key in BY_KEY:
        if problem.startswith(f"{key} cannot be used; "):
            return problem.removeprefix(f"{key} cannot be used; ")
    return problem

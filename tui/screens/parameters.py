"""The system prompt and the numbers of one conversation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Grid, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

from qwen_mlx.errors import UsageError
from qwen_mlx.ranges import OPTION_RANGES
from tui.conductor import Settings
from tui.presets import Preset, Presets
from tui.screens.presets import PresetsScreen
from tui.store import Store
from tui.tool_runs import folder_of
from tui.widgets.hint import Hint
from tui.widgets.still import Still
from tui.wording import sentence

# Field of `SamplingOptions`, what people call it, and what it does.
FIELDS = (
    ("temperature", "Temperature", "higher is more varied, 0 always the likeliest"),
    ("top_p", "Top-p", "the likeliest tokens up to this probability"),
    ("top_k", "Top-k", "only this many of the likeliest tokens, 0 all"),
    ("min_p", "Min-p", "only tokens this likely, the likeliest being 1"),
    ("repetition_penalty", "Repetition penalty", "above 1 avoids what was said"),
    ("presence_penalty", "Presence penalty", "above 0 avoids words it has used"),
    ("frequency_penalty", "Frequency penalty", "above 0 avoids words it uses often"),
    ("max_tokens", "Longest answer", "in tokens, thinking included"),
    ("thinking_budget", "Thinking budget", "in tokens; then it has to answer"),
    ("seed", "Seed", "the same seed and question, the same answer"),
)
_THINKING = ("auto", "on", "off")
# Fields that are no numbers: what people call them, what stands there when they are empty, and what they do.
_OTHERS = (
    ("thinking", "Thinking", "as the app", "on, off or auto, in this conversation only"),
    ("tools_folder", "Files for tools", "none", "a folder the model may ask to read files from"),
)
_HELP = {name: text for name, _, text in FIELDS} | {name: text for name, _, _, text in _OTHERS}
_HELP |= {
    "system": "what the model is told before everything else",
    "preset": "enter chooses a preset, or saves what is set as one",
    "tools": "calculator and clock, where the model can; space turns them on",
}


class Switch(Still):
    """`● on` or `○ off`; a click, space or enter makes it the other one."""

    BINDINGS = [Binding("space,enter", "switch", "On or off", show=False, id="switch.switch")]
    can_focus = True

    def __init__(self, value: bool, *, id: str) -> None:
        super().__init__(id=id, classes="chooser")
        self.value = value

    def on_mount(self) -> None:
        self.show(self.value)

    def show(self, value: bool) -> None:
        """Show this state."""
        self.value = value
        self.update(Content("● on" if value else "○ off"))

    def on_click(self) -> None:
        self.action_switch()

    def action_switch(self) -> None:
        self.show(not self.value)


class PresetLine(Still):
    """`Preset  Precise ▾`; a click or enter opens the list."""

    BINDINGS = [Binding("enter,space", "open", "Choose a preset", show=False, id="preset_line.open")]
    can_focus = True

    class Pressed(Message):
        """Open the list."""

    def show(self, name: str | None) -> None:
        self.update(Content.assemble(("Preset  ", ""), (f"{name or 'none'} ▾", "bold"), ("   f9", "$secondary")))

    def on_click(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        self.post_message(self.Pressed())


class ParametersScreen(ModalScreen[Settings | None]):
    """Ctrl+s keeps what is written, escape leaves everything as it was.

    Args:
        settings: what is set now.
        title: of the conversation; None when they are for the next new one.
        system: whether there is a system prompt; without it, they are for all new conversations.
        presets, store: to choose one; None leaves them out.
    """

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (96, "-wide")]

    CSS_PATH = "dialog.tcss"
    BINDINGS = [
        Binding("escape", "leave", "Leave it", show=False, id="parameters.leave"),
        Binding("ctrl+s,f2", "keep", "Keep", show=False, id="parameters.keep", priority=True),
        Binding("f9", "presets", "Presets", show=False, id="parameters.presets"),
    ]

    def __init__(
        self,
        settings: Settings,
        title: str | None,
        *,
        system: bool = True,
        presets: Presets | None = None,
        store: Store | None = None,
    ) -> None:
        super().__init__()
        self._presets = presets
        self._store = store
        self._preset = settings.params.get("preset")
        self._system = system
        self._settings = settings
        self._title = title

    def compose(self) -> ComposeResult:
        whose = f"of “{self._title}”" if self._title is not None else "of the next conversation"
        if not self._system:
            whose = "of every new conversation"
        with Vertical(id="dialog", classes="parameters"):
            yield Static(Content.assemble(("Parameters ", "bold $primary"), (whose, "$secondary")), classes="heading")
            if self._presets is not None:
                yield PresetLine(id="preset", classes="chooser")
            with VerticalScroll(id="scrolled", can_focus=False):
                if self._system:
                    yield Still("System prompt", classes="label")
                    yield TextArea(self._settings.system or "", id="system", tab_behavior="focus", compact=True)
                with Grid(id="fields"):
                    yield from self._fields()
            yield Still("", id="problem")
            yield Still("", id="explain", markup=False)
            yield Hint(("ctrl+s", "keep", "keep"), ("tab", "next field", ""), ("esc", "leave it", "leave"))

    def _fields(self) -> Iterator[Widget]:
        params = self._settings.params
        for name, label, help_text in FIELDS:
            value = params.get(name)
            yield Still(label, classes="label")
            yield Input("" if value is None else str(value), id=name, placeholder="model's own", compact=True)
            yield Still(help_text, classes="help")
        if not self._system:  # of all new conversations: the rest is set elsewhere
            return
        for name, label, usual, help_text in _OTHERS:
            yield Still(label, classes="label")
            yield Input(str(params.get(name) or ""), id=name, placeholder=usual, compact=True)
            yield Still(help_text, classes="help")
        yield Still("Tools", classes="label")
        yield Switch(params.get("tools") is True, id="tools")
        yield Still(_HELP["tools"], classes="help")

    def on_mount(self) -> None:
        self.query_one("#problem").display = False
        if self._presets is not None:
            self.query_one(PresetLine).show(self._preset)
        self.query_one("#system" if self._system else f"#{FIELDS[0][0]}").focus()

    @on(events.DescendantFocus)
    def explain(self, event: events.DescendantFocus) -> None:
        """What the field with the focus is for, where there is no room beside it."""
        self.query_one("#explain", Still).update(Content(_HELP.get(event.widget.id or "", "")))

    @on(PresetLine.Pressed)
    def action_presets(self) -> None:
        """Choose one; it fills the fields, and counts when they are kept."""
        presets, store, now = self._presets, self._store, self._written()
        if presets is None or store is None or now is None:
            return

        def chosen(preset: Preset | None) -> None:
            if preset is not None:
                self._fill(preset.settings(now))

        self.app.push_screen(PresetsScreen(presets, store, now), chosen)

    def _fill(self, settings: Settings) -> None:
        self._preset = settings.params.get("preset")
        self.query_one(PresetLine).show(self._preset)
        self.query_one("#system", TextArea).text = settings.system or ""
        for name in (*(name for name, _, _ in FIELDS), "thinking"):
            value = settings.params.get(name)
            self.query_one(f"#{name}", Input).value = "" if value is None else str(value)

    @on(Input.Submitted)
    def action_keep(self) -> None:
        settings = self._written()
        if settings is not None:
            self.dismiss(settings)

    def _written(self) -> Settings | None:
        """What stands in the fields; None, and a complaint, when something cannot be meant."""
        params = {name: value for name, value in self._settings.params.items() if name not in OPTION_RANGES}
        for name, label, _ in FIELDS:
            text = self.query_one(f"#{name}", Input).value.strip()
            if not text:
                continue
            try:
                params[name] = parse(name, text)
            except ValueError as error:
                self._complain(name, f"{label} must be {error}.")
                return None
        if not self._system:
            return Settings(None, params)
        thinking = self.query_one("#thinking", Input).value.strip().lower()
        if thinking and thinking not in _THINKING:
            self._complain("thinking", "Thinking must be on, off or auto, or nothing.")
            return None
        folder = self.query_one("#tools_folder", Input).value.strip()
        if folder and folder != params.get("tools_folder"):
            try:
                folder = folder_of(folder)
            except UsageError as error:
                self._complain("tools_folder", sentence(error))
                return None
            params.pop("files_always", None)
        tools = self.query_one("#tools", Switch).value
        others = {"thinking": thinking, "tools": tools, "tools_folder": folder, "preset": self._preset}
        params = {key: value for key, value in params.items() if key not in others}
        params |= {key: value for key, value in others.items() if value}
        system = self.query_one("#system", TextArea).text.strip()
        return Settings(system or None, params)

    def _complain(self, name: str, text: str) -> None:
        problem = self.query_one("#problem", Still)
        problem.update(Content(text))
        problem.display = True
        self.query_one(f"#{name}").focus()

    def action_leave(self) -> None:
        self.dismiss(None)


def parse(name: str, text: str) -> Any:
    """What was typed for a field of `SamplingOptions`. Raises `ValueError`, which says what would have been right."""
    allowed = OPTION_RANGES[name]
    try:
        number = int(text) if allowed.whole else float(text.replace(",", "."))
    except ValueError:
        raise ValueError(str(allowed)) from None
    return allowed.parse(number)

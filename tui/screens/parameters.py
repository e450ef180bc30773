"""The system prompt and the numbers of one conversation."""

from __future__ import annotations

from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea

from qwen_mlx.ranges import OPTION_RANGES
from tui.conductor import Settings
from tui.widgets.still import Still

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


class ParametersScreen(ModalScreen[Settings | None]):
    """Ctrl+s keeps what is written, escape leaves everything as it was.

    Args:
        settings: what is set now.
        title: of the conversation; None when they are for the next new one.
    """

    CSS_PATH = "dialog.tcss"
    BINDINGS = [
        Binding("escape", "leave", "Leave it", show=False, id="parameters.leave"),
        Binding("ctrl+s,f2", "keep", "Keep", show=False, id="parameters.keep", priority=True),
    ]

    def __init__(self, settings: Settings, title: str | None) -> None:
        super().__init__()
        self._settings = settings
        self._title = title

    def compose(self) -> ComposeResult:
        whose = f"of “{self._title}”" if self._title is not None else "of the next conversation"
        with VerticalScroll(id="dialog", classes="parameters"):
            yield Static(Content.assemble(("Parameters ", "bold $primary"), (whose, "$secondary")), classes="heading")
            yield Still("System prompt", classes="label")
            yield TextArea(self._settings.system or "", id="system", tab_behavior="focus", compact=True)
            with Grid(id="fields"):
                for name, label, help_text in FIELDS:
                    value = self._settings.params.get(name)
                    yield Still(label, classes="label")
                    yield Input("" if value is None else str(value), id=name, placeholder="model's own", compact=True)
                    yield Still(help_text, classes="help")
            yield Still("", id="problem")
            yield Still("ctrl+s keep · tab next field · esc leave it as it was", classes="hint")

    def on_mount(self) -> None:
        self.query_one("#problem").display = False
        self.query_one("#system").focus()

    @on(Input.Submitted)
    def action_keep(self) -> None:
        params = {name: value for name, value in self._settings.params.items() if name not in OPTION_RANGES}
        for name, label, _ in FIELDS:
            text = self.query_one(f"#{name}", Input).value.strip()
            if not text:
                continue
            try:
                params[name] = parse(name, text)
            except ValueError as error:
                self._complain(name, f"{label} must be {error}.")
                return
        system = self.query_one("#system", TextArea).text.strip()
        self.dismiss(Settings(system or None, params))

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

"""Base and adapter beside each other: one question, two answers."""

from __future__ import annotations

from collections.abc import Callable

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input

from qwen_mlx.events import RunCheckpoint, RunRecord, Runtime
from tui.sanitize import sanitize
from tui.training.duel import SIDES, Duel, Side
from tui.widgets.keys import Keys
from tui.widgets.still import Still
from tui.wording import sentence

POLL_SECONDS = 0.1
_SHOWN = 20  # rounds


class BesideScreen(Screen[None], inherit_bindings=False):
    """Leaving it brings the model of the chat back.

    Args:
        left: called when the screen is left.
    """

    CSS_PATH = "training.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-wide")]
    BINDINGS = [
        Binding("escape", "leave", "Leave, or stop the answers", show=False, id="beside.leave"),
        Binding("pageup", "scroll(-1)", "Scroll up", show=False, id="beside.up", priority=True),
        Binding("pagedown", "scroll(1)", "Scroll down", show=False, id="beside.down", priority=True),
    ]

    def __init__(
        self, runtime: Runtime, record: RunRecord, checkpoint: RunCheckpoint, left: Callable[[], None]
    ) -> None:
        super().__init__()
        self._record, self._checkpoint, self._left = record, checkpoint, left
        self._duel = Duel(runtime, record.base, checkpoint.path)
        self._waiting = ""  # a question that was asked before the model was there

    def compose(self) -> ComposeResult:
        name, step = self._record.entry.name, self._checkpoint.step
        about = f"  {name}: the base, and the base with what it learnt up to step {step:,}"
        yield Still(Content.assemble(("◆ Training", "bold $primary"), (about, "$secondary")), id="bar")
        with Horizontal(id="answers-beside"):
            for side in SIDES:
                with VerticalScroll(id=f"side-{side}", can_focus=False):
                    yield Still("")
        yield Input(placeholder="Ask both of them", id="question", compact=True)
        yield Keys(("enter", "ask", "ask"), ("page up/down", "scroll", ""), ("esc", "leave", "leave"))

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.set_interval(POLL_SECONDS, self._poll)
        self._paint()

    def _poll(self) -> None:
        if self._duel.poll():
            if self._duel.loaded and self._waiting:
                question, self._waiting = self._waiting, ""
                self._duel.ask(question)
            self._paint()

    def _paint(self) -> None:
        for side in SIDES:
            column = self.query_one(f"#side-{side}", VerticalScroll)
            column.query_one(Still).update(self._column(side))
            column.scroll_end(animate=False)

    def _column(self, side: Side) -> Content:
        name = "The base" if side == "base" else f"With {self._record.entry.name}"
        parts = [Content.styled(name, "bold $secondary" if side == "base" else "bold $primary")]
        if self._duel.error:
            parts.append(Content.styled(sentence(self._duel.error), "$error"))
        elif not self._duel.loaded:
            parts.append(Content.styled("Loading…", "$secondary"))
        elif not self._duel.rounds:
            parts.append(Content.styled("Its answers come here: the likeliest words, without chance.", "$secondary"))
        for one in self._duel.rounds[-_SHOWN:]:
            answer = one.answers[side]
            lines = [Content.styled(f"› {sanitize(one.question)}", "$secondary")]
            if answer.error:
                lines.append(Content.styled(sentence(answer.error), "$error"))
            else:
                waits = {"waiting": "…", "answering": " ▌"}.get(answer.state, "")
                lines.append(Content(sanitize(answer.text) + waits or "(nothing)"))
            parts.append(Content("\n").join(lines))
        if self._waiting:
            parts.append(Content.styled(f"› {sanitize(self._waiting)}", "$secondary"))
        return Content("\n\n").join(parts)

    @on(Input.Submitted)
    def action_ask(self) -> None:
        line = self.query_one(Input)
        question = line.value.strip()
        if not question or self._duel.error:
            return
        line.value = ""
        if self._duel.loaded:
            self._duel.ask(question)
        else:
            self._waiting = question
        self._paint()

    def action_scroll(self, step: int) -> None:
        for side in SIDES:
            column = self.query_one(f"#side-{side}", VerticalScroll)
            column.scroll_page_down(animate=False) if step > 0 else column.scroll_page_up(animate=False)

    def action_leave(self) -> None:
        """Stop what is being answered; else leave."""
        if self._duel.busy and self._duel.loaded:
            self._duel.stop()
            return
        self._duel.stop()
        self._left()
        self.dismiss(None)

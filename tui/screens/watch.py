"""One run: its curves and numbers, live or as it was, and what can be asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen

from tui.screens.ask import AskScreen
from tui.training.plot import Curve
from tui.training.run_view import RunView
from tui.training.series import smoothed
from tui.training.trainer import LiveRun
from tui.training.watching import brief_facts, facts, headline, told
from tui.widgets.chart import Chart
from tui.widgets.keys import Keys
from tui.widgets.still import Still
from tui.wording import shorten

if TYPE_CHECKING:
    from tui.screens.training_desk import TrainingDesk

LOOK_SECONDS = 0.25  # between two looks at a run of this app
AGAIN_SECONDS = 3.0  # at a run that another process computes
WIDE = 100
_TALL = 28
SMOOTHINGS = (0.0, 0.6, 0.9, 0.98)


class WatchScreen(Screen[None], inherit_bindings=False):
    """Leaving it leaves the run alone.

    Args:
        view: what is known of the run.
    """

    CSS_PATH = "training.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (_TALL, "-tall")]
    BINDINGS = [
        Binding("escape,f5,q", "leave", "Leave; the run goes on", show=False, id="watch.leave"),
        Binding("space,p", "pause", "Pause or go on", show=False, id="watch.pause"),
        Binding("s", "save", "Save now", show=False, id="watch.save"),
        Binding("x", "stop", "Save and stop", show=False, id="watch.stop"),
        Binding("l", "rate", "Another learning rate", show=False, id="watch.rate"),
        Binding("r", "resume", "Go on with it", show=False, id="watch.resume"),
        Binding("g", "log", "Logarithmic or not", show=False, id="watch.log"),
        Binding("m", "smooth", "More or less smoothing", show=False, id="watch.smooth"),
        Binding("t", "read", "Samples and notices", show=False, id="watch.read"),
        Binding("c", "chat", "Chat with it", show=False, id="watch.chat"),
        Binding("b", "beside", "Beside its base", show=False, id="watch.beside"),
        Binding("up", "scroll(-1)", "Up", show=False, id="watch.up"),
        Binding("down", "scroll(1)", "Down", show=False, id="watch.down"),
    ]

    def __init__(self, desk: TrainingDesk, view: RunView, *, elsewhere: bool = False) -> None:
        super().__init__()
        self.view = view
        self._desk = desk
        self._elsewhere = elsewhere  # another process computes it
        self._log = False
        self._smoothing = 1
        self._painted: tuple[object, ...] = ()
        self._stop_asked = False

    def compose(self) -> ComposeResult:
        yield Still("", id="bar")
        with Horizontal(id="watch"):
            with Vertical(id="curves"):
                yield Chart(id="loss")
                with Horizontal(id="small"):
                    yield Chart(id="rates")
                    yield Chart(id="speeds")
            with Vertical(id="aside"):
                yield Still("", id="facts")
                with VerticalScroll(id="told", can_focus=False):
                    yield Still("")
        yield Still("", classes="say")
        yield Keys()

    def on_mount(self) -> None:
        self.set_interval(LOOK_SECONDS, self.look)
        if self._elsewhere:
            self.set_interval(AGAIN_SECONDS, self._read_again)
        self.call_after_refresh(self.look)

    def on_resize(self) -> None:
        self._painted = ()
        self.call_after_refresh(self.look)

    async def _read_again(self) -> None:
        if not self._elsewhere or self.app.screen is not self:
            return
        if (found := await self._desk.read(self.view.folder)) is not None:
            self.view, record = found
            self._elsewhere = record.entry.state == "running"
            self.look()

    @property
    def live(self) -> LiveRun | None:
        """The run, while this app computes it."""
        current = self._desk.trainer.current
        return current if current is not None and current.view is self.view else None

    # ------------------------------------------------------------------------------------------------- painting

    def look(self) -> None:
        """Paint what has changed."""
        if not self.is_attached or self.app.screen is not self:
            return
        live = self.live
        paused, stopping = (live.paused, live.stopping) if live else (False, False)
        now = (
            *(self.view.changes, id(self.view), self.view.state, paused, stopping, self._log, self._smoothing),
            *(self._stop_asked, self.size, self.query_one("#aside").size.width, self.has_class("-reading")),
        )
        if now != self._painted:
            self._painted = now
            self._paint(paused, stopping)

    def _paint(self, paused: bool, stopping: bool) -> None:
        view, width = self.view, self.size.width
        word, tone = headline(view, paused, stopping)
        if self._elsewhere and not view.ended:
            word = "◉ trained by another process"
        model = str(view.config.get("model", {}).get("path", "")).rstrip("/").rpartition("/")[2]
        about = "  ".join(part for part in (view.name, model) if part)
        self.query_one("#bar", Still).update(
            Content.assemble(
                ("◆ ", "bold $primary"), (shorten(about, max(8, width - len(word) - 10)), "bold"), "  ", (word, tone)
            )
        )
        self._paint_curves()
        narrow = width < WIDE and not self.app.has_class("-text")
        beside = self.query_one("#aside")
        room = max(20, beside.size.width or (width - 4 if narrow else 44))
        short = narrow and not self.has_class("-reading")
        self.query_one("#facts", Still).update(brief_facts(view, room) if short else facts(view, room))
        if not short:
            self.query_one("#told Still", Still).update(told(view, room))
        self._say(view)
        self.query_one(Keys).show(*self._hints(paused, stopping))

    def _paint_curves(self) -> None:
        view = self.view
        raw = list(view.train)
        weight = SMOOTHINGS[self._smoothing]
        # Few points are no noise: smoothing them would hide what they say.
        weight = min(weight, max(0.0, 1 - 4 / max(4, len(raw))))
        curves = [Curve("", raw, "raw")] if weight else []
        curves.append(Curve("train", smoothed(raw, weight), "train"))
        curves.append(Curve("valid", list(view.valid), "valid", "◆"))
        total = float(view.steps)
        empty = "The curve begins with the first step." if not view.ended else "It has no steps."
        self.query_one("#loss", Chart).show(curves, log=self._log, right=total, empty=empty)
        if self.query_one("#small").display:
            self.query_one("#rates", Chart).show([Curve("learning rate", list(view.rate), "other")], right=total)
            self.query_one("#speeds", Chart).show([Curve("tokens/s", list(view.speed), "other")], right=total)

    def _say(self, view: RunView) -> None:
        text = ""
        if self._stop_asked:
            text = "Stop? It is saved first, and can go on later: x again stops it."
        elif view.state == "waiting" and self.live is not None:
            text = "It begins when the answer, or whatever the model is at, has ended."
        elif self.live is not None and self.live.paused:
            text = "Paused: nothing is computed, and its memory is kept. The model cannot answer meanwhile."
        elif view.state == "failed":
            text = view.error
        self.query_one(".say", Still).update(Content(text))

    def _hints(self, paused: bool, stopping: bool) -> tuple[tuple[str, str, str], ...]:
        looks = (("g", "log", "log"), ("m", f"smoothing {SMOOTHINGS[self._smoothing]:g}", "smooth"))
        read = (("t", "curves" if self.has_class("-reading") else "samples", "read"),) if self.size.width < WIDE else ()
        leave = (("esc", "leave, it goes on" if self.live else "leave", "leave"),)
        if self.live is not None and not stopping:
            own = (("space", "go on" if paused else "pause", "pause"), ("s", "save", "save"), ("x", "stop", "stop"))
            return (*own, ("l", "learning rate", "rate"), *read, *looks, *leave)
        if self.live is not None or (self._elsewhere and not self.view.ended):
            return (*read, *looks, *leave)
        again = (("r", "resume", "resume"),) if self.view.state in ("stopped", "failed") else ()
        return (*again, ("c", "chat with it", "chat"), ("b", "beside its base", "beside"), *read, *looks, *leave)

    # -------------------------------------------------------------------------------------------------- actions

    def _controls(self) -> LiveRun | None:
        if self.live is None or self.live.stopping:
            self.notify("Only a run that this app computes now can be asked for that.")
            return None
        return self.live

    def action_pause(self) -> None:
        if (live := self._controls()) is not None:
            live.controls.resume() if live.controls.paused else live.controls.pause()
            self.look()

    def action_save(self) -> None:
        if (live := self._controls()) is not None:
            live.controls.save_now()
            self.notify("It is saved after this batch.")

    def action_stop(self) -> None:
        """Asks first: the second press saves and stops."""
        if self._controls() is None:
            return
        if self._stop_asked:
            self._stop_asked = False
            self._desk.trainer.stop()
        else:
            self._stop_asked = True
            self.set_timer(6.0, self._calm)
        self.look()

    def _calm(self) -> None:
        self._stop_asked = False
        self.look()

    def action_rate(self) -> None:
        """Ask for another learning rate, and set it."""
        live = self._controls()
        if live is None:
            return
        now = self.view.config.get("optim", {}).get("lr")

        def set_rate(answer: str | None) -> None:
            if answer is not None:
                live.controls.set_learning_rate(_rate(answer))

        self.app.push_screen(
            AskScreen(
                "Learning rate",
                f"It is the peak that the schedule goes on from; the run began with {now}.",
                "set it",
                f"{now:g}" if isinstance(now, float) else "",
                _rate,
            ),
            set_rate,
        )

    async def action_resume(self) -> None:
        await self._desk.resume_folder(self.view.folder)

    def action_log(self) -> None:
        self._log = not self._log
        self.look()

    def action_smooth(self) -> None:
        self._smoothing = (self._smoothing + 1) % len(SMOOTHINGS)
        self.look()

    def action_read(self) -> None:
        """On a narrow terminal: samples and notices in the place of the curves."""
        self.toggle_class("-reading")
        self.call_after_refresh(self.look)

    def action_scroll(self, step: int) -> None:
        self.query_one("#told", VerticalScroll).scroll_relative(y=2 * step, animate=False)

    async def action_chat(self) -> None:
        await self._desk.chat_with(self.view.folder)

    async def action_beside(self) -> None:
        await self._desk.beside(self.view.folder)

    def action_leave(self) -> None:
        self.dismiss(None)


def _rate(text: str) -> float:
    try:
        rate = float(text.strip().replace(",", "."))
    except ValueError:
        raise ValueError("It must be a number, such as 1e-4.") from None
    if not 0 < rate < 1:
        raise ValueError("It must be above 0 and below 1.")
    return rate

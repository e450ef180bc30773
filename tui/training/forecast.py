"""What a run will take, asked for while its form is filled in, and put into words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwen_mlx.events import JobCancelled, JobFailed, JobHandle, Progress, TrainingForecast, TrainingPlanned
from tui.wording import brief, meter, pad, size

Ask = Callable[[Sequence[str]], JobHandle]
_PARTS = 5  # of the memory, that are named


@dataclass(frozen=True)
class Line:
    """One line, and how it should look: "", "muted", "good", "tight" or "bad"."""

    text: str
    tone: str = ""


class Forecaster:
    """Asks for the forecast of the configuration that was wanted last; earlier questions are called off.

    Args:
        ask: submits the job.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._handle: JobHandle | None = None
        self._asked: tuple[str, ...] = ()
        self.forecast: TrainingForecast | None = None
        self.error = ""
        self.progress: Progress | None = None

    @property
    def busy(self) -> bool:
        return self._handle is not None

    def is_of(self, changes: Sequence[str]) -> bool:
        """Whether this is what was asked last."""
        return tuple(changes) == self._asked

    def want(self, changes: Sequence[str]) -> None:
        """Ask, unless this is what was asked last."""
        changes = tuple(changes)
        if changes == self._asked and not self.error:
            return
        self.forget()
        self._asked, self.error = changes, ""
        try:
            self._handle = self._ask(changes)
        except RuntimeError as problem:  # the runtime is closed
            self.error = str(problem)

    def forget(self) -> None:
        """Call the question off. What was forecast for another configuration stays to be seen meanwhile."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._asked, self.progress = None, (), None

    def poll(self) -> bool:
        """Take what has arrived; whether anything has."""
        if self._handle is None:
            return False
        events = self._handle.drain()
        for event in events:
            if isinstance(event, TrainingPlanned):
                self.forecast, self._handle, self.error = event.forecast, None, ""
            elif isinstance(event, JobFailed):
                self.error, self._handle, self.forecast = event.error, None, None
            elif isinstance(event, JobCancelled):
                self._handle = None
            elif isinstance(event, Progress):
                self.progress = event
        return bool(events)


def lines_of(forecast: TrainingForecast, width: int) -> list[Line]:
    """The forecast for a column of `width` cells, the most important first."""
    found = [verdict(forecast, width)]
    if (advice := advice_of(forecast)) is not None:
        found.append(Line(advice, "bad"))
    shown = "tokens" if forecast.rows * forecast.length != 1 else "token"
    found.append(Line(f"{forecast.steps:,} steps, batches of {forecast.rows} × {forecast.length:,} {shown}"))
    padding = forecast.padding / max(1, forecast.padding + forecast.tokens)
    empty = f", {padding:.0%} of the room empty" if padding >= 0.005 else ""
    found.append(Line(f"{brief(forecast.tokens)} tokens, {brief(round(forecast.supervised))} learnt{empty}"))
    found.append(Line(time_of(forecast)))
    share = forecast.trainable / max(1, forecast.parameters)
    found.append(Line(f"{brief(forecast.trainable)} of {brief(forecast.parameters)} weights trained ({share:.2%})"))
    parts = sorted(forecast.memory.items(), key=lambda part: -part[1])[:_PARTS]
    room = max(8, min(36, width - 10))
    found += [Line(f"{pad(name, room)} {size(count):>8}", "muted") for name, count in parts]
    return found


def verdict(forecast: TrainingForecast, width: int) -> Line:
    """`▰▰▰▱▱▱▱▱ 1.2 GB of 16.0 GB: fits`."""
    part = forecast.peak / forecast.available if forecast.available else 2.0
    word, tone = ("fits", "good") if part <= 0.85 else ("tight", "tight") if part <= 1 else ("does not fit", "bad")
    text = f"{size(forecast.peak)} of {size(forecast.available)}: {word}"
    room = min(20, width - len(text) - 1)
    return Line(f"{meter(part, room)} {text}" if room >= 4 else text, tone)


def advice_of(forecast: TrainingForecast) -> str | None:
    """What to change so that a run fits; None for one that does."""
    if forecast.fits:
        return None
    if forecast.longest and forecast.longest < forecast.rows * forecast.length:
        text = f"At most {forecast.longest:,} tokens per batch fit"
        if forecast.length > forecast.longest:
            text += ", so the longest example must be shorter as well"
        return text + "."
    weights = forecast.memory.get("weights", 0)
    if weights > forecast.available:
        return "The model alone is too much: QLoRA, or a smaller model."
    if forecast.trainable * 2 > forecast.parameters:
        return "Its optimizer is too much: LoRA instead of full, or a smaller model."
    return "Even one short row is too much: QLoRA, a smaller rank, or a smaller model."


def time_of(forecast: TrainingForecast) -> str:
    if forecast.seconds is None:
        return "How long it takes is known after its first steps"
    return f"about {span(forecast.seconds)}"


def span(seconds: float) -> str:
    """ "40 s", "12 min", "3 h 05 min", "2 d 4 h"."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"

"""What is known of one run from its events, live or read from its folder: curves, latest numbers, samples, notices."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qwen_mlx.events import (
    DataPrepared,
    DataReady,
    Eval,
    Event,
    JobCancelled,
    JobFailed,
    Notice,
    Progress,
    RunStarted,
    Sample,
    Saved,
    Step,
    TrainingFinished,
    TrainingForecast,
    TrainingNotice,
    TrainingStopped,
)
from tui.training.series import Series

State = Literal["waiting", "preparing", "training", "stopped", "finished", "failed", "cancelled"]
_KEPT = 200  # samples and notices


@dataclass
class RunView:
    """Grows with every event that is applied; `changes` counts them, so that a screen knows when to paint."""

    name: str
    state: State = "waiting"
    folder: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    forecast: TrainingForecast | None = None
    data: DataReady | None = None
    progress: Progress | None = None
    step: Step | None = None
    evaluation: Eval | None = None
    best: Eval | None = None
    saved: Saved | None = None
    error: str = ""
    path: str = ""
    reason: str = ""
    changes: int = 0
    train: Series = field(default_factory=Series)
    valid: Series = field(default_factory=Series)
    rate: Series = field(default_factory=Series)
    speed: Series = field(default_factory=Series)
    memory: Series = field(default_factory=Series)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=_KEPT))
    notices: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def apply(self, event: Event) -> None:
        """Take one event, in the order in which they came."""
        self.changes += 1
        if isinstance(event, Step):
            self._step(event)
        elif isinstance(event, Eval):
            self.evaluation = event
            self.valid.add(event.step, event.loss)
            if event.best:
                self.best = event
        elif isinstance(event, Sample):
            self.samples.append(event)
        elif isinstance(event, Saved):
            self.saved = event
        elif isinstance(event, Progress):
            self.progress = event
            if self.state == "waiting":
                self.state = "preparing"
        elif isinstance(event, DataPrepared):
            self.state = "preparing"
        elif isinstance(event, DataReady):
            self.data, self.state = event, "preparing"
        elif isinstance(event, RunStarted):
            self._started(event)
        elif isinstance(event, TrainingNotice):
            text = f"{event.text}. {event.hint}" if event.hint else event.text
            self.notices.append((event.step or self.steps_done, text))
        elif isinstance(event, Notice):
            self.notices.append((self.steps_done, event.text))
        else:
            self._ended(event)

    def _started(self, event: RunStarted) -> None:
        self.folder, self.config, self.forecast = event.folder, event.config, event.forecast
        self.state, self.progress = "training", None
        self.error = self.reason = ""
        for series in (self.train, self.valid, self.rate, self.speed, self.memory):
            series.cut_after(event.step)

    def _step(self, event: Step) -> None:
        self.step, self.state, self.progress = event, "training", None
        if not event.skipped:
            self.train.add(event.step, event.loss)
        self.rate.add(event.step, event.learning_rate)
        self.speed.add(event.step, event.tokens_per_second)
        self.memory.add(event.step, float(event.memory))

    def _ended(self, event: Event) -> None:
        if isinstance(event, TrainingFinished):
            self.state, self.folder, self.path, self.reason = "finished", event.folder, event.path, event.reason
        elif isinstance(event, TrainingStopped):
            self.state, self.folder, self.path = "stopped", event.folder, event.path
        elif isinstance(event, JobFailed):
            self.state, self.error = "failed", event.error
        elif isinstance(event, JobCancelled):
            self.state = "cancelled"

    # ------------------------------------------------------------------------------------------------- numbers

    @property
    def steps_done(self) -> int:
        return self.step.step if self.step is not None else 0

    @property
    def steps(self) -> int:
        """All steps of the run; 0 while unknown."""
        if self.step is not None:
            return self.step.total
        return self.forecast.steps if self.forecast is not None else 0

    @property
    def ended(self) -> bool:
        return self.state in ("stopped", "finished", "failed", "cancelled")

    @property
    def gap(self) -> float | None:
        """Loss on the evaluation set less that on the training set: what grows when a run learns by heart."""
        if self.evaluation is None or self.train.last is None or not self.steps_done:
            return None
        return self.evaluation.loss - self.train.last[1]


def view_of(name: str, events: Iterable[Event]) -> RunView:
    """The view of a run that nobody computes now."""
    view = RunView(name)
    for event in events:
        view.apply(event)
    if not view.ended and view.state != "waiting":
        view.state = "failed"
        view.error = "It ended without saying why: the process was killed, or the machine went off."
    return view

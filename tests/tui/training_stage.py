"""A workshop and runs that follow a script."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qwen_mlx.errors import QwenError
from qwen_mlx.events import (
    DataExamined,
    DataPrepared,
    DataReady,
    Eval,
    Event,
    JobFailed,
    PlanTraining,
    Progress,
    RowsShown,
    RunCheckpoint,
    RunEntry,
    RunRecord,
    RunStarted,
    Sample,
    Saved,
    ShownRow,
    Step,
    TrainingFinished,
    TrainingForecast,
    TrainingPlanned,
    TrainingStopped,
    TrainModel,
)
from qwen_mlx.runtime.workshop import LocalWorkshop
from tests.tui.fake_runtime import FakeHandle, FakeRuntime
from tests.tui.fake_runtime import Step as ScriptStep
from tests.tui.stage import START
from tests.tui.test_models import FakePull

GB = 1_000_000_000
CONFIG = {
    "out": "/runs/poems",
    "model": {"path": "demo"},
    "data": {"train": "poems.jsonl", "valid": 0.05},
    "adapter": {"method": "lora", "rank": 16, "alpha": 32.0},
    "optim": {"name": "adamw", "lr": 1e-4},
    "loop": {"epochs": 3},
}
FORECAST = TrainingForecast(
    *(120, 120, 2, 2048, 480_000, 160_000.0, 11_520, 600_000_000, 10_100_000),
    {"weights": 1_200_000_000, "activations of the layers": 2_100_000_000, "optimizer": 80_000_000},
    *(3_380_000_000, 16 * GB),
)
ROWS = (
    ShownRow(
        "poems.jsonl:1",
        (
            *(("<|im_start|>", 0.0), ("user", 0.0), ("\n", 0.0), ("A poem", 0.0), (" on rain", 0.0)),
            *(("<|im_end|>", 0.0), ("\n", 0.0), ("<|im_start|>", 0.0), ("assistant", 0.0), ("\n", 0.0)),
            *(("Soft", 1.0), (" rain", 1.0), (" falls", 1.0), (".", 1.0), ("<|im_end|>", 1.0), ("\n", 1.0)),
        ),
        16,
    ),
    ShownRow("poems.jsonl:2", (("春", 0.0), ("雨", 0.5), ("。", 1.0)), 3),
)
TRAIN = DataPrepared(
    *("train", "messages", 820, 812, 152_000, 51_000.0),
    longest=1_930,
    truncated=2,
    left_out=8,
    duplicates=3,
    warnings=("3 of 820 rows say the same as one before them",),
)
VALID = DataPrepared("valid", "messages", 40, 40, 7_400, 2_500.0, longest=900)


def step(number: int, total: int = 120, **changes: object) -> Step:
    """A step of a run that goes well."""
    loss = 2.4 * math.exp(-number / 40) + 0.9 + 0.08 * math.sin(2.7 * number)
    values = {
        "loss": loss,
        "learning_rate": 1e-4 * (1 + math.cos(math.pi * number / total)) / 2,
        "gradient_norm": 0.8,
        "tokens": 4000,
        "supervised": 1300.0,
        "tokens_per_second": 1850.0 + 40 * math.cos(number),
        "memory": 2_400_000_000,
        "peak": 3_310_000_000,
        "seconds": 2.2 * number,
        "remaining": 2.2 * (total - number),
    }
    return Step(number, total, 3 * number / total, **(values | changes))


def evaluation(number: int, best: bool = True, loss: float | None = None) -> Eval:
    loss = 2.4 * math.exp(-number / 40) + 1.05 if loss is None else loss
    return Eval(number, loss, math.exp(loss), 2500.0, best, 1.5)


def beginning(folder: str = "/runs/poems", at: int = 0) -> list[Event]:
    return [
        Progress("reading tensors", 1_000, 2_000, "bytes"),
        DataReady(812, 40, 152_000, 51_000.0, 0.976),
        RunStarted(folder, "sft", CONFIG, FORECAST, at),
    ]


def course(first: int, last: int, folder: str = "/runs/poems") -> list[Event]:
    """Steps with an evaluation, a sample and a checkpoint after every twentieth."""
    events: list[Event] = []
    for number in range(first, last + 1):
        events.append(step(number))
        if number % 20 == 0:
            events.append(evaluation(number))
            events.append(Sample(number, "A poem on rain", f"Rain, the {number}th drop,\nfalls."))
            events.append(Saved(number, f"{folder}/step-{number:06d}", "best"))
    return events


def ending(folder: str = "/runs/poems") -> TrainingFinished:
    return TrainingFinished(folder, 120, "done", 1.02, 120, 1.17, 480_000, 264.0, f"{folder}/step-000120")


def stopped(at: int, folder: str = "/runs/poems") -> list[Event]:
    return [
        Saved(at, f"{folder}/step-{at:06d}", "stopped"),
        TrainingStopped(folder, at, 120, f"{folder}/step-{at:06d}", f"qwen-mlx train resume {folder}"),
    ]


class TrainingHandle(FakeHandle):
    """A run: cancelling it saves and stops."""

    def _cancelled(self, events: list[Event]) -> Event:
        given = [*self._given, *events]
        steps = [event.step for event in given if isinstance(event, Step)]
        if not steps:
            return super()._cancelled(events)
        return stopped(steps[-1])[1]


class TrainingRuntime(FakeRuntime):
    """Runs and forecasts too.

    Args:
        run: the script of a run, or a function of its job.
        plan: the script of a forecast, or a function of its job.
    """

    def __init__(self, *replies, run=(), plan=None, **options) -> None:
        super().__init__(*replies, **options)
        self._run = run
        self._plan = plan if plan is not None else [TrainingPlanned(CONFIG, FORECAST)]

    def submit(self, job):
        if not isinstance(job, (TrainModel, PlanTraining)):
            return super().submit(job)
        if self.closed:
            raise RuntimeError("the runtime is closed")
        while self.queue and self.queue[0].cancelled:
            self.queue[0].drain()  # nobody waits for how it ends
        script = self._run if isinstance(job, TrainModel) else self._plan
        handle = TrainingHandle(self, job, script(job) if callable(script) else script)
        self.jobs.append(job)
        self.handles.append(handle)
        self.queue.append(handle)
        return handle

    @property
    def runs(self) -> list[TrainModel]:
        return [job for job in self.jobs if isinstance(job, TrainModel)]

    @property
    def plans(self) -> list[PlanTraining]:
        return [job for job in self.jobs if isinstance(job, PlanTraining)]


def entry(name: str, **changes: object) -> RunEntry:
    values = {
        "model": "demo",
        "data": "poems.jsonl",
        "method": "lora",
        "step": 120,
        "total": 120,
        "train_loss": 1.02,
        "valid_loss": 1.17,
        "best_loss": 1.17,
        "best_step": 120,
        "state": "finished",
        "changed": START - 3600,
    }
    return RunEntry(f"/runs/{name}", name, **(values | changes))


class FakeWorkshop(LocalWorkshop):
    """Three runs; data that follows a script. What a configuration means is asked of the real thing."""

    def __init__(self, *preview: ScriptStep) -> None:
        self.entries = [
            entry("poems"),
            entry("poems-dora", method="dora", state="stopped", step=60, valid_loss=1.4, best_loss=1.4, best_step=60),
            entry("letters", state="failed", step=12, valid_loss=None, best_loss=None, best_step=None),
        ]
        self.script: Sequence[ScriptStep] = preview or (
            Progress("data", 0, None, ""),
            TRAIN,
            RowsShown(ROWS),
            VALID,
            DataExamined(TRAIN, VALID),
        )
        self.previews: list[tuple[str, ...]] = []
        self.deleted: list[str] = []

    def runs(self):
        return list(self.entries)

    def record(self, folder):
        found = next((one for one in self.entries if one.folder == folder), None)
        if found is None or found.problem:
            raise QwenError(f"{folder} cannot be read")
        config = CONFIG | {"adapter": CONFIG["adapter"] | {"method": found.method}}
        events = [*beginning(folder), evaluation(0, False), *course(1, found.step, folder)]
        if found.state == "finished":
            events.append(ending(folder))
        elif found.state == "stopped":
            events += stopped(found.step, folder)
        checkpoint = RunCheckpoint(
            f"step-{found.step:06d}", f"{folder}/step-{found.step:06d}", found.step, True, True, True
        )
        return RunRecord(found, config, tuple(events), (checkpoint,) if found.best_loss else (), "demo")

    def delete(self, folder):
        self.deleted.append(folder)
        self.entries = [one for one in self.entries if one.folder != folder]
        return GB

    def new_folder(self, name):
        return f"/runs/{name}"

    def preview(self, changes, rows):
        self.previews.append(tuple(changes))
        if any("missing" in change for change in changes):
            return FakePull([Progress("data", 0, None, ""), JobFailed("there is no file missing.jsonl", True, 3)])
        return FakePull(self.script)

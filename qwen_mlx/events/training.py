"""Fine-tuning as the floors above see it: what a run tells, what it may be asked, and the runs of this machine."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from qwen_mlx.events import Event, JobHandle


class TrainingControls:
    """What a person may ask of a training run while it goes on; every method may be called from any thread.

    The run reads them once per batch. A learning rate that is set becomes the new peak: the schedule goes on from it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = threading.Event()
        self._running.set()
        self._save = self._stop = False
        self._learning_rate: float | None = None

    def pause(self) -> None:
        """Compute nothing until `resume`; the run keeps its memory."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def save_now(self) -> None:
        """Write a checkpoint after the batch that is being computed."""
        with self._lock:
            self._save = True

    def stop_after_step(self) -> None:
        """Save and stop once the step that is being computed is done."""
        with self._lock:
            self._stop = True
        self._running.set()

    def set_learning_rate(self, rate: float) -> None:
        """Raises ValueError for a rate that is not a finite number above 0."""
        if not 0 < rate < float("inf"):
            raise ValueError(f"a learning rate of {rate}")
        with self._lock:
            self._learning_rate = float(rate)

    @property
    def stopping(self) -> bool:
        """Whether `stop_after_step` was called."""
        return self._stop

    def take_save(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        with self._lock:
            asked, self._save = self._save, False
            return asked

    def take_learning_rate(self) -> float | None:
        """The learning rate that was set since the last call."""
        with self._lock:
            rate, self._learning_rate = self._learning_rate, None
            return rate

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is paused, `seconds` at the most; whether it is so."""
        return self._running.wait(seconds)


@dataclass(frozen=True)
class TrainingForecast:
    """What a run will take, before it starts.

    Attributes:
        steps: updates of the weights; `batches` are computed for them, each of `rows` x `length` tokens.
        tokens: that are read in all epochs; `supervised` of them are learnt, `padding` positions hold nothing.
        parameters: of the model; `trainable` of them are trained.
        memory: what takes how many bytes, by name, in words; `peak` is their sum.
        available: bytes of memory that this machine has to give.
        measured: whether a trial step has corrected `memory`.
        seconds: of the whole run, where a trial step has measured the speed; else None.
        longest: most tokens a batch of this run may hold before memory is full; None where even one is too many.
    """

    steps: int
    batches: int
    rows: int
    length: int
    tokens: int
    supervised: float
    padding: int
    parameters: int
    trainable: int
    memory: Mapping[str, int]
    peak: int
    available: int
    measured: bool = False
    seconds: float | None = None
    longest: int | None = None

    @property
    def fits(self) -> bool:
        return self.peak <= self.available


@dataclass(frozen=True)
class TrainingPlanned:
    """The last event of a plan: nothing was trained."""

    config: Mapping[str, Any]
    forecast: TrainingForecast


@dataclass(frozen=True)
class RunStarted:
    """A training run begins, or goes on from `step` of `forecast.steps`; `config` is the resolved one, by section."""

    folder: str
    stage: str
    config: Mapping[str, Any]
    forecast: TrainingForecast
    step: int = 0


@dataclass(frozen=True)
class DataPrepared:
    """One file or folder of rows is tokenised.

    Attributes:
        part: "train" or "valid".
        format: "messages", "sharegpt", "prompt-completion", "alpaca" or "text".
        rows: that were read for this part; `examples` were made of them, of `tokens` in all.
        supervised: sum of the weights of the tokens that are learnt.
        longest: tokens of the longest example, before any was cut.
        truncated: examples that were cut at the largest length.
        left_out: rows of which nothing would be learnt, cut or not.
        duplicates: rows that say the same as one before them, but for case, width and blank space.
        warnings: what a person should look at, a sentence each.
        cached: nothing was tokenised, because that was done before.
    """

    part: Literal["train", "valid"]
    format: str
    rows: int
    examples: int
    tokens: int
    supervised: float
    longest: int = 0
    truncated: int = 0
    left_out: int = 0
    duplicates: int = 0
    warnings: tuple[str, ...] = ()
    cached: bool = False


@dataclass(frozen=True)
class ShownToken:
    """One token of an example: its text is empty where it holds only part of a character, which the next one ends."""

    id: int
    text: str
    weight: float


@dataclass(frozen=True)
class ShownExample:
    """One example as a model will read it; `whole` is how many tokens it had before it was cut."""

    source: str
    tokens: tuple[ShownToken, ...]
    whole: int


@dataclass(frozen=True)
class DataInspected:
    """The last event of a look at rows.

    Attributes:
        data: what was found.
        max_len: tokens at which examples are cut.
        lengths: (up to so many tokens, so many examples), before any was cut.
        filled: share of the positions that hold a token when rows of `max_len` tokens are packed.
        examples: some of them.
    """

    data: DataPrepared
    max_len: int
    lengths: tuple[tuple[int, int], ...]
    filled: float
    examples: tuple[ShownExample, ...]


@dataclass(frozen=True)
class DataReady:
    """What a run learns from.

    Attributes:
        rows, valid_rows: examples to learn from and to judge by.
        tokens, supervised: of one epoch.
        filled: share of the positions of its batches that hold a token.
    """

    rows: int
    valid_rows: int
    tokens: int
    supervised: float
    filled: float


@dataclass(frozen=True)
class Step:
    """One update of the weights.

    Attributes:
        step: counted from 1, of `total`; `epoch` is how many epochs are done, with its fraction.
        loss: mean over the supervised tokens of the whole step, in nats.
        gradient_norm: of all gradients together, before clipping.
        tokens: real tokens of this step, without padding; `supervised` is the sum of their weights.
        tokens_per_second: of late.
        memory, peak: bytes that MLX holds now, and at most since the run began.
        seconds: computed so far, earlier parts of a resumed run included; `remaining` is None while unknown.
        metrics: what the stage tells besides, such as the balance of experts.
        skipped: the update was not made: loss or gradient was not a number.
    """

    step: int
    total: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    supervised: float
    tokens_per_second: float
    memory: int
    peak: int
    seconds: float
    remaining: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    skipped: bool = False


@dataclass(frozen=True)
class Eval:
    """The whole evaluation set after `step` steps; `best` when the loss was never lower."""

    step: int
    loss: float
    perplexity: float
    tokens: float
    best: bool
    seconds: float


@dataclass(frozen=True)
class Sample:
    """What the model answers to `prompt` after `step` steps, greedily."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint is complete at `path`; `why` is "schedule", "best", "asked", "stopped" or "finished"."""

    step: int
    path: str
    why: str


@dataclass(frozen=True)
class TrainingNotice:
    """Something about a run that a person should know.

    Attributes:
        code: a fixed word, such as "not-a-number" or "loss-spike".
        hint: what to do.
    """

    code: str
    text: str
    hint: str = ""
    step: int = 0


@dataclass(frozen=True)
class TrainingFinished:
    """The last event of a run that came to its end.

    Attributes:
        reason: "done", or "early stop".
        loss: of the last step; `best_loss` on the evaluation set at `best_step`, None without one.
        path: the checkpoint to use: the best one, or the last where nothing was evaluated.
    """

    folder: str
    step: int
    reason: str
    loss: float | None
    best_step: int | None
    best_loss: float | None
    tokens: int
    seconds: float
    path: str


@dataclass(frozen=True)
class ComparedAnswer:
    """One question, what was expected, and what the model said without and with what it was taught."""

    question: str
    expected: str
    before: str
    after: str


@dataclass(frozen=True)
class Compared:
    """The last event of a comparison: how many of `questions` were answered exactly as expected, before and after."""

    checkpoint: str
    test: str
    questions: int
    before: int
    after: int
    answers: tuple[ComparedAnswer, ...]


@dataclass(frozen=True)
class TrainingStopped:
    """The last event of a run that was stopped, saved, and can go on with the command line `resume`."""

    folder: str
    step: int
    total: int
    path: str
    resume: str


@dataclass(frozen=True)
class ShownRow:
    """One example as it will be learnt.

    Attributes:
        source: where it was read, such as "train.jsonl:12".
        pieces: the text of each token and how much it counts; 0 is read, and not learnt.
        tokens: of the whole example; `pieces` may be fewer, because it is cut at the largest length.
    """

    source: str
    pieces: tuple[tuple[str, float], ...]
    tokens: int


@dataclass(frozen=True)
class RowsShown:
    """The first examples of what a run would learn from, in the order of the file."""

    rows: tuple[ShownRow, ...]


@dataclass(frozen=True)
class DataExamined:
    """The last event of a look at data; `valid` is None where nothing judges the run."""

    train: DataPrepared
    valid: DataPrepared | None


@dataclass(frozen=True)
class TrainModel:
    """Fine-tune a model; when cancelled, it saves and ends with `TrainingStopped`.

    Attributes:
        config: a run's TOML file, or None for one that is all in `changes`; with `resume`, the folder of a run.
        changes: `section.key=value`, as `--set` on the command line.
        stage: "sft".
        resume: go on with the run in the folder `config`.
        allow_change: go on although data, model or configuration are not what they were.
        controls: to pause, save, stop, or change the learning rate.
    """

    config: str | None
    changes: tuple[str, ...] = ()
    stage: str = "sft"
    resume: bool = False
    allow_change: bool = False
    controls: TrainingControls = field(default_factory=TrainingControls, compare=False, repr=False)


@dataclass(frozen=True)
class PlanTraining:
    """Say what a run would take, and train nothing: the last event is `TrainingPlanned`.

    Attributes:
        changes: as of `TrainModel`.
        stage: "sft".
    """

    changes: tuple[str, ...]
    stage: str = "sft"


RunState = Literal["new", "running", "stopped", "finished", "failed"]


@dataclass(frozen=True)
class RunEntry:
    """One training run as an interface lists it.

    Attributes:
        folder: where it is; `name` is the last part of it.
        data: what it learns from, as its configuration says.
        method: "lora", "rslora", "dora", "qlora" or "full".
        step, total: updates made, of those planned; 0 where nothing is known yet.
        train_loss, valid_loss: the latest; `best_loss` was the lowest on the evaluation set, at `best_step`.
        state: "new" has not saved anything yet; "running" is being computed now, by whatever process.
        changed: when it was last written to, seconds since 1970.
        problem: why it cannot be read, in a sentence; None as a rule.
    """

    folder: str
    name: str
    model: str = ""
    data: str = ""
    method: str = ""
    step: int = 0
    total: int = 0
    train_loss: float | None = None
    valid_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    state: RunState = "new"
    changed: float = 0.0
    problem: str | None = None


@dataclass(frozen=True)
class RunCheckpoint:
    """One checkpoint of a run; `adapter` when it is an adapter for the run's base, not a whole model."""

    name: str
    path: str
    step: int
    best: bool
    latest: bool
    adapter: bool


@dataclass(frozen=True)
class RunRecord:
    """All that is kept of a run.

    Attributes:
        config: as resolved, by section.
        events: what happened, without what was computed again after a crash.
        checkpoints: those that can be used, the oldest first.
        base: the folder or name of the model that an adapter of this run belongs to.
    """

    entry: RunEntry
    config: Mapping[str, Any]
    events: tuple[Event, ...]
    checkpoints: tuple[RunCheckpoint, ...]
    base: str


class Workshop(Protocol):
    """The training runs of this machine and what they learn from. Nothing here needs the thread that owns MLX.

    `changes` are `section.key=value`, as of `TrainModel`. But for `problems`, every call may take a while.
    """

    def runs(self) -> list[RunEntry]:
        """All runs that are known here, the latest first; one that cannot be read is an entry that says so."""

    def record(self, folder: str) -> RunRecord:
        """All that is kept of one run. Raises `QwenError`."""

    def delete(self, folder: str) -> int:
        """Delete a run with all it has learnt; returns the bytes that are free now. Raises `QwenError`."""

    def new_folder(self, name: str) -> str:
        """Where a run of this name goes; nothing is there yet."""

    def presets(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """Name of a preset -> the whole configuration that it gives: section -> key -> value."""

    def problems(self, changes: Sequence[str]) -> dict[str, str]:
        """What is wrong with a configuration: `section.key` -> a sentence; "" for several keys together."""

    def preview(self, changes: Sequence[str], rows: int) -> JobHandle:
        """Look at the data of a run, in a thread of its own: `RowsShown` with the first `rows` examples, `Progress`,
        `Notice`, and at the end `DataExamined`, `JobFailed` or `JobCancelled`."""

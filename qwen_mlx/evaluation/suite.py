"""Our speed and memory beside mlx-lm's, for models of every kind, sizes and lengths of context.

For each model the contenders are loaded into processes of their own and take turns at every context. What counts is
the median of the turns, against the faster of mlx-lm's types, number by number.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qwen_mlx.errors import QwenError
from qwen_mlx.evaluation.contenders import Limits, Run
from qwen_mlx.evaluation.speed import Process, Task

# kind -> families with random weights
KINDS = {"dense": ("qwen3",), "moe": ("qwen3_moe", "qwen2_moe"), "hybrid": ("qwen3_5", "qwen3_next")}
# A type of mlx-lm's that was slower than its other by this factor, reading and writing, is not run any further.
_HOPELESS = 3.0


@dataclass(frozen=True)
class Plan:
    """What is measured on every model.

    Attributes:
        contexts: tokens that are read before writing, ascending.
        weights: our forms of quantized weights, each a contender.
        dtypes: mlx-lm's.
        tokens: tokens to write.
        turns: how often each contender runs at a context, at most.
        seconds: of reading and of writing, after which a turn of mlx-lm's (and the writing of one of ours) ends early;
            0 is none. No further turn of a contender begins once it has used a quarter of that.
        clock: what seconds are; see `Task.clock`.
    """

    contexts: tuple[int, ...] = (1, 128, 2048)
    weights: tuple[str, ...] = ("auto", "quantized")
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    tokens: int = 32
    turns: int = 9
    seconds: float = 8.0
    clock: str = "wall"


@dataclass(frozen=True)
class Measurement:
    """One contender at one context: tokens per second (medians; 0 for none), and bytes.

    Attributes:
        engine, form: as in `Task`; `note` is what became of it, as the contender says.
        read: tokens whose reading was timed, per turn; fewer than the context where the seconds were over.
        written: tokens whose writing was timed, in all turns.
    """

    engine: str
    form: str
    note: str
    context: int
    prefill: float
    decode: float
    memory: int
    read: int
    written: int
    turns: int


@dataclass
class Comparison:
    """All measurements of one model."""

    family: str
    shape: str
    measurements: list[Measurement] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def of(self, engine: str, context: int, form: str | None = None) -> list[Measurement]:
        """The measurements of an engine at a context, in one form or in all."""
        return [
            m
            for m in self.measurements
            if m.engine == engine and m.context == context and (form is None or m.form == form)
        ]


@dataclass(frozen=True)
class Row:
    """Our numbers at one context and the best of mlx-lm's; a ratio above 1 is in our favour.

    The ratio of memory is ours over mlx-lm's least: above 1 we take more. Ratios are None where there is no peer, and
    that of prefill for a context of one token, where nothing but the first token is read.
    """

    family: str
    shape: str
    context: int
    form: str
    prefill: float
    decode: float
    memory: int
    peer_prefill: float
    peer_decode: float
    peer_memory: int
    prefill_ratio: float | None
    decode_ratio: float | None
    memory_ratio: float | None
    read: int
    peer_read: int


def compare(folder: Path, family: str, shape: str, plan: Plan) -> Iterator[Measurement | Comparison]:
    """Measure one model; yields every measurement as it is there, and the whole `Comparison` last.

    Raises:
        QwenError: one of our own runs failed. That mlx-lm failed is a remark of the comparison.
    """
    comparison = Comparison(family, shape)
    tasks = [Task("qwen-mlx", str(folder), form, plan.clock) for form in plan.weights]
    tasks += [Task("mlx-lm", str(folder), dtype, plan.clock) for dtype in plan.dtypes]
    with ExitStack() as stack:
        processes = []
        for task in tasks:
            try:
                processes.append(stack.enter_context(Process(task)))
            except QwenError as error:
                if task.engine == "qwen-mlx":
                    raise
                comparison.remarks.append(f"mlx-lm in {task.form}: {error}")
        # Forms that came to the same, because auto chose the other, are one contender.
        notes = [process.note for process in processes]
        processes = [p for i, p in enumerate(processes) if p.note not in notes[:i]]
        for context in plan.contexts:
            for measurement in _take_turns(processes, context, plan):
                comparison.measurements.append(measurement)
                yield measurement
            for loser in _hopeless(comparison, context):
                if context != plan.contexts[-1]:
                    comparison.remarks.append(
                        f"mlx-lm in {loser} was more than {_HOPELESS:.0f} times slower than in its other type at a "
                        f"context of {context}, and was not run at longer ones"
                    )
                processes = [p for p in processes if (p.task.engine, p.task.form) != ("mlx-lm", loser)]
    yield comparison


def _take_turns(processes: Sequence[Process], context: int, plan: Plan) -> Iterator[Measurement]:
    runs: list[list[Run]] = [[] for _ in processes]
    waiting = set(range(len(processes)))
    for _ in range(plan.turns):
        for i, process in enumerate(processes):
            if i not in waiting:
                continue
            run = process.run(context, Limits(plan.tokens, plan.seconds))
            runs[i].append(run)
            if plan.seconds and sum(r.read_seconds + sum(r.intervals) for r in runs[i]) > plan.seconds / 4:
                waiting.discard(i)
    for process, turns in zip(processes, runs):
        intervals = [seconds for run in turns for seconds in run.intervals]
        yield Measurement(
            process.task.engine,
            process.task.form,
            process.note,
            context,
            statistics.median(run.read / run.read_seconds for run in turns) if context > 1 else 0.0,
            1 / statistics.median(intervals),
            max(run.memory for run in turns),
            min(run.read for run in turns),
            len(intervals),
            len(turns),
        )


def _hopeless(comparison: Comparison, context: int) -> list[str]:
    """The types of mlx-lm's that cannot win any more."""
    peers = comparison.of("mlx-lm", context)
    found = []
    for one in peers:
        for other in peers:
            slower_at_writing = one.decode * _HOPELESS < other.decode
            slower_at_reading = context == 1 or one.prefill * _HOPELESS < other.prefill
            if slower_at_writing and slower_at_reading:
                found.append(one.form)
    return found


def rows(comparison: Comparison) -> list[Row]:
    """What a table says of a model: a row for each context and each form of ours."""
    found = []
    for ours in comparison.measurements:
        if ours.engine != "qwen-mlx":
            continue
        peers = comparison.of("mlx-lm", ours.context)
        prefill = max((p.prefill for p in peers), default=0.0)
        decode = max((p.decode for p in peers), default=0.0)
        memory = min((p.memory for p in peers), default=0)
        reader = max(peers, key=lambda p: p.prefill, default=ours)
        found.append(
            Row(
                comparison.family,
                comparison.shape,
                ours.context,
                ours.note.removeprefix("weights "),
                ours.prefill,
                ours.decode,
                ours.memory,
                prefill,
                decode,
                memory,
                ours.prefill / prefill if prefill else None,
                ours.decode / decode if decode else None,
                ours.memory / memory if memory else None,
                ours.read,
                reader.read,
            )
        )
    return found


def as_json(comparisons: Sequence[Comparison], plan: Plan, machine: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, and the rows of the table; plain values only."""
    return {
        "machine": machine,
        "plan": asdict(plan),
        "models": [asdict(c) | {"rows": [asdict(row) for row in rows(c)]} for c in comparisons],
    }

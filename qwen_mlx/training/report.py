"""Where the events of a run are written: events.jsonl always, metrics.csv and TensorBoard's files when asked for."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from qwen_mlx.event_json import as_dictionary
from qwen_mlx.events import Eval, Event, Progress, Sample, Step
from qwen_mlx.training.run_folder import EVENTS


class Sink(Protocol):
    def write(self, event: Event) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """events.jsonl: one object a line, with the time in seconds since 1970; only ever appended to."""

    def __init__(self, folder: Path) -> None:
        path = folder / EVENTS
        torn = path.is_file() and path.stat().st_size and _last_byte(path) != b"\n"
        self._file = path.open("a", encoding="utf-8")
        if torn:  # a killed process left half a line
            self._file.write("\n")

    def write(self, event: Event) -> None:
        if isinstance(event, Progress):
            return
        line = json.dumps({"time": round(time.time(), 3), **as_dictionary(event)}, ensure_ascii=False)
        # A surrogate half, which a broken file may hold, has no UTF-8.
        self._file.write(line.encode("utf-8", "replace").decode("utf-8") + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


class Csv:
    """metrics.csv: a line per step, with the loss of the evaluation set where it was measured."""

    COLUMNS = (
        "step",
        "epoch",
        "loss",
        "valid_loss",
        "learning_rate",
        "gradient_norm",
        "tokens",
        "supervised",
        "tokens_per_second",
        "memory",
        "peak",
        "seconds",
        "skipped",
    )

    def __init__(self, folder: Path) -> None:
        path = folder / "metrics.csv"
        new = not path.is_file() or not path.stat().st_size
        self._file = path.open("a", encoding="utf-8", newline="")
        if new:
            self._line(dict.fromkeys(self.COLUMNS), header=True)

    def write(self, event: Event) -> None:
        if isinstance(event, Step):
            values = as_dictionary(event)
            self._line({name: values.get(name) for name in self.COLUMNS})
        elif isinstance(event, Eval):
            self._line({"step": event.step, "valid_loss": event.loss})

    def close(self) -> None:
        self._file.close()

    def _line(self, values: dict, header: bool = False) -> None:
        text = io.StringIO()
        row = self.COLUMNS if header else ["" if values.get(c) is None else values[c] for c in self.COLUMNS]
        csv.writer(text, lineterminator="\n").writerow(row)
        self._file.write(text.getvalue())
        self._file.flush()


class TensorBoard:
    """Files for `tensorboard --logdir RUN`, in the folder tensorboard/."""

    def __init__(self, folder: Path) -> None:
        from qwen_mlx.training.tensorboard import EventFile

        self._file = EventFile(folder / "tensorboard")

    def write(self, event: Event) -> None:
        if isinstance(event, Step):
            values = {
                "train/loss": event.loss,
                "train/learning_rate": event.learning_rate,
                "train/gradient_norm": event.gradient_norm,
                "train/epoch": event.epoch,
                "speed/tokens_per_second": event.tokens_per_second,
                "memory/peak": float(event.peak),
                **{f"train/{name}": value for name, value in event.metrics.items()},
            }
            self._file.scalars(event.step, {name: value for name, value in values.items() if math.isfinite(value)})
        elif isinstance(event, Eval):
            self._file.scalars(event.step, {"valid/loss": event.loss, "valid/perplexity": event.perplexity})
        elif isinstance(event, Sample):
            self._file.text(event.step, "sample", f"{event.prompt}\n\n{event.text}")

    def close(self) -> None:
        self._file.close()


class Report:
    """All sinks of a run."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        kinds: dict[str, Callable[[Path], Sink]] = {"csv": Csv, "tensorboard": TensorBoard}
        others = [kinds[name](folder) for name in dict.fromkeys(names) if name != "jsonl"]
        self._sinks: list[Sink] = [JsonLines(folder), *others]

    def write(self, event: Event) -> None:
        for sink in self._sinks:
            sink.write(event)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

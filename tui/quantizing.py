"""A model that is being made smaller, whether somebody is looking or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwen_mlx.events import (
    ConversionPlanned,
    Converted,
    JobCancelled,
    JobFailed,
    JobHandle,
    ModelEntry,
    Notice,
    Progress,
    QuantizeModel,
    Runtime,
    Shelf,
)
from tui.wording import meter, sentence, size

SMALL = 8.6  # bits per weight from which on a model is worth making smaller
# Name, bits per weight of a model with 8 billion weights, what it is for: as in `qwen-mlx quantize --help`.
PRESETS = (
    ("balanced", 5.0, "4 bits, 6 where it matters: the usual choice"),
    ("small", 4.8, "4 bits, 6 for embeddings and head"),
    ("tiny", 4.3, "3 bits, 6 where it matters: large ones only"),
    ("quality", 6.5, "6 bits"),
    ("max", 8.5, "8 bits: hardly different from the original"),
)


@dataclass
class Quantization:
    """What is known of the one that runs."""

    name: str
    preset: str
    folder: str
    handle: JobHandle
    plan: ConversionPlanned | None = None
    progress: Progress | None = None
    note: str = ""
    stopping: bool = False


@dataclass(frozen=True)
class Made:
    """How one ended: `model` is what the new one is called; else `error` says why not, "" when it was stopped."""

    name: str
    model: str | None
    size: int = 0
    error: str = ""


class Quantizer:
    """At most one at a time. It runs where models answer: answers wait for its end."""

    def __init__(self, runtime: Runtime, shelf: Shelf) -> None:
        self.current: Quantization | None = None
        self._runtime = runtime
        self._shelf = shelf

    def start(self, model: ModelEntry, preset: str) -> None:
        """Begin to write a smaller version of `model` beside the others that were made here."""
        folder = self._shelf.new_folder(model.name, preset)
        handle = self._runtime.submit(QuantizeModel(model.name, folder, preset))
        self.current = Quantization(model.name, preset, folder, handle)

    def stop(self) -> None:
        """Nothing is left of it."""
        if self.current is not None:
            self.current.stopping = True
            self.current.handle.cancel()

    def poll(self) -> Made | None:
        """Take what has happened; how it ended, once."""
        current = self.current
        if current is None:
            return None
        for event in current.handle.drain():
            if isinstance(event, Progress):
                current.progress = event
            elif isinstance(event, ConversionPlanned):
                current.plan = event
            elif isinstance(event, Notice):
                current.note = event.text
            elif isinstance(event, Converted):
                self.current = None
                return Made(current.name, Path(current.folder).name, event.plan.disk)
            elif isinstance(event, (JobFailed, JobCancelled)):
                self.current = None
                return Made(current.name, None, 0, getattr(event, "error", ""))
        return None


def refusal(model: ModelEntry) -> str | None:
    """Why a model is not made smaller, as a sentence; None when it can be."""
    if not model.removable:
        return f"{model.name} is part of the program, and tiny already."
    if model.problem is not None:
        return f"{model.name} cannot be used: {model.problem}."
    if model.bits is not None and model.bits <= SMALL:
        return f"{model.name} is small already, {model.bits:.1f} bits a weight: rounding twice would cost quality."
    return None


def estimate(model: ModelEntry, bits: float) -> int:
    """About how many bytes a model will have with so many bits per weight."""
    if model.parameters is not None:
        return round(model.parameters * bits / 8)
    return round(model.size * bits / (model.bits or 16.0))


def describe(work: Quantization) -> str:
    """`▰▰▰▱▱▱ 45 %  2.1 GB of 4.6 GB`."""
    if work.stopping:
        return "Stopping…"
    progress = work.progress
    if progress is None or not progress.total:
        return "Waiting…" if work.plan is None else "Beginning…"
    part = progress.done / progress.total
    amount = f"{size(progress.done)} of {size(progress.total)}" if progress.unit == "bytes" else progress.stage
    return f"{meter(part, 20)} {int(100 * part)} %  {amount}"


def message_of(made: Made) -> str:
    """How it ended, as a sentence."""
    if made.model is not None:
        return f"{made.model} is made, {size(made.size)}. ctrl+l chooses it."
    if made.error:
        return sentence(f"{made.name} was not made smaller: {made.error}")
    return f"{made.name}: stopped; nothing is left of the smaller one."

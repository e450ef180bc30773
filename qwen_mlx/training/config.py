"""What a training run is told: one frozen dataclass per section of its TOML file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qwen_mlx.errors import UsageError
from qwen_mlx.training.data.config import DataConfig
from qwen_mlx.training.presets import preset
from qwen_mlx.training.settings import (
    Origins,
    Table,
    as_table,
    changed,
    laid_over,
    read_change,
    read_section,
    read_table,
)


@dataclass(frozen=True)
class ModelSection:
    """Attributes:
    path: a folder, a name in the Hugging Face cache, or "demo".
    quantize: a preset of `qwen-mlx quantize`, or bits ("4", "4:64"), for the frozen base: QLoRA. The quantized model
        is kept in the run's folder, because the adapter belongs to exactly it. None trains on it as it is.
    dtype: of the weights while they are trained: "float32" adds small updates exactly; "auto" is float32 for what is
        trained in full on a CPU, and what the model is stored in on a GPU.
    """

    path: str
    quantize: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


@dataclass(frozen=True)
class AdapterSection:
    """Attributes:
    method: "lora", "dora", or "full" for all weights of the model itself.
    rank, alpha: the change of a matrix is `alpha / rank * B A`, or `alpha / sqrt(rank) * B A` with `rslora`.
    dropout: of what goes into A.
    targets: "all-linear", or names of projections such as "q_proj".
    layers: numbers of the layers, from 0; empty is all.
    rank_pattern, alpha_pattern: other values for modules whose name matches, as in PEFT.
    modules_to_save: trained in full beside the adapter, such as "embed_tokens" and "lm_head".
    """

    method: Literal["lora", "dora", "full"] = "lora"
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    rslora: bool = False
    targets: tuple[str, ...] = ("all-linear",)
    layers: tuple[int, ...] = ()
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()


@dataclass(frozen=True)
class OptimSection:
    """Attributes:
    name: "adamw", "muon" (AdamW for what is no matrix of a layer), "lion", or "adafactor".
    lr, min_lr: learning rate at its peak and at its end, a tenth of it unless given.
    other_lr: of AdamW beside Muon, at its peak; a tenth of `lr` unless given.
    schedule: from peak to end; warmup: steps until the peak, or their share of the run when below 1.
    betas, eps: of AdamW and Lion; momentum of Muon.
    weight_decay: decoupled; never of norms, biases and vectors, of adapters only with `decay_adapters`.
    clip: largest norm of all gradients together; 0 is off.
    """

    name: Literal["adamw", "muon", "lion", "adafactor"] = "adamw"
    lr: float = 1e-4
    min_lr: float | None = None
    other_lr: float | None = None
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: float = 0.03
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    momentum: float = 0.95
    weight_decay: float = 0.0
    decay_adapters: bool = False
    clip: float = 1.0


@dataclass(frozen=True)
class LoopSection:
    """Attributes:
    epochs: how often every example is seen; steps: ends sooner (0: not).
    tokens_per_batch: positions of one batch, padding included; a batch is computed at once.
    accumulate: batches of one step, whose loss is the mean over all their supervised tokens.
    checkpoint_layers: compute activations again in the backward pass, of every k-th layer (0: none); "auto" does
        it when the forecast says that memory is short.
    router_balance: weight of the loss that keeps experts equally busy, over all tokens of a step; 0 leaves it out.
    compile: fuse what a step computes; "auto" does on a GPU. MLX's CPU backend asks a C++ compiler for it.
    eval_every: steps between looks at the evaluation set, which is read whole; 0: once an epoch.
    eval_first: also before the first step.
    early_stop: looks without a better loss before the run ends; 0 is off.
    """

    epochs: int = 1
    steps: int = 0
    tokens_per_batch: int = 4096
    accumulate: int = 1
    checkpoint_layers: Literal["auto"] | int = "auto"
    router_balance: float = 0.0
    compile: Literal["auto"] | bool = "auto"
    eval_every: int = 0
    eval_first: bool = True
    early_stop: int = 0


@dataclass(frozen=True)
class SaveSection:
    """Attributes:
    every: steps between checkpoints (0: once an epoch); every_minutes: also after so long (0: not).
    keep: checkpoints to keep, besides the best one.
    """

    every: int = 0
    every_minutes: float = 10.0
    keep: int = 2


@dataclass(frozen=True)
class LogSection:
    """Attributes:
    sinks: "csv", "tensorboard"; "jsonl", which is events.jsonl, is always written.
    samples: prompts that are answered while it trains; sample_every: steps between (0: at every evaluation).
    sample_tokens: the longest answer.
    """

    sinks: tuple[Literal["jsonl", "csv", "tensorboard"], ...] = ("jsonl",)
    samples: tuple[str, ...] = ()
    sample_every: int = 0
    sample_tokens: int = 64


@dataclass(frozen=True)
class RunConfig:
    """Everything a run is told.

    Attributes:
        out: the run's folder.
        stage: what is learnt from the data: "sft".
        seed: decides the first adapter, the order of the examples and dropout.
        preset: what this was laid over; see `presets`.
    """

    model: ModelSection
    data: DataConfig
    out: str = "runs/run"
    stage: Literal["sft"] = "sft"
    seed: int = 1
    preset: str = "lora"
    adapter: AdapterSection = field(default_factory=AdapterSection)
    optim: OptimSection = field(default_factory=OptimSection)
    loop: LoopSection = field(default_factory=LoopSection)
    save: SaveSection = field(default_factory=SaveSection)
    log: LogSection = field(default_factory=LogSection)

    def table(self) -> Table:
        """As TOML has it; `read_section(RunConfig, table)` gives the same again."""
        return as_table(self)

    def digest(self) -> str:
        """Changes with every value that changes what is computed; where it is written and logged does not."""
        table = self.table()
        for key in ("out", "preset", "save", "log"):
            table.pop(key)
        # What these name is compared by what is in it.
        del table["model"]["path"], table["data"]["train"]
        table["data"].pop("valid")
        table["loop"].pop("eval_first")
        return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:16]


def read_config(file: Path | None, changes: Sequence[str] = (), stage: str | None = None) -> RunConfig:
    """A run's configuration: a preset, under a file, under changes.

    Args:
        changes: `section.key=value`.
        stage: must be that of the file, when both say one.

    Raises:
        NotFound: there is no such file.
        UsageError: a key or a value that cannot be meant; the text says in which line.
    """
    table: Table = {}
    origins: Origins = {}
    if file is not None:
        table, origins = read_table(file)
    for text in changes:
        path, value = read_change(text)
        table = changed(table, path, value)
        origins[path] = f"--set {text}"
    table = _absolute(table, None if file is None else file.parent, {read_change(text)[0] for text in changes})
    name = table.get("preset", "lora")
    place = origins.get(("preset",))
    table = laid_over(preset(str(name), f"{place}: " if place else ""), table)
    if stage is not None and table.setdefault("stage", stage) != stage:
        raise UsageError(f"this is a run of stage {table['stage']!r}", expected=f"`train {table['stage']}`")
    return checked(read_section(RunConfig, table, (), origins), origins)


def _absolute(table: Table, folder: Path | None, told: set[tuple[str, ...]]) -> Table:
    """Names of files and folders made absolute, so that a run can be resumed from anywhere.

    They are relative to the file that names them, and to the current folder where a person did.
    """
    for path in (("data", "train"), ("data", "valid"), ("model", "path")):
        section = table.get(path[0])
        name = section.get(path[1]) if isinstance(section, dict) else None
        if not isinstance(name, str) or not name:
            continue
        whole = Path.cwd() if path in told or folder is None else folder.absolute()
        try:
            whole = whole / Path(name).expanduser()
            there = whole.exists()
        except (OSError, RuntimeError, ValueError):
            continue  # a name that cannot be: whoever opens it will say so
        # A model may also be a name on the hub.
        if path[0] == "data" or (there and name != "demo"):
            table = changed(table, path, os.path.normpath(whole))
    return table


def checked(config: RunConfig, origins: Origins | None = None) -> RunConfig:
    """The configuration, if its numbers can be meant; else raises `UsageError`."""
    o, lp, a = config.optim, config.loop, config.adapter
    rules: list[tuple[str, Any, bool, str]] = [
        ("optim.lr", o.lr, o.lr > 0, "above 0"),
        ("optim.min_lr", o.min_lr, o.min_lr is None or 0 <= o.min_lr <= o.lr, "from 0 to optim.lr"),
        ("optim.other_lr", o.other_lr, o.other_lr is None or o.other_lr > 0, "above 0"),
        ("optim.warmup", o.warmup, o.warmup >= 0, "a share below 1, or a number of steps"),
        ("optim.betas", list(o.betas), all(0 <= b < 1 for b in o.betas), "from 0 to below 1"),
        ("optim.eps", o.eps, o.eps > 0, "above 0"),
        ("optim.momentum", o.momentum, 0 <= o.momentum < 1, "from 0 to below 1"),
        ("optim.weight_decay", o.weight_decay, 0 <= o.weight_decay < 1, "from 0 to below 1"),
        ("optim.clip", o.clip, o.clip >= 0, "0 or more"),
        ("loop.epochs", lp.epochs, lp.epochs >= 1, "1 or more"),
        ("loop.steps", lp.steps, lp.steps >= 0, "0 or more"),
        ("loop.tokens_per_batch", lp.tokens_per_batch, lp.tokens_per_batch >= 2, "2 or more"),
        ("loop.accumulate", lp.accumulate, lp.accumulate >= 1, "1 or more"),
        ("loop.router_balance", lp.router_balance, lp.router_balance >= 0, "0 or more"),
        ("loop.eval_every", lp.eval_every, lp.eval_every >= 0, "0 or more"),
        ("loop.early_stop", lp.early_stop, lp.early_stop >= 0, "0 or more"),
        (
            "loop.checkpoint_layers",
            lp.checkpoint_layers,
            lp.checkpoint_layers == "auto" or lp.checkpoint_layers >= 0,
            '"auto", or 0 or more',
        ),
        ("save.every", config.save.every, config.save.every >= 0, "0 or more"),
        ("save.every_minutes", config.save.every_minutes, config.save.every_minutes >= 0, "0 or more"),
        ("save.keep", config.save.keep, config.save.keep >= 1, "1 or more"),
        ("log.sample_every", config.log.sample_every, config.log.sample_every >= 0, "0 or more"),
        ("log.sample_tokens", config.log.sample_tokens, config.log.sample_tokens >= 1, "1 or more"),
        ("adapter.rank", a.rank, a.rank >= 1, "1 or more"),
        ("adapter.alpha", a.alpha, a.alpha > 0, "above 0"),
        ("adapter.dropout", a.dropout, 0 <= a.dropout < 1, "from 0 to below 1"),
        ("seed", config.seed, 0 <= config.seed < 2**32, "from 0 to 4294967295"),
        ("out", config.out, bool(config.out), "a folder"),
        ("model.path", config.model.path, bool(config.model.path), "a model"),
    ]
    for name, value, fine, expected in rules:
        if not fine:
            place = (origins or {}).get(tuple(name.split(".")))
            text = f"'{name}' cannot be used"
            raise UsageError(f"{place}: {text}" if place else text, expected=expected, found=json.dumps(value))
    if a.method == "full" and config.model.quantize is not None:
        raise UsageError("packed weights cannot be trained in full", hint='adapter.method = "lora", or no quantize.')
    return config

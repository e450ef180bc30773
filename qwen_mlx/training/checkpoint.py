"""Everything a run needs to go on as if it had never stopped, in one folder.

`trainable.safetensors` holds the trained weights under the decoder's own names and `optimizer.safetensors` the
optimizer's state, both to the last bit; `window.safetensors` the gradients that were summed so far, where a run was
stopped within a step; `state.json` all numbers, and the digests that a resumed run compares. An adapter also lies
there in PEFT's format, ready to be used.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from qwen_mlx import device

device.prepare()  # before anything imports mlx

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
from mlx.utils import tree_unflatten  # noqa: E402

from qwen_mlx import __version__  # noqa: E402
from qwen_mlx.checkpoints.safetensors import load_tensors  # noqa: E402
from qwen_mlx.errors import CheckpointError, UsageError  # noqa: E402
from qwen_mlx.models import Decoder  # noqa: E402
from qwen_mlx.training.engine import Sums  # noqa: E402
from qwen_mlx.training.optim import flat, load_state  # noqa: E402
from qwen_mlx.training.run_folder import STATE, read_state  # noqa: E402

TRAINABLE, OPTIMIZER, WINDOW = "trainable.safetensors", "optimizer.safetensors", "window.safetensors"


@dataclass(frozen=True)
class Window:
    """What is known of the step that is being computed: sums over its first `batches` batches.

    Attributes:
        loss, weight: sums of token losses and of token weights.
        tokens: real tokens.
        metrics: sums of what the stage tells.
    """

    batches: int = 0
    loss: float = 0.0
    weight: float = 0.0
    tokens: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Position:
    """Where a run is, and all its numbers.

    Attributes:
        step: updates that were made (or skipped); `epoch` is counted from 0, `batch` of it come next.
        tokens: real tokens so far; `seconds` of computing.
        best_loss, best_step: of the evaluations; `worse` of them in a row were not the best.
        evaluated, sampled, saved: the last step after which each was done, -1 before the first.
        bad_steps: in a row, that were skipped.
        peak_rate: a learning rate that a person set while it ran.
        recent: mean loss of late, for finding spikes.
        last_loss: of the last step.
        notices: codes of what was said already.
        finished: "" until the run came to its end.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    window: Window = field(default_factory=Window)
    tokens: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    worse: int = 0
    evaluated: int = -1
    sampled: int = -1
    saved: int = -1
    bad_steps: int = 0
    peak_rate: float | None = None
    recent: float | None = None
    last_loss: float | None = None
    notices: tuple[str, ...] = ()
    finished: str = ""


@dataclass(frozen=True)
class Identity:
    """Digests of what a run depends on; `config` is that of `RunConfig.digest`."""

    config: str
    data: str
    model: str


def versions() -> dict[str, str]:
    """Of the programs that compute."""
    return {"qwen-mlx": __version__, "mlx": importlib.metadata.version("mlx"), "backend": device.backend()}


def save(
    folder: Path,
    position: Position,
    identity: Identity,
    decoder: Decoder,
    optimizer: optim.MultiOptimizer,
    sums: Sums | None,
) -> None:
    """Write a checkpoint into an empty folder, which the caller makes appear when it is whole."""
    weights = flat(decoder.trainable_parameters())
    mx.save_safetensors(str(folder / TRAINABLE), weights)
    mx.save_safetensors(str(folder / OPTIMIZER), flat(optimizer.state))
    if sums is not None:
        mx.save_safetensors(str(folder / WINDOW), {**flat(sums.gradients), **sums.counted})
    state = {
        "format": 1,
        "position": asdict(position),
        "random": [int(number) for number in random_key()],
        "trainable": {name: [list(array.shape), _type(array)] for name, array in sorted(weights.items())},
        "identity": asdict(identity),
        "versions": versions(),
    }
    (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


def load(folder: Path, decoder: Decoder, optimizer: optim.MultiOptimizer) -> tuple[Position, Sums | None]:
    """Bring weights, optimizer and the random state back; where the run was, and the gradients of its open step.

    Raises:
        CheckpointError: a file is damaged or missing, or the weights that would be trained are not those that were.
    """
    state = read_state(folder)
    try:
        position = _position(state["position"])
        key = [int(number) for number in state["random"]]
    except (KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(f"{folder / STATE} is damaged", found=str(problem)) from None
    held = flat(decoder.trainable_parameters())
    weights = _read(folder / TRAINABLE)
    if odd := sorted(set(held) ^ set(weights)):
        raise CheckpointError(
            f"{folder} trained other weights: {len(odd)} are here or there only",
            expected=f"{len(held)} weights",
            found=f"{len(weights)}, such as {odd[0]}",
        )
    for name, array in weights.items():
        if (array.shape, array.dtype) != (held[name].shape, held[name].dtype):
            raise CheckpointError(
                f"{folder / TRAINABLE}: {name} has another form",
                expected=f"{held[name].shape} {held[name].dtype}",
                found=f"{array.shape} {array.dtype}",
            )
    decoder.update(tree_unflatten(list(weights.items())))
    load_state(optimizer, _read(folder / OPTIMIZER), str(folder / OPTIMIZER))
    sums = None
    if position.window.batches:
        saved = _read(folder / WINDOW)
        gradients = [(name, array) for name, array in saved.items() if not name.startswith("window.")]
        if sorted(name for name, _ in gradients) != sorted(held):
            raise CheckpointError(f"{folder / WINDOW} has gradients of other weights")
        sums = Sums(tree_unflatten(gradients), {n: array for n, array in saved.items() if n.startswith("window.")})
        mx.eval(sums.gradients, sums.counted)
    mx.eval(decoder.trainable_parameters(), optimizer.state)
    set_random_key(key)
    return position, sums


def continued(position: Position, batches: int, steps: int) -> Position:
    """Where a run goes on that has `batches` in an epoch and `steps` in all, which may not be what they were."""
    if position.batch >= batches:
        position = replace(position, epoch=position.epoch + 1, batch=0)
    if position.finished and position.step < steps:
        position = replace(position, finished="", worse=0)
    return position


def compare(folder: Path, identity: Identity, allow_change: bool) -> list[str]:
    """What is not as it was, in words; empty when a resumed run will be bitwise the one that never stopped.

    Raises:
        UsageError: data, model or configuration have changed, and `allow_change` is False.
    """
    state = read_state(folder)
    told = {"config": "the configuration", "data": "the data", "model": "the model"}
    before, now = state.get("identity", {}), asdict(identity)
    changed = [told[key] for key in told if before.get(key) != now[key]]
    if changed and not allow_change:
        raise UsageError(
            f"{' and '.join(changed)} changed since this run was started",
            hint="--allow-change goes on all the same; the result is then no longer that of one run.",
        )
    old, new = state.get("versions", {}), versions()
    return changed + [f"{key} ({old.get(key)} was {new[key]} now)" for key in new if old.get(key) != new[key]]


def random_key() -> list[int]:
    """MLX's random state of this thread: two 32-bit numbers."""
    state: Any = mx.random.state  # a container, whatever its type says
    return state[0].tolist()


def set_random_key(key: list[int]) -> None:
    """Put back what `random_key` gave."""
    high, low = key
    mx.random.seed((high << 32) | low)


def _position(values: dict[str, Any]) -> Position:
    window = Window(**values["window"])
    return replace(Position(**{**values, "window": window}), notices=tuple(values["notices"]))


def _read(path: Path) -> dict[str, mx.array]:
    return load_tensors(path)


def _type(array: mx.array) -> str:
    return str(array.dtype).removeprefix("mlx.core.")

"""Runs on tiny random models and data, with everything that makes resuming hard: dropout, packing, odd windows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_mlx.checkpoints.load import LoadedModel  # first: it prepares the BLAS

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from qwen_mlx.events import CancelToken, Event, Saved, Step, TrainingControls
from qwen_mlx.training import checkpoint
from qwen_mlx.training.checkpoint import Identity, Position
from qwen_mlx.training.config import RunConfig, read_config
from qwen_mlx.training.data.batches import BatchShape
from qwen_mlx.training.data.examples import Example
from qwen_mlx.training.forecast import forecast
from qwen_mlx.training.loop import Loop
from qwen_mlx.training.optim import make_optimizer
from qwen_mlx.training.prepare import Prepared
from qwen_mlx.training.run_folder import RunFolder
from qwen_mlx.training.stages.dataset_source import DatasetSource
from qwen_mlx.training.stages.stage import Arrays, Loss
from tests.models import tiny

CONFIG: dict[str, Any] = tiny.QWEN3 | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "head_dim": 8,
    "num_hidden_layers": 2,
}


@dataclass(frozen=True)
class Rows:
    """Implements `TokenDataset` with random examples."""

    examples: list[Example]

    @staticmethod
    def random(count: int, seed: int = 0, longest: int = 12, vocabulary: int = 97) -> Rows:
        rng = np.random.default_rng(seed)
        examples = []
        for number in range(count):
            length = int(rng.integers(3, longest + 1))
            weights = (rng.random(length) < 0.7).astype(np.float32)
            weights[0], weights[-1] = 0, 1
            ids = rng.integers(0, vocabulary, length).astype(np.int32)
            examples.append(Example(ids, weights, f"rows.jsonl:{number + 1}"))
        return Rows(examples)

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"".join(e.ids.tobytes() + e.weights.tobytes() for e in self.examples)).hexdigest()

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(e.ids) for e in self.examples], np.int32)

    @property
    def supervised(self) -> np.ndarray:
        return np.array([e.weights.sum() for e in self.examples], np.float64)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


@dataclass
class PlainStage:
    """A stage with the plainest loss, one example a row, and dropout on the embeddings if asked for."""

    train: DatasetSource
    valid: DatasetSource | None = None
    dropout: float = 0.0
    poison: set[int] = field(default_factory=set)
    name: str = "sft"
    longest: int = 32
    counts: bool = True

    def recomputing(self, every: int) -> PlainStage:
        return self

    def window_start(self, decoder: Any) -> Arrays:
        """Counts the batches of a window, which the loss then looks at."""
        return {"window.batches": mx.zeros(())} if self.counts else {}

    def loss(self, decoder: Any, arrays: Arrays) -> Loss:
        loss, weight, metrics = self.judge(decoder, arrays)
        if self.dropout:
            hidden = nn.Dropout(self.dropout)(decoder.hidden_states(arrays["ids"]))
            loss = loss + 0.1 * (decoder.logits(hidden)[..., 0] * arrays["weights"]).sum()
        if not self.counts:
            return loss, weight, metrics
        loss = loss * (1 + 0.1 * arrays["window.batches"])
        return loss, weight, {**metrics, "window.batches": mx.array(1.0)}

    def judge(self, decoder: Any, arrays: Arrays) -> Loss:
        losses = nn.losses.cross_entropy(decoder(arrays["ids"]), arrays["targets"])
        loss = (losses * arrays["weights"]).sum()
        for token in self.poison:  # a row that begins with this token has no loss that is a number
            loss = mx.where((arrays["ids"][:, 0] == token).any(), mx.array(float("nan")), loss)
        return loss, arrays["weights"].sum(), {"mean_position": arrays["positions"].astype(mx.float32).mean()}


def config(out: Path, *changes: str) -> RunConfig:
    return read_config(
        None,
        [
            "model.path=tiny",
            "data.train=rows.jsonl",
            "data.packing=false",
            f"out={out}",
            "preset=full",
            "optim.lr=0.01",
            "loop.accumulate=3",
            "loop.epochs=2",
            "loop.compile=false",
            "loop.checkpoint_layers=0",
            "optim.warmup=2",
            *changes,
        ],
    )


def prepared(
    settings: RunConfig, rows: Rows | None = None, valid: Rows | None = None, dropout: float = 0.0, batch: int = 2
) -> Prepared:
    """A run of 2 rows a batch on a model whose weights depend on the seed alone."""
    rows = rows or Rows.random(15)
    decoder = tiny.decoder(CONFIG, seed=settings.seed)
    decoder.unfreeze()
    shape = BatchShape(batch, 32)
    stage = PlainStage(
        DatasetSource(rows, shape, settings.seed, False),
        None if valid is None else DatasetSource(valid, shape, 0, False, fixed=True),
        dropout,
    )
    model = LoadedModel(Path("tiny"), CONFIG, decoder, 0, "plain")
    optimizer = make_optimizer(settings.optim, decoder.trainable_parameters())
    mx.random.seed(settings.seed)
    identity = Identity(settings.digest(), stage.train.digest, "tiny")
    return Prepared(settings, model, stage, optimizer, identity, forecast(settings, model, stage))


def loop(run: Prepared, cancel: CancelToken | None = None, controls: TrainingControls | None = None) -> Loop:
    """The loop of a run, from its latest checkpoint if there is one."""
    folder = RunFolder(Path(run.config.out))
    folder.path.mkdir(parents=True, exist_ok=True)
    position, sums = Position(), None
    latest = folder.latest()
    if latest is not None:
        position, sums = checkpoint.load(latest, run.model.decoder, run.optimizer)
    return Loop(folder, run, cancel or CancelToken(), controls or TrainingControls(), position, sums)


def weights(run: Prepared) -> dict[str, np.ndarray]:
    """Weights and the state of the optimizer, by name."""
    trees = {"weights": run.model.decoder.parameters(), "optimizer": run.optimizer.state}
    return {name: np.array(array) for name, array in tree_flatten(trees)}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Whether both are equal to the last bit."""
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def losses(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Step)]


def saved(events: list[Event]) -> list[str]:
    return [Path(event.path).name for event in events if isinstance(event, Saved)]

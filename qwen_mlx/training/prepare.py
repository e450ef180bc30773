"""All that must be there before the first batch: model, data, optimizer, forecast."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qwen_mlx import device

device.prepare()  # before anything imports mlx

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402

from qwen_mlx.checkpoints.load import LoadedModel  # noqa: E402
from qwen_mlx.errors import UsageError  # noqa: E402
from qwen_mlx.events import CancelToken, DataReady, Event, TrainingForecast  # noqa: E402
from qwen_mlx.training.checkpoint import Identity  # noqa: E402
from qwen_mlx.training.config import RunConfig  # noqa: E402
from qwen_mlx.training.forecast import choose_layers, forecast  # noqa: E402
from qwen_mlx.training.model import base_folder, model_digest, open_model  # noqa: E402
from qwen_mlx.training.optim import make_optimizer  # noqa: E402
from qwen_mlx.training.stages.sft import open_sft  # noqa: E402
from qwen_mlx.training.stages.stage import Source, Stage  # noqa: E402

Opener = Callable[[RunConfig, LoadedModel, CancelToken], Generator[Event, None, Stage]]
STAGES: Mapping[str, Opener] = {"sft": open_sft}


@dataclass(frozen=True)
class Prepared:
    """What a run works with."""

    config: RunConfig
    model: LoadedModel
    stage: Stage
    optimizer: optim.MultiOptimizer
    identity: Identity
    forecast: TrainingForecast


def prepare(config: RunConfig, run: Path, cancel: CancelToken) -> Generator[Event, None, Prepared]:
    """Read model and data, and say what the run will take.

    Args:
        run: the run's folder, for what is made once and kept.

    Yields:
        `Progress`, `Notice`, `DataReady`.

    Raises:
        QwenError: model, data or configuration cannot be used; see `open_model` and `open_dataset`.
        Cancelled: nothing is left of it but what can be made again.
    """
    device.set_memory_limits()
    model = yield from open_model(config, run, cancel)
    stage = yield from STAGES[config.stage](config, model, cancel)
    source = stage.train
    if not source.examples:
        raise UsageError(f"{config.data.train!r} has no examples")
    if not source.supervised:
        raise UsageError(
            f"no token of {config.data.train!r} would be learnt", hint="Look at it: `qwen-mlx data inspect`."
        )
    yield DataReady(
        source.examples,
        stage.valid.examples if stage.valid else 0,
        source.tokens,
        source.supervised,
        _filled(source),
    )
    config, stage = decided(config, model, stage)
    mx.random.seed(config.seed)
    optimizer = make_optimizer(config.optim, model.decoder.trainable_parameters())
    mx.eval(optimizer.state)
    # The evaluation set decides which checkpoint is the best one, so it belongs to the data of a run.
    data = source.digest if stage.valid is None else f"{source.digest}-{stage.valid.digest}"
    identity = Identity(config.digest(), data, model_digest(base_folder(config, run)))
    return Prepared(config, model, stage, optimizer, identity, forecast(config, model, stage))


def decided(config: RunConfig, model: LoadedModel, stage: Stage) -> tuple[RunConfig, Stage]:
    """Both with every "auto" replaced by what it means on this machine; a resumed run must not decide anew."""
    layers = choose_layers(config, model.decoder, stage.train, stage.longest)
    compiled = device.backend() != "cpu" if config.loop.compile == "auto" else config.loop.compile
    config = replace(config, loop=replace(config.loop, checkpoint_layers=layers, compile=compiled))
    return config, stage.recomputing(layers)


def _filled(source: Source) -> float:
    """The share of positions that hold a token."""
    positions = sum(source.positions_of(batch) for batch in source.batches(0))
    return source.tokens / positions if positions else 0.0

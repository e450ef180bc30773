"""Supervised fine-tuning: predict the tokens whose weight is not 0."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from qwen_mlx import device

device.prepare()  # before anything imports mlx

import mlx.core as mx  # noqa: E402

from qwen_mlx.checkpoints.load import LoadedModel  # noqa: E402
from qwen_mlx.errors import UsageError  # noqa: E402
from qwen_mlx.events import CancelToken, Event, Notice  # noqa: E402
from qwen_mlx.models import Decoder  # noqa: E402
from qwen_mlx.models.spec import MoESpec  # noqa: E402
from qwen_mlx.training.config import RunConfig  # noqa: E402
from qwen_mlx.training.data.dataset import open_dataset, open_validation  # noqa: E402
from qwen_mlx.training.ops.sft import sft_loss  # noqa: E402
from qwen_mlx.training.stages.dataset_source import DatasetSource, batch_shape  # noqa: E402
from qwen_mlx.training.stages.stage import Arrays, Loss  # noqa: E402

_SELECTIONS, _TOKENS = "window.selections", "window.tokens"


@dataclass(frozen=True)
class SFT:
    """Implements `Stage`.

    Attributes:
        longest: tokens of the longest example, of both sets.
        balance: weight of the loss that keeps experts equally busy; over the whole window, as Qwen3 has it.
        checkpoint_every: layers that are computed again in the backward pass; see `ops.forward`.
    """

    train: DatasetSource
    valid: DatasetSource | None
    longest: int
    balance: float = 0.0
    checkpoint_every: int = 0
    name: str = "sft"

    def recomputing(self, every: int) -> SFT:
        return replace(self, checkpoint_every=every)

    def window_start(self, decoder: Decoder) -> Arrays:
        experts = [layer.mlp.experts for layer in decoder.spec.layers if isinstance(layer.mlp, MoESpec)]
        if not experts or not self.balance:
            return {}
        return {_SELECTIONS: mx.zeros((len(experts), experts[0])), _TOKENS: mx.zeros(())}

    def loss(self, decoder: Decoder, arrays: Arrays) -> Loss:
        window = (arrays[_SELECTIONS], arrays[_TOKENS]) if _SELECTIONS in arrays else None
        loss, weight, metrics = sft_loss(
            decoder,
            arrays,
            checkpoint_every=self.checkpoint_every,
            longest=self.longest,
            balance_coefficient=self.balance,
            window=window,
        )
        if window is not None:
            metrics[_SELECTIONS], metrics[_TOKENS] = metrics.pop("moe_selections"), metrics.pop("moe_tokens")
        return loss, weight, metrics

    def judge(self, decoder: Decoder, arrays: Arrays) -> Loss:
        loss, weight, _ = sft_loss(decoder, arrays, longest=self.longest)
        return loss, weight, {}


def open_sft(config: RunConfig, model: LoadedModel, cancel: CancelToken) -> Generator[Event, None, SFT]:
    """The examples of a run in batches.

    Yields:
        What `open_dataset` does.

    Raises:
        NotFound, DataError, UsageError: as `open_dataset`.
    """
    data = config.data
    dataset = yield from open_dataset(data, model.tokenizer, model.template, cancel)
    valid = yield from open_validation(data, model.tokenizer, model.template, cancel)
    if not len(dataset):
        raise UsageError(f"nothing in {data.train!r} would be learnt", hint="Look: `qwen-mlx data inspect`.")
    longest = max(int(held.lengths.max()) for held in (dataset, valid) if held is not None)
    if longest > model.spec.max_positions:
        yield Notice(
            f"examples of {longest:,} tokens are longer than the {model.spec.max_positions:,} this model knows"
        )
    tokens, packing = config.loop.tokens_per_batch, data.packing
    source = DatasetSource(dataset, batch_shape(dataset.lengths, tokens, data.max_len, packing), config.seed, packing)
    judged = None
    if valid is not None:
        shape = batch_shape(valid.lengths, tokens, data.max_len, packing)
        judged = DatasetSource(valid, shape, config.seed, packing, fixed=True)
    return SFT(source, judged, longest, config.loop.router_balance)

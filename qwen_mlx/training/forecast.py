"""What a run will take, from the sizes of things; and what it does take, from a trial step.

The peak of MLX's memory is that of the worst moment of a step. While the loss is computed, everything lives that the
backward pass of the layers will read; while that pass runs, so does the working room of one layer. The constants below
were measured (tests/training/loop/test_forecast.py measures them again on small models).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qwen_mlx import device

device.prepare()  # before anything imports mlx

import mlx.core as mx  # noqa: E402

from qwen_mlx.checkpoints.load import LoadedModel  # noqa: E402
from qwen_mlx.events import TrainingForecast  # noqa: E402
from qwen_mlx.models import Decoder  # noqa: E402
from qwen_mlx.models.spec import AttentionSpec, LayerSpec, MLPSpec  # noqa: E402
from qwen_mlx.training.checkpoint import random_key, set_random_key  # noqa: E402
from qwen_mlx.training.config import RunConfig  # noqa: E402
from qwen_mlx.training.ops.attention import BLOCK  # noqa: E402
from qwen_mlx.training.optim import flat  # noqa: E402
from qwen_mlx.training.stages.stage import Arrays, Loss, Source, Stage  # noqa: E402

if TYPE_CHECKING:
    from qwen_mlx.training.prepare import Prepared

_SHORT_OF_MEMORY = 0.8  # of what is free: above it, layers are computed twice
# Copies of m and v, or their like, that an optimizer keeps, in sizes of the weights.
_STATES = {"adamw": 2.0, "muon": 1.0, "lion": 1.0, "adafactor": 0.1}


@dataclass(frozen=True)
class LayerSizes:
    """Bytes of one layer for one batch.

    Attributes:
        kept: what its backward pass reads, if nothing is computed again.
        working: what lives besides while that pass runs.
    """

    kept: int
    working: int


def layer_sizes(
    layer: LayerSpec, hidden: int, rows: int, length: int, reach: int, size: int, ranks: int = 0
) -> LayerSizes:
    """What one layer takes for `rows` x `length` positions of `size` bytes a number.

    The factors were fitted to what MLX's CPU backend takes for dense layers of many sizes; those of other layers
    follow from what they compute.

    Args:
        reach: tokens of the longest text; attention to what is farther away is not computed.
        ranks: sum of the ranks of the adapters in the layer.
    """
    n = rows * length
    mixer, scores = layer.mixer, 0
    if isinstance(mixer, AttentionSpec):
        q, kv = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
        kept = n * (3.1 * (2 * q if mixer.gated else q) + 12 * kv)
        # Of a block of queries, in float32, a few of them at a time.
        block = min(length, BLOCK)
        scores = rows * mixer.heads * block * min(length, reach + block) * 4
    else:
        inner, keys = mixer.value_heads * mixer.value_dim, mixer.key_heads * mixer.key_dim
        kept = n * 8 * (inner + keys)
        scores = rows * mixer.value_heads * min(length, 64) * length * 4
    if isinstance(layer.mlp, MLPSpec):
        kept += n * 4.4 * layer.mlp.intermediate
    else:
        moe = layer.mlp
        wide = moe.intermediate * moe.experts_per_token + (moe.shared_intermediate or 0)
        kept += n * (4.4 * wide + 2 * hidden * moe.experts_per_token)
    kept += n * (3.5 * hidden + 3 * ranks)
    return LayerSizes(int(kept * size), int(1.6 * kept * size + 4 * scores))


def memory(config: RunConfig, decoder: Decoder, source: Source, longest: int, checkpoint_every: int) -> dict[str, int]:
    """Bytes of the worst moment of a step, by name in words.

    Args:
        longest: tokens of the longest example.
        checkpoint_every: layers that are computed again; 0: none.
    """
    spec = decoder.spec
    rows, length = source.shape
    n = rows * length
    held = _bytes(decoder.parameters())
    trained_bytes = _bytes(decoder.trainable_parameters())
    size = (decoder.compute_dtype or mx.float32).size
    ranks = 7 * config.adapter.rank if config.adapter.method != "full" else 0
    layers = [layer_sizes(layer, spec.hidden_size, rows, length, longest, size, ranks) for layer in spec.layers]
    again = [bool(checkpoint_every) and number % checkpoint_every == 0 for number in range(1, len(layers) + 1)]
    stream = n * spec.hidden_size * size
    # Below the first trained layer nothing is read again.
    first = 0 if _bytes(decoder.embed_tokens.trainable_parameters()) else _first_trained(decoder)
    kept = sum(stream if twice else layer.kept for layer, twice in list(zip(layers, again))[first:])
    # Where layers are computed again, the next ones have begun before the last has let go of its memory.
    backward = max(
        (layer.working + int(_AT_ONCE * layer.kept if twice else 0) for layer, twice in zip(layers, again)), default=0
    )
    head = head_bytes(spec.vocab_size, spec.hidden_size, n, size)
    copies = 2 if config.loop.accumulate > 1 else 1
    state = int(_STATES[config.optim.name] * trained_bytes)
    return {
        "weights": held,
        "optimizer": state,
        "gradients": copies * trained_bytes,
        "activations": kept,
        "head" if head > backward else "one layer": max(head, backward),
    }


def head_bytes(vocabulary: int, hidden: int, tokens: int, size: int) -> int:
    """What the loss takes: logits of a chunk, in float32, a few times, and the gradient of the hidden states."""
    from qwen_mlx.training.ops.cross_entropy import chunk_for

    chunk = min(chunk_for(vocabulary), tokens)
    return int(_HEAD_COPIES * chunk * vocabulary * 4) + 2 * tokens * hidden * size


_HEAD_COPIES, _AT_ONCE = 1.8, 2.4
_OVERLAP = 4


def choose_layers(config: RunConfig, decoder: Decoder, source: Source, longest: int) -> int:
    """What "auto" of `loop.checkpoint_layers` means: 0, or 1 where memory would be short without it."""
    if config.loop.checkpoint_layers != "auto":
        return config.loop.checkpoint_layers
    need = sum(memory(config, decoder, source, longest, 0).values())
    held = _bytes(decoder.parameters())
    return int(need - held > _SHORT_OF_MEMORY * device.memory_available())


def forecast(config: RunConfig, model: LoadedModel, stage: Stage) -> TrainingForecast:
    """Steps, tokens and memory of a run whose "auto" settings are decided."""
    source, loop = stage.train, config.loop
    batches = source.batches(0)
    per_epoch = math.ceil(len(batches) / loop.accumulate)
    steps = per_epoch * loop.epochs
    computed = len(batches) * loop.epochs
    share = 1.0
    if loop.steps and loop.steps < steps:
        share = loop.steps / steps
        steps, computed = loop.steps, round(computed * share)
    rows, length = source.shape
    padding = sum(source.positions_of(batch) for batch in batches) - source.tokens
    every = loop.checkpoint_layers if loop.checkpoint_layers != "auto" else 0
    parts = memory(config, model.decoder, source, stage.longest, every)
    trained = sum(array.size for array in flat(model.decoder.trainable_parameters()).values())
    # The weights are in memory by now, so what is free does not count them.
    available = device.memory_available() + parts["weights"]
    return TrainingForecast(
        steps=steps,
        batches=computed,
        rows=rows,
        length=length,
        tokens=round(source.tokens * loop.epochs * share),
        supervised=source.supervised * loop.epochs * share,
        padding=round(padding * loop.epochs * share),
        parameters=model.spec.parameters,
        trainable=trained,
        memory=parts,
        peak=sum(parts.values()),
        available=available,
        longest=_most_tokens(config, model.decoder, source, stage.longest, every, available),
    )


def _first_trained(decoder: Decoder) -> int:
    """The number of the first layer with anything to train."""
    return next(
        (number for number, layer in enumerate(decoder.layers) if _bytes(layer.trainable_parameters())),
        len(decoder.layers),
    )


def _bytes(tree: Any) -> int:
    return sum(array.nbytes for array in flat(tree).values())


class _Resized:
    """A source with batches of another size, as far as `memory` asks."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape


def _most_tokens(
    config: RunConfig, decoder: Decoder, source: Source, longest: int, every: int, available: int
) -> int | None:
    """Positions of the largest batch that fits, in whole rows."""
    length = source.shape[1]

    def fits(rows: int) -> bool:
        resized: Any = _Resized((rows, length))
        return sum(memory(config, decoder, resized, longest, every).values()) <= available

    if not fits(1):
        return None
    low = 1
    while low < 1 << 20 and fits(2 * low):
        low *= 2
    high = 2 * low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * length


def layered(run: Prepared) -> TrainingForecast:
    """The forecast, corrected by what a batch takes in a few layers of each kind, instead of in all of them.

    Nothing is changed: the gradients are thrown away, and the random state is put back.
    """
    said, decoder = run.forecast, run.model.decoder
    every = run.config.loop.checkpoint_layers
    assert every != "auto"
    layers = list(decoder.layers)
    if not all(_bytes(layer.trainable_parameters()) for layer in layers):
        return said  # a few layers would not speak for the others
    source = run.stage.train
    arrays = source.arrays(source.batches(0)[0])
    mx.eval(arrays)
    again = [bool(every) and number % every == 0 for number in range(1, len(layers) + 1)]
    kinds = [(_kind(layer.spec), twice) for layer, twice in zip(layers, again)]
    peaks: dict[tuple[Any, ...], int] = {}

    def peak(*chosen: int) -> int:
        """Of a batch in some of the layers, over what lives anyway."""
        key = tuple(kinds[number] for number in chosen)
        if key not in peaks:
            decoder.layers = [layers[number] for number in chosen]
            peaks[key] = _peak_of_a_batch(
                decoder, run.stage.recomputing(every if len(chosen) > 2 else int(again[chosen[0]])), arrays
            )
        return peaks[key]

    key = random_key()
    # Layers that are computed again overlap, a few of them, and beyond these each adds its input and its gradients.
    first = min(_OVERLAP, len(layers)) if every else 1
    rows, length = source.shape
    stream = rows * length * decoder.spec.hidden_size * (decoder.compute_dtype or mx.float32).size
    try:
        one = peak(*range(first))
        more = sum(
            stream + _bytes(layers[number].trainable_parameters())
            if again[number]
            else peak(number, number) - peak(number)
            for number in range(first, len(layers))
        )
    finally:
        decoder.layers = layers
        set_random_key(key)
    fixed = {name: said.memory[name] for name in ("weights", "optimizer")}
    copies = said.memory["gradients"] // 2 if run.config.loop.accumulate > 1 else 0
    need = max(one + more + copies, said.memory["gradients"])
    parts = fixed | {"gradients": said.memory["gradients"], "activations": need - said.memory["gradients"]}
    return replace(said, memory=parts, peak=sum(parts.values()))


def _kind(spec: LayerSpec) -> tuple[Any, ...]:
    window = spec.mixer.window if isinstance(spec.mixer, AttentionSpec) else None
    return type(spec.mixer), window, type(spec.mlp)


def _peak_of_a_batch(decoder: Decoder, stage: Stage, arrays: Arrays) -> int:
    """Bytes that the gradients of a batch take at the worst moment, over what lives before."""

    def loss(trained: Any, arrays: Arrays) -> Loss:
        decoder.update(trained)
        return stage.loss(decoder, arrays)

    decoder.train()
    trained = decoder.trainable_parameters()
    everything = {**arrays, **stage.window_start(decoder)}
    mx.eval(everything)
    mx.synchronize()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    results = mx.value_and_grad(loss)(trained, everything)
    decoder.update(trained)
    mx.eval(results)
    return mx.get_peak_memory() - before


def measured(run: Prepared) -> TrainingForecast:
    """The forecast, corrected by what one trial step takes: that of the largest batch, which comes first.

    Nothing is changed: the gradients are thrown away, and the random state is put back.
    """
    from qwen_mlx.training.engine import Engine

    said = run.forecast
    engine = Engine(run.model.decoder, run.stage, run.optimizer, run.config.optim, run.config.loop.compile is True)
    source = run.stage.train
    key = random_key()
    arrays = source.arrays(source.batches(0)[0])
    mx.eval(arrays)
    seconds = []
    mx.reset_peak_memory()
    for _ in range(2):  # the first one compiles, too
        began = time.perf_counter()
        sums, (_, weight, _) = engine.gradients(arrays, None)
        engine.norm(sums, weight or 1.0)
        seconds.append(time.perf_counter() - began)
        del sums
    set_random_key(key)
    peak = mx.get_peak_memory()
    copies = said.memory["gradients"] if run.config.loop.accumulate > 1 else 0
    peak += copies // 2
    rest = said.memory["weights"] + said.memory["optimizer"] + said.memory["gradients"]
    positions = sum(source.positions_of(batch) for batch in source.batches(0)) / len(source.batches(0))
    first = source.positions_of(source.batches(0)[0])
    return replace(
        said,
        memory={name: said.memory[name] for name in ("weights", "optimizer", "gradients")}
        | {"activations": max(0, peak - rest)},
        peak=max(peak, rest),
        measured=True,
        seconds=min(seconds) * positions / first * said.batches,
    )

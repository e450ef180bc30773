"""Cross-entropy over a large vocabulary, straight from hidden states: the logits of all tokens never exist.

With 151,936 words the logits of 4,096 tokens are 2.5 GB in float32, and a naive loss holds them, their exponentials and
their gradient. Here tokens go through the head a chunk at a time, and the chunk's part of the gradient is computed
while its logits are there. Chunks are of tokens, not of words: each row of the gradient is complete at once, and
nothing is summed up in half precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx import device
from qwen_mlx.models.elementwise import exp
from qwen_mlx.training.ops.parameters import Trainable

# Logits of one chunk in float32: on a GPU two arrays of this size are alive at a time, on a CPU three or four.
_CHUNK_BYTES, _CHUNK_BYTES_ON_CPU = 160 << 20, 80 << 20
_FEWEST, _MOST = 64, 1024  # tokens in a chunk, if nobody says
# Logits whose exponentials are worked on at a time on a CPU: few enough to stay in the cache of the processor.
_PIECE = 1 << 18


def linear_cross_entropy(
    hidden: mx.array, head: nn.Module, targets: mx.array, weights: mx.array, chunk: int | None = None
) -> mx.array:
    """`sum_t weights[t] * (logsumexp(z[t]) - z[t, targets[t]])` with `z = head(hidden)`.

    Differentiable in `hidden` and in the trainable parameters of the head, not in the weights; the gradients are
    computed along with the loss, so that each product with the head is made once.

    Args:
        hidden: (tokens, hidden_size) of a floating point type.
        head: a linear layer, or an embedding whose transposed product (`as_linear`) is the head; floats or packed,
            plain or wrapped by an adapter, but without dropout.
        targets: int (tokens,); what stands where the weight is 0 does not matter, as long as it is in the vocabulary.
        weights: float (tokens,).
        chunk: tokens that go through the head at a time; None for what fits the size of the vocabulary.

    Returns:
        The sum, a float32 scalar.
    """
    chunk = chunk or chunk_for(_vocabulary(hidden, head))
    project, trainable = _projection(head), Trainable(head)

    def apply(x: mx.array, *parameters: mx.array) -> mx.array:
        with trainable.held(parameters):
            return project(x)

    @mx.custom_function
    def compute(hidden: mx.array, targets: mx.array, weights: mx.array, *parameters: mx.array) -> tuple[mx.array, ...]:
        total = mx.zeros((), dtype=mx.float32)
        rows: list[mx.array] = []
        into_head = [mx.zeros(p.shape, dtype=mx.float32) for p in parameters]
        for own in _ranges(hidden.shape[0], chunk):
            x = hidden[own]
            if rows:  # one after the other, or the logits of all would be alive at once
                x = mx.depends(x, [total, rows[-1], *into_head])
            loss, gradient = _loss_and_gradient(apply(x, *parameters), targets[own], weights[own])
            # The head is linear: its logits, computed a second time here, are in no gradient, so MLX never does.
            row, *changes = mx.vjp(apply, [x, *parameters], [gradient])[1]
            total = total + loss
            rows.append(row)
            into_head = [a + b.astype(mx.float32) for a, b in zip(into_head, changes)]
        return (total, mx.concatenate(rows), *into_head)

    @compute.vjp
    def _(primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]) -> tuple[Any, ...]:
        hidden, targets, weights, *parameters = primals
        scale = cotangents[0]
        into_head = [(scale * g).astype(p.dtype) for p, g in zip(parameters, outputs[2:])]
        into_hidden = (scale * outputs[1].astype(mx.float32)).astype(hidden.dtype)
        return (into_hidden, mx.zeros_like(targets), mx.zeros_like(weights), *into_head)

    results: Any = compute(hidden, targets, weights.astype(mx.float32), *trainable.arrays)
    return results[0]


def linear_log_probabilities(
    hidden: mx.array, head: nn.Module, targets: mx.array, chunk: int | None = None
) -> mx.array:
    """`z[t, targets[t]] - logsumexp(z[t])` of every token, float32 (tokens,), for losses that combine them.

    As nobody knows yet what the gradient of a token will be multiplied with, only the log-sum-exp is kept, and the
    logits of a chunk are computed again for the gradient. Arguments as `linear_cross_entropy`.
    """
    chunk = chunk or chunk_for(_vocabulary(hidden, head))
    project, trainable = _projection(head), Trainable(head)

    def apply(x: mx.array, *parameters: mx.array) -> mx.array:
        with trainable.held(parameters):
            return project(x)

    @mx.custom_function
    def compute(hidden: mx.array, targets: mx.array, *parameters: mx.array) -> mx.array:
        found: list[mx.array] = []
        for own in _ranges(hidden.shape[0], chunk):
            x = mx.depends(hidden[own], found[-1]) if found else hidden[own]
            ones = mx.ones((x.shape[0],), dtype=mx.float32)
            found.append(-_losses(apply(x, *parameters), targets[own], ones)[0])
        return mx.concatenate(found)

    @compute.vjp
    def _(primals: Sequence[mx.array], cotangent: mx.array, _output: mx.array) -> tuple[Any, ...]:
        hidden, targets, *parameters = primals
        rows: list[mx.array] = []
        into_head = [mx.zeros(p.shape, dtype=mx.float32) for p in parameters]
        for own in _ranges(hidden.shape[0], chunk):
            x = mx.depends(hidden[own], [rows[-1], *into_head]) if rows else hidden[own]
            _, gradient = _losses(apply(x, *parameters), targets[own], -cotangent[own])
            row, *changes = mx.vjp(apply, [x, *parameters], [gradient])[1]
            rows.append(row)
            into_head = [a + b.astype(mx.float32) for a, b in zip(into_head, changes)]
        heads = [g.astype(p.dtype) for p, g in zip(parameters, into_head)]
        return (mx.concatenate(rows), mx.zeros_like(targets), *heads)

    result: Any = compute(hidden, targets, *trainable.arrays)
    return result


def eager_cross_entropy(hidden: mx.array, head: nn.Module, targets: mx.array, weights: mx.array) -> mx.array:
    """`linear_cross_entropy` as it is written in books, with all logits at once: what the other is tested against."""
    logits = _projection(head)(hidden).astype(mx.float32)
    chosen = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return ((mx.logsumexp(logits, axis=-1) - chosen) * weights.astype(mx.float32)).sum()


def chunk_for(vocabulary: int) -> int:
    """Tokens in a chunk: the largest power of two whose logits stay small."""
    size = _CHUNK_BYTES_ON_CPU if device.backend() == "cpu" else _CHUNK_BYTES
    fits = max(size // (4 * vocabulary), 1)
    return min(max(1 << int(math.log2(fits)), _FEWEST), _MOST)


def _projection(head: Any) -> Callable[[mx.array], mx.array]:
    """What makes logits: a linear layer, or the transposed product of an embedding."""
    found: Callable[[mx.array], mx.array] = head.as_linear if hasattr(head, "as_linear") else head
    return found


def _vocabulary(hidden: mx.array, head: nn.Module) -> int:
    return _projection(head)(hidden[:1]).shape[-1]  # its shape is known before it is computed


def _ranges(tokens: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, tokens)) for start in range(0, tokens, chunk)]


def _loss_and_gradient(logits: mx.array, targets: mx.array, weights: mx.array) -> tuple[mx.array, mx.array]:
    """The weighted sum of a chunk's losses, and its gradient in the logits, in their type."""
    losses, gradient = _losses(logits, targets, weights)
    return (losses * weights).sum(), gradient


def _losses(logits: mx.array, targets: mx.array, weights: mx.array) -> tuple[mx.array, mx.array]:
    """The loss of every token, float32, not weighted, and the gradient in the logits of the weighted sum."""
    if device.backend() != "cpu":
        (losses,), (gradient,) = mx.vjp(lambda z: mx.fast.cross_entropy(z, targets), [logits], [weights])
        return losses, gradient
    # MLX's CPU build would sum in the type of the logits, and take every exponential twice.
    wide = logits.astype(mx.float32)
    rows = max(1, _PIECE // wide.shape[-1])
    losses_of, gradients = list[mx.array](), list[mx.array]()
    for own in _ranges(wide.shape[0], rows):
        z = mx.depends(wide[own], gradients[-1]) if gradients else wide[own]
        chosen = targets[own][:, None]
        top = z.max(axis=-1, keepdims=True)
        powers = exp(z - top)
        total = powers.sum(axis=-1, keepdims=True)
        shares = powers * (weights[own][:, None] / total)
        at_target = mx.take_along_axis(shares, chosen, axis=-1) - weights[own][:, None]
        losses_of.append((mx.log(total) + top - mx.take_along_axis(z, chosen, axis=-1))[:, 0])
        gradients.append(mx.put_along_axis(shares, chosen, at_target, axis=-1))
    return mx.concatenate(losses_of), mx.concatenate(gradients).astype(logits.dtype)

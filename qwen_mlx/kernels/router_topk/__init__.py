"""The router of a mixture of experts: softmax, the k likeliest experts, their weights, in one launch.

Equals, for logits (tokens, experts),

    p = mx.softmax(logits.astype(mx.float32), axis=-1)
    experts = mx.argsort(p, axis=-1)[:, -k:]
    weights = mx.take_along_axis(p, experts, axis=-1)
    weights = weights / weights.sum(axis=-1, keepdims=True)      # where the family normalises
    weights = weights.astype(logits.dtype)

with the same experts in the same order: ascending by probability, and by index among equals, of which the higher
indices stay. That is what `mx.argpartition` gives on a Metal device, where it is a stable sort; on a CPU it is not.
Probabilities are float32 and made in the order of MLX's softmax kernel, because a difference in the last bit makes or
breaks a tie, and a broken tie is another expert.

Reads the logits and writes k indices and k weights per token: `experts + 2 k` values. Plain MLX makes up to 7 launches
of it (cast, softmax, sort, gather, sum, division, cast), one of them a full sort. Saves 6 (4 in float32, or without
normalisation).
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import mlx.core as mx

from qwen_mlx.kernels.kernel import DTYPE_NAMES, Arrays, Kernel
from qwen_mlx.kernels.launch import Program

_MOST_EXPERTS = 1024
_MOST_CHOSEN = 16

_program = Program(Path(__file__).parent, "router_topk", ["logits"], ["experts", "weights"])


def router_topk(logits: mx.array, k: int, normalise: bool) -> tuple[mx.array, mx.array]:
    """The experts of each token and how much they count.

    Args:
        logits: (tokens, experts), any float type.
        k: experts per token.
        normalise: whether the weights of the chosen experts sum to one.

    Returns:
        experts (tokens, k) uint32, the likeliest last, and their weights (tokens, k) in the type of the logits.
    """
    experts, weights = kernel(logits, k=k, normalise=normalise)
    return experts, weights


def _reference(logits: mx.array, *, k: int, normalise: bool) -> Arrays:
    probabilities = mx.softmax(logits.astype(mx.float32), axis=-1)
    # Which experts are chosen has no gradient; mlx wants to be told before it gathers by them.
    experts = mx.argsort(mx.stop_gradient(probabilities), axis=-1)[..., -k:]
    weights = mx.take_along_axis(probabilities, experts, axis=-1)
    if normalise:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return experts, weights.astype(logits.dtype)


def _run(logits: mx.array, *, k: int, normalise: bool) -> Arrays:
    tokens, count = logits.shape
    threads = 32 * -(-count // 128)
    experts, weights = _program(
        [logits],
        output_shapes=[(tokens, k), (tokens, k)],
        output_dtypes=[mx.uint32, logits.dtype],
        grid=(threads, tokens, 1),
        threadgroup=(threads, 1, 1),
        template=[("T", logits.dtype), ("EXPERTS", count), ("K", k), ("NORMALISE", normalise)],
    )
    return experts, weights


def _eligible(logits: mx.array, *, k: int, normalise: bool) -> bool:
    return (
        logits.ndim == 2
        and logits.dtype in DTYPE_NAMES
        and logits.shape[0] > 0
        and 0 < k <= _MOST_CHOSEN
        and k <= logits.shape[1] <= _MOST_EXPERTS
    )


def _configuration(logits: mx.array, *, k: int, normalise: bool) -> tuple[Hashable, ...]:
    return DTYPE_NAMES[logits.dtype], logits.shape[1], k, normalise


def _example(configuration: Any) -> tuple[Arrays, dict[str, Any]]:
    """Logits in steps of 1/16, so that there are ties, and nothing is close without being equal."""
    dtype, count, k, normalise = configuration
    steps = mx.random.randint(-64, 64, (3, count), key=mx.random.key(count))
    kind = getattr(mx, dtype)
    return ((steps / 16).astype(kind),), {"k": k, "normalise": normalise}


kernel = Kernel(
    name="router_topk",
    equals="softmax in float32, the last k of a stable ascending argsort, their probabilities, normalised",
    programs=[_program],
    run=_run,
    reference=_reference,
    eligible=_eligible,
    configuration=_configuration,
    example=_example,
)

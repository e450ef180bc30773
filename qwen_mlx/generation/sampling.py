"""From logits to token ids: temperature, top-k, top-p, min-p, and the draw.

The order and the meaning are those of transformers: temperature, then top-k, top-p, min-p, each on the
distribution that the one before left. With top-k on, all that follows one look at the vocabulary happens on a
few dozen values; the whole vocabulary is sorted only for top-p without top-k.

Where ties make the answer of transformers ambiguous or large, this is what happens here:

- top-k: tokens tied with the k-th are kept too, as in transformers, up to `TIE_ROOM` of them; which of still
  more ties are kept is not defined. `top_k=1` means greedy and takes one.
- top-p: of tokens tied at the boundary only as many as are needed are kept, lower ids first (in transformers
  the order of an unstable sort decides).
- greedy: the lowest id.

Everything is lazy and in float32; no function here waits for the device. Random numbers come from explicit
keys, never from MLX's global state. The computation itself is `kernels/sample_topk`, with and without a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from qwen_mlx.generation.parameters import SamplingParams
from qwen_mlx.kernels.sample_topk import sample_topk
from qwen_mlx.kernels.sample_topk.candidates import BLOCK, TIE_ROOM, filtered, top_candidates

__all__ = [
    "TIE_ROOM",
    "SamplingParams",
    "distribution",
    "filtered_logits",
    "make_sampler",
    "sample",
    "top_candidates",
]


def make_sampler(params: SamplingParams) -> Callable[[mx.array], mx.array]:
    """A function from logits (batch, vocab) to ids (batch,), uint32, lazy.

    Each call draws with a fresh key split from the seed, so the n-th call of two samplers with the same
    parameters gives the same ids for the same logits, whatever else used random numbers in between.
    """
    if params.greedy:
        return _greedy
    key = mx.random.key(params.seed)

    def sampler(logits: mx.array) -> mx.array:
        nonlocal key
        key, now = mx.random.split(key)
        return sample(logits, params, now)

    return sampler


def sample(logits: mx.array, params: SamplingParams, key: mx.array) -> mx.array:
    """Draw one token id per row.

    Args:
        logits: (batch, vocab), any float type; penalties are already applied.
        params: how.
        key: (2,) uint32, from `mx.random.key` or `mx.random.split`.

    Returns:
        (batch,) uint32.
    """
    if params.greedy:
        return _greedy(logits)
    return sample_topk(logits, key, **_filters(params))


def distribution(logits: mx.array, params: SamplingParams) -> tuple[mx.array, mx.array]:
    """What `sample` draws from.

    Args:
        logits: (batch, vocab).

    Returns:
        ids (batch, candidates) uint32 and their probabilities, float32, each row summing to 1. Tokens that
        are not among the ids have probability 0, as have candidates that a filter removed.
    """
    ids, scores = filtered_logits(logits, params)
    return ids, _softmax(scores)


def filtered_logits(logits: mx.array, params: SamplingParams) -> tuple[mx.array, mx.array]:
    """Candidates and their logits, divided by the temperature, -inf where a filter removed the token.

    Shapes as in `distribution`: one candidate if greedy, `TIE_ROOM` more than k with top-k, else the whole
    vocabulary.
    """
    if params.greedy:
        ids = _greedy(logits)[..., None]
        return ids, mx.take_along_axis(logits.astype(mx.float32), ids, axis=-1)
    found, scores = filtered(logits, **_filters(params))
    if found is None:
        found = mx.broadcast_to(mx.arange(logits.shape[-1], dtype=mx.uint32), logits.shape)
    return found, scores


def _greedy(logits: mx.array) -> mx.array:
    return mx.argmax(logits, axis=-1)


def _filters(params: SamplingParams) -> dict[str, Any]:
    """What the sampler below takes, as it names them."""
    return {name: getattr(params, name) for name in ("temperature", "top_k", "top_p", "min_p")}


def _softmax(scores: mx.array) -> mx.array:
    """Softmax with the sum taken in blocks: one float32 sum over a vocabulary is wrong in the fourth digit."""
    weights = mx.exp(scores - scores.max(axis=-1, keepdims=True))
    padded = mx.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, -weights.shape[-1] % BLOCK)])
    total = padded.reshape(*weights.shape[:-1], -1, BLOCK).sum(axis=-1).sum(axis=-1, keepdims=True)
    return weights / total

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
keys, never from MLX's global state. `sample` is the seam: a pure function that a fused kernel can replace.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mlx.core as mx

from qwen_mlx.generation.parameters import SamplingParams

__all__ = ["SamplingParams", "distribution", "filtered_logits", "make_sampler", "sample", "top_candidates"]

# bfloat16 logits are coarse (steps of 0.125 near 20), so ties at the k-th value are common.
TIE_ROOM = 44
# Size of the groups whose maxima are compared first; Qwen's vocabularies are multiples of it.
BLOCK = 128


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
    ids, scores = _filter(logits, params)
    drawn = mx.random.categorical(scores, axis=-1, key=key)
    if ids is None:
        return drawn
    return mx.take_along_axis(ids, drawn[..., None], axis=-1)[..., 0]


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
    found, scores = _filter(logits, params)
    if found is None:
        found = mx.broadcast_to(mx.arange(logits.shape[-1], dtype=mx.uint32), logits.shape)
    return found, scores


def top_candidates(logits: mx.array, count: int) -> tuple[mx.array, mx.array]:
    """The `count` largest logits, without sorting or partitioning the whole vocabulary.

    The largest `count` elements lie in the `count` blocks with the largest maxima: were one in another block,
    each of the chosen blocks would hold something at least as large. So one maximum per block, then the same
    question about `count * BLOCK` elements and the few after the last whole block.

    Args:
        logits: (batch, vocab).
        count: at most vocab.

    Returns:
        ids (batch, count) uint32, ascending, and their logits, in the type of `logits`.
    """
    batch, vocab = logits.shape[:-1], logits.shape[-1]
    blocks = vocab // BLOCK
    if blocks <= 2 * count:
        ids = _top(logits, count)
    else:
        whole = blocks * BLOCK
        rows = logits[..., :whole].reshape(*batch, blocks, BLOCK)
        best = _top(rows.max(axis=-1), count)[..., None]
        values = mx.take_along_axis(rows, best, axis=-2).reshape(*batch, count * BLOCK)
        ids = (best * BLOCK + mx.arange(BLOCK, dtype=mx.uint32)).reshape(*batch, count * BLOCK)
        if whole < vocab:
            rest = mx.arange(whole, vocab, dtype=mx.uint32)
            values = mx.concatenate([values, logits[..., whole:]], axis=-1)
            ids = mx.concatenate([ids, mx.broadcast_to(rest, (*batch, vocab - whole))], axis=-1)
        ids = mx.take_along_axis(ids, _top(values, count), axis=-1)
    ids = mx.sort(ids, axis=-1)
    return ids, mx.take_along_axis(logits, ids, axis=-1)


def _greedy(logits: mx.array) -> mx.array:
    return mx.argmax(logits, axis=-1)


def _top(values: mx.array, count: int) -> mx.array:
    """Places of the `count` largest along the last axis, in no particular order."""
    size = values.shape[-1]
    return mx.argpartition(values, kth=size - count, axis=-1)[..., size - count :]


def _filter(logits: mx.array, params: SamplingParams) -> tuple[mx.array | None, mx.array]:
    """Candidate ids and their filtered logits; None means the whole vocabulary in its own order."""
    vocab = logits.shape[-1]
    ids: mx.array | None = None
    limited = 0 < params.top_k < vocab
    if limited:
        ids, logits = top_candidates(logits, min(vocab, params.top_k + TIE_ROOM))
    scores = logits.astype(mx.float32) / params.temperature
    if limited or params.top_p < 1:
        # A stable sort of ascending ids: among equals the lower id comes first.
        order = mx.argsort(-scores, axis=-1)
        scores = mx.take_along_axis(scores, order, axis=-1)
        ids = order if ids is None else mx.take_along_axis(ids, order, axis=-1)
    if limited:
        kth = scores[..., params.top_k - 1 : params.top_k]
        scores = _keep(scores >= kth, scores)
    if params.top_p < 1:
        # Summed from the least likely up, where float32 loses least; the last sum is the total.
        tail = mx.cumsum(mx.exp(scores - scores[..., :1]), axis=-1, reverse=True)
        first = mx.arange(scores.shape[-1]) == 0
        scores = _keep((tail > (1 - params.top_p) * tail[..., :1]) | first, scores)
    if params.min_p > 0:
        # p >= min_p * p_max, as logarithms: the softmax cancels.
        scores = _keep(scores >= scores.max(axis=-1, keepdims=True) + math.log(params.min_p), scores)
    return ids, scores


def _keep(mask: mx.array, scores: mx.array) -> mx.array:
    return mx.where(mask, scores, -float("inf"))


def _softmax(scores: mx.array) -> mx.array:
    """Softmax with the sum taken in blocks: one float32 sum over a vocabulary is wrong in the fourth digit."""
    weights = mx.exp(scores - scores.max(axis=-1, keepdims=True))
    padded = mx.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, -weights.shape[-1] % BLOCK)])
    total = padded.reshape(*weights.shape[:-1], -1, BLOCK).sum(axis=-1).sum(axis=-1, keepdims=True)
    return weights / total

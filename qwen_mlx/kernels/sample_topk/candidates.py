"""The tokens that sampling may choose from, in plain MLX: what the kernel equals, and what runs on a CPU.

The order and the meaning are those of transformers: temperature, then top-k, top-p, min-p, each on the distribution
that the one before left. Everything is lazy and in float32.
"""

from __future__ import annotations

import math

import mlx.core as mx

# bfloat16 logits are coarse (steps of 0.125 near 20), so ties at the k-th value are common.
TIE_ROOM = 44
# Size of the groups whose maxima are compared first; Qwen's vocabularies are multiples of it.
BLOCK = 128


def filtered(
    logits: mx.array, *, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[mx.array | None, mx.array]:
    """Candidates and their logits (batch, candidates) divided by the temperature, -inf where a filter removed one.

    Args:
        logits: (batch, vocab), any float type.
        temperature: above 0.
        top_k: 0 is off.
        top_p: 1 is off.
        min_p: 0 is off.

    Returns:
        ids uint32, likeliest first wherever something was sorted, and scores float32. None instead of ids means the
        whole vocabulary in its own order.
    """
    vocab = logits.shape[-1]
    ids: mx.array | None = None
    limited = 0 < top_k < vocab
    if limited:
        ids, logits = top_candidates(logits, min(vocab, top_k + TIE_ROOM))
    scores = logits.astype(mx.float32) / temperature
    if limited or top_p < 1:
        # A stable sort of ascending ids: among equals the lower id comes first.
        order = mx.argsort(-scores, axis=-1)
        scores = mx.take_along_axis(scores, order, axis=-1)
        ids = order if ids is None else mx.take_along_axis(ids, order, axis=-1)
    if limited:
        kth = scores[..., top_k - 1 : top_k]
        scores = _keep(scores >= kth, scores)
    if top_p < 1:
        # Summed from the least likely up, where float32 loses least; the last sum is the total.
        tail = mx.cumsum(mx.exp(scores - scores[..., :1]), axis=-1, reverse=True)
        first = mx.arange(scores.shape[-1]) == 0
        scores = _keep((tail > (1 - top_p) * tail[..., :1]) | first, scores)
    if min_p > 0:
        # p >= min_p * p_max, as logarithms: the softmax cancels.
        scores = _keep(scores >= scores.max(axis=-1, keepdims=True) + math.log(min_p), scores)
    return ids, scores


def draw(ids: mx.array | None, scores: mx.array, key: mx.array) -> mx.array:
    """One id per row, (batch,) uint32, out of what `filtered` gives, with the random numbers of `key` (2,) uint32.

    The largest of the scores plus Gumbel noise is distributed as their softmax. `mx.random.categorical` does the same
    for a batch, but for a single row it sums probabilities, which is inexact over a vocabulary, and not the same draw.
    """
    drawn = mx.argmax(scores + mx.random.gumbel(scores.shape, key=key), axis=-1)
    if ids is None:
        return drawn
    return mx.take_along_axis(ids, drawn[..., None], axis=-1)[..., 0]


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


def _top(values: mx.array, count: int) -> mx.array:
    """Places of the `count` largest along the last axis, in no particular order."""
    size = values.shape[-1]
    return mx.argpartition(values, kth=size - count, axis=-1)[..., size - count :]


def _keep(mask: mx.array, scores: mx.array) -> mx.array:
    return mx.where(mask, scores, -float("inf"))

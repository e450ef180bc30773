"""One softmax over keys that different queries of a token meet, a block of keys after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

# Scores are never held for more than about this many (query, key) pairs a head: memory does not grow with the text.
PAIRS = 1 << 21

Fetch = Callable[[int, int, mx.Dtype], tuple[mx.array, mx.array]]
"""Keys and values of the tokens first to last - 1, as `Store.block` gives them."""


@dataclass(frozen=True)
class KeyGroup:
    """Queries (batch, heads, length, head_dim) and the range of keys they meet; `causal` if the last are their own."""

    queries: mx.array
    first: int
    last: int
    causal: bool = False


def attend_blockwise(groups: Sequence[KeyGroup], fetch: Fetch, scale: float) -> mx.array:
    """Attention whose softmax runs over all groups (online softmax, arXiv:1805.02867).

    Returns (batch, heads, length, head_dim) in the type of the queries; sums are float32.
    """
    batch, heads, rows, dims = groups[0].queries.shape
    dtype = groups[0].queries.dtype
    kv_heads, shape, state = 0, (0, 0, 0, 0), None
    block = max(1, PAIRS // rows)
    for group in groups:
        for first in range(group.first, group.last, block):
            last = min(first + block, group.last)
            keys, values = fetch(first, last, dtype)
            if state is None:
                kv_heads = keys.shape[1]
                shape = (batch, kv_heads, heads // kv_heads, rows)
                top = mx.full(shape, -math.inf, dtype=mx.float32)
                total = mx.zeros(shape, dtype=mx.float32)
                state = top, total, mx.zeros((*shape, dims), dtype=mx.float32)
            state = _add(state, group, keys[:, :, None], values[:, :, None], (first, last), scale)
    assert state is not None
    _, total, out = state
    return (out / total[..., None]).astype(dtype).reshape(batch, heads, rows, dims)


def _add(
    state: tuple[mx.array, mx.array, mx.array],
    group: KeyGroup,
    keys: mx.array,
    values: mx.array,
    tokens: tuple[int, int],
    scale: float,
) -> tuple[mx.array, mx.array, mx.array]:
    """One block more: largest score, sum of weights, weighted sum of values."""
    top, total, out = state
    rows = top.shape[-1]
    q = (group.queries * scale).reshape(out.shape)
    scores = (q @ keys.swapaxes(-1, -2)).astype(mx.float32)
    if group.causal:
        query = mx.arange(group.last - rows, group.last)[:, None]
        scores = mx.where(mx.arange(*tokens)[None] <= query, scores, -math.inf)
    new_top = mx.maximum(top, scores.max(axis=-1))
    # A row whose keys are all still to come keeps -inf: nothing must be subtracted from it.
    safe = mx.where(mx.isinf(new_top), mx.zeros_like(new_top), new_top)
    weights = mx.exp(scores - safe[..., None])
    shrink = mx.exp(top - safe)
    total = total * shrink + weights.sum(axis=-1)
    out = out * shrink[..., None] + (weights.astype(values.dtype) @ values).astype(mx.float32)
    return new_top, total, out

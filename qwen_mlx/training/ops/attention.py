"""Softmax attention within texts, for training: memory in proportion to the length of a row, not to its square.

Queries are taken a block at a time. Only the result and the log-sum-exp of every row of scores are kept for the
backward pass, which computes the scores of a block again (FlashAttention, arXiv:2205.14135, section 3.1 and appendix
B.2; here in plain MLX, on every device). MLX's own kernels keep all scores when there is a gradient to compute.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from qwen_mlx.models.elementwise import exp

BLOCK = 256  # queries whose scores exist at a time


@dataclass(frozen=True)
class Reach:
    """How far back the queries of a row look, known before anything is computed: decides which scores are computed.

    Attributes:
        first: for each block of `BLOCK` queries, a token before which none of them looks, in any row.
    """

    first: tuple[int, ...]

    @staticmethod
    def whole(length: int) -> Reach:
        """Rows of which nothing is known."""
        return Reach((0,) * -(-length // BLOCK))

    @staticmethod
    def of_texts(length: int, longest: int) -> Reach:
        """Rows of `length` tokens with texts of at most `longest`."""
        return Reach(tuple(max(0, block - longest + 1) for block in range(0, length, BLOCK)))

    def within(self, window: int | None) -> Reach:
        """The same where no query sees more than `window` tokens."""
        if window is None:
            return self
        return Reach(tuple(max(own, i * BLOCK - window + 1) for i, own in enumerate(self.first)))


def segment_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    starts: mx.array,
    scale: float,
    window: int | None = None,
    reach: Reach | None = None,
) -> mx.array:
    """`softmax(scale q k^T) v`, where a token sees itself and what is before it in its text.

    Differentiable in q, k and v. Scores and sums are float32, products run in the type of the inputs.

    Args:
        q: (batch, heads, length, head_dim).
        k, v: (batch, kv_heads, length, head_dim); query head h reads head `h // (heads // kv_heads)`.
        starts: int32 (batch, length), where in its row the text of a token begins.
        scale: what the scores are multiplied with.
        window: how many tokens a query sees at most, itself included.
        reach: what is known of `starts`; a text that looks back farther would be cut.

    Returns:
        (batch, heads, length, head_dim) in the type of q.
    """
    length = q.shape[2]
    known = (reach or Reach.whole(length)).within(window)
    out: mx.array = _attention(known, scale, window)(q, k, v, starts)[0]
    return out


@functools.lru_cache(maxsize=256)
def _attention(reach: Reach, scale: float, window: int | None) -> Callable[..., Any]:
    """The attention with these constants, with a gradient of its own."""

    @mx.custom_function
    def compute(q: mx.array, k: mx.array, v: mx.array, starts: mx.array) -> tuple[mx.array, mx.array]:
        """The result, and the log-sum-exp (batch, kv_heads, queries of a head, length, 1) of the scores."""
        grouped = _by_kv_head(q, k.shape[1])
        outs: list[mx.array] = []
        sums: list[mx.array] = []
        for block in _blocks(reach, window, q.shape[2]):
            own = block.queries(grouped)
            if outs:  # one after the other, or the scores of all would be alive at once
                own = mx.depends(own, [outs[-1], sums[-1]])
            keys, values = block.keys(k), block.keys(v)
            visible = block.visible(starts)
            scores = mx.where(visible, block.scores(own * scale, keys), -math.inf)
            top = scores.max(axis=-1, keepdims=True)
            weights = mx.where(visible, exp(scores - top), 0.0)
            total = weights.sum(axis=-1, keepdims=True)
            outs.append((block.times(weights, values) / total).astype(q.dtype))
            sums.append(mx.log(total) + top)
        return mx.concatenate(outs, axis=3).reshape(q.shape), mx.concatenate(sums, axis=3)

    @compute.vjp
    def _(primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]) -> tuple[Any, ...]:
        q, k, v, starts = primals
        heads = k.shape[1]
        grouped, out, into_out = (_by_kv_head(x, heads) for x in (q, outputs[0], cotangents[0]))
        log_sums = outputs[1]
        # What the softmax takes off every gradient of its row.
        share = (into_out.astype(mx.float32) * out.astype(mx.float32)).sum(axis=-1, keepdims=True)
        into_q: list[mx.array] = []
        into_k, into_v = mx.zeros(k.shape, dtype=mx.float32), mx.zeros(v.shape, dtype=mx.float32)
        for block in _blocks(reach, window, q.shape[2]):
            own = block.queries(grouped)
            if into_q:
                own = mx.depends(own, [into_q[-1], into_k, into_v])
            keys, values, gradient = block.keys(k), block.keys(v), block.queries(into_out)
            scaled = own * scale
            scores = block.scores(scaled, keys) - block.queries(log_sums)
            weights = mx.where(block.visible(starts), exp(scores), 0.0)
            into_scores = weights * (block.scores(gradient, values) - block.queries(share))
            into_q.append((block.times(into_scores, keys) * scale).astype(q.dtype))
            into_k = block.add(into_k, block.transposed_times(into_scores, scaled))
            into_v = block.add(into_v, block.transposed_times(weights, gradient))
        found = mx.concatenate(into_q, axis=3).reshape(q.shape)
        return found, into_k.astype(k.dtype), into_v.astype(v.dtype), mx.zeros_like(starts)

    return compute


def _by_kv_head(x: mx.array, kv_heads: int) -> mx.array:
    """(batch, heads, length, size) -> (batch, kv_heads, queries of a head, length, size)."""
    return x.reshape(x.shape[0], kv_heads, -1, *x.shape[2:])


@dataclass(frozen=True)
class _Block:
    """Queries [begin, end) and keys [first, end) of a row."""

    first: int
    begin: int
    end: int
    window: int | None

    def queries(self, x: mx.array) -> mx.array:
        """Of (batch, kv_heads, queries of a head, length, size)."""
        return x[:, :, :, self.begin : self.end]

    def keys(self, x: mx.array) -> mx.array:
        """Of (batch, kv_heads, length, size)."""
        return x[:, :, self.first : self.end]

    def visible(self, starts: mx.array) -> mx.array:
        """bool (batch, 1, 1, queries, keys)."""
        query = mx.arange(self.begin, self.end, dtype=mx.int32)
        key = mx.arange(self.first, self.end, dtype=mx.int32)
        earliest = starts[:, self.begin : self.end]
        if self.window is not None:
            earliest = mx.maximum(earliest, query - (self.window - 1))
        return ((key >= earliest[..., None]) & (key <= query[:, None]))[:, None, None]

    def scores(self, rows: mx.array, keys: mx.array) -> mx.array:
        """rows (batch, kv_heads, n, queries, size), keys (batch, kv_heads, keys, size) -> float32 (..., n, q, keys)."""
        flat = rows.reshape(*rows.shape[:2], -1, rows.shape[-1]) @ keys.swapaxes(-1, -2)
        return flat.astype(mx.float32).reshape(*rows.shape[:-1], keys.shape[2])

    def times(self, weights: mx.array, values: mx.array) -> mx.array:
        """weights (batch, kv_heads, n, queries, keys), values (batch, kv_heads, keys, size) -> float32 rows."""
        flat = weights.reshape(*weights.shape[:2], -1, weights.shape[-1]).astype(values.dtype) @ values
        return flat.astype(mx.float32).reshape(*weights.shape[:-1], values.shape[-1])

    def transposed_times(self, weights: mx.array, rows: mx.array) -> mx.array:
        """weights as `times`, rows as `scores` -> float32 (batch, kv_heads, keys, size), summed over n too."""
        flat = weights.reshape(*weights.shape[:2], -1, weights.shape[-1]).astype(rows.dtype)
        return (flat.swapaxes(-1, -2) @ rows.reshape(*rows.shape[:2], -1, rows.shape[-1])).astype(mx.float32)

    def add(self, total: mx.array, part: mx.array) -> mx.array:
        """`total` (batch, kv_heads, length, size) and what the keys of this block add to it."""
        if self.first == 0 and self.end == total.shape[2]:
            return total + part
        total[:, :, self.first : self.end] = total[:, :, self.first : self.end] + part
        return total


def _blocks(reach: Reach, window: int | None, length: int) -> list[_Block]:
    return [
        _Block(reach.first[i], begin, min(begin + BLOCK, length), window)
        for i, begin in enumerate(range(0, length, BLOCK))
    ]

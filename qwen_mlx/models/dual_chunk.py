"""Dual Chunk Attention: no query ever meets a key at a distance the model was not trained for.

The text is cut into chunks of `stride` tokens. A query meets the keys of its own chunk at their true distance, those
of the chunk before at a distance that is true near the border and clamped beyond, and all older ones at one constant
distance (ChunkLlama, arXiv:2402.17463; Qwen2.5-1M, arXiv:2501.15383). One softmax runs over all of them. Texts up to
`stride` tokens are plain attention.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx

from qwen_mlx.models.positions import Positions
from qwen_mlx.models.rope import Rope
from qwen_mlx.models.spec import DualChunkSpec

# Scores are never held for more than about this many (query, key) pairs a head: memory does not grow with the text.
_PAIRS = 1 << 21
_QUERIES = 512


@dataclass(frozen=True)
class _Group:
    """Queries rotated for one kind of distance, and the range of keys they meet that way."""

    queries: mx.array
    first: int
    last: int
    causal: bool = False


class DualChunk:
    """Rotation and attention of one layer. A batch has no padding: rows would be cut in different places."""

    def __init__(self, spec: DualChunkSpec, rope: Rope, head_dim: int) -> None:
        self.spec = spec
        self._rope = rope
        self._scale = head_dim**-0.5

    def temperature(self, length: int) -> float:
        """What keys, and queries, are multiplied by in a text of `length` tokens: YaRN's, both together squared."""
        trained = self.spec.original_max_positions
        return max(1.0, 0.1 * math.log(length / trained) + 1.0) if trained else 1.0

    def rotate_keys(self, k: mx.array, where: Positions) -> mx.array:
        """k (batch, kv_heads, length, head_dim) as it enters the cache: rotated by its place in its chunk."""
        parts = [
            self._rope.at(k[:, :, a - where.index : b - where.index], a % self.spec.stride)
            for a, b in self._segments(where.index, where.index + k.shape[2])
        ]
        k = parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)
        factor = self.temperature(where.reading)
        return k if factor == 1.0 else k * factor

    def attend(self, q: mx.array, k: mx.array, v: mx.array, where: Positions) -> mx.array:
        """q (batch, heads, length, head_dim) before rotation, k and v as cached -> (batch, heads, length, head_dim)."""
        scale = self._scale * self.temperature(where.reading)
        outputs = []
        for a, b in self._segments(where.index, where.index + q.shape[2]):
            part = q[:, :, a - where.index : b - where.index]
            if a < self.spec.stride:
                mask = None if b - a == 1 else "causal"
                part = self._rope.at(part, a)
                keys, values = k[:, :, :b], v[:, :, :b]
                outputs.append(mx.fast.scaled_dot_product_attention(part, keys, values, scale=scale, mask=mask))
                continue
            for start in range(0, b - a, _QUERIES):
                rows = part[:, :, start : start + _QUERIES]
                outputs.append(_merge(self._groups(rows, a + start), k, v, scale))
                if b - a > _QUERIES:
                    mx.eval(outputs[-1])  # else the blocks of all rows would be alive at once
        return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=2)

    def _segments(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The range [first, last) cut at the borders of chunks."""
        stride = self.spec.stride
        while first < last:
            end = min(last, (first // stride + 1) * stride)
            yield first, end
            first = end

    def _groups(self, q: mx.array, first: int) -> list[_Group]:
        """The queries from `first` on, all of one chunk, with what they meet."""
        stride, size = self.spec.stride, self.spec.chunk_size
        border = first // stride * stride
        place = first - border
        rows = q.shape[2]
        groups = [_Group(self._rope.at(q, place), border, first + rows, causal=True)]
        near = min(max(size - stride - place, 0), rows)  # rows whose distance across the border is still true
        before = []
        if near:
            before.append(self._rope.at(q[:, :, :near], place + stride))
        if near < rows:
            before.append(self._rope.all_at(q[:, :, near:], size))
        groups.append(_Group(mx.concatenate(before, axis=2), border - stride, border))
        if border > stride:
            groups.append(_Group(self._rope.all_at(q, min(2 * stride - 1, size)), 0, border - stride))
        return groups


def _merge(groups: list[_Group], k: mx.array, v: mx.array, scale: float) -> mx.array:
    """One softmax over all groups, a block of keys after the other (online softmax, arXiv:1805.02867)."""
    batch, heads, rows, dims = groups[0].queries.shape
    kv_heads = k.shape[1]
    shape = (batch, kv_heads, heads // kv_heads, rows)
    top = mx.full(shape, -math.inf, dtype=mx.float32)
    total = mx.zeros(shape, dtype=mx.float32)
    out = mx.zeros((*shape, dims), dtype=mx.float32)
    block = max(1, _PAIRS // rows)
    for group in groups:
        q = (group.queries * scale).reshape(*shape, dims)
        for first in range(group.first, group.last, block):
            last = min(first + block, group.last)
            keys, values = k[:, :, None, first:last], v[:, :, None, first:last]
            scores = (q @ keys.swapaxes(-1, -2)).astype(mx.float32)
            if group.causal:
                query = mx.arange(group.last - rows, group.last)[:, None]
                scores = mx.where(mx.arange(first, last)[None] <= query, scores, -math.inf)
            new_top = mx.maximum(top, scores.max(axis=-1))
            # A row whose keys are all still to come keeps -inf: nothing must be subtracted from it.
            safe = mx.where(mx.isinf(new_top), mx.zeros_like(new_top), new_top)
            weights = mx.exp(scores - safe[..., None])
            shrink = mx.exp(top - safe)
            total = total * shrink + weights.sum(axis=-1)
            out = out * shrink[..., None] + (weights.astype(values.dtype) @ values).astype(mx.float32)
            top = new_top
    return (out / total[..., None]).astype(v.dtype).reshape(batch, heads, rows, dims)

"""Grouped-query attention of every Qwen with softmax attention: biases, q/k norm, window are fields of its spec."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.models.cache import Passing, Store
from qwen_mlx.models.dual_chunk import DualChunk
from qwen_mlx.models.heads import NewHeads
from qwen_mlx.models.norm import RMSNorm
from qwen_mlx.models.positions import Positions
from qwen_mlx.models.projections import FusedLinear
from qwen_mlx.models.rope import Rope
from qwen_mlx.models.spec import AttentionSpec


class Attention(nn.Module):
    """`out(softmax(q k^T / sqrt(head_dim)) v)`; the softmax runs in float32 inside MLX's fused kernel."""

    def __init__(self, spec: AttentionSpec, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.spec = spec
        q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.qkv_proj = FusedLinear(
            hidden_size, {"q_proj": 2 * q if spec.gated else q, "k_proj": kv, "v_proj": kv}, bias=spec.qkv_bias
        )
        self.o_proj = nn.Linear(q, hidden_size, bias=spec.out_bias)
        if spec.qk_norm:
            self.q_norm = RMSNorm(spec.head_dim, eps=eps)
            self.k_norm = RMSNorm(spec.head_dim, eps=eps)
        self._kept: tuple[mx.array, mx.array, mx.array] | None = None
        self._rope = Rope(spec.rope)
        self._dual_chunk = None
        if spec.dual_chunk is not None:
            self._dual_chunk = DualChunk(spec.dual_chunk, self._rope, spec.head_dim)

    def __call__(self, x: mx.array, where: Positions, cache: Store | None) -> mx.array:
        """x (batch, length, hidden_size) -> the same shape; `cache` is extended by the new keys and values."""
        s = self.spec
        batch, length, _ = x.shape
        store = Passing() if cache is None else cache
        heads, gate = self._heads(x)
        if self._dual_chunk is not None:
            out = self._dual_chunk.attend(heads, where, store)
        else:
            q = store.write(heads, self._rope.rotations(where))
            if s.logn is not None and where.index + length > s.logn:
                q = q * _logn(s.logn, where.places(length)).astype(q.dtype)
            out = store.attend(q, s.head_dim**-0.5, where.mask)
        out = out.swapaxes(1, 2)
        if gate is not None:
            out = out * mx.sigmoid(gate)
        return self.o_proj(out.reshape(batch, length, -1))

    def _heads(self, x: mx.array) -> tuple[NewHeads, mx.array | None]:
        """What the projections give, by heads, and the gate (batch, length, heads, head_dim) of the output."""
        s = self.spec
        batch, length, _ = x.shape
        q, k, v = self.qkv_proj(x)
        gate = None
        if s.gated:
            q, gate = mx.split(q.reshape(batch, length, s.heads, 2 * s.head_dim), 2, axis=-1)
        else:
            q = q.reshape(batch, length, s.heads, s.head_dim)
        k = k.reshape(batch, length, s.kv_heads, s.head_dim)
        v = v.reshape(batch, length, s.kv_heads, s.head_dim)
        if s.qk_norm:
            weights = self.q_norm.weight, self.k_norm.weight
            return NewHeads(q, k, v, weights, self.q_norm.eps, self._stacked(weights) if length == 1 else None), gate
        return NewHeads(q, k, v), gate

    def _stacked(self, weights: tuple[mx.array, mx.array]) -> mx.array:
        """The weights of the norms, a row for each head (heads + kv_heads, head_dim); made when they are new."""
        if self._kept is None or self._kept[0] is not weights[0] or self._kept[1] is not weights[1]:
            counts = (self.spec.heads, self.spec.kv_heads)
            rows = [mx.broadcast_to(w, (count, w.size)) for w, count in zip(weights, counts)]
            self._kept = *weights, mx.concatenate(rows)
        return self._kept[2]


def _logn(trained: int, places: mx.array) -> mx.array:
    """Factors of queries at `places`, in their shape, which keep the entropy of attention in long texts."""
    return mx.maximum(mx.log((places + 1).astype(mx.float32)) / math.log(trained), 1.0)

"""Grouped-query attention of every Qwen with softmax attention: biases, q/k norm, window are fields of its spec."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.models.cache import KVCache, LayerCache
from qwen_mlx.models.norm import RMSNorm
from qwen_mlx.models.projections import FusedLinear
from qwen_mlx.models.rope import Rope
from qwen_mlx.models.spec import AttentionSpec


@dataclass(frozen=True)
class Positions:
    """Where the tokens of one forward stand, and what they may see; the same for all layers with one window.

    Attributes:
        offset: position of the first token, or int32 (batch,) for a left-padded batch.
        end: longest position plus one.
        mask: None (everything), "causal" (lower right), or bool (1 | batch, 1, length, keys), True is visible.
        real: bool (batch, length), False for padding; None where there is none.
    """

    offset: int | mx.array
    end: int
    mask: str | mx.array | None
    real: mx.array | None = None


def positions(length: int, cache: LayerCache | None, window: int | None) -> Positions:
    """The `Positions` of `length` new tokens on top of `cache`."""
    offset = 0 if cache is None else cache.offset
    first, last = (0, length) if cache is None else cache.visible(length)
    padding = None if cache is None else cache.left_padding
    narrow = window is not None and last - first > window
    if padding is None:
        if not narrow:
            return Positions(offset, last, None if length == 1 else "causal")
        return Positions(offset, last, _mask(offset, length, first, last, window)[None, None])
    pads = mx.array(padding, dtype=mx.int32)
    keys = mx.arange(first, last)
    # A padded query sees itself, so that no row of the softmax is empty.
    visible = (keys[None, None] >= pads[:, None, None]) | _same(offset, length, first, last)
    visible = visible & _mask(offset, length, first, last, window)
    real = mx.arange(offset, offset + length)[None] >= pads[:, None]
    return Positions(offset - pads, last - min(padding), visible[:, None], real)


def _mask(offset: int, length: int, first: int, last: int, window: int | None) -> mx.array:
    """bool (length, keys): key j is visible to query i iff `i - window < j <= i`."""
    queries = mx.arange(offset, offset + length)[:, None]
    keys = mx.arange(first, last)[None]
    visible = keys <= queries
    return visible if window is None else visible & (keys > queries - window)


def _same(offset: int, length: int, first: int, last: int) -> mx.array:
    return mx.arange(offset, offset + length)[:, None] == mx.arange(first, last)[None]


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
        self._rope = Rope(spec.rope, spec.head_dim)

    def __call__(self, x: mx.array, where: Positions, cache: KVCache | None) -> mx.array:
        """x (batch, length, hidden_size) -> the same shape; `cache` is extended by the new keys and values."""
        s = self.spec
        batch, length, _ = x.shape
        q, k, v = self.qkv_proj(x)
        gate = None
        if s.gated:
            q, gate = mx.split(q.reshape(batch, length, s.heads, 2 * s.head_dim), 2, axis=-1)
        q = q.reshape(batch, length, s.heads, s.head_dim)
        k = k.reshape(batch, length, s.kv_heads, s.head_dim)
        v = v.reshape(batch, length, s.kv_heads, s.head_dim).transpose(0, 2, 1, 3)
        if s.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q = self._rope(self._rope.scale_queries(q.transpose(0, 2, 1, 3)), where.offset, where.end)
        k = self._rope(k.transpose(0, 2, 1, 3), where.offset, where.end)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=s.head_dim**-0.5, mask=where.mask)
        out = out.transpose(0, 2, 1, 3)
        if gate is not None:
            out = out * mx.sigmoid(gate)
        return self.o_proj(out.reshape(batch, length, -1))

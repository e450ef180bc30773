"""Gated DeltaNet, the linear attention of Qwen3-Next and Qwen3.5: a short convolution and a state that is rewritten.

Gated Delta Networks, arXiv:2412.06464; transformers' `Qwen3NextGatedDeltaNet` is the reference for every detail.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.kernels.launch import scalar
from qwen_mlx.models.cache import RecurrentCache
from qwen_mlx.models.delta_rule import delta_rule
from qwen_mlx.models.elementwise import sigmoid, silu
from qwen_mlx.models.norm import rms_norm
from qwen_mlx.models.positions import Positions, Texts
from qwen_mlx.models.projections import FusedLinear
from qwen_mlx.models.spec import DeltaNetSpec

_L2_EPS = 1e-6  # added to the sum of squares, not to the norm


class DeltaNet(nn.Module):
    """One state (value_dim, key_dim) per value head; value head h reads key head `h // (value_heads // key_heads)`."""

    def __init__(self, spec: DeltaNetSpec, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.spec = spec
        values = spec.value_heads * spec.value_dim
        self._channels = spec.channels
        # What makes lengths of q and k 1 after `_rms`, and for q the scale of attention too.
        q_scale, k_scale = 1.0 / spec.key_dim, spec.key_dim**-0.5
        self._scales = mx.array([[q_scale]] * spec.key_heads + [[k_scale]] * spec.key_heads)
        self.in_proj = FusedLinear(
            hidden_size,
            {
                "in_proj_qkv": self._channels,
                "in_proj_z": values,
                "in_proj_b": spec.value_heads,
                "in_proj_a": spec.value_heads,
            },
        )
        self.conv1d = mx.zeros((self._channels, spec.kernel))
        self.A_log = mx.zeros((spec.value_heads,))
        self.dt_bias = mx.zeros((spec.value_heads,))
        self.norm = nn.RMSNorm(spec.value_dim, eps=eps)
        self.out_proj = nn.Linear(values, hidden_size, bias=False)

    def __call__(self, x: mx.array, where: Positions, cache: RecurrentCache | None) -> mx.array:
        """x (batch, length, hidden_size) -> the same shape; `cache` is moved on. Padding leaves no trace in it."""
        s = self.spec
        batch, length, _ = x.shape
        if where.real is not None:
            x = mx.where(where.real[..., None], x, mx.zeros((), x.dtype))
        qkv, z, b, a = self.in_proj(x)
        before = None if cache is None else cache.conv
        if before is None:
            before = mx.zeros((batch, s.kernel - 1, self._channels), qkv.dtype)
        padded = mx.concatenate([before, qkv], axis=1)
        u = silu(_convolution(padded, self.conv1d, where.texts)).astype(mx.float32)
        keys = 2 * s.key_heads * s.key_dim
        qk = _rms(u[..., :keys].reshape(batch, length, 2 * s.key_heads, s.key_dim))
        q, k = mx.split(qk * self._scales, 2, axis=2)
        v = u[..., keys:].reshape(batch, length, s.value_heads, s.value_dim)
        rate = mx.exp(self.A_log.astype(mx.float32))
        # Not `nn.softplus`: it is compiled, which on a CPU needs a compiler at run time.
        softplus = mx.logaddexp(a.astype(mx.float32) + self.dt_bias.astype(mx.float32), scalar(0.0))
        log_decay = -rate * softplus
        beta = sigmoid(b.astype(mx.float32))
        starts = None if where.texts is None else where.texts.starts
        y, state = delta_rule(q, k, v, log_decay, beta, None if cache is None else cache.recurrent, starts)
        if cache is not None:
            cache.update(padded[:, length:], state, length)
        y = rms_norm(y, self.norm.weight.astype(mx.float32), self.norm.eps)
        y = y * silu(z.astype(mx.float32)).reshape(y.shape)
        return self.out_proj(y.astype(x.dtype).reshape(batch, length, -1))


def _convolution(padded: mx.array, weight: mx.array, texts: Texts | None) -> mx.array:
    """A causal convolution of every channel by itself.

    Args:
        padded: (batch, kernel - 1 + length, channels), what came before the tokens first.
        weight: (channels, kernel).
        texts: what is in the rows where they hold several texts, none of which reads another.
    """
    kernel = weight.shape[1]
    length = padded.shape[1] - kernel + 1
    if length == 1:
        return (padded * weight.T).sum(axis=1, keepdims=True)
    u: mx.array | None = None
    for i in range(kernel):
        term = padded[:, i : i + length] * weight[:, i]
        if texts is not None and i < kernel - 1:
            term = mx.where(texts.before(kernel - 1 - i)[..., None], term, mx.zeros((), term.dtype))
        u = term if u is None else u + term
    assert u is not None
    return u


def _rms(x: mx.array) -> mx.array:
    """`x / sqrt(sum(x^2) + eps)` times the root of the size, over the last axis."""
    return rms_norm(x, None, _L2_EPS / x.shape[-1])

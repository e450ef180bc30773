"""Rotary position embedding in all the forms Qwen uses."""

from __future__ import annotations

import math

import mlx.core as mx

from qwen_mlx.models.positions import Positions
from qwen_mlx.models.spec import RopeSpec


class Rope:
    """Rotates queries and keys by their positions; holds frequencies, no weights.

    YaRN multiplies cos and sin of queries and keys by its attention factor `a`; as only their product matters, the
    queries alone are multiplied by `a * a` here, on the rotated channels (`scale_queries`).
    """

    def __init__(self, spec: RopeSpec, head_dim: int) -> None:
        self.spec = spec
        self._periods: mx.array | None = None
        self._query_scale: mx.array | None = None
        self._base: float | None = spec.theta
        if spec.type == "yarn":
            self._base = None
            self._periods = mx.array(yarn_periods(spec), dtype=mx.float32)
            if spec.attention_factor != 1.0:
                gain = spec.attention_factor**2
                scale = [gain] * spec.dims + [1.0] * (head_dim - spec.dims)
                self._query_scale = mx.array(scale, dtype=mx.float32)

    def __call__(self, x: mx.array, where: Positions) -> mx.array:
        """Rotate `x` (batch, heads, length, head_dim) by its positions."""
        s = self.spec
        if s.type == "dynamic":
            # Only theta changes with the length: keys already in a cache keep the rotation they got.
            return self.at(x, where.offset, dynamic_theta(s, where.end))
        if s.type != "qwen1":
            return self.at(x, where.offset)
        bases = [qwen1_theta(s, length) for length in _prompts(s, where)]
        if len(set(bases)) == 1:
            return self.at(x, where.offset, bases[0])
        assert isinstance(where.offset, mx.array)
        return mx.concatenate([self.at(x[i : i + 1], where.offset[i : i + 1], base) for i, base in enumerate(bases)])

    def all_at(self, x: mx.array, position: int) -> mx.array:
        """Rotate every token of `x` (batch, heads, length, head_dim) by the same `position`."""
        batch, heads, length, dims = x.shape
        return self.at(x.reshape(batch, heads * length, 1, dims), position).reshape(x.shape)

    def at(self, x: mx.array, offset: int | mx.array, base: float | None = None) -> mx.array:
        """Rotate `x` (batch, heads, length, head_dim) from position `offset` on, one or int32 (batch,)."""
        s = self.spec
        scale = 1.0 / s.factor if s.type == "linear" else 1.0
        base, periods = base or self._base, self._periods
        return mx.fast.rope(x, s.dims, traditional=False, base=base, scale=scale, offset=offset, freqs=periods)

    def scale_queries(self, q: mx.array) -> mx.array:
        """`q` times YaRN's temperature, unchanged for every other type."""
        return q if self._query_scale is None else q * self._query_scale.astype(q.dtype)


def dynamic_theta(spec: RopeSpec, end: int) -> float:
    """transformers' NTK-aware base for a text of `end` tokens; `theta` itself up to `max_positions`."""
    length = max(end, spec.max_positions)
    stretch = spec.factor * length / spec.max_positions - (spec.factor - 1)
    return spec.theta * stretch ** (spec.dims / (spec.dims - 2)) if spec.dims > 2 else spec.theta


def qwen1_theta(spec: RopeSpec, prompt: int) -> float:
    """The base for a text that began with `prompt` tokens; whole doublings of the training length count."""
    alpha = max(2.0 ** math.ceil(math.log2(prompt / spec.max_positions) + 1) - 1, 1.0)
    return spec.theta * alpha ** (spec.dims / (spec.dims - 2)) if spec.dims > 2 else spec.theta


def _prompts(spec: RopeSpec, where: Positions) -> list[int]:
    """The prompt length of every row: without its padding, but only where the padded one is beyond training."""
    if where.padding is None or where.prompt <= spec.max_positions:
        return [where.prompt]
    return [max(where.prompt - pad, 1) for pad in where.padding]


def yarn_periods(spec: RopeSpec) -> list[float]:
    """Periods `1 / inv_freq` (dims / 2,): interpolated for slow channels, kept for fast ones (arXiv:2309.00071)."""
    d, theta, original = spec.dims, spec.theta, spec.original_max_positions

    def channel(rotations: float) -> float:
        """The channel that turns `rotations` times over the training length."""
        return d * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = channel(spec.beta_fast), channel(spec.beta_slow)
    if spec.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d - 1)
    if low == high:
        high += 0.001
    periods = []
    for i in range(d // 2):
        frequency = theta ** (-2 * i / d)
        ramp = min(max((i - low) / (high - low), 0.0), 1.0)
        periods.append(1.0 / (frequency / spec.factor * ramp + frequency * (1 - ramp)))
    return periods

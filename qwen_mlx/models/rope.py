"""Rotary position embedding in all the forms Qwen uses."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from dataclasses import replace

import mlx.core as mx

from qwen_mlx import device
from qwen_mlx.models.heads import Rotation
from qwen_mlx.models.positions import Positions, Texts
from qwen_mlx.models.spec import RopeSpec


class Rope:
    """Says how queries and keys turn at their positions; holds no weights.

    YaRN multiplies cos and sin of queries and keys by its attention factor `a`; as only their product matters, the
    queries alone are multiplied by `a * a`, on the rotated channels.
    """

    def __init__(self, spec: RopeSpec) -> None:
        self.spec = spec
        self._gain = spec.attention_factor**2 if spec.type == "yarn" else 1.0
        self._periods: OrderedDict[float, mx.array] = OrderedDict()  # by base; only the last few can come again

    def rotations(self, where: Positions) -> list[Rotation]:
        """One for all rows of a batch, or where the first Qwen's texts are of different length one for each."""
        s = self.spec
        if where.texts is not None:
            return [self._of_texts(where.texts, where.end)]
        if s.type == "dynamic":
            # Only theta changes with the length: keys already in a cache keep the rotation they got.
            bases = [dynamic_theta(s, where.end)]
        elif s.type == "qwen1":
            bases = [qwen1_theta(s, length) for length in _prompts(s, where)]
        else:
            bases = [s.theta]
        offsets = where.offsets
        if len(set(bases)) == 1:
            rotation = self.rotation(offsets, offsets, bases[0])
            if where.single and self._gain == 1.0 and device.backend() == "cpu":
                return [replace(rotation, matrix=self._matrix(where, bases[0]))]
            return [rotation]
        rows = [offsets[i : i + 1] for i in range(len(bases))]
        return [self.rotation(row, row, base) for row, base in zip(rows, bases)]

    def _of_texts(self, texts: Texts, length: int) -> Rotation:
        """Every token by itself; where the base depends on the length of a text, on that of its own."""
        s, places = self.spec, texts.positions
        base = {"dynamic": dynamic_theta, "qwen1": qwen1_theta}.get(s.type)
        if base is None or length <= s.max_positions:
            return self.rotation(places, places)
        bases = [base(s, end) for end in range(s.max_positions, length + 1)]
        kinds = sorted(set(bases))
        kind = mx.array([kinds.index(b) for b in bases])[mx.maximum(texts.lengths - s.max_positions, 0)]
        periods = mx.array([self._values(b) for b in kinds], dtype=mx.float32)[kind]
        return Rotation(periods, places, places, s.dims, self._gain)

    def rotation(
        self, q_offset: mx.array, k_offset: mx.array, base: float | None = None, k_scale: float = 1.0
    ) -> Rotation:
        """Offsets as in `Rotation`; `base` where it is not the one of the spec."""
        return Rotation(self.periods(base), q_offset, k_offset, self.spec.dims, self._gain, k_scale)

    def _matrix(self, where: Positions, base: float) -> mx.array:
        """`Rotation.matrix` of the only position of `where`, made by the first layer that asks."""
        key = self.spec, base
        if key not in where.shared:
            angles = where.offsets / self.periods(base)
            cos, sin = mx.cos(angles), mx.sin(angles)
            stay, cross = _stay_and_cross(self.spec.dims)
            where.shared[key] = mx.concatenate([cos, cos]) * stay + mx.concatenate([sin, sin]) * cross
        return where.shared[key]

    def periods(self, base: float | None = None) -> mx.array:
        """float32 (dims / 2,): how many positions a pair of channels takes to turn by one radian."""
        base = base or self.spec.theta
        if base not in self._periods:
            self._periods[base] = mx.array(self._values(base), dtype=mx.float32)
            mx.eval(self._periods[base])  # so that any thread may use it
            if len(self._periods) > 8:
                self._periods.popitem(last=False)
        return self._periods[base]

    def _values(self, base: float) -> list[float]:
        s = self.spec
        if s.type == "yarn":
            return yarn_periods(s)
        stretch = s.factor if s.type == "linear" else 1.0
        return [stretch * base ** (2 * i / s.dims) for i in range(s.dims // 2)]

    def all_at(self, x: mx.array, position: int) -> mx.array:
        """Rotate every token of `x` (batch, heads, length, head_dim) by the same `position`."""
        batch, heads, length, dims = x.shape
        return self.at(x.reshape(batch, heads * length, 1, dims), position).reshape(x.shape)

    def at(self, x: mx.array, offset: int) -> mx.array:
        """Rotate `x` (batch, heads, length, head_dim) from position `offset` on."""
        dims, periods = self.spec.dims, self.periods()
        return mx.fast.rope(x, dims, traditional=False, base=None, scale=1.0, offset=offset, freqs=periods)


@functools.lru_cache(maxsize=16)
def _stay_and_cross(dims: int) -> tuple[mx.array, mx.array]:
    """(dims, dims), a row for each channel that is turned, a column for each result: its own part, and its partner's.

    Channel i becomes `cos x_i - sin x_j` and its partner j = i + dims / 2 `cos x_j + sin x_i`.
    """
    stay = mx.eye(dims)
    first, second = mx.split(stay, 2)
    cross = mx.concatenate([second, -first])
    mx.eval(stay, cross)  # so that any thread may use them
    return stay, cross


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

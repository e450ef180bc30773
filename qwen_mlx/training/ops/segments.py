"""Attention's view of rows that hold several texts: a `Store` that turns every token to its own position."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from qwen_mlx.models.cache import Passing
from qwen_mlx.models.heads import NewHeads, Rotation
from qwen_mlx.models.positions import Texts
from qwen_mlx.training.ops.attention import Reach, segment_attention


class SegmentStore(Passing):
    """A `qwen_mlx.models.cache.Store` for one pass over one layer; nothing is kept, everything can be differentiated.

    Args:
        texts: what is in the rows.
        window: how many tokens a query of this layer sees at most, None for all of its text.
        reach: what is known of `texts`; see `segment_attention`.
    """

    def __init__(self, texts: Texts, window: int | None = None, reach: Reach | None = None) -> None:
        self._texts = texts
        self._window = window
        self._reach = reach

    def write(self, heads: NewHeads, rotations: Sequence[Rotation]) -> mx.array:
        """As `Store.write`; there is one rotation, which says the position of every token."""
        (by,) = rotations
        new = heads.normed()
        angles = (by.q_offset[..., None] * mx.reciprocal(by.periods))[:, None]
        cos, sin = mx.cos(angles), mx.sin(angles)
        self.append(turned(new.k.swapaxes(1, 2), cos, sin, by.k_scale), new.v.swapaxes(1, 2))
        return turned(new.q.swapaxes(1, 2), cos, sin, by.q_gain)

    def attend(self, q: mx.array, scale: float, mask: str | mx.array | None, end: int | None = None) -> mx.array:
        """As `Store.attend`; what is visible is decided by the texts and the window."""
        assert mask is None and end is None
        keys, values = self.visible_now()
        return segment_attention(q, keys, values, self._texts.starts, scale, self._window, self._reach)


def turned(x: mx.array, cos: mx.array, sin: mx.array, gain: float) -> mx.array:
    """Rotary position embedding with an angle for every token, halves convention (arXiv:2104.09864).

    Args:
        x: (batch, heads, length, head_dim).
        cos, sin: float32 (batch, 1, length, dims / 2) of the angles; channels from `dims` on pass through.
        gain: multiplies the turned channels.

    Returns:
        The shape and type of `x`; computed in float32.
    """
    half = cos.shape[-1]
    if gain != 1.0:
        cos, sin = cos * gain, sin * gain
    wide = x.astype(mx.float32)
    first, second = wide[..., :half], wide[..., half : 2 * half]
    parts = [first * cos - second * sin, second * cos + first * sin]
    if 2 * half < x.shape[-1]:
        parts.append(wide[..., 2 * half :])
    return mx.concatenate(parts, axis=-1).astype(x.dtype)

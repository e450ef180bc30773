"""Dropout that can be computed twice: layers that are recomputed for the backward pass must drop the same values again.

`mlx.nn.Dropout` draws from the one global key, which moves on with every draw, so a second pass drops other values than
the first and the gradient is of neither. Here, whoever computes twice says where the draws of a block come from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn

_source: _Source | None = None


class _Source:
    """Keys, one after the other, all decided by the first."""

    def __init__(self, key: mx.array) -> None:
        self._key = key

    def next(self) -> mx.array:
        self._key, own = mx.random.split(self._key)
        return own


@contextlib.contextmanager
def drawing_from(key: mx.array | None) -> Iterator[None]:
    """Everything that `Dropout` draws in this block is decided by `key`; None leaves it as it is."""
    global _source
    before = _source
    _source = before if key is None else _Source(key)
    try:
        yield
    finally:
        _source = before


def draws(module: nn.Module) -> bool:
    """Whether a call of `module` drops anything now."""
    return any(isinstance(m, nn.Dropout) and m.training and m._p_1 < 1 for m in module.modules())


def redraws(module: nn.Module) -> bool:
    """Whether a part of `module` drops values in a way that cannot be repeated."""
    return any(isinstance(m, nn.Dropout) and not isinstance(m, Dropout) and draws(m) for m in module.modules())


class Dropout(nn.Dropout):
    """Sets values to zero with probability `p` and scales the others by `1 / (1 - p)`; nothing outside of training.

    Draws from the key of `drawing_from`, or from MLX's global key outside of such a block.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """x of any shape -> the same shape and type."""
        if self._p_1 == 1 or not self.training:
            return x
        kept = mx.random.bernoulli(self._p_1, x.shape, key=None if _source is None else _source.next())
        return mx.where(kept, x * (1 / self._p_1), mx.zeros((), x.dtype))

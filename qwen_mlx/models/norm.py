"""RMSNorm, plain and zero-centred."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


class RMSNorm(nn.RMSNorm):
    """`x / sqrt(mean(x^2) + eps) * weight`, with the mean in float32; gives the type of `x`.

    Zero-centred families store `weight - 1`. The one is added when the weight is loaded, and the sum kept in
    float32: in bfloat16 it would lose bits, and the product is taken before the cast in the reference too.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., size) -> the same shape and type."""
        return mx.fast.rms_norm(x, self.weight, self.eps).astype(x.dtype)

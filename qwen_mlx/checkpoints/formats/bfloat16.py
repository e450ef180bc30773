"""bfloat16 for numpy, which has no such type: the upper half of a float32, seen as uint16."""

from __future__ import annotations

import numpy as np


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """float32 -> uint16, rounded to the nearest, ties to even; not for NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16)

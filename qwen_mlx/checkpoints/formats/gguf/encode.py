"""Floats -> the bytes of GGUF's types that need no search: F32, F16, BF16 and Q8_0."""

from __future__ import annotations

import numpy as np

from qwen_mlx.checkpoints.formats.bfloat16 import bfloat16_bits

GROUP = 32  # values of a block of Q8_0


def encode(values: np.ndarray, kind: str) -> bytes:
    """float32 (rows, columns) -> bytes; columns is a multiple of 32 for Q8_0. float16 may become infinite."""
    if kind == "F32":
        return values.astype("<f4").tobytes()
    if kind == "F16":
        with np.errstate(over="ignore"):
            return values.astype("<f2").tobytes()
    if kind == "BF16":
        return bfloat16_bits(values).tobytes()
    return q8_0(values)


def q8_0(values: np.ndarray) -> bytes:
    """Blocks of 32: a half d, the largest magnitude over 127, and the nearest whole numbers to `value / d`.

    As ggml's reference does: codes are chosen before d is rounded, and halves are rounded away from zero.
    """
    groups = np.ascontiguousarray(values, np.float32).reshape(-1, GROUP)
    d = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore"):
        inverse = np.where(d == 0, np.float32(0), np.float32(1) / d)
    scaled = groups * inverse
    codes = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)
    blocks = np.empty((len(groups), 34), np.uint8)
    blocks[:, :2] = d.astype("<f2").view(np.uint8)
    blocks[:, 2:] = codes.view(np.uint8)
    return blocks.tobytes()

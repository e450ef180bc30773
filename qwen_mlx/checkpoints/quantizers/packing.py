"""Codes of a few bits <-> the 32-bit words of MLX's affine format, in numpy.

Every row is one stream of bits, the first code in the lowest ones; codes of 3, 5 and 6 bits cross the words.
"""

from __future__ import annotations

import numpy as np


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (rows, columns) below 2**bits -> uint32 (rows, columns * bits / 32); columns is a multiple of 32."""
    rows, columns = codes.shape
    if bits == 8:
        return np.ascontiguousarray(codes, dtype=np.uint8).view("<u4")
    eights = codes.reshape(rows, columns // 8, 8)  # eight codes fill `bits` whole bytes
    words = eights[..., 0].astype("<u8")
    for i in range(1, 8):
        words |= eights[..., i].astype("<u8") << np.uint64(bits * i)
    stream = words.view(np.uint8).reshape(rows, columns // 8, 8)[..., :bits]
    return np.ascontiguousarray(stream).reshape(rows, columns * bits // 8).view("<u4")


def unpack(words: np.ndarray, bits: int) -> np.ndarray:
    """The inverse of `pack`: uint32 (rows, words) -> uint8 (rows, words * 32 / bits)."""
    rows = words.shape[0]
    stream = np.ascontiguousarray(words, dtype="<u4").view(np.uint8).reshape(rows, -1, bits)
    eights = np.zeros((*stream.shape[:2], 8), np.uint8)
    eights[..., :bits] = stream
    packed = eights.view("<u8")
    shifts = np.arange(8, dtype=np.uint64) * np.uint64(bits)
    codes = (packed >> shifts) & np.uint64((1 << bits) - 1)
    return codes.astype(np.uint8).reshape(rows, -1)

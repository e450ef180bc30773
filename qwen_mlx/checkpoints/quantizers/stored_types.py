"""Numbers in the types that checkpoints store them in, in numpy, which has no bfloat16: it is seen as uint16."""

from __future__ import annotations

import numpy as np


class NotFinite(ValueError):
    """NaN or infinity among numbers."""


def bfloat16_bits(x: np.ndarray) -> np.ndarray:
    """float32 -> the upper 16 bits of the nearest bfloat16, ties to even; not for NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 as the stored type ("BF16", "F16" or "F32") will give it back."""
    if dtype == "BF16":
        return (bfloat16_bits(x).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return x.astype(np.float16).astype(np.float32) if dtype == "F16" else np.asarray(x, np.float32)


def as_stored(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 -> the type in which it goes into the file; bfloat16 as uint16."""
    if dtype == "BF16":
        return bfloat16_bits(x)
    return x.astype(np.float16 if dtype == "F16" else np.float32)


def widen(stored: np.ndarray, out: np.ndarray) -> None:
    """bfloat16 as uint16, float16 or float32 -> float32 of the same shape in `out`."""
    if stored.dtype == np.uint16:
        bits = out.view(np.uint32)
        np.copyto(bits, stored)
        np.left_shift(bits, 16, out=bits)
    else:
        np.copyto(out, stored)


def as_floats(stored: np.ndarray, dtype: str) -> np.ndarray:
    """The inverse of `as_stored`, in float32."""
    return (
        (stored.astype(np.uint32) << np.uint32(16)).view(np.float32) if dtype == "BF16" else stored.astype(np.float32)
    )


# All bits of the exponent are set in NaN and infinity, and in nothing else. By the numpy type of what is stored.
_EXPONENTS = {np.dtype(np.uint16): 0x7F80, np.dtype(np.float16): 0x7C00, np.dtype(np.float32): 0x7F800000}


def finite(stored: np.ndarray) -> bool:
    """Whether no number is NaN or infinite; bfloat16 as uint16, float16 or float32, contiguous."""
    exponent = _EXPONENTS[stored.dtype]
    flat = stored.reshape(-1).view(np.uint32 if stored.dtype == np.float32 else np.uint16)
    mask = flat.dtype.type(exponent)
    buffer = np.empty(min(len(flat), 1 << 16), flat.dtype)
    for start in range(0, len(flat), 1 << 16):  # pieces that stay in the cache
        piece = flat[start : start + (1 << 16)]
        if np.bitwise_and(piece, mask, out=buffer[: len(piece)]).max() == mask:
            return False
    return True

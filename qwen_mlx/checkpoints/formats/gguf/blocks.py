"""Blocks of GGUF -> rows as MLX packs them, or floats. Every function takes the bytes of whole blocks.

What ggml calls a type is a formula per group of 32 values: `d * q + m`, which is what MLX's affine mode computes. Q6_K
has groups of 16, which no mode of MLX has. Formulas: ggml's `ggml-quants.c`, each block a little-endian C struct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from qwen_mlx.checkpoints.formats.foreign_tensor import PackedRows
from qwen_mlx.checkpoints.quantizers.packing import pack
from qwen_mlx.models.spec import QuantizationSpec

GROUP = 32
# (codes uint8, scales float32, biases float32), each (blocks, groups of 32[, 32])
_Codes = tuple[np.ndarray, np.ndarray, np.ndarray]


def _half(data: np.ndarray) -> np.ndarray:
    """Bytes (blocks, 2) -> float32 (blocks, 1)."""
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def _nibbles(data: np.ndarray, run: int) -> np.ndarray:
    """Bytes (blocks, n) -> uint8 (blocks, 2 n): of each run of bytes first all low halves, then all high ones."""
    runs = data.reshape(data.shape[0], -1, run)
    return np.stack([runs & 15, runs >> 4], axis=2).reshape(data.shape[0], -1)


def _q8_0(block: np.ndarray) -> _Codes:
    d = _half(block[:, :2])
    return block[:, 2:] ^ 0x80, d, -128 * d  # signed to unsigned: plus 128


def _q4_0(block: np.ndarray) -> _Codes:
    d = _half(block[:, :2])
    return _nibbles(block[:, 2:], 16), d, -8 * d


def _q4_1(block: np.ndarray) -> _Codes:
    return _nibbles(block[:, 4:], 16), _half(block[:, :2]), _half(block[:, 2:4])


def _fifth_bits(data: np.ndarray) -> np.ndarray:
    """Four bytes, one bit per value -> uint8 (blocks, 32), the bit at its place above a nibble."""
    return np.unpackbits(data, axis=1, bitorder="little") << 4


def _q5_0(block: np.ndarray) -> _Codes:
    d = _half(block[:, :2])
    return _nibbles(block[:, 6:], 16) | _fifth_bits(block[:, 2:6]), d, -16 * d


def _q5_1(block: np.ndarray) -> _Codes:
    codes = _nibbles(block[:, 8:], 16) | _fifth_bits(block[:, 4:8])
    return codes, _half(block[:, :2]), _half(block[:, 2:4])


def _k_scales(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scales and minima of the eight groups of Q4_K and Q5_K: 6 bits each, in 12 bytes, times two halves."""
    low, middle, high = block[:, 4:8], block[:, 8:12], block[:, 12:16]
    scales = np.concatenate([low & 63, high & 15 | low >> 2 & 48], axis=1)
    minima = np.concatenate([middle & 63, high >> 4 | middle >> 2 & 48], axis=1)
    return _half(block[:, :2]) * scales, -_half(block[:, 2:4]) * minima


def _q4_k(block: np.ndarray) -> _Codes:
    return (_nibbles(block[:, 16:], 32), *_k_scales(block))


def _q5_k(block: np.ndarray) -> _Codes:
    bits = block[:, 16:48, None] >> np.arange(8, dtype=np.uint8) & 1  # bit k of byte i: value i of group k
    fifth = bits.swapaxes(1, 2).reshape(-1, 256) << 4
    return (_nibbles(block[:, 48:], 32) | fifth, *_k_scales(block))


def _q6_k(block: np.ndarray) -> np.ndarray:
    """float32 (blocks, 256): a signed scale for each 16 values."""
    low = _nibbles(block[:, :128], 64)
    pairs = block[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes = (low | pairs.reshape(-1, 256) << 4).astype(np.int8) - 32
    scales = _half(block[:, 208:210]) * np.ascontiguousarray(block[:, 192:208]).view(np.int8)
    return (codes.reshape(-1, 16, 16) * scales[..., None]).reshape(-1, 256)


# name -> bits, and how blocks become codes
_AFFINE: Mapping[str, tuple[int, Callable[[np.ndarray], _Codes]]] = {
    "Q8_0": (8, _q8_0),
    "Q4_0": (4, _q4_0),
    "Q4_1": (4, _q4_1),
    "Q5_0": (5, _q5_0),
    "Q5_1": (5, _q5_1),
    "Q4_K": (4, _q4_k),
    "Q5_K": (5, _q5_k),
}
# Types whose scales and biases are halves, times a power of two: float16 holds them exactly.
HALF_SCALES = frozenset({"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"})


def packing_of(kind: str) -> QuantizationSpec | None:
    """The format of MLX that holds the numbers of a type as they are."""
    return QuantizationSpec(_AFFINE[kind][0], GROUP) if kind in _AFFINE else None


def read_rows(data: bytes, kind: str, block_bytes: int, columns: int) -> PackedRows | np.ndarray:
    """Rows of a tensor: `PackedRows` where `packing_of` is a format, else float32 (rows, columns)."""
    raw = np.frombuffer(data, np.uint8)
    if kind in _AFFINE:
        bits, decode = _AFFINE[kind]
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number is found when it is written
            codes, scales, biases = decode(raw.reshape(-1, block_bytes))
        words = pack(np.ascontiguousarray(codes).reshape(-1, columns), bits)
        return PackedRows(words, scales.reshape(-1, columns // GROUP), biases.reshape(-1, columns // GROUP))
    if kind == "Q6_K":
        with np.errstate(invalid="ignore", over="ignore"):
            return _q6_k(raw.reshape(-1, block_bytes)).reshape(-1, columns)
    if kind == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(-1, columns)
    return raw.view("<f4" if kind == "F32" else "<f2").astype(np.float32).reshape(-1, columns)

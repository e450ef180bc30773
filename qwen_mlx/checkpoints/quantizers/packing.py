"""Codes of a few bits <-> the 32-bit words of MLX's affine format, in numpy.

Every row is one stream of bits, the first code in the lowest ones; codes of 3, 5 and 6 bits cross the words. Eight
codes fill `bits` whole bytes, so eights are what is worked on.
"""

from __future__ import annotations

import numpy as np

# Whole bytes that numpy has a type for.
_WHOLE = {2: "<u2", 4: "<u4", 8: "<u8"}


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (rows, columns) below 2**bits -> uint32 (rows, columns * bits / 32); columns is a multiple of 32."""
    rows = codes.shape[0]
    eights = np.ascontiguousarray(codes, dtype=np.uint8).view("<u8")
    return np.ascontiguousarray(squeeze(eights, bits, 1)).reshape(rows, -1).view("<u4")


def pack_columns(codes: np.ndarray, bits: int) -> np.ndarray:
    """As `pack`, of groups that are columns: float32 (group_size, groups) -> uint32 (groups, words of a group)."""
    size, groups = codes.shape
    quarters = codes.reshape(size // 8, 4, 2, groups)
    pairs = quarters[:, :, 1] * np.float32(1 << bits) + quarters[:, :, 0]
    eights = pairs[:, 0].astype(np.uint64)
    for i in range(1, 4):
        eights |= pairs[:, i].astype(np.uint64) << np.uint64(2 * bits * i)
    return np.ascontiguousarray(squeeze(eights, bits, 8).swapaxes(0, 1)).reshape(groups, -1).view("<u4")


def squeeze(eights: np.ndarray, bits: int, together: int) -> np.ndarray:
    """Eight codes in 64 bits -> eight codes without gaps.

    Args:
        eights: uint64 of any shape: lanes of `8 * together` bits, with `together` codes in the lowest bits of each.
        together: 1, 2, 4 or 8.

    Returns:
        The same shape of integers of `bits` bytes; where no type has so many, uint8 with one axis more.
    """
    lane, used = 8 * together, bits * together
    while lane < 64 and bits < 8:
        low = _lanes(2 * lane, (1 << used) - 1)
        eights = (eights & low) | ((eights >> np.uint64(lane - used)) & (low << np.uint64(used)))
        lane, used = 2 * lane, 2 * used
    if bits in _WHOLE:
        return eights.astype(_WHOLE[bits], copy=False)
    return np.ascontiguousarray(eights).view(np.uint8).reshape(*eights.shape, 8)[..., :bits]


def _lanes(width: int, mask: int) -> np.uint64:
    """`mask` in each lane of `width` bits."""
    return np.uint64(sum(mask << start for start in range(0, 64, width)))


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

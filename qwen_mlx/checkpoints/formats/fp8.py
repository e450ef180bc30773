"""FP8 weights with a scale per block, as Qwen publishes them, and the 8-bit floats they are made of.

`weight` F8_E4M3 (out, in), `weight_scale_inv` (ceil(out / 128), ceil(in / 128)); `w = e4m3(code) * scale_inv` of the
block: it multiplies, despite the name. The block size is that of the configuration: deriving it from the grid is wrong
at ragged edges. E4M3: OCP 8-bit Floating Point Specification, revision 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwen_mlx.checkpoints.formats.settings import Settings
from qwen_mlx.errors import UnsupportedModel

SUFFIXES = ("weight_scale_inv",)
_HARMLESS = frozenset({"kv_cache_scheme", "ignored_layers", "modules_to_not_convert", "scale_fmt"})


def _e4m3_table() -> np.ndarray:
    """The value of every code: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, one NaN a sign."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    value = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    value = np.where(code & 127 == 127, np.nan, value)
    return np.where(code & 128, -value, value).astype(np.float32)


E4M3 = _e4m3_table()


def e8m0(codes: np.ndarray) -> np.ndarray:
    """Scales of 8 bits that are all exponent (OCP Microscaling): float32 2**(code - 127), 255 is NaN."""
    powers = np.ldexp(1.0, np.minimum(codes, 254).astype(np.int32) - 127).astype(np.float32)
    return np.where(codes == 255, np.float32(np.nan), powers)


@dataclass(frozen=True)
class FP8Settings:
    """`block`: rows and columns that share a scale."""

    block: tuple[int, int]


def read_settings(config: Mapping[str, Any]) -> FP8Settings:
    """The settings of `quantization_config`.

    Raises:
        UnsupportedModel: FP8 with other scales than one per block.
        ConfigError: a key that is not known and could change the numbers.
    """
    settings = Settings(config, "FP8")
    settings.expect("fmt", "e4m3", "float8_e4m3fn", default="e4m3")
    settings.expect("activation_scheme", "dynamic", default="dynamic")
    block = settings.first("weight_block_size")
    if block is None:
        raise UnsupportedModel(
            "FP8 weights without a scale per block cannot be imported",
            expected="a weight_block_size in quantization_config, as Qwen publishes it",
            hint="Take the original model, or a version in another format.",
        )
    if not isinstance(block, list) or len(block) != 2 or not all(type(n) is int and 0 < n <= 1 << 16 for n in block):
        raise settings.error("weight_block_size", "two whole numbers", block)
    settings.finish(_HARMLESS)
    return FP8Settings((block[0], block[1]))


def decode_rows(codes: np.ndarray, scales: np.ndarray, first_row: int, block: tuple[int, int]) -> np.ndarray:
    """Some rows of a matrix: codes uint8 (rows, in), all scales float32 -> float32 (rows, in)."""
    high, wide = block
    rows = scales[np.arange(first_row, first_row + codes.shape[0]) // high]
    return E4M3[codes] * np.repeat(rows, wide, axis=1)[:, : codes.shape[1]]

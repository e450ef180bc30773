"""AWQ as AutoAWQ's "gemm" kernel reads it: 4 bits, eight columns of the output in a word, in an order of its own.

`qweight` int32 (in, out / 8), `qzeros` int32 (groups, out / 8), `scales` (groups, out); `w = (q - z) * s`
(Lin et al., 2023, arXiv:2306.00978). The other kernels ("gemv", "marlin", ...) store other layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qwen_mlx.checkpoints.formats.settings import GroupQuantization, Settings
from qwen_mlx.errors import UnsupportedModel

SUFFIXES = ("qweight", "qzeros", "scales")
# Which nibble of a word, counted from the lowest bits, holds output column 0, 1, ... of the eight.
_NIBBLE_OF_COLUMN = np.array([0, 4, 1, 5, 2, 6, 3, 7])

# About how the model was made or is run; nothing about where the bits lie.
_HARMLESS = frozenset(
    """
    backend do_fuse exllama_config fuse_max_seq_len modules_to_fuse damp_percent desc_act static_groups true_sequential
    dataset model_seqlen meta lm_head sym duo_scaling n_parallel_calib_samples apply_clip pack_dtype
    modules_to_not_convert
    """.split()
)


def read_settings(config: Mapping[str, Any]) -> GroupQuantization:
    """The settings of `quantization_config`.

    Raises:
        UnsupportedModel: another kernel's layout, another number of bits.
        ConfigError: a key that is not known and could change the numbers.
    """
    settings = Settings(config, "AWQ")
    version = str(settings.first("version", "format", "checkpoint_format", default="gemm")).lower()
    if version != "gemm":
        raise UnsupportedModel(
            f"AWQ weights in the layout {version[:40]!r} cannot be imported",
            expected="the layout 'gemm', which AutoAWQ writes unless told otherwise",
            hint="Take the original model, or a version in GPTQ, GGUF or MLX's format.",
        )
    bits = settings.integer("bits", "w_bit", default=4)
    if bits != 4:
        raise UnsupportedModel(f"AWQ weights of {bits} bits cannot be imported", expected="4 bits, all that gemm has")
    group = settings.integer("group_size", "q_group_size", default=128, low=-1)
    settings.expect("zero_point", True, default=True)
    settings.finish(_HARMLESS)
    return GroupQuantization(bits, group)


def unpack_columns(words: np.ndarray) -> np.ndarray:
    """int32 (rows, out / 8) -> codes uint8 (rows, out)."""
    data = np.ascontiguousarray(words).view(np.uint8)
    nibbles = np.stack([data & 15, data >> 4], axis=-1).reshape(data.shape[0], -1, 8)
    return nibbles[..., _NIBBLE_OF_COLUMN].reshape(data.shape[0], -1)

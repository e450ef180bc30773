"""compressed-tensors "pack-quantized", as llm-compressor writes W4A16 and W8A16.

`weight_packed` int32 (out, in * bits / 32): a row is a bit stream of `q + 2**(bits - 1)`, the very words that MLX
has; `weight_scale` (out, groups); asymmetric files add `weight_zero_point` int32, packed along out; `weight_shape`
int64 (2,); `weight_g_idx` int32 (in,) where inputs are sorted. `w = (q - z) * s` with signed q and z.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwen_mlx.checkpoints.formats.settings import GroupQuantization, Settings
from qwen_mlx.checkpoints.quantizers.packing import unpack
from qwen_mlx.errors import UnsupportedModel

SUFFIXES = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx")
BITS = (4, 8)
_ADVICE = "Take the original model, or a version in another format."
_HARMLESS = frozenset({"version", "global_compression_ratio", "compression_ratio", "kv_cache_scheme"})
_HARMLESS_OF_WEIGHTS = frozenset(
    {"observer", "observer_kwargs", "actorder", "scale_dtype", "zp_dtype", "is_mse", "mse_iters", "block_structure"}
)


@dataclass(frozen=True)
class PackedSettings(GroupQuantization):
    """`symmetric`: whether there are no zero points."""

    symmetric: bool = True


def read_settings(config: Mapping[str, Any]) -> PackedSettings:
    """The settings of `quantization_config`.

    Raises:
        UnsupportedModel: another compression, several kinds of weights, quantized activations.
        ConfigError: a key that is not known and could change the numbers.
    """
    settings = Settings(config, "compressed-tensors")
    form = settings.first("format")
    if form != "pack-quantized":
        raise UnsupportedModel(
            f"compressed-tensors weights in the format {str(form)[:40]!r} cannot be imported",
            expected="pack-quantized",
            hint=_ADVICE,
        )
    settings.expect("sparsity_config", None, {}, default=None)
    settings.expect("transform_config", None, {}, default=None)
    groups = settings.first("config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1:
        raise UnsupportedModel(
            "compressed-tensors weights of several kinds in one model cannot be imported",
            expected="one entry of config_groups",
            found=str(len(groups)) if isinstance(groups, Mapping) else "none",
            hint=_ADVICE,
        )
    settings.names("ignore")
    settings.finish(_HARMLESS)
    group = next(iter(groups.values()))
    if not isinstance(group, Mapping):
        raise settings.error("config_groups", "an object", group)
    return _read_group(group)


def _read_group(group: Mapping[str, Any]) -> PackedSettings:
    settings = Settings(group, "compressed-tensors", "config_groups")
    for key in ("input_activations", "output_activations"):
        if settings.first(key) is not None:
            raise UnsupportedModel(
                f"compressed-tensors models with quantized activations ({key}) cannot be imported",
                expected="quantized weights only, such as W4A16",
                hint=_ADVICE,
            )
    settings.expect("format", None, "pack-quantized", default=None)
    settings.names("targets")
    weights = settings.first("weights")
    if not isinstance(weights, Mapping):
        raise settings.error("weights", "an object", weights)
    settings.finish()
    return _read_weights(weights)


def _read_weights(weights: Mapping[str, Any]) -> PackedSettings:
    settings = Settings(weights, "compressed-tensors", "config_groups.weights")
    bits = settings.integer("num_bits", default=8)
    if bits not in BITS:
        raise UnsupportedModel(
            f"compressed-tensors weights of {bits} bits cannot be imported", expected="4 or 8 bits", hint=_ADVICE
        )
    settings.expect("type", "int", default="int")
    settings.expect("dynamic", False, default=False)
    strategy = settings.first("strategy", default="group")
    if strategy not in ("group", "channel"):
        raise UnsupportedModel(
            f"compressed-tensors weights with the strategy {str(strategy)[:40]!r} cannot be imported",
            expected="group or channel",
            hint=_ADVICE,
        )
    group = settings.integer("group_size", default=-1, low=-1)
    symmetric = settings.flag("symmetric", True)
    settings.finish(_HARMLESS_OF_WEIGHTS)
    return PackedSettings(bits, -1 if strategy == "channel" else group, symmetric)


def zero_points(packed: np.ndarray, rows: int, bits: int) -> np.ndarray:
    """int32 (ceil(out * bits / 32), groups) -> unsigned zero points float32 (out, groups)."""
    return unpack(np.ascontiguousarray(packed.T), bits)[:, :rows].T.astype(np.float32)

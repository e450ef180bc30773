"""GPTQ as AutoGPTQ and GPTQModel write it: codes of one output column are a bit stream that runs down the rows.

`qweight` int32 (in * bits / 32, out), `qzeros` int32 (groups, out * bits / 32), `scales` (groups, out), `g_idx` int32
(in,): the group of every input; `w[i] = s[g_idx[i]] * (q[i] - z[g_idx[i]])` (Frantar et al., 2022, arXiv:2210.17323).

Version 1 of the format stores zero points minus one, version 2 as they are. Zero points of symmetric files are
2**(bits-1), so there one minus is harmless. In an asymmetric file a zero point of 0 becomes -1, and what becomes of
its neighbours in the word depends on the program: GPTQModel subtracts from the whole word, which can be undone;
AutoGPTQ sets bits of the neighbours, which cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwen_mlx.checkpoints.formats.settings import GroupQuantization, Settings
from qwen_mlx.checkpoints.quantizers.packing import unpack
from qwen_mlx.errors import UnsupportedModel

SUFFIXES = ("qweight", "qzeros", "scales", "g_idx")
BITS = (2, 3, 4, 8)

_HARMLESS = frozenset(
    """
    damp_percent damp_auto_increment static_groups true_sequential dataset batch_size block_name_to_quantize
    cache_block_outputs model_seqlen module_name_preceding_first_block pad_token_id tokenizer use_cuda_fp16 use_exllama
    exllama_config max_input_length disable_exllama backend meta model_file_base_name model_name_or_path lm_head
    modules_in_block_to_quantize hyb_act mse quantized_by offload_to_disk act_group_aware
    """.split()
)


@dataclass(frozen=True)
class GPTQSettings(GroupQuantization):
    """`stored_minus_one`: whether zero points are stored as in version 1; `symmetric`: whether all are the middle."""

    stored_minus_one: bool = True
    symmetric: bool = True


def read_settings(config: Mapping[str, Any]) -> GPTQSettings:
    """The settings of `quantization_config`.

    Raises:
        UnsupportedModel: a layout or number of bits that is not read; zero points that may be damaged.
        ConfigError: a key that is not known and could change the numbers.
    """
    settings = Settings(config, "GPTQ")
    bits = settings.integer("bits", default=4)
    if bits not in BITS:
        raise UnsupportedModel(f"GPTQ weights of {bits} bits cannot be imported", expected="2, 3, 4 or 8 bits")
    group = settings.integer("group_size", default=128, low=-1)
    form = str(settings.first("checkpoint_format", "format", default="gptq")).lower()
    if form not in ("gptq", "gptq_v2"):
        raise UnsupportedModel(
            f"GPTQ weights in the layout {form[:40]!r} cannot be imported",
            expected="gptq or gptq_v2",
            hint="Take the original model, or a version in another format.",
        )
    settings.expect("is_marlin_format", False, default=False)
    settings.expect("pack_dtype", "int32", default="int32")
    settings.expect("dynamic", None, {}, default=None)
    symmetric = settings.flag("sym", True)
    settings.flag("desc_act", False)  # whether inputs are sorted is seen in g_idx
    if form == "gptq" and not symmetric and not _by_gptqmodel(config):
        raise UnsupportedModel(
            "an asymmetric GPTQ file of version 1 by an unknown program cannot be imported: its zero points may be "
            "damaged",
            expected="symmetric weights, checkpoint_format 'gptq_v2', or a meta.quantizer that names gptqmodel",
            hint="Take the original model, or a version in another format.",
        )
    settings.finish(_HARMLESS)
    return GPTQSettings(bits, group, form == "gptq", symmetric)


def _by_gptqmodel(config: Mapping[str, Any]) -> bool:
    meta = config.get("meta")
    named = meta.get("quantizer") if isinstance(meta, Mapping) else None
    names = named if isinstance(named, list) else [named]
    return any(isinstance(name, str) and name.startswith("gptqmodel") for name in names)


def zero_points(qzeros: np.ndarray, bits: int, stored_minus_one: bool) -> np.ndarray:
    """int32 (groups, out * bits / 32) -> zero points float32 (groups, out)."""
    if not stored_minus_one:
        return unpack(qzeros, bits).astype(np.float32)
    if bits == 3:  # no word of 32 bits holds whole codes; one is added to each by itself
        return ((unpack(qzeros, 3) + 1) & 7).astype(np.float32)
    ones = np.uint32(sum(1 << shift for shift in range(0, 32, bits)))
    with np.errstate(over="ignore"):
        words = np.ascontiguousarray(qzeros).view(np.uint32) + ones
    return unpack(words, bits).astype(np.float32)


def unpack_columns(qweight: np.ndarray, bits: int) -> np.ndarray:
    """int32 (in * bits / 32, out) -> codes uint8 (out, in): the matrix as MLX has it, transposed."""
    return unpack(np.ascontiguousarray(qweight.T), bits)


def is_in_order(g_idx: np.ndarray, group: int) -> bool:
    """Whether the groups are what they are in every other format: neighbours."""
    return bool(np.array_equal(g_idx, np.arange(g_idx.size) // group))

"""The list of kernels, by name."""

from __future__ import annotations

import importlib

from qwen_mlx.kernels import launch
from qwen_mlx.kernels.kernel import Kernel, registered

_FOLDERS: tuple[str, ...] = (
    "add_rms_norm",
    "expert_down",
    "qk_norm_rope",
    "quantized_kv_attention",
    "quantized_kv_dequantize",
    "router_topk",
    "sample_topk",
    "swiglu_matvec",
)


def in_use() -> list[str]:
    """Names of the kernels that may run on this machine; none without a GPU.

    Raises:
        UsageError: `QWEN_MLX_KERNELS` names a kernel that does not exist.
    """
    wanted = sorted(name for name, kernel in all_kernels().items() if kernel.wanted)
    return [] if launch.builder() is None else wanted


def all_kernels() -> dict[str, Kernel]:
    """Every kernel of the package, imported."""
    for folder in _FOLDERS:
        importlib.import_module(f"qwen_mlx.kernels.{folder}")
    return registered()

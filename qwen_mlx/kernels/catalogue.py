"""The list of kernels, by name."""

from __future__ import annotations

import importlib

from qwen_mlx.kernels.kernel import Kernel, registered

_FOLDERS: tuple[str, ...] = ()


def all_kernels() -> dict[str, Kernel]:
    """Every kernel of the package, imported."""
    for folder in _FOLDERS:
        importlib.import_module(f"qwen_mlx.kernels.{folder}")
    return registered()

"""Spec -> decoder: what a Qwen computes. Specs and configurations are read without importing MLX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qwen_mlx import device

device.prepare()  # before anything imports mlx

from qwen_mlx.models.families import SUPPORTED, read_spec  # noqa: E402
from qwen_mlx.models.spec import ModelSpec  # noqa: E402

if TYPE_CHECKING:
    from qwen_mlx.models.decoder import Decoder

__all__ = ["SUPPORTED", "Decoder", "ModelSpec", "read_spec"]


def __getattr__(name: str) -> Any:
    if name == "Decoder":
        from qwen_mlx.models.decoder import Decoder

        return Decoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

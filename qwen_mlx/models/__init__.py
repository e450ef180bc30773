"""Spec -> decoder: what a Qwen computes."""

from qwen_mlx import device

device.prepare()  # before anything imports mlx

from qwen_mlx.models.decoder import Decoder  # noqa: E402
from qwen_mlx.models.families import SUPPORTED, read_spec  # noqa: E402
from qwen_mlx.models.spec import ModelSpec  # noqa: E402

__all__ = ["SUPPORTED", "Decoder", "ModelSpec", "read_spec"]

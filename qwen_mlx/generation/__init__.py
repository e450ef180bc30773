"""Tokens in, tokens out."""

from qwen_mlx import device

device.prepare()  # before anything imports mlx

"""Data, tokenizer, training loop and scoring of the tiny demo checkpoint (see build_demo_model.py)."""

from qwen_mlx import device

device.prepare()  # loads a fast BLAS; that works only before anything imports mlx

"""Metal kernels, each with the pure-MLX computation it equals.

A kernel is a folder: Metal sources, a launcher, a `reference`, and a `Kernel` that ties them together and chooses
between them (`kernel.py`). Nothing here knows of models, caches or files.
"""

from __future__ import annotations

from qwen_mlx import device

device.prepare()  # before anything imports mlx

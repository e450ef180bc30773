"""Kernels, in the simulator of `tests/metalsim`."""

import qwen_mlx.kernels  # noqa: F401  which loads a fast BLAS before anything imports mlx

"""Modules as functions of their trainable parameters.

MLX takes what a function with a gradient of its own finds outside of its arguments for constants. So parameters go in
as arguments, and for the time of the call the module holds what came in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.utils


class Trainable:
    """The trainable parameters of a module, in a fixed order."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        flat: Any = mlx.utils.tree_flatten(module.trainable_parameters())
        self._names = [name for name, _ in flat]
        self.arrays: list[mx.array] = [array for _, array in flat]

    @contextlib.contextmanager
    def held(self, arrays: Sequence[mx.array]) -> Iterator[None]:
        """In this block the module computes with `arrays` in the place of its own."""
        self._set(arrays)
        try:
            yield
        finally:
            self._set(self.arrays)

    def _set(self, arrays: Sequence[mx.array]) -> None:
        if self._names:
            self._module.update(mlx.utils.tree_unflatten(list(zip(self._names, arrays))))

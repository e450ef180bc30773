"""Lets the package's own kernels run in the simulator: a whole model then decodes with them, without a GPU.

    with simulated_kernels(checked=False):
        ...

Everything that `qwen_mlx.kernels` would launch on a GPU in this block runs here.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx

from qwen_mlx.kernels import launch
from tests.metalsim.kernel import metal_kernel
from tests.metalsim.launch import Schedule


@contextlib.contextmanager
def simulated_kernels(
    checked: bool = True, schedule: Schedule = "forward", seed: int = 0, threads: int = 1
) -> Iterator[None]:
    """Build the package's kernels with the simulator in this block.

    Compiled kernels are kept in the cache, and a `Program` that is launched again with the same options here builds
    nothing. What is called inside `mx.compile` cannot be simulated, since it has no values yet.

    Args:
        checked: watch every access, and raise `KernelError` (see `metal_kernel`). Without it, kernels take
            about half of the time.
        schedule, seed, threads: of every launch.
    """
    with launch.building_with(builder(checked, schedule, seed, threads)):
        yield


@functools.lru_cache(maxsize=32)
def builder(checked: bool, schedule: Schedule, seed: int, threads: int) -> Callable[..., Callable[..., list[mx.array]]]:
    """A function to be called as `mx.fast.metal_kernel`; the same object for the same options."""

    def build(*arguments: Any, **named: Any) -> Callable[..., list[mx.array]]:
        kernel = metal_kernel(*arguments, **named, checked=checked)
        return functools.partial(kernel, schedule=schedule, seed=seed, threads=threads)

    return build

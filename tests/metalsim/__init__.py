"""Runs Metal kernels on the CPU and says what is wrong with them: see docs/metalsim.md.

    from tests.metalsim import metal_kernel

takes what `mx.fast.metal_kernel` takes.
"""

from __future__ import annotations

from tests.metalsim.errors import CompileError, Finding, KernelError, SimulatorError, Thread, ToolchainError
from tests.metalsim.kernel import metal_kernel
from tests.metalsim.toolchain import find as find_toolchain

__all__ = [
    "CompileError",
    "Finding",
    "KernelError",
    "SimulatorError",
    "Thread",
    "ToolchainError",
    "find_toolchain",
    "metal_kernel",
]

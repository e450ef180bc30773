"""The package's own kernels in the simulator."""

from __future__ import annotations

import mlx.core as mx
import pytest

from qwen_mlx.kernels import launch
from tests.metalsim import KernelError
from tests.metalsim.simulated import builder, simulated_kernels


@pytest.fixture
def shift(tmp_path, compiler) -> launch.Program:
    """out[i] = x[i + by], which reads too far if it is told to."""
    (tmp_path / "shift.metal").write_text("uint i = thread_position_in_grid.x; out[i] = x[i + by];")
    return launch.Program(tmp_path, "shift", ["x", "by"], ["out"])


def call(program: launch.Program, by: int) -> list[float]:
    (out,) = program(
        [mx.arange(16.0), by], output_shapes=[(8,)], output_dtypes=[mx.float32], grid=(8, 1, 1), threadgroup=(8, 1, 1)
    )
    return out.tolist()


def test_a_program_runs(shift, simulated):
    assert call(shift, 3) == [3, 4, 5, 6, 7, 8, 9, 10]
    with pytest.raises(KernelError, match=r"x\[16\]"):
        call(shift, 9)


def test_without_checks(shift, simulated_unchecked):
    assert call(shift, 3) == [3, 4, 5, 6, 7, 8, 9, 10]


def test_only_inside_the_block_and_built_once(shift):
    before = launch.builder()
    with simulated_kernels(schedule="random", seed=1):
        call(shift, 0)
        built = shift._built
        call(shift, 1)
        assert shift._built is built
    assert launch.builder() is before
    with simulated_kernels(schedule="random", seed=1):
        call(shift, 2)
        assert shift._built is built
    assert builder(True, "random", 1, 1) is not builder(True, "random", 2, 1)

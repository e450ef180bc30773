"""What the tests of all kernels share: runs in the simulator, under every schedule, and with planted mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import mlx.core as mx
import pytest

from qwen_mlx.kernels.kernel import Arrays, Compute, Kernel, difference
from qwen_mlx.kernels.launch import Program
from tests.metalsim import SimulatorError, ToolchainError, find_toolchain
from tests.metalsim.launch import Schedule
from tests.metalsim.simulated import simulated_kernels

SCHEDULES = get_args(Schedule)
FLOATS = (mx.float32, mx.float16, mx.bfloat16)
Case = tuple[Arrays, dict[str, Any]]


def _has_toolchain() -> bool:
    try:
        find_toolchain()
    except ToolchainError:
        return False
    return True


needs_simulator = pytest.mark.skipif(not _has_toolchain(), reason="no compiler for the simulator (pip install ziglang)")


def launched(kernel: Kernel, arrays: Arrays, options: dict[str, Any], schedule: Schedule = "forward") -> Arrays:
    """The results of the kernel itself, whatever the machine; complains of arguments it was not written for."""
    assert kernel.eligible(*arrays, **options)
    with simulated_kernels(schedule=schedule):
        results = kernel.run(*arrays, **options)
        mx.eval(results)
    return results


def launched_every_way(kernel: Kernel, arrays: Arrays, options: dict[str, Any]) -> Arrays:
    """As `launched`, after checking that all schedules give the same bits."""
    first, *others = (launched(kernel, arrays, options, schedule) for schedule in SCHEDULES)
    for schedule, results in zip(SCHEDULES[1:], others):
        for index, (a, b) in enumerate(zip(first, results)):
            assert same_bits(a, b), f"result {index} differs under the schedule {schedule!r}"
    return first


def same_bits(a: mx.array, b: mx.array) -> bool:
    """Whether two arrays are equal, nan included."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(mx.array_equal(a, b, equal_nan=True).item())


def worst(results: Arrays, expected: Arrays) -> float:
    """The largest `difference` of two lists of arrays; infinite where a shape or type differs."""
    if [(a.shape, a.dtype) for a in results] != [(b.shape, b.dtype) for b in expected]:
        return float("inf")
    return max(difference(a, b) for a, b in zip(results, expected))


def assert_caught(
    monkeypatch: pytest.MonkeyPatch,
    kernel: Kernel,
    program: Program,
    mistake: tuple[str, str],
    cases: Callable[[], Iterable[Case]],
    tolerance: float,
    reference: Compute | None = None,
) -> None:
    """A source with `mistake` (a text of it, and what to put in its place) fails in one of `cases`.

    Args:
        reference: what is right; the reference of the kernel where not given.
    """
    old, new = mistake
    part = "source" if old in program.source else "header"
    text = getattr(program, part)
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {program.name}"
    monkeypatch.setitem(program.__dict__, part, text.replace(old, new))
    monkeypatch.setattr(program, "_built", None)
    reference = reference or kernel.reference
    known = [(arrays, options, reference(*arrays, **options)) for arrays, options in cases()]
    for schedule in SCHEDULES:
        for arrays, options, expected in known:
            try:
                results = launched(kernel, arrays, options, schedule)
            except SimulatorError:
                return
            if not worst(results, expected) <= tolerance:
                return
    raise AssertionError(f"nobody noticed {old!r} -> {new!r}")


def mistakes(*table: tuple[str, str]) -> Any:
    """A parameter `mistake` for every entry."""
    assert len(set(table)) == len(table)
    return pytest.mark.parametrize("mistake", table, ids=[f"{i}" for i in range(len(table))])


def assert_same_gradient(kernel: Kernel, arrays: Sequence[mx.array], options: dict[str, Any], tolerance: float) -> None:
    """Through the public call, where the kernel runs, gradients are those of the reference."""

    def loss(compute: Callable[..., Arrays]) -> Callable[..., mx.array]:
        def of(*inputs: mx.array) -> mx.array:
            floats = [r for r in compute(*inputs, **options) if mx.issubdtype(r.dtype, mx.floating)]
            return sum((r.astype(mx.float32) * mx.cos(mx.arange(r.size).reshape(r.shape))).sum() for r in floats)

        return of

    numbers = [i for i, a in enumerate(arrays) if mx.issubdtype(a.dtype, mx.floating)]
    expected = mx.grad(loss(kernel.reference), argnums=numbers)(*arrays)
    with simulated_kernels():
        assert kernel.runs(*arrays, **options)
        found = mx.grad(loss(kernel), argnums=numbers)(*arrays)
        mx.eval(found)
    assert worst(found, expected) <= tolerance
    assert all(mx.abs(g).max().item() > 0 for g in expected)

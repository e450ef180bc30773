"""Exponentials made of multiplications, against float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qwen_mlx.models import elementwise

import mlx.core as mx  # isort: skip
import numpy as np

SMALL, LARGE, PIECES = 100, 1 << 15, 5 << 17  # one operation, one block, several


def spread(size: int, width: float) -> np.ndarray:
    return np.linspace(-width, width, size, dtype=np.float32)


@pytest.mark.parametrize("size", [SMALL, LARGE, PIECES])
def test_exponentials(size: int) -> None:
    x = spread(size, 85)
    found = np.array(elementwise.exp(mx.array(x)), dtype=np.float64)
    # MLX's own, which small arrays get, are thirty times less accurate on this range.
    assert np.abs(found / np.exp(x.astype(np.float64)) - 1).max() < (2.5e-7 if size > SMALL else 5e-6)


def test_beyond_the_range_of_float32() -> None:
    x = np.zeros(LARGE, dtype=np.float32)
    x[:6] = -np.inf, -1000, 1000, np.inf, np.nan, -0.0
    found = np.array(elementwise.exp(mx.array(x)))
    assert (found[:2] < 1e-36).all() and (found[:2] >= 0).all()
    assert (found[2:4] > 1e38).all()
    assert np.isnan(found[4]) and found[5] == 1


@pytest.mark.parametrize("size", [SMALL, 5000, LARGE])
@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (elementwise.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
        (elementwise.silu, lambda x: x / (1 + np.exp(-x))),
        (lambda x: elementwise.swiglu(x, x + 1), lambda x: x / (1 + np.exp(-x)) * (x + 1)),
    ],
    ids=["sigmoid", "silu", "swiglu"],
)
def test_gates(size: int, ours: Callable[[mx.array], mx.array], reference: Callable[[np.ndarray], np.ndarray]) -> None:
    x = spread(size, 100)
    with np.errstate(over="ignore"):
        expected = reference(x.astype(np.float64))
    np.testing.assert_allclose(np.array(ours(mx.array(x))), expected, rtol=1e-5, atol=1e-6)


def test_gradient() -> None:
    x = mx.array(spread(LARGE, 20))
    found = mx.grad(lambda x: elementwise.exp(x).sum())(x)
    np.testing.assert_allclose(np.array(found), np.exp(np.array(x).astype(np.float64)), rtol=1e-6)


def test_half_precision_keeps_its_type() -> None:
    x = mx.array(spread(LARGE, 5)).astype(mx.bfloat16)
    assert elementwise.silu(x).dtype == mx.bfloat16

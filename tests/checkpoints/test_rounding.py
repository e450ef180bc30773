"""Packing, and the search for scales and codes: against MLX's own, and by the error that is left."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.checkpoints.quantizers import rounding
from qwen_mlx.checkpoints.quantizers.packing import pack, unpack
from qwen_mlx.checkpoints.quantizers.rounding import Packed, search
from qwen_mlx.checkpoints.quantizers.stored_types import bfloat16_bits, rounded
from qwen_mlx.checkpoints.recipes import AFFINE_BITS

import mlx.core as mx  # isort: skip
import numpy as np

DTYPES = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}


def weights(rows: int = 256, columns: int = 512, kind: str = "normal", dtype: str = "BF16") -> np.ndarray:
    """Weights as a model stores them, in float32."""
    random = np.random.default_rng(7)
    x = random.standard_normal((rows, columns)) if kind == "normal" else random.standard_t(5, (rows, columns))
    return np.array(mx.array((0.02 * x).astype(np.float32)).astype(DTYPES[dtype]).astype(mx.float32))


def read(packed: Packed, bits: int, group_size: int, dtype: str) -> np.ndarray:
    """What MLX makes of it, in float32."""
    scales, biases = (mx.array(part).view(DTYPES[dtype]).astype(mx.float32) for part in (packed.scales, packed.biases))
    return np.array(mx.dequantize(mx.array(packed.weight), scales, biases, group_size=group_size, bits=bits))


def mlx_error(x: np.ndarray, bits: int, group_size: int, dtype: str) -> float:
    """Squared error of `mx.quantize`, read in float32 too."""
    parts = mx.quantize(mx.array(x).astype(DTYPES[dtype]), group_size=group_size, bits=bits)
    scales, biases = (part.astype(mx.float32) for part in parts[1:])
    back = np.array(mx.dequantize(parts[0], scales, biases, group_size=group_size, bits=bits))
    return float(((back - x) ** 2).sum(dtype=np.float64))


# ------------------------------------------------------------------------------------------------ packing


@pytest.mark.parametrize("bits", AFFINE_BITS)
def test_codes_are_packed_as_mlx_packs_them(bits: int) -> None:
    words = mx.quantize(mx.random.normal((5, 192), key=mx.random.key(0)), group_size=64, bits=bits)[0]
    codes = unpack(np.array(words), bits)
    assert codes.shape == (5, 192) and codes.max() < 1 << bits
    assert np.array_equal(pack(codes, bits), np.array(words))
    one, zero = mx.ones((5, 3)), mx.zeros((5, 3))
    assert np.array_equal(np.array(mx.dequantize(words, one, zero, group_size=64, bits=bits)), codes)


@given(st.sampled_from(AFFINE_BITS), st.integers(1, 4), st.integers(1, 3), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_packing_loses_nothing(bits: int, rows: int, groups: int, random: object) -> None:
    seed = random.getrandbits(32)  # type: ignore[attr-defined]
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, 32 * groups), np.uint8)
    assert np.array_equal(unpack(pack(codes, bits), bits), codes)


# ------------------------------------------------------------------------------------------------ search

# How much smaller the root mean square error has to be than that of `mx.quantize`, in groups of 64 with bfloat16
# scales: what was measured, and a little less.
GAINS = {2: 0.16, 3: 0.11, 4: 0.075, 5: 0.06, 6: 0.055, 8: 0.19}


@pytest.mark.parametrize("kind", ["normal", "t5"])
@pytest.mark.parametrize("bits", AFFINE_BITS)
def test_the_error_is_smaller_than_that_of_mlx(bits: int, kind: str) -> None:
    x = weights(kind=kind)
    packed = search(x, bits, 64, "BF16")
    error = float(((read(packed, bits, 64, "BF16") - x) ** 2).sum(dtype=np.float64))
    assert packed.error == pytest.approx(error, rel=1e-3)
    assert (error / mlx_error(x, bits, 64, "BF16")) ** 0.5 < 1 - GAINS[bits]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_in_every_group_size_and_type(bits: int, group_size: int, dtype: str) -> None:
    x = weights(64, 256, dtype=dtype)
    packed = search(x, bits, group_size, dtype)
    assert packed.weight.shape == (64, 256 * bits // 32) and packed.weight.dtype == np.uint32
    assert packed.scales.shape == packed.biases.shape == (64, 256 // group_size)
    error = float(((read(packed, bits, group_size, dtype) - x) ** 2).sum(dtype=np.float64))
    assert error < mlx_error(x, bits, group_size, dtype)


def test_importance_moves_the_error_to_where_it_does_not_matter() -> None:
    x = weights()
    importance = np.random.default_rng(1).gamma(0.5, size=512).astype(np.float32) + 1e-3
    plain, weighed = (search(x, 3, 64, "BF16", h) for h in (None, importance))
    errors = [((read(p, 3, 64, "BF16") - x) ** 2).sum(axis=0, dtype=np.float64) for p in (plain, weighed)]
    assert weighed.error == pytest.approx(float(errors[1] @ importance), rel=1e-3)
    assert errors[1] @ importance < 0.9 * (errors[0] @ importance)
    assert errors[1].sum() > errors[0].sum()


def test_equal_importance_changes_nothing() -> None:
    x = weights(32)
    plain, weighed = search(x, 4, 64, "BF16"), search(x, 4, 64, "BF16", np.full(512, 3.0, np.float32))
    assert weighed.error == pytest.approx(3 * plain.error, rel=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", AFFINE_BITS)
def test_groups_without_much_in_them(bits: int, dtype: str) -> None:
    """Zeros, one value, two values, one outlier, tiny and large ones: none is infinite, the simple ones are as good."""
    x = np.zeros((8, 64), np.float32)
    x[1] = 0.5
    x[2, 10:] = -0.25
    x[3, 5] = 1.0
    x[4] = np.linspace(-1, 1, 64) * 1e-6
    x[5] = np.linspace(-100, 300, 64)
    x[6] = -0.375
    x[7, ::2] = 2.0
    back = read(search(x, bits, 64, dtype), bits, 64, dtype)
    assert np.isfinite(back).all()
    assert np.array_equal(back[[0, 1, 6]], x[[0, 1, 6]])
    assert np.abs(back[[2, 3, 7]] - x[[2, 3, 7]]).max() < 2**-8
    assert np.abs(back[5] - x[5]).max() < 0.6 * 400 / ((1 << bits) - 1) * (2.5 if bits < 5 else 1)


def test_the_result_does_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    x = weights(100, 128)
    whole = search(x, 4, 64, "BF16")
    monkeypatch.setattr(rounding, "_PIECE", 128 * 7)
    for count in (1, 3):
        monkeypatch.setattr(rounding, "cores", lambda count=count: count)
        cut = search(x, 4, 64, "BF16")
        for part in ("weight", "scales", "biases"):
            assert np.array_equal(getattr(cut, part), getattr(whole, part))


def test_bfloat16_is_rounded_as_mlx_rounds() -> None:
    x = np.random.default_rng(2).standard_normal(4096).astype(np.float32)
    x[:4] = [0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8]  # ties
    expected = mx.array(x).astype(mx.bfloat16)
    assert np.array_equal(bfloat16_bits(x), np.array(expected.view(mx.uint16)))
    assert np.array_equal(rounded(x, "BF16"), np.array(expected.astype(mx.float32)))

"""The rounding "mlx" on a CPU: whatever the weights are, the same bits as `mx.quantize`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qwen_mlx import device
from qwen_mlx.checkpoints.quantizers import builtin
from qwen_mlx.checkpoints.quantizers.minmax import PIECE, TooWide, minmax
from qwen_mlx.checkpoints.quantizers.packing import pack, pack_columns
from qwen_mlx.checkpoints.quantizers.stored_types import NotFinite
from qwen_mlx.checkpoints.recipes import AFFINE_BITS
from qwen_mlx.models.spec import QuantizationSpec

import mlx.core as mx  # isort: skip

# What a type is called, what numpy sees, what MLX calls it, and the bits of its exponent.
TYPES = {
    "BF16": (np.uint16, mx.bfloat16, 0x7F80),
    "F16": (np.float16, mx.float16, 0x7C00),
    "F32": (np.float32, mx.float32, 0x7F800000),
}


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    array = mx.array(np.asarray(values, np.float32)).astype(TYPES[dtype][1])
    return np.array(array.view(mx.uint16) if dtype == "BF16" else array)


def by_mlx(weight: np.ndarray, dtype: str, bits: int, group_size: int) -> list[np.ndarray]:
    """Codes, scales and biases as bits."""
    array = mx.array(weight).view(TYPES[dtype][1])
    return [
        as_bits(np.array(p.view(mx.uint16) if p.dtype == mx.bfloat16 else p))
        for p in mx.quantize(array, group_size, bits)
    ]


def as_bits(part: np.ndarray) -> np.ndarray:
    return part.view(np.uint32 if part.dtype.itemsize == 4 else np.uint16)


def assert_same(weight: np.ndarray, dtype: str, bits: int, group_size: int) -> None:
    ours = minmax(weight, dtype, bits, group_size)
    for part, own, expected in zip(("codes", "scales", "biases"), ours, by_mlx(weight, dtype, bits, group_size)):
        assert np.array_equal(as_bits(own), expected), part


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", AFFINE_BITS)
def test_weights_as_models_have_them(bits: int, group_size: int, dtype: str) -> None:
    random = np.random.default_rng(bits * group_size)
    x = 0.02 * random.standard_t(5, (37, 384))
    x[3] = 0
    x[4] = 0.125
    x[5, ::2] *= -0.0
    x[6] = np.abs(x[6])
    x[7] = -np.abs(x[7])
    x[8] *= 1e-7
    assert_same(stored(x, dtype), dtype, bits, group_size)


@pytest.mark.parametrize("dtype", TYPES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_finite_numbers(dtype: str, data: st.DataObject) -> None:
    """Any bits: zeros of both signs, denormals, numbers of very different size."""
    kind, _, exponent = TYPES[dtype]
    word = np.uint32 if dtype == "F32" else np.uint16
    bits, group_size = data.draw(st.sampled_from(AFFINE_BITS)), data.draw(st.sampled_from([32, 64, 128]))
    few = data.draw(arrays.arrays(word, data.draw(st.integers(1, 12))))
    choice = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    words = choice.choice(few, (data.draw(st.integers(1, 3)), group_size * data.draw(st.integers(1, 3))))
    words = np.where((words & word(exponent)) == exponent, word(0), words)  # neither NaN nor infinity
    weight = np.ascontiguousarray(words).view(kind)
    try:
        assert_same(weight, dtype, bits, group_size)
    except TooWide:
        wide = np.array(mx.array(weight).view(TYPES[dtype][1]).astype(mx.float32))
        assert np.abs(wide).max() > 1e30


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "nvfp4", "mxfp8"])
def test_a_matrix_of_any_height_in_every_mode(mode: str) -> None:
    """More rows than one piece has, and not a multiple of them; with groups that only MLX itself can answer for."""
    form = {"affine": (4, 64), "mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}[mode]
    x = 0.02 * np.random.default_rng(0).standard_normal((PIECE // 256 + 300, 256))
    if mode == "affine":
        x[700, 3] = 3.3e38
        x[700, 4] = -3.3e38
    weight = stored(x, "BF16")
    got: list[list[np.ndarray]] = []
    for parts in builtin.quantize(weight, "BF16", QuantizationSpec(*form, mode)):  # type: ignore[arg-type]
        got.append(
            [
                np.array(p.view(mx.uint16) if p.dtype == mx.bfloat16 else p) if isinstance(p, mx.array) else p
                for p in parts
            ]
        )
    whole = [np.concatenate(part) for part in zip(*got)]
    expected = mx.quantize(mx.array(weight).view(mx.bfloat16), form[1], form[0], mode)
    assert len(whole) == len(expected)
    for own, part in zip(whole, expected):
        assert np.array_equal(own, np.array(part.view(mx.uint16) if part.dtype == mx.bfloat16 else part))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad: float, dtype: str) -> None:
    x = np.ones((4, 128), np.float32)
    x[2, 77] = bad
    for mode, form in (("affine", (4, 64)), ("mxfp8", (8, 32))):
        with pytest.raises(NotFinite):
            list(builtin.quantize(stored(x, dtype), dtype, QuantizationSpec(*form, mode)))  # type: ignore[arg-type]


def test_on_a_gpu_mlx_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("numpy was asked")

    monkeypatch.setattr(device, "backend", lambda: "metal")
    monkeypatch.setattr(builtin, "minmax", refuse)
    weight = stored(np.random.default_rng(0).standard_normal((8, 128)), "BF16")
    (parts,) = builtin.quantize(weight, "BF16", QuantizationSpec(4, 64))
    expected = mx.quantize(mx.array(weight).view(mx.bfloat16), 64, 4)
    assert all(mx.array_equal(a, b) for a, b in zip(parts, expected))


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", AFFINE_BITS)
def test_groups_in_columns_are_packed_alike(bits: int, group_size: int) -> None:
    codes = np.random.default_rng(0).integers(0, 1 << bits, (7, group_size), np.uint8)
    assert np.array_equal(pack_columns(codes.T.astype(np.float32), bits), pack(codes, bits))

"""Ranges of the quantized cache, unpacked."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_mlx.kernels.packed_kv import PackedKV, pack
from qwen_mlx.kernels.quantized_kv_dequantize import UNPACK
from qwen_mlx.kernels.quantized_kv_dequantize import quantized_kv_dequantize as kernel
from tests.kernels.harness import (
    FLOATS,
    Case,
    assert_caught,
    launched,
    launched_every_way,
    needs_simulator,
    same_bits,
)
from tests.kernels.sweep import SWEEP, first_mistakes

import mlx.core as mx  # isort: skip


def case(
    dims: int = 64,
    bits: tuple[int, int] = (8, 4),
    heads: tuple[int, int] = (0, 3),
    tokens: tuple[int, int] = (0, 9),
    dtype: mx.Dtype = mx.float32,
    capacity: int = 9,
    batch: int = 2,
) -> Case:
    layout = PackedKV(dims, *bits)
    keys, values = (mx.random.normal((batch, 3, capacity, dims), key=mx.random.key(i)) for i in (0, 1))
    options: dict[str, Any] = {"layout": layout, "heads": heads, "tokens": tokens, "dtype": dtype}
    return (pack(layout, keys, values),), options


@needs_simulator
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("dims", "bits"), [(80, (4, 8)), (128, (8, 4)), *[(64, (8, 8)), (96, (4, 4))] * SWEEP])
def test_equals_the_reference_to_the_bit(dims: int, bits: tuple[int, int], dtype: mx.Dtype) -> None:
    for heads, tokens in (((0, 3), (0, 9)), ((1, 2), (4, 9)), ((2, 3), (0, 1)), ((0, 2), (3, 8))):
        arrays, options = case(dims, bits, heads, tokens, dtype)
        found, expected = launched_every_way(kernel, arrays, options), kernel.reference(*arrays, **options)
        assert all(same_bits(a, b) for a, b in zip(found, expected))


@needs_simulator
@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 65])
def test_any_number_of_tokens(tokens: int) -> None:
    arrays, options = case(tokens=(0, tokens), capacity=tokens)
    found, expected = launched(kernel, arrays, options), kernel.reference(*arrays, **options)
    assert all(same_bits(a, b) for a, b in zip(found, expected))


def test_an_empty_range_is_left_to_the_reference() -> None:
    arrays, options = case(tokens=(4, 4))
    assert not kernel.eligible(*arrays, **options)
    assert kernel(*arrays, **options)[0].shape == (2, 3, 0, 64)


FEW = case(96, (8, 8), (1, 3), (2, 32), capacity=33)


@needs_simulator
def test_without_a_mistake_nothing_is_caught() -> None:
    found = launched_every_way(kernel, *FEW)
    assert all(same_bits(a, b) for a, b in zip(found, kernel.reference(*FEW[0], **FEW[1])))


@needs_simulator
@first_mistakes(
    10,
    ("int(thread_position_in_grid.x) * 8;", "int(thread_position_in_grid.x) * 4;"),
    ("if (token < tokens) {", "if (token <= tokens) {"),
    ("size_t(bh / heads) * size_t(records_shape[1])", "size_t(bh / heads) * size_t(heads)"),
    ("first_head + bh % heads", "bh % heads"),
    ("size_t(first_token + token)", "size_t(token)"),
    ("head * size_t(records_shape[2])", "head * size_t(tokens)"),
    ("(size_t(bh) * tokens + token) * D + at", "(size_t(bh) * tokens + token) * D"),
    ("uint key_group = record[KW + VW + at / GROUP];", "uint key_group = record[KW + VW];"),
    ("record[KW + VW + D / GROUP + at / GROUP]", "record[KW + VW + at / GROUP]"),
    ("w < KEY_BITS / 4; w++", "w < 1; w++"),
    ("record[KW + at * VALUE_BITS / 32 + w]", "record[at * VALUE_BITS / 32 + w]"),
    ("values[out + w * (32 / VALUE_BITS) + i]", "values[out + w * 8 + i]"),
    ("scale_of(value_group) * codes[i]", "scale_of(key_group) * codes[i]"),
    ("(1u << BITS) - 1u", "(1u << BITS) - 2u"),
    ("group & 0xffff0000u", "group"),
)
def test_planted(mistake: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(monkeypatch, kernel, UNPACK, mistake, lambda: [FEW], 0.0)

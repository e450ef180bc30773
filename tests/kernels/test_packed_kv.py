"""The record of the quantized cache: its size, what it costs in precision, and that it is its own inverse."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.errors import UsageError
from qwen_mlx.kernels.packed_kv import PackedKV, pack, steps, times_keys, times_values, unpack

import mlx.core as mx  # isort: skip

BITS = ((8, 8), (4, 4), (8, 4), (4, 8))


@pytest.mark.parametrize(
    ("head_dim", "bits", "nbytes"),
    [
        (128, (8, 8), 272),  # 256 of codes and 16 of scales and biases: 8.5 bits a value
        (128, (4, 4), 144),
        (128, (8, 4), 208),
        (64, (8, 8), 136),
        (256, (4, 4), 288),
        (80, (8, 8), 176),  # two groups of 40
        (96, (4, 4), 112),  # two groups of 48
        (8, (8, 8), 24),
    ],
)
def test_size_of_a_record(head_dim: int, bits: tuple[int, int], nbytes: int) -> None:
    layout = PackedKV(head_dim, *bits)
    assert layout.nbytes == nbytes == head_dim * sum(bits) // 8 + 8 * layout.groups
    assert pack(layout, mx.zeros((2, 3, head_dim)), mx.zeros((2, 3, head_dim))).nbytes == 6 * nbytes


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([8, 40, 64, 80, 96, 128]),
    st.sampled_from(BITS),
    st.integers(0, 1000),
    st.floats(-300, 300),
    st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 1e4]),
)
def test_no_value_is_off_by_more_than_half_a_step(
    head_dim: int, bits: tuple[int, int], seed: int, centre: float, spread: float
) -> None:
    layout = PackedKV(head_dim, *bits)
    keys, values = (centre + spread * mx.random.normal((3, head_dim), key=mx.random.key(seed + i)) for i in (0, 1))
    records = pack(layout, keys, values)
    for x, y, step, levels in zip((keys, values), unpack(layout, records), steps(layout, records), bits):
        rounding = mx.abs(x) * 2**-22 + 1e-37  # of float32 itself, twice
        assert mx.all(mx.abs(x - y) <= step / 2 * 1.0001 + rounding)
        groups = x.reshape(3, -1, layout.group_size)
        room = groups.max(-1) - groups.min(-1) + mx.abs(groups.min(-1)) / 128  # what a bfloat16 bias may add
        assert mx.all(step.reshape(groups.shape).max(-1) <= room / (2**levels - 1) * 1.01 + 1e-37)


@pytest.mark.parametrize("bits", BITS)
def test_packing_again_changes_nothing_much(bits: tuple[int, int]) -> None:
    """What was unpacked lies on the grid: its codes are found again but for a step that the new scale may be wider."""
    layout = PackedKV(64, *bits)
    keys, values = (mx.random.normal((50, 64), key=mx.random.key(i)) for i in (0, 1))
    once = unpack(layout, pack(layout, keys, values))
    again = pack(layout, *once)
    for a, b, step in zip(once, unpack(layout, again), steps(layout, again)):
        assert mx.all(mx.abs(a - b) <= step / 2 * 1.0001)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("head_dim", [8, 64, 80, 128])
def test_products_without_unpacking(head_dim: int, bits: tuple[int, int]) -> None:
    layout = PackedKV(head_dim, *bits)
    keys, values, x = (mx.random.normal((2, 3, 7, head_dim), key=mx.random.key(i)) for i in range(3))
    weights = mx.softmax(mx.random.normal((2, 3, 5, 7), key=mx.random.key(4)), axis=-1)
    records = pack(layout, keys, values)
    keys, values = unpack(layout, records)
    assert mx.allclose(times_keys(layout, x, records), x @ keys.swapaxes(-1, -2), atol=1e-4)
    assert mx.allclose(times_values(layout, weights, records), weights @ values, atol=1e-5)


def test_a_constant_group_is_exact() -> None:
    layout = PackedKV(64, 4, 8)
    values = mx.full((2, 64), -2.5)
    assert all(mx.array_equal(part, values) for part in unpack(layout, pack(layout, values, values)))


def test_nan_is_not_hidden() -> None:
    layout = PackedKV(64, 4, 4)
    bad = mx.zeros((1, 64))
    bad[0, 5] = mx.nan
    assert mx.isnan(unpack(layout, pack(layout, bad, bad))[0]).any()


@pytest.mark.parametrize(("head_dim", "bits"), [(60, (8, 8)), (4, (8, 8)), (64, (3, 8)), (64, (8, 16))])
def test_what_cannot_be_packed_is_refused(head_dim: int, bits: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="quantized"):
        PackedKV(head_dim, *bits)

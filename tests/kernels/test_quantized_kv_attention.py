"""Attention over the quantized cache: the reference against MLX's own attention, the kernel against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qwen_mlx.kernels.packed_kv import PackedKV, pack, unpack
from qwen_mlx.kernels.quantized_kv_attention import ATTEND, MERGE, block_count, geometry, reference
from qwen_mlx.kernels.quantized_kv_attention import quantized_kv_attention as kernel
from tests.kernels.harness import (
    FLOATS,
    Case,
    assert_caught,
    assert_same_gradient,
    launched_every_way,
    needs_simulator,
    worst,
)
from tests.kernels.sweep import first_mistakes

import mlx.core as mx  # isort: skip

TOLERANCE = {mx.float32: 5e-6, mx.float16: 1e-3, mx.bfloat16: 8e-3}  # of the output; the log-sum-exp is float32


def case(
    dims: int = 64,
    bits: tuple[int, int] = (8, 8),
    sharing: int = 2,
    queries: int = 1,
    length: int = 40,
    spare: int = 3,
    window: int | None = None,
    borders: tuple[int, int] | None = None,
    first: tuple[int, ...] = (0, 5),
    dtype: mx.Dtype = mx.float32,
    spread: float = 2.0,
) -> Case:
    """Random heads; `spare` rows of the buffer hold nan after the last token, which nobody may read."""
    layout = PackedKV(dims, *bits)
    keys = [mx.random.key(seed) for seed in range(3)]
    batch, kv_heads = len(first), 2
    rows = queries if borders is None else 3
    q = (spread * mx.random.normal((batch, kv_heads * sharing, rows, dims), key=keys[0])).astype(dtype)
    k, v = (spread * mx.random.normal((batch, kv_heads, length, dims), key=key) for key in keys[1:])
    records = pack(layout, k, v)
    unused = mx.full((batch, kv_heads, spare, layout.words), 0x7FC07FC0, dtype=mx.uint32)
    records = mx.contiguous(mx.concatenate([records, unused], axis=2))
    starts = mx.array([min(start, length - 1) for start in first], dtype=mx.int32)
    options: dict[str, Any] = {"layout": layout, "length": length, "scale": dims**-0.5, "window": window}
    return (q, records, starts), options | {"borders": borders}


# ---------------------------------------------------------------------------------------------- the reference


def mask_of(queries: int, length: int, window: int | None, first: mx.array) -> mx.array:
    """bool (batch, 1, queries, length), by the definition, one pair at a time."""
    rows = []
    for start in first.tolist():
        row = []
        for query in range(length - queries, length):
            sees = [j <= query and (window is None or j > query - window) and j >= start for j in range(length)]
            sees[query] = True
            row.append(sees)
        rows.append([row])
    return mx.array(rows)


@pytest.mark.parametrize("bits", [(8, 8), (4, 4), (8, 4)])
@pytest.mark.parametrize(("queries", "window", "sharing"), [(1, None, 1), (1, 7, 3), (4, None, 4), (3, 11, 2)])
def test_the_reference_is_mlxs_attention(bits: tuple[int, int], queries: int, window: int | None, sharing: int) -> None:
    (q, records, first), options = case(64, bits, sharing, queries, window=window, first=(0, 39, 12))
    out, lse = reference(q, records, first, **options)
    k, v = unpack(options["layout"], records[:, :, : options["length"]])
    mask = mask_of(queries, options["length"], window, first)
    expected = mx.fast.scaled_dot_product_attention(q, k, v, scale=options["scale"], mask=mask)
    assert mx.allclose(out, expected, atol=5e-5)
    scores = (q * options["scale"]) @ mx.repeat(k, sharing, axis=1).swapaxes(-1, -2)
    assert mx.allclose(lse, mx.logsumexp(mx.where(mask, scores, -mx.inf), axis=-1), atol=5e-5)


def test_regions_are_one_softmax() -> None:
    (q, records, first), options = case(64, (8, 4), 2, borders=(10, 25), first=(0,))
    out, _ = reference(q, records, first, **options)
    k, v = (mx.repeat(x, 2, axis=1) for x in unpack(options["layout"], records[:, :, : options["length"]]))
    ranges = zip((0, 10, 25), (10, 25, 40))
    scores = [q[:, :, i : i + 1] @ k[:, :, a:b].swapaxes(-1, -2) for i, (a, b) in enumerate(ranges)]
    weights = mx.softmax(mx.concatenate(scores, axis=-1) * options["scale"], axis=-1)
    assert mx.allclose(out, weights @ v, atol=5e-5)


def test_the_reference_in_parts_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, options = case(64, (4, 4), 3)
    whole = reference(*arrays, **options)
    monkeypatch.setattr("qwen_mlx.kernels.quantized_kv_attention._CPU_VALUES", 1)
    assert worst(reference(*arrays, **options), whole) < 1e-6


# ------------------------------------------------------------------------------------------------- the kernel

CASES = {
    # Qwen's head sizes, and how many query heads share a KV head in its families
    "Qwen2.5-0.5B": case(64, (8, 8), 7, length=100),
    "Qwen3-4B": case(128, (4, 4), 4, length=130, dtype=mx.bfloat16),
    "Qwen3-30B-A3B": case(128, (8, 4), 8, length=70, dtype=mx.float16),
    "Qwen3.5, 256": case(256, (8, 8), 6, length=33, dtype=mx.bfloat16),
    "Qwen2.5-32B": case(128, (8, 8), 5, length=66, window=40),
    "no sharing": case(64, (4, 4), 1, length=65),
    "16 share": case(64, (8, 4), 16, length=20),
    "80": case(80, (8, 8), 3, length=45, dtype=mx.float16),
    "80, 4 bit": case(80, (4, 4), 2, length=45),
    "96": case(96, (8, 4), 2, length=45),
    "several queries": case(64, (8, 8), 2, 5, length=50, window=9),
    "regions": case(64, (8, 8), 4, length=140, borders=(37, 90), first=(0, 0)),
    "only two regions": case(64, (8, 8), 4, length=70, borders=(0, 33), first=(0, 0), spare=0),
}


@needs_simulator
@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name: str) -> None:
    arrays, options = CASES[name]
    found = launched_every_way(kernel, arrays, options)
    expected = kernel.reference(*arrays, **options)
    assert worst(found[:1], expected[:1]) <= TOLERANCE[arrays[0].dtype]
    assert worst(found[1:], expected[1:]) <= TOLERANCE[mx.float32]


@needs_simulator
@pytest.mark.parametrize(
    ("length", "dtype"),
    [(length, mx.float32) for length in (1, 2, 3, 31, 32, 33, 63, 64, 65, 257)]
    + [(length, dtype) for length in (1, 33) for dtype in FLOATS[1:]],
)
def test_any_length(length: int, dtype: mx.Dtype) -> None:
    """Around the number of keys of a step and of a block, with and without room behind the last token."""
    for spare in (0, 1):
        arrays, options = case(64, (8, 8), 2, length=length, spare=spare, first=(0, length // 2, length), dtype=dtype)
        found, expected = launched_every_way(kernel, arrays, options), kernel.reference(*arrays, **options)
        assert worst(found[:1], expected[:1]) <= TOLERANCE[dtype]
        assert worst(found[1:], expected[1:]) <= TOLERANCE[mx.float32]


@needs_simulator
def test_scores_that_overflow_an_exponential() -> None:
    arrays, options = case(64, (8, 8), 2, spread=12.0)
    assert kernel.reference(*arrays, **options)[1].max() > 300  # where float32 has no exponential
    assert worst(launched_every_way(kernel, arrays, options), kernel.reference(*arrays, **options)) < 1e-4


@needs_simulator
def test_the_gradient_is_that_of_the_reference() -> None:
    arrays, options = case(64, (8, 8), 2)
    assert_same_gradient(kernel, arrays, options, 1e-5)


@pytest.mark.parametrize("bits", [(8, 8), (4, 4), (8, 4)])
@pytest.mark.parametrize("dims", [32, 64, 80, 96, 128, 256])
def test_lanes_cover_a_record_and_fit_the_registers(dims: int, bits: tuple[int, int]) -> None:
    layout = PackedKV(dims, *bits)
    for sharing in (*range(1, 17), 24, 32, 64, 128):
        lanes, rows = geometry(layout, sharing)
        per_lane = [-(-words // lanes) for words in (layout.key_words, layout.value_words)]
        assert 32 % lanes == 0 and rows <= 4
        held = sum(count * 32 // width for count, width in zip(per_lane, bits))
        assert rows * held <= 96
        slices = -(-sharing // rows)
        assert slices * rows - sharing < rows  # no SIMD-group without work
    assert all(keys <= block_count(keys) * 1024 for keys in range(1, 131072, 997))


def test_what_the_kernel_was_not_written_for() -> None:
    (q, records, first), options = case()
    assert kernel.eligible(q, records, first, **options)
    assert not kernel.eligible(mx.zeros((2, 4, 9, 64)), records, first, **options)  # too many queries
    assert not kernel.eligible(mx.zeros((2, 4, 1, 112)), records, first, **options | {"layout": PackedKV(112, 8, 8)})
    assert not kernel.eligible(mx.zeros((2, 4, 2, 64)), records, first, **options | {"borders": (3, 6)})


# -------------------------------------------------------------------------------------------- planted mistakes


def few() -> list[Case]:
    """Two groups a key, lanes without a word, ragged slices, several steps a block, window, padding, no spare rows."""
    return [
        case(80, (8, 4), 3, 1, 101, 0, window=90, first=(0, 60)),
        case(80, (8, 4), 3, 1, 9, 2, first=(0, 8)),
        case(80, (8, 4), 3, 3, 41, 0, window=30, first=(0, 40)),
    ]


def few_regions() -> list[Case]:
    return [case(64, (8, 8), 2, length=41, borders=borders, first=(0, 0), spare=0) for borders in ((9, 23), (0, 40))]


def few_blocks() -> list[Case]:
    """Four threadgroups a row; the second has scores that only the largest of all can be subtracted from."""
    return [case(length=1100), case(length=1100, spread=100.0)]


@needs_simulator
@pytest.mark.parametrize(("cases", "tolerance"), [(few, 5e-6), (few_regions, 5e-6), (few_blocks, 2e-3)])
def test_without_a_mistake_nothing_is_caught(cases: Callable[[], list[Case]], tolerance: float) -> None:
    for arrays, options in cases():
        expected = kernel.reference(*arrays, **options)
        assert worst(launched_every_way(kernel, arrays, options), expected) <= tolerance


@needs_simulator
@first_mistakes(
    12,
    (
        "    threadgroup_barrier(mem_flags::mem_threadgroup);\n    float all_top = -INFINITY;",
        "    float all_top = -INFINITY;",
    ),
    ("    threadgroup_barrier(mem_flags::mem_threadgroup);\n}", "}"),
    ("record[KW + VW + word * KPW / GROUP]", "record[KW + VW]"),
    ("size_t(min(key, stop - 1))", "size_t(key)"),
    ("bool inside = key < stop;", "bool inside = key <= stop;"),
    ("key >= low[r]", "key > low[r]"),
    ("key < high[r]", "key < n"),
    ("max(int(first[batch]), high[r] - window)", "high[r] - window"),
    ("keep[r] = seen ? fast::exp2(top[r] - new_top) : 1.0f", "keep[r] = seen ? fast::exp2(top[r] - new_top) : 0.0f"),
    ("for (ushort x = 1; x < LANES; x *= 2)", "for (ushort x = 1; x < LANES / 2; x *= 2)"),
    ("for (ushort x = LANES; x < 32; x *= 2)", "for (ushort x = LANES; x < 16; x *= 2)"),
    ("(n - oldest + blocks - 1) / blocks", "(n - oldest) / blocks"),
    ("if (word < VW) {", "if (word <= VW) {"),
    ("int bh = int(thread_position_in_grid.z);", "int bh = int(thread_position_in_grid.z) / kv_heads * kv_heads;"),
    ("sums[(first_group + p) * D + channel] * share[p]", "sums[p * D + channel] * share[p]"),
    ("sum += weight_sums[first_group + p] * share[p];", "sum += weight_sums[first_group + p];"),
    ("fast::exp2(tops[first_group + p] - all_top)", "1.0f"),
    ("channel < D; channel += 32 * PARTS", "channel < D; channel += D"),
    ("decode<VALUE_BITS>(record[KW + word], values)", "decode<VALUE_BITS>(record[KW + word + 1], values)"),
    ("bias_of(group) * q_sum[r][w]", "bias_of(group) * q_sum[r][0]"),
    ("high[r] = n - L + 1 + query", "high[r] = n - L + query"),
    ("max(int(first[batch]), high[r] - window)", "int(first[batch])"),
    ("high[r] - window), high[r] - 1)", "high[r] - window), high[r])"),
    ("weight_sum[r] * keep[r] + weight[r]", "weight_sum[r] + weight[r]"),
    ("new_top == -INFINITY ? 0.0f : fast::exp2(other_top - new_top)", "fast::exp2(other_top - new_top)"),
    ("int oldest = n - L + 1 - window;", "int oldest = n - L + 4 - window;"),
    ("scale * M_LOG2E_F", "scale"),
    ("return as_type<float>(group << 16);", "return as_type<float>(group & 0xffff0000u);"),
    ("record[KW + VW + D / GROUP + word * VPW / GROUP]", "record[KW + VW + word * VPW / GROUP]"),
)
def test_planted_in_attend(mistake: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(monkeypatch, kernel, ATTEND, mistake, few, 5e-6)


@needs_simulator
@first_mistakes(
    3,
    ("for (int r = 1; r < 3; r++) {", "for (int r = 1; r < 2; r++) {"),
    ("region == r - 1 && place >= pieces", "region == r - 1 && place > pieces"),
    ("place -= pieces;", "place -= pieces - 1;"),
    ("(n + blocks - 3) / (blocks - 2)", "(n + blocks - 1) / (blocks + 2)"),
    ("REGIONS == 1 ? query : region)", "0)"),
    ("* (L * REGIONS)", "* L"),
)
def test_planted_in_the_regions_of_attend(mistake: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(monkeypatch, kernel, ATTEND, mistake, few_regions, 5e-6)


@needs_simulator
@first_mistakes(
    4,
    (
        "for (int block = 0; block < blocks; block++) {\n    top",
        "for (int block = 1; block < blocks; block++) {\n    top",
    ),
    ("float keep = fast::exp2(stats[2 * at] - top);", "float keep = 1.0f;"),
    ("stats[2 * at + 1] * keep", "stats[2 * at + 1]"),
    ("totals[at * D + channel] * keep", "totals[at * D] * keep"),
    ("size_t at = row * blocks + block;", "size_t at = row * blocks;"),
    ("static_cast<T>(total / weight_sum)", "static_cast<T>(total)"),
    ("(top + log2(weight_sum)) * 0.69314718f", "top + log2(weight_sum)"),
    ("(top + log2(weight_sum))", "(top)"),
    ("lse[row] =", "lse[0] ="),
    ("if (channel == 0) {", "if (channel == D) {"),
)
def test_planted_in_merge(mistake: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(monkeypatch, kernel, MERGE, mistake, few_blocks, 2e-3)

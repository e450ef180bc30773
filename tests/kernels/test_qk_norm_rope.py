"""Norm, rotation and packing of new heads, in one launch."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_mlx.kernels.kernel import Kernel
from qwen_mlx.kernels.packed_kv import PackedKV, pack, steps, unpack
from qwen_mlx.kernels.qk_norm_rope import ROTATE, ROTATE_AND_PACK, qk_norm_rope, qk_norm_rope_pack
from tests.kernels.harness import (
    Case,
    assert_caught,
    assert_same_gradient,
    launched_every_way,
    needs_simulator,
    same_bits,
    worst,
)
from tests.kernels.sweep import SWEEP, first_mistakes
from tests.metalsim import metal_kernel

import mlx.core as mx  # isort: skip
import numpy as np

TOLERANCE = {mx.float32: 2e-6, mx.float16: 1e-3, mx.bfloat16: 8e-3}


def case(
    head_dim: int = 64,
    dims: int | None = None,
    heads: tuple[int, int] = (3, 2),
    batch: int = 2,
    length: int = 3,
    normed: bool = True,
    weight: mx.Dtype = mx.float32,
    offsets: tuple[int, ...] = (7, 100),
    copies: int = 1,
    bits: tuple[int, int] | None = None,
    dtype: mx.Dtype = mx.float32,
    q_gain: float = 1.25,
    k_scale: float = 0.75,
) -> Case:
    """Heads as slices of one fused projection; with `bits` also v, for `qk_norm_rope_pack`."""
    dims = dims or head_dim
    q_heads, k_heads = heads
    fused = 2 * mx.random.normal((batch, length, (q_heads + 2 * k_heads) * head_dim), key=mx.random.key(1))
    q, k, v = mx.split(fused.astype(dtype), [q_heads * head_dim, (q_heads + k_heads) * head_dim], axis=-1)
    q, k, v = (x.reshape(batch, length, -1, head_dim) for x in (q, k, v))
    periods = 1e4 ** (mx.arange(0, dims, 2) / dims)
    k_offset = mx.array(offsets, dtype=mx.int32)
    q_offset = mx.array([[offset + 30 * i for i in range(copies)] for offset in offsets], dtype=mx.int32)
    weights = [mx.random.uniform(-1.5, 1.5, (head_dim,), key=mx.random.key(i)).astype(weight) for i in (2, 3)]
    options: dict[str, Any] = {"dims": dims, "eps": 1e-6, "q_gain": q_gain, "k_scale": k_scale}
    positions = (periods, q_offset if copies > 1 else k_offset, k_offset)
    heads_given = (q, k)
    if bits is not None:
        heads_given = (q, k, v)
        options["layout"] = PackedKV(head_dim, *bits)
    return (*heads_given, *positions, *(weights if normed else ())), options


# ---------------------------------------------------------------------------------------------- the reference


@pytest.mark.parametrize("dims", [64, 32])
@pytest.mark.parametrize("normed", [True, False])
def test_the_reference_is_norm_and_rotation_by_the_definition(normed: bool, dims: int) -> None:
    (q, k, periods, q_offset, k_offset, *weights), options = case(dims=dims, normed=normed)
    found = qk_norm_rope.reference(q, k, periods, q_offset, k_offset, *weights, **options)
    for x, weight, gain, scale, result in zip((q, k), weights or (None, None), (1.25, 1.0), (1.0, 0.75), found):
        x = np.array(x, dtype=np.float64)
        if weight is not None:
            x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * np.array(weight)
        for row, offset in enumerate((7, 100)):
            for token in range(3):
                angle = (offset + token) / np.array(periods, dtype=np.float64)
                pairs = (x[row, token, :, : dims // 2] + 1j * x[row, token, :, dims // 2 : dims]) * np.exp(1j * angle)
                expected = np.concatenate([gain * pairs.real, gain * pairs.imag, x[row, token, :, dims:]], -1) * scale
                assert np.allclose(np.array(result[row, :, token]), expected, atol=3e-5)


def test_copies_are_the_same_query_at_other_positions() -> None:
    (q, k, periods, q_offset, k_offset, *weights), options = case(length=1, copies=3)
    three, _ = qk_norm_rope.reference(q, k, periods, q_offset, k_offset, *weights, **options)
    for i in range(3):
        one, _ = qk_norm_rope.reference(q, k, periods, q_offset[:, i], k_offset, *weights, **options)
        assert mx.allclose(three[:, :, i : i + 1], one, atol=1e-6)


def test_records_hold_the_rotated_key() -> None:
    arrays, options = case(bits=(8, 4))
    q, records = qk_norm_rope_pack.reference(*arrays, **options)
    plain = {name: value for name, value in options.items() if name != "layout"}
    rotated, keys = qk_norm_rope.reference(*arrays[:2], *arrays[3:], **plain)
    assert same_bits(q, rotated)
    assert same_bits(records, pack(options["layout"], keys, arrays[2].swapaxes(1, 2)))


# ------------------------------------------------------------------------------------------------- the kernels

CASES: dict[str, dict[str, Any]] = {
    "Qwen3": {"head_dim": 128, "heads": (4, 2)},
    "Qwen2, no norm": {"head_dim": 64, "normed": False},
    "Qwen3-Next, a quarter turns": {"head_dim": 256, "dims": 64, "heads": (2, 1)},
    "80": {"head_dim": 80},
    "96, all rows at one position": {"head_dim": 96, "offsets": (1000,)},
    "three copies, as Dual Chunk Attention needs": {"length": 1, "copies": 3, "normed": False, "offsets": (5,)},
    "no gain, one head each": {
        "heads": (1, 1),
        "length": 1,
        "q_gain": 1.0,
        "k_scale": 1.0,
        "batch": 1,
        "offsets": (0,),
    },
    "more heads than a threadgroup": {"head_dim": 32, "heads": (9, 3), "length": 2},
}


@needs_simulator
@pytest.mark.parametrize("name", CASES)
def test_rotation_equals_the_reference(name: str) -> None:
    arrays, options = case(**CASES[name])
    found = launched_every_way(qk_norm_rope, arrays, options)
    assert worst(found, qk_norm_rope.reference(*arrays, **options)) <= 2e-6


@needs_simulator
@pytest.mark.parametrize(("name", "bits"), list(zip(CASES, 4 * [(8, 4), (4, 4), (8, 8)])))
def test_records_equal_the_reference(name: str, bits: tuple[int, int]) -> None:
    arrays, options = case(**CASES[name], bits=bits)
    check_records(*launched_every_way(qk_norm_rope_pack, arrays, options), arrays, options)


def check_records(q: mx.array, records: mx.array, arrays: Any, options: dict[str, Any]) -> None:
    """q equals; of the codes, one in a hundred may be the neighbour, where a key lies between two."""
    rotated, expected = qk_norm_rope_pack.reference(*arrays, **options)
    assert worst((q,), (rotated,)) <= TOLERANCE[q.dtype]
    layout = options["layout"]
    for a, b, step in zip(unpack(layout, records), unpack(layout, expected), steps(layout, expected)):
        assert mx.all(mx.abs(a - b) <= 1.1 * step)
        assert (a != b).mean().item() < 0.01


@needs_simulator
@pytest.mark.parametrize(
    ("dtype", "weight"),
    [
        (mx.float16, mx.float16),
        (mx.bfloat16, mx.float32),  # how zero-centred families keep it
        *[(mx.float16, mx.float32), (mx.bfloat16, mx.bfloat16)] * SWEEP,
    ],
)
def test_other_types(dtype: mx.Dtype, weight: mx.Dtype) -> None:
    arrays, options = case(weight=weight, dtype=dtype)
    found = launched_every_way(qk_norm_rope, arrays, options)
    assert worst(found, qk_norm_rope.reference(*arrays, **options)) <= TOLERANCE[dtype]
    arrays, options = case(weight=weight, dtype=dtype, bits=(8, 4))
    check_records(*launched_every_way(qk_norm_rope_pack, arrays, options), arrays, options)


@needs_simulator
def test_inputs_go_by_their_strides() -> None:
    """Straight into the simulator, which takes numpy's strides: heads that lie apart, as a gate between them does."""
    arrays, options = case(length=2, bits=(8, 8))
    q, k, v, *rest = (np.array(x) for x in arrays)
    apart = []
    for x in (q, k, v):
        wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, np.float32)
        wide[..., : x.shape[-1]] = x
        apart.append(wide[..., : x.shape[-1]])
    template = {"T": mx.float32, "D": 64, "DIMS": 64, "NORM": True, "COPIES": 1, "SIMD_GROUPS": 8}
    bits = {"KEY_BITS": 8, "VALUE_BITS": 8, "GROUP": 64}
    program = ROTATE_AND_PACK
    simulated = metal_kernel(
        program.name, list(program.inputs), list(program.outputs), program.source, program.header,
        ensure_row_contiguous=False,
    )  # fmt: skip
    q_out, records = simulated(
        inputs=[*apart, *rest, 1e-6, 1.25, 0.75],
        template=list({**template, **bits}.items()),
        grid=(32, 8, 4),
        threadgroup=(32, 8, 1),
        output_shapes=[(2, 3, 2, 64), (2, 2, 2, 34)],
        output_dtypes=[mx.float32, mx.uint32],
    )
    check_records(mx.array(q_out), mx.array(records), arrays, options)


@needs_simulator
@pytest.mark.parametrize("kernel", [qk_norm_rope, qk_norm_rope_pack], ids=lambda kernel: kernel.name)
def test_the_gradient_is_that_of_the_reference(kernel: Kernel) -> None:
    if kernel is qk_norm_rope:
        assert_same_gradient(kernel, *case(), 1e-5)
        return
    arrays, options = case(bits=(8, 8))  # records have no gradient: only q and its weight do
    with_q = [arrays[0], *(mx.stop_gradient(x) for x in arrays[1:])]
    rest = with_q[1:]
    expected = mx.grad(lambda q: kernel.reference(q, *rest, **options)[0].square().sum())(with_q[0])
    from tests.metalsim.simulated import simulated_kernels

    with simulated_kernels():
        assert kernel.runs(*with_q, **options)
        found = mx.grad(lambda q: kernel(q, *rest, **options)[0].square().sum())(with_q[0])
    assert worst((found,), (expected,)) < 1e-5


def test_what_the_kernels_were_not_written_for() -> None:
    arrays, options = case()
    assert qk_norm_rope.eligible(*arrays, **options)
    assert not qk_norm_rope.eligible(*arrays, **options | {"dims": 8})
    assert not qk_norm_rope.eligible(arrays[0], arrays[1].astype(mx.float16), *arrays[2:], **options)


# -------------------------------------------------------------------------------------------- planted mistakes

TURN = (
    ("squares += v * v;", "squares += v;"),
    ("simd_sum(squares) / D + eps", "squares / D + eps"),
    ("simd_sum(squares) / D + eps", "simd_sum(squares) / DIMS + eps"),
    ("float a = float(x[i * step]) * factor * gain;", "float a = float(x[i * step]) * factor;"),
    ("x[(i + DIMS / 2) * step]", "x[(i + D / 2) * step]"),
    ("a *= float(weight[i]);", ""),
    ("b *= float(weight[i + DIMS / 2]);", "b *= float(weight[i]);"),
    ("float angle = position * (1.0f / periods[i]);", "float angle = position * (1.0f / periods[0]);"),
    ("row[i] = a * c - b * s;", "row[i] = a * c + b * s;"),
    ("row[i + DIMS / 2] = a * s + b * c;", "row[i + D / 2] = a * s + b * c;"),
    ("for (int i = DIMS + lane; i < D; i += 32)", "for (int i = DIMS + lane; i < D - 1; i += 32)"),
    ("(NORM ? float(weight[i]) : 1.0f)", "1.0f"),
    ("float factor = scale;", "float factor = 1.0f;"),
    ("q_offset_shape[0] == 1 ? 0 : batch", "0"),
    ("k_offset_shape[0] == 1 ? 0 : batch] + token)", "k_offset_shape[0] == 1 ? 0 : batch])"),
    ("threadgroup float* row = rows + simdgroup_index_in_threadgroup * D;", "threadgroup float* row = rows;"),
    ("position, q_gain, 1.0f, lane, row);", "position, 1.0f, 1.0f, lane, row);"),
    ("(size_t(batch) * q_heads + head) * (COPIES * length)", "(size_t(batch) * k_heads + head) * (COPIES * length)"),
)
PARTIAL = {"head_dim": 96, "dims": 32, "length": 2}
FEW, FEW_COPIES, FEW_PACKED = case(**PARTIAL), case(length=1, copies=3), case(**PARTIAL, bits=(8, 4))


@needs_simulator
@pytest.mark.parametrize(
    ("kernel", "few"), [(qk_norm_rope, FEW), (qk_norm_rope, FEW_COPIES), (qk_norm_rope_pack, FEW_PACKED)]
)
def test_without_a_mistake_nothing_is_caught(kernel: Kernel, few: Case) -> None:
    arrays, options = few
    assert worst(launched_every_way(kernel, arrays, options), kernel.reference(*arrays, **options)) <= 2e-6


@needs_simulator
@first_mistakes(
    11,
    (
        "position, q_gain, 1.0f, lane, row);\n    simdgroup_barrier(mem_flags::mem_threadgroup);",
        "position, q_gain, 1.0f, lane, row);",
    ),
    ("((size_t(batch) * k_heads + head) * length + token) * D", "(size_t(batch) * k_heads + head + token) * D"),
    *TURN,
)
def test_planted_in_rotate(mistake: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(monkeypatch, qk_norm_rope, ROTATE, mistake, lambda: [FEW], 2e-6)


@needs_simulator
@first_mistakes(
    2,
    ("* COPIES + copy] + token", "* COPIES] + token"),
    ("int copy = head / q_heads;", "int copy = 0;"),
    ("copy * length + token", "token"),
)
def test_planted_in_the_copies(mistake: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(monkeypatch, qk_norm_rope, ROTATE, mistake, lambda: [FEW_COPIES], 2e-6)


@needs_simulator
@first_mistakes(
    11,
    ("        simdgroup_barrier(mem_flags::mem_threadgroup);\n        pack<D, KEY_BITS", "        pack<D, KEY_BITS"),
    ("float least = row[group * GROUP];", "float least = 0.0f;"),
    ("int i = 1; i < GROUP; i++", "int i = 1; i < GROUP - 1; i++"),
    ("least = min(least, row[group * GROUP + i]);", "least = min(least, row[i]);"),
    ("rounded_down(least)", "least"),
    ("x < 0.0f ? bits + 0xffffu : bits", "bits"),
    ("rounded_up((most - bias) / LEVELS)", "rounded_down((most - bias) / LEVELS)"),
    ("clamp(rint(steps), 0.0f, LEVELS)", "clamp(floor(steps), 0.0f, LEVELS)"),
    ("<< (BITS * i)", "<< (4 * i)"),
    ("if (word * PER_WORD % GROUP == 0) {", "if (word == 0) {"),
    ("(as_type<uint>(scale) >> 16) | as_type<uint>(bias)", "as_type<uint>(scale) | (as_type<uint>(bias) >> 16)"),
    ("bool is_key = head < k_heads;", "bool is_key = head <= k_heads;"),
    ("record + KW + VW + D / GROUP, lane", "record + KW + VW, lane"),
    ("pack<D, VALUE_BITS, GROUP>(row, record + KW,", "pack<D, VALUE_BITS, GROUP>(row, record,"),
    ("* length + token) * WORDS", "* length) * WORDS"),
    ("head * v_strides[2] + i * v_strides[3]", "i * v_strides[3]"),
    *TURN[2:5],
)
def test_planted_in_the_packing(mistake: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(monkeypatch, qk_norm_rope_pack, ROTATE_AND_PACK, mistake, lambda: [FEW_PACKED], 2e-6)

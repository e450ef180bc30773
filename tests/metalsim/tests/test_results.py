"""Correct kernels give correct results, in every order of their threads."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.metalsim import metal_kernel
from tests.metalsim.launch import SCHEDULES, Schedule
from tests.metalsim.signature import ATTRIBUTES
from tests.metalsim.tests import rms_norm

pytestmark = pytest.mark.usefixtures("compiler")

ORDERS = get_args(Schedule)


def test_every_schedule_is_tried():
    assert set(ORDERS) == set(SCHEDULES)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("schedule", ORDERS)
def test_rms_norm(dtype, schedule):
    """Sums are in float32 and the result is rounded once: half a unit in the last place."""
    got, expected = rms_norm.compute(dtype=dtype, schedule=schedule), rms_norm.reference(dtype)
    unit = {mx.float32: 0, mx.float16: 2**-11, mx.bfloat16: 2**-8}[dtype]
    smallest = 2**-24 if dtype == mx.float16 else 0  # half of the smallest half
    assert (mx.abs(got.astype(mx.float32) - expected) <= mx.abs(expected) * (unit + 2e-6) + smallest).all()


def test_unchecked_gives_the_same_bits():
    expected = rms_norm.compute()
    for options in ({}, {"threads": 2}, {"schedule": "greedy"}):
        assert mx.array_equal(rms_norm.compute(checked=False, **options), expected)


REDUCTIONS = {
    "simd_sum": np.sum,
    "simd_max": np.max,
    "simd_min": np.min,
    "simd_and": np.bitwise_and.reduce,
    "simd_or": np.bitwise_or.reduce,
    "simd_xor": np.bitwise_xor.reduce,
}


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=150),
    schedule=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**32 - 1),
)
def test_reductions_and_scans(values, schedule, seed):
    """Over SIMD-groups of which the last may be short; integers wrap around."""
    source = "uint i = thread_position_in_grid.x;\n" + "\n".join(
        f"out[{row} * threads_per_grid.x + i] = {name}(x[i]);" for row, name in enumerate([*REDUCTIONS, *_SCANS])
    )
    x = np.array(values, np.int32)
    n = len(values)
    kernel = metal_kernel("reductions", ["x"], ["out"], source)
    got = kernel(
        inputs=[np.resize(x, max(n, 8))], grid=(n, 1, 1), threadgroup=(64, 1, 1), schedule=schedule, seed=seed,
        output_shapes=[(len(REDUCTIONS) + len(_SCANS), n)], output_dtypes=[mx.int32],
    )[0]  # fmt: skip
    rows = np.array(got)
    for first in range(0, n, 32):
        part = x[first : first + 32]
        for row, reduce in enumerate(REDUCTIONS.values()):
            expected = np.int64(reduce(part, dtype=np.int64)) if reduce is np.sum else reduce(part)
            assert (rows[row, first : first + 32] == np.int64(expected).astype(np.int32)).all()
        for row, exclusive in enumerate(_SCANS.values(), start=len(REDUCTIONS)):
            sums = np.cumsum(part, dtype=np.int64) - (part if exclusive else 0)
            assert (rows[row, first : first + 32] == sums.astype(np.int32)).all()


_SCANS = {"simd_prefix_inclusive_sum": False, "simd_prefix_exclusive_sum": True}


def test_shuffles():
    """What each lane gets, as the Metal Shading Language says it."""
    sources = {
        "simd_shuffle(v, 31 - i)": lambda i: 31 - i,
        "simd_broadcast(v, 7)": lambda i: 7,
        "simd_broadcast_first(v)": lambda i: 0,
        "simd_shuffle_xor(v, 5)": lambda i: i ^ 5,
        "simd_shuffle_rotate_up(v, 3)": lambda i: (i - 3) % 32,
        "simd_shuffle_rotate_down(v, 3)": lambda i: (i + 3) % 32,
        "i < 3 ? (simd_shuffle_up(v, 3), v) : simd_shuffle_up(v, 3)": None,
        "quad_shuffle_xor(v, 2)": lambda i: i ^ 2,
        "quad_broadcast(v, 1)": lambda i: i // 4 * 4 + 1,
        "simd_shuffle_and_fill_down(v, v + 100.0f, 2)": lambda i: i + 2 if i < 30 else i - 30 + 100,
        "quad_sum(v)": lambda i: 4 * (i // 4 * 4) + 6,
        "float(ulong(simd_ballot(i % 3 == 0)) >> i & 1)": lambda i: int(i % 3 == 0),
        "float(simd_any(i == 9)) + 2 * float(simd_all(i < 32)) + 4 * float(simd_all(i < 31))": lambda i: 3,
        "float(simd_is_first())": lambda i: int(i == 0),
    }
    sources = {text: lane for text, lane in sources.items() if lane}
    body = "uint i = thread_index_in_simdgroup; float v = float(i);\n" + "\n".join(
        f"out[{32 * row} + i] = {text};" for row, text in enumerate(sources)
    )
    out = metal_kernel("shuffles", ["x"], ["out"], body)(
        inputs=[0], grid=(32, 1, 1), threadgroup=(32, 1, 1),
        output_shapes=[(len(sources), 32)], output_dtypes=[mx.float32],
    )[0]  # fmt: skip
    for row, (text, lane) in zip(out.tolist(), sources.items()):
        assert row == [lane(i) for i in range(32)], text


@settings(max_examples=25, deadline=None)
@given(data=st.data(), shape=st.lists(st.integers(1, 6), min_size=2, max_size=4))
def test_strides(data, shape):
    """A kernel that follows `x_strides` sees the array, however it lies in memory; else it gets a contiguous copy."""
    axes = data.draw(st.permutations(range(len(shape))))
    steps = [data.draw(st.integers(1, 2)) for _ in shape]
    base = mx.arange(math.prod(shape)).reshape(shape).astype(mx.bfloat16)
    x = base[tuple(slice(None, None, step) for step in steps)].transpose(axes)
    assume(x.size >= 8)  # or it would be another kernel to compile
    call = {
        "inputs": [x], "grid": (x.size, 1, 1), "threadgroup": (32, 1, 1),
        "output_shapes": [x.shape], "output_dtypes": [x.dtype],
    }  # fmt: skip
    at = "elem_to_loc(i, x_shape, x_strides, x_ndim)"
    follow = f"uint i = thread_position_in_grid.x; out[i] = x[{at}];"
    got = metal_kernel("follow", ["x"], ["out"], follow, ensure_row_contiguous=False)(**call)[0]
    assert mx.array_equal(got, x)
    plain = "uint i = thread_position_in_grid.x; out[i] = x[i];"
    assert mx.array_equal(metal_kernel("plain", ["x"], ["out"], plain)(**call)[0], x)


def test_broadcast_inputs_and_numpy_strides():
    source = "uint i = thread_position_in_grid.x; out[i] = x[elem_to_loc(i, x_shape, x_strides, x_ndim)];"
    kernel = metal_kernel("follow", ["x"], ["out"], source, ensure_row_contiguous=False)
    for x in (mx.broadcast_to(mx.arange(3.0)[:, None], (3, 4)), np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]):
        got = kernel(
            inputs=[x], grid=(x.size, 1, 1), threadgroup=(4, 1, 1), output_shapes=[x.shape], output_dtypes=[mx.float32]
        )[0]
        assert mx.array_equal(got, mx.array(x))


@pytest.mark.parametrize("grid, group", [((70, 3, 2), (32, 2, 1)), ((5, 1, 1), (64, 1, 1)), ((33, 5, 3), (8, 4, 2))])
def test_every_attribute(grid, group):
    """Each has the value the Metal Shading Language gives it, in threadgroups that the edge of the grid cuts, too."""
    names = sorted(ATTRIBUTES)
    wanted = [(name, axis) for name in names for axis in ("xyz" if ATTRIBUTES[name] == "uint3" else [""])]
    values = ", ".join(f"{name}.{axis}" if axis else name for name, axis in wanted)
    source = f"""
    uint values[] = {{{values}}};
    uint3 p = thread_position_in_grid, n = threads_per_grid;
    for (int i = 0; i < {len(wanted)}; i++) {{ out[((p.z * n.y + p.y) * n.x + p.x) * {len(wanted)} + i] = values[i]; }}
    """
    shape = (*reversed(grid), len(wanted))
    out = np.array(
        metal_kernel("attributes", ["x"], ["out"], source)(
            inputs=[0], grid=grid, threadgroup=group, output_shapes=[shape], output_dtypes=[mx.uint32]
        )[0]
    )
    full = [min(a, b) for a, b in zip(group, grid)]
    for position in itertools.product(*map(range, grid)):
        got = dict(zip(wanted, out[tuple(reversed(position))].tolist()))
        where = [p // size for p, size in zip(position, full)]
        inside = [p % size for p, size in zip(position, full)]
        size = [min(size, threads - w * size) for w, size, threads in zip(where, full, grid)]
        index = inside[0] + size[0] * (inside[1] + size[1] * inside[2])
        expected = {
            "grid_origin": [0, 0, 0],
            "grid_size": grid,
            "threads_per_grid": grid,
            "thread_position_in_grid": position,
            "thread_position_in_threadgroup": inside,
            "threadgroup_position_in_grid": where,
            "threadgroups_per_grid": [-(-threads // size) for threads, size in zip(grid, full)],
            "threads_per_threadgroup": size,
            "dispatch_threads_per_threadgroup": full,
            "thread_index_in_threadgroup": index,
            "thread_index_in_simdgroup": index % 32,
            "simdgroup_index_in_threadgroup": index // 32,
            "thread_index_in_quadgroup": index % 4,
            "quadgroup_index_in_threadgroup": index // 4,
            "simdgroups_per_threadgroup": -(-math.prod(size) // 32),
            "quadgroups_per_threadgroup": -(-math.prod(size) // 4),
            "dispatch_simdgroups_per_threadgroup": -(-math.prod(full) // 32),
            "dispatch_quadgroups_per_threadgroup": -(-math.prod(full) // 4),
            "threads_per_simdgroup": 32,
            "thread_execution_width": 32,
        }
        for (name, axis), value in got.items():
            want = expected[name]["xyz".index(axis)] if axis else expected[name]
            assert value == want, (name, axis, position)


def test_conversions_round_as_mlx_does():
    """Every half and bfloat, and floats between them, to nearest, ties to even."""
    bits = mx.arange(65536).astype(mx.uint16)
    source = "for (uint i = thread_position_in_grid.x; i < 65536; i += 1024) { out[i] = static_cast<T>(x[i]); }"
    kernel = metal_kernel("narrow", ["x"], ["out"], source, checked=False)
    for narrow in (mx.float16, mx.bfloat16):
        exact = bits.view(narrow).astype(mx.float32)
        exact = mx.where(mx.isnan(exact), mx.zeros_like(exact), exact)
        for factor in (1.0, 1.0 + 2**-9, 1.0 + 2**-12, 1.0 - 2**-10):
            x = exact * factor
            got = kernel(
                inputs=[x], template=[("T", narrow)], grid=(1024, 1, 1), threadgroup=(1024, 1, 1),
                output_shapes=[x.shape], output_dtypes=[narrow],
            )[0]  # fmt: skip
            assert mx.array_equal(got.view(mx.uint16), x.astype(narrow).view(mx.uint16))


@pytest.mark.parametrize("checked", [True, False])
def test_atomics_and_initial_values(checked):
    x = mx.array(np.random.default_rng(1).integers(0, 10, 5000), mx.int32)
    source = "atomic_fetch_add_explicit(&out[x[thread_position_in_grid.x]], 1, memory_order_relaxed);"
    kernel = metal_kernel("histogram", ["x"], ["out"], source, atomic_outputs=True, checked=checked)
    for schedule in ORDERS:
        counts = kernel(
            inputs=[x], grid=(5000, 1, 1), threadgroup=(64, 1, 1), output_shapes=[(10,)], output_dtypes=[mx.int32],
            init_value=3, schedule=schedule, threads=1 if checked else 2,
        )[0]  # fmt: skip
        assert (np.array(counts) == np.bincount(np.array(x), minlength=10) + 3).all()


def test_atomic_functions():
    source = """
    threadgroup atomic_int total[1];
    threadgroup atomic<float> most;
    uint i = thread_position_in_grid.x;
    if (i == 0) {
        atomic_store_explicit(total, 0, memory_order_relaxed);
        atomic_store_explicit(&most, 0.0f, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    atomic_fetch_add_explicit(total, int(i), memory_order_relaxed);
    float seen = atomic_load_explicit(&most, memory_order_relaxed);
    while (seen < float(i) &&
           !atomic_compare_exchange_weak_explicit(
               &most, &seen, float(i), memory_order_relaxed, memory_order_relaxed)) {}
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (i == 0) {
        out[0] = atomic_load_explicit(total, memory_order_relaxed);
        out[1] = int(atomic_load_explicit(&most, memory_order_relaxed));
        out[2] = atomic_exchange_explicit(total, 7, memory_order_relaxed);
        out[3] = atomic_fetch_max_explicit(total, 9, memory_order_relaxed);
        out[4] = atomic_fetch_sub_explicit(total, 1, memory_order_relaxed);
        out[5] = atomic_fetch_or_explicit(total, 3, memory_order_relaxed);
        out[6] = atomic_load_explicit(total, memory_order_relaxed);
    }
    """
    for schedule in ORDERS:
        got = metal_kernel("atomics", ["x"], ["out"], source)(
            inputs=[0], grid=(100, 1, 1), threadgroup=(100, 1, 1), output_shapes=[(7,)], output_dtypes=[mx.int32],
            schedule=schedule,
        )[0]  # fmt: skip
        assert got.tolist() == [4950, 99, 4950, 7, 9, 8, 11]


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_simdgroup_matrix(dtype):
    source = """
    simdgroup_matrix<T, 8, 8> a, b, bt;
    simdgroup_float8x8 c = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    threadgroup float sh[64];
    for (int k = 0; k < 16; k += 8) {
      simdgroup_load(a, x + k, 16);
      simdgroup_load(b, y + k * 8, 8);
      simdgroup_load(bt, z + k, 16, ulong2(0, 0), true);
      simdgroup_multiply_accumulate(c, a, b, c);
      simdgroup_multiply_accumulate(c, a, bt, c);
    }
    simdgroup_store(c, sh, 8);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = thread_index_in_simdgroup; i < 64; i += 32) { out[i] = sh[i]; }
    """
    keys = mx.random.split(mx.random.key(0), 3)
    x, y, z = (mx.random.normal(s, key=k).astype(dtype) for s, k in zip([(8, 16), (16, 8), (8, 16)], keys))
    got = metal_kernel("product", ["x", "y", "z"], ["out"], source)(
        inputs=[x, y, z], template=[("T", dtype)], grid=(32, 1, 1), threadgroup=(32, 1, 1),
        output_shapes=[(8, 8)], output_dtypes=[mx.float32],
    )[0]  # fmt: skip
    x, y, z = (np.array(a.astype(mx.float32), np.float64) for a in (x, y, z))
    assert np.abs(np.array(got) - (x @ y + x @ z.T)).max() < 1e-5


def test_vectors_structs_and_other_types():
    header = """
    struct Pair { float a; int b; };
    constant float table[3] = {1.0f, 2.0f, 3.0f};
    template <typename U> struct Twice { static U of(U v) { return v + v; } };
    """
    source = """
    threadgroup Pair pairs[4];
    threadgroup float2 plane[2][3];
    uint i = thread_position_in_grid.x;
    if (i < 4) { Pair p = {float(i), int(i) * 2}; pairs[i].a = p.a; pairs[i].b = p.b; }
    if (i < 6) { plane[i / 3][i % 3] = float2(i, 1); }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    using V = vec<float, 4>;
    V v = V(float2(1, 2), 3, 4);
    uchar4 packed = as_type<uchar4>(uint(0x04030201));
    float sum = dot(v.xyz, float3(table[0], table[1], table[2])) + v.w + float(packed.y + packed.w);
    half2 h = half2(v.xy) * half(2);
    out[i] = sum + float(h.x + h.y) + pairs[3 - i % 4].a + float(pairs[i % 4].b) + plane[1][2].x + plane[0][1].y +
        Twice<float>::of(0.5f) + float(clamp(int(i), 1, 2)) + select(1.0f, 2.0f, i == 0) + fma(2.0f, 3.0f, 4.0f);
    flags[i] = i % 2;
    large[i] = long(i) << 40;
    numbers[i].real = -1.0f;
    numbers[i].imag = float(i);
    """
    kernel = metal_kernel("types", ["x"], ["out", "flags", "large", "numbers"], source, header)
    out, flags, large, numbers = kernel(
        inputs=[True], grid=(8, 1, 1), threadgroup=(8, 1, 1), output_shapes=[(8,)] * 4,
        output_dtypes=[mx.float32, mx.bool_, mx.int64, mx.complex64],
    )  # fmt: skip
    expected = [
        24 + 6 + (3 - i % 4) + 2 * (i % 4) + 5 + 1 + 1 + min(max(i, 1), 2) + (2 if i == 0 else 1) + 10 for i in range(8)
    ]
    assert out.tolist() == expected
    assert flags.tolist() == [False, True] * 4 and flags.dtype == mx.bool_
    assert large.tolist() == [i << 40 for i in range(8)]
    assert np.array_equal(np.array(numbers), np.arange(8) * 1j - 1)


def test_statistics_and_verbose(capsys):
    kernel = metal_kernel("k", ["x"], ["out"], "uint i = thread_position_in_grid.x; out[i] = x[i];")
    call = {"inputs": [mx.zeros(96)], "output_shapes": [(96,)], "output_dtypes": [mx.float32]}
    kernel(**call, grid=(96, 1, 1), threadgroup=(32, 1, 1), verbose=True)
    assert (kernel.statistics.accesses, kernel.statistics.threads) == (192, 96)
    assert "[[kernel]] void custom_kernel_k_float_float(" in capsys.readouterr().out


def test_arguments_that_make_no_sense():
    kernel = metal_kernel("k", ["x"], ["out"], "out[thread_position_in_grid.x] = x[0];")
    call = {"inputs": [1.0], "output_shapes": [(8,)], "output_dtypes": [mx.float32]}
    with pytest.raises(ValueError, match="empty grid"):
        kernel(**call, grid=(0, 1, 1), threadgroup=(1, 1, 1))
    with pytest.raises(ValueError, match="2048 threads"):
        kernel(**call, grid=(2048, 1, 1), threadgroup=(2048, 1, 1))
    with pytest.raises(ValueError, match="schedule 'backwards'"):
        kernel(**call, grid=(8, 1, 1), threadgroup=(8, 1, 1), schedule="backwards")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="several threads"):
        kernel(**call, grid=(8, 1, 1), threadgroup=(8, 1, 1), threads=2)
    with pytest.raises(ValueError, match="float64"):
        kernel(inputs=[np.zeros(3)], output_shapes=[(8,)], output_dtypes=[mx.float64], grid=(8, 1, 1),
               threadgroup=(8, 1, 1))  # fmt: skip

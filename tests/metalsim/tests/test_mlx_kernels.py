"""Kernels that others wrote and that run on many Macs: MLX's own, from the headers in its wheel, unmodified."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.metalsim import KernelError, metal_kernel

pytestmark = pytest.mark.usefixtures("compiler")

FOLDER = "mlx/backend/metal/kernels"


def random(shape: tuple[int, ...], dtype: mx.Dtype, seed: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


@pytest.mark.parametrize("dtype, tolerance, queries", [(mx.float32, 1e-6, 3), (mx.bfloat16, 4e-3, 1)], ids=str)
def test_decode_attention(dtype, tolerance, queries):
    """sdpa_vector, four query heads to a key head, with a causal mask for several queries."""
    heads, key_heads, keys, size = 8, 2, 96, 64
    q = random((1, heads, queries, size), dtype, 1)
    k, v = (random((1, key_heads, keys, size), dtype, seed) for seed in (2, 3))
    kernel = metal_kernel(
        "sdpa_vector_call",
        ["q", "k", "v", "factor", "n", "head_stride", "stride", "scale"],
        ["out"],
        """sdpa_vector<T, D>(
            q, k, v, out, factor, n, head_stride, stride, head_stride, stride, scale, nullptr, nullptr, n, n, n,
            nullptr, n, threadgroup_position_in_grid, threadgroups_per_grid, simdgroup_index_in_threadgroup,
            thread_index_in_simdgroup);""",
        header=f'#include "{FOLDER}/sdpa_vector.h"\n',
        constants={"do_causal": queries > 1},
    )
    strides = [mx.array(keys * size, mx.uint64), mx.array(size, mx.uint64)]
    got = kernel(
        inputs=[q, k, v, heads // key_heads, keys, *strides, size**-0.5], template=[("T", dtype), ("D", size)],
        grid=(heads * 1024, queries, 1), threadgroup=(1024, 1, 1), output_shapes=[q.shape], output_dtypes=[dtype],
    )[0]  # fmt: skip
    q, k, v = (a.astype(mx.float32) for a in (q, k, v))
    expected = mx.fast.scaled_dot_product_attention(q, k, v, scale=size**-0.5, mask="causal" if queries > 1 else None)
    assert mx.abs(got.astype(mx.float32) - expected).max().item() < tolerance


def test_prefill_attention():
    """Steel attention: causal, two query heads to a key head, lengths that do not fill a block."""
    heads, key_heads, queries, keys, size, block = 2, 1, 40, 72, 64, 32
    q = random((1, heads, queries, size), mx.float32, 1)
    k, v = (random((1, key_heads, keys, size), mx.float32, seed) for seed in (2, 3))
    blocks = -(-queries // block), -(-keys // block)
    params = struct.pack(
        "<6if7i12q",
        1, heads, size, queries, keys, heads // key_heads, size**-0.5,
        *blocks, queries // block, keys // block, queries % block, keys % block, keys - queries,
        *(heads * queries * size, queries * size, size), *(key_heads * keys * size, keys * size, size) * 2,
        *(heads * queries * size, queries * size, size),
    )  # fmt: skip
    kernel = metal_kernel(
        "steel_attention_call",
        ["q", "k", "v", "params"],
        ["out"],
        """attention<T, 32, 32, D, D, 4, 1, T, float>(
            q, k, v, out, (const constant AttnParams*)size_t(params), nullptr, nullptr, nullptr, nullptr,
            thread_index_in_simdgroup, simdgroup_index_in_threadgroup, threadgroup_position_in_grid,
            thread_position_in_threadgroup);""",
        header=f'#include "{FOLDER}/steel/attn/kernels/steel_attention.h"\n',
        constants={"do_causal": True},
    )
    got = kernel(
        inputs=[q, k, v, np.frombuffer(params, np.uint8)], template=[("T", mx.float32), ("D", size)],
        grid=(blocks[0] * 32, heads * 4, 1), threadgroup=(32, 4, 1), output_shapes=[q.shape],
        output_dtypes=[mx.float32],
    )[0]  # fmt: skip
    expected = mx.fast.scaled_dot_product_attention(q, k, v, scale=size**-0.5, mask="causal")
    assert mx.abs(got - expected).max().item() < 2e-6


QUANTIZED = "".join(
    f'#include "{FOLDER}/{file}"\n' for file in ("quantized_utils.h", "steel/gemm/gemm.h", "quantized.h")
)


def quantized(rows: int, columns: int, bits: int, dtype: mx.Dtype) -> tuple[tuple[Any, ...], mx.array]:
    """A matrix in MLX's format, and what it stands for in float32."""
    words, scales, biases = mx.quantize(random((rows, columns), mx.float32, 4), 64, bits)
    scales, biases = scales.astype(dtype), biases.astype(dtype)
    plain = mx.dequantize(words, scales.astype(mx.float32), biases.astype(mx.float32), 64, bits)
    return (words, scales, biases), plain


def test_quantized_matrix_times_matrix():
    """qmm_t: SIMD-group matrices, block loaders through threadgroup memory, rows that do not fill a block."""
    rows, columns, batch = 64, 128, 33
    stored, plain = quantized(rows, columns, 4, mx.float32)
    x = random((batch, columns), mx.float32, 6)
    kernel = metal_kernel(
        "qmm_call",
        ["w", "scales", "biases", "x", "columns", "rows", "batch"],
        ["y"],
        """affine_qmm_t<T, 64, 4, true, false>(
            w, scales, biases, x, y, columns, rows, batch, columns, nullptr, nullptr, columns, nullptr, nullptr,
            nullptr, nullptr, threadgroup_position_in_grid, thread_index_in_threadgroup,
            simdgroup_index_in_threadgroup, thread_index_in_simdgroup);""",
        header=QUANTIZED,
    )
    got = kernel(
        inputs=[*stored, x, columns, rows, batch], template=[("T", mx.float32)],
        grid=(32 * 2, 2 * 2, 2), threadgroup=(32, 2, 2), output_shapes=[(batch, rows)], output_dtypes=[mx.float32],
    )[0]  # fmt: skip
    assert np.allclose(np.array(got), np.array(x @ plain.T), rtol=1e-5, atol=1e-4)


def test_a_race_that_mlx_lm_has(monkeypatch):
    """Its KL divergence overwrites `shared` while others may still read it: another legal order, another sum."""
    spec = importlib.util.find_spec("mlx_lm")
    if not spec or not spec.submodule_search_locations:
        pytest.skip("mlx-lm is not installed")
    text = (Path(spec.submodule_search_locations[0]) / "tuner" / "losses.py").read_text(encoding="utf-8")
    # The file alone: to import the package takes seconds.
    losses: dict[str, Any] = {}
    monkeypatch.setattr(mx.fast, "metal_kernel", metal_kernel)
    exec(text.replace("from ..utils import can_run_metal", "can_run_metal = lambda: True"), losses)
    kernel = losses["_make_kl_forward_kernel"]()
    q, p = (random((1, 4096), mx.float32, seed) for seed in (1, 2))
    call = {
        "inputs": [q, p], "template": [("T", mx.float32), ("V", 4096)], "grid": (1024, 1, 1),
        "threadgroup": (1024, 1, 1), "output_shapes": [(1,)], "output_dtypes": [mx.float32],
    }  # fmt: skip
    with pytest.raises(KernelError) as caught:
        kernel(**call)
    assert all(f.kind == "data race" and "shared[" in f.message for f in caught.value.findings)
    unchecked = metal_kernel(kernel.name, kernel.input_names, kernel.output_names, kernel.source, checked=False)
    sums = [unchecked(**call, schedule=order)[0].item() for order in ("forward", "greedy")]
    assert abs(sums[0] - sums[1]) > 0.01 * abs(sums[0])

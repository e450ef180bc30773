"""A correct kernel with everything a planted bug needs: a reduction in two stages, ragged rows, three buffers."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from tests.metalsim import metal_kernel

SOURCE = """\
constexpr int R = (D + TG - 1) / TG;
threadgroup float buf[TG / 32];
uint t = thread_position_in_threadgroup.x;
size_t base = size_t(threadgroup_position_in_grid.x) * D;
float v[R];
float s = 0.0f;
for (int i = 0; i < R; i++) {
    int d = t + i * TG;
    v[i] = d < D ? float(x[base + d]) : 0.0f;
    s += v[i] * v[i];
}
s = simd_sum(s);
if (thread_index_in_simdgroup == 0) {
    buf[simdgroup_index_in_threadgroup] = s;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
s = simd_sum(thread_index_in_simdgroup < TG / 32 ? buf[thread_index_in_simdgroup] : 0.0f);
float r = metal::precise::rsqrt(s / D + eps);
for (int i = 0; i < R; i++) {
    int d = t + i * TG;
    if (d < D) {
        out[base + d] = static_cast<T>(v[i] * r * float(w[d]));
    }
}
"""
ROWS, COLUMNS, THREADS = 3, 1000, 256


def arrays(dtype: mx.Dtype = mx.float32, columns: int = COLUMNS) -> tuple[mx.array, mx.array]:
    x, w = mx.random.split(mx.random.key(7))
    return mx.random.normal((ROWS, columns), key=x).astype(dtype), mx.random.normal((columns,), key=w).astype(dtype)


def compute(
    source: str = SOURCE, dtype: mx.Dtype = mx.float32, columns: int = COLUMNS, header: str = "", **options: Any
) -> mx.array:
    x, w = arrays(dtype, columns)
    build = {name: options.pop(name) for name in ("checked",) if name in options}
    kernel = metal_kernel("rms", ["x", "w", "eps"], ["out"], source, header, **build)
    return kernel(
        inputs=[x, w, 1e-6],
        template=[("T", dtype), ("D", columns), ("TG", THREADS)],
        grid=(ROWS * THREADS, 1, 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[x.shape],
        output_dtypes=[dtype],
        **options,
    )[0]


def reference(dtype: mx.Dtype = mx.float32, columns: int = COLUMNS) -> mx.array:
    """In float32, as MLX's own on a CPU rounds more than once."""
    x, w = (a.astype(mx.float32) for a in arrays(dtype, columns))
    return mx.fast.rms_norm(x, w, 1e-6)


def changed(old: str, new: str, source: str = SOURCE) -> str:
    """The kernel with a mistake in it."""
    assert source.count(old) >= 1, old
    return source.replace(old, new)

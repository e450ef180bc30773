"""The same Metal sources on NVIDIA GPUs: `metal_kernel` here is called as MLX's, and builds `mx.fast.cuda_kernel`.

A SIMD-group is a warp, a threadgroup a block, threadgroup memory shared memory, and MLX calls kernels of both kinds the
same way. So the words of Metal become macros and functions of CUDA (`PRELUDE`), and only two things are rewritten:
declarations of threadgroup variables, and numbers among the inputs, which CUDA kernels get as pointers.

This is no Metal compiler. What it does not know, the CUDA compiler refuses: constructors of vectors (`float4(...)`),
simdgroup matrices, atomic operations, images.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx

PRELUDE = r"""
#include <cuda_bf16.h>
#include <cuda_fp16.h>
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef __half float16_t;
typedef __nv_bfloat16 bfloat16_t;
typedef __nv_bfloat16 bfloat;
#define METAL_FUNC __forceinline__
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#define M_PI_F 3.14159265358979323846f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LN2_F 0.693147180559945309417f

namespace metal {
#define QWEN_MATHEMATICS                                                                          \
  using ::exp; using ::exp2; using ::log; using ::log2; using ::sqrt; using ::rsqrt; using ::pow; \
  using ::tanh; using ::sin; using ::cos; using ::tan; using ::floor; using ::ceil; using ::rint; \
  using ::round; using ::trunc; using ::fabs; using ::fmin; using ::fmax;
QWEN_MATHEMATICS
using ::abs; using ::fma; using ::isinf; using ::isnan; using ::max; using ::min;
namespace fast {
QWEN_MATHEMATICS
}
namespace precise {
QWEN_MATHEMATICS
}
template <class T, class C> __device__ inline T select(T a, T b, C c) { return c ? b : a; }
template <class T> __device__ inline T clamp(T x, T lo, T hi) { return x < lo ? lo : hi < x ? hi : x; }
__device__ inline int popcount(uint x) { return __popc(x); }
__device__ inline int clz(uint x) { return __clz(x); }
template <class To, class From> __device__ inline To qwen_as_type(From from) {
  static_assert(sizeof(To) == sizeof(From), "as_type: the sizes differ");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

enum class mem_flags { mem_none, mem_device, mem_threadgroup };
__device__ constexpr mem_flags operator|(mem_flags a, mem_flags) { return a; }
__device__ inline void threadgroup_barrier(mem_flags) { __syncthreads(); }
__device__ inline void simdgroup_barrier(mem_flags) { __syncwarp(); }

#define QWEN_ALL 0xffffffffu
#define QWEN_REDUCTION(name, lanes, expression)                      \
  template <class T> __device__ inline T name(T a) {                 \
    for (int distance = lanes / 2; distance; distance /= 2) {        \
      T b = __shfl_xor_sync(QWEN_ALL, a, distance);                  \
      a = expression;                                                \
    }                                                                \
    return a;                                                        \
  }
QWEN_REDUCTION(simd_sum, 32, a + b)
QWEN_REDUCTION(simd_product, 32, a * b)
QWEN_REDUCTION(simd_max, 32, a < b ? b : a)
QWEN_REDUCTION(simd_min, 32, b < a ? b : a)
QWEN_REDUCTION(simd_and, 32, a & b)
QWEN_REDUCTION(simd_or, 32, a | b)
QWEN_REDUCTION(simd_xor, 32, a ^ b)
QWEN_REDUCTION(quad_sum, 4, a + b)
QWEN_REDUCTION(quad_max, 4, a < b ? b : a)
QWEN_REDUCTION(quad_min, 4, b < a ? b : a)
template <class T> __device__ inline T simd_shuffle(T a, ushort lane) { return __shfl_sync(QWEN_ALL, a, lane); }
template <class T> __device__ inline T simd_broadcast(T a, ushort lane) { return __shfl_sync(QWEN_ALL, a, lane); }
template <class T> __device__ inline T simd_broadcast_first(T a) { return __shfl_sync(QWEN_ALL, a, 0); }
template <class T> __device__ inline T simd_shuffle_xor(T a, ushort mask) { return __shfl_xor_sync(QWEN_ALL, a, mask); }
template <class T> __device__ inline T simd_shuffle_down(T a, ushort by) { return __shfl_down_sync(QWEN_ALL, a, by); }
template <class T> __device__ inline T simd_shuffle_up(T a, ushort by) { return __shfl_up_sync(QWEN_ALL, a, by); }
template <class T> __device__ inline T simd_prefix_inclusive_sum(T a) {
  const int lane = (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31;
  for (int distance = 1; distance < 32; distance *= 2) {
    T b = __shfl_up_sync(QWEN_ALL, a, distance);
    if (lane >= distance) a = a + b;
  }
  return a;
}
template <class T> __device__ inline T simd_prefix_exclusive_sum(T a) {
  T sum = simd_prefix_inclusive_sum(a), before = __shfl_up_sync(QWEN_ALL, sum, 1);
  return ((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31) ? before : T(0);
}
__device__ inline bool simd_any(bool b) { return __any_sync(QWEN_ALL, b); }
__device__ inline bool simd_all(bool b) { return __all_sync(QWEN_ALL, b); }
struct simd_vote {
  typedef unsigned long long vote_t;
  vote_t votes;
  __device__ explicit operator vote_t() const { return votes; }
};
__device__ inline simd_vote simd_ballot(bool b) { return {__ballot_sync(QWEN_ALL, b)}; }
}  // namespace metal
using namespace metal;
#define as_type metal::qwen_as_type
#define device
#define constant const
#define thread
#define threadgroup
"""

_BLOCK = "make_uint3(blockDim.x, blockDim.y, blockDim.z)"
_THREADS = "make_uint3(gridDim.x * blockDim.x, gridDim.y * blockDim.y, gridDim.z * blockDim.z)"
# Metal attribute -> (type, value). `qwen_index` is the thread's number in its block.
_ATTRIBUTES = {
    "dispatch_simdgroups_per_threadgroup": ("uint", "(blockDim.x * blockDim.y * blockDim.z + 31) / 32"),
    "dispatch_threads_per_threadgroup": ("uint3", _BLOCK),
    "quadgroup_index_in_threadgroup": ("uint", "qwen_index >> 2"),
    "simdgroup_index_in_threadgroup": ("uint", "qwen_index >> 5"),
    "simdgroups_per_threadgroup": ("uint", "(blockDim.x * blockDim.y * blockDim.z + 31) / 32"),
    "thread_execution_width": ("uint", "32"),
    "thread_index_in_quadgroup": ("uint", "qwen_index & 3"),
    "thread_index_in_simdgroup": ("uint", "qwen_index & 31"),
    "thread_index_in_threadgroup": ("uint", "qwen_index"),
    "thread_position_in_grid": (
        "uint3",
        "make_uint3(blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y * blockDim.y + threadIdx.y, "
        "blockIdx.z * blockDim.z + threadIdx.z)",
    ),
    "thread_position_in_threadgroup": ("uint3", "make_uint3(threadIdx.x, threadIdx.y, threadIdx.z)"),
    "threadgroup_position_in_grid": ("uint3", "make_uint3(blockIdx.x, blockIdx.y, blockIdx.z)"),
    "threadgroups_per_grid": ("uint3", "make_uint3(gridDim.x, gridDim.y, gridDim.z)"),
    "threads_per_grid": ("uint3", _THREADS),
    "threads_per_simdgroup": ("uint", "32"),
    "threads_per_threadgroup": ("uint3", _BLOCK),
}
_VARIABLE = re.compile(r"(^|[;{}])(\s*)(threadgroup\s+(?:[\w:]+(?:\s*<[^;{}<>]*>)?)\s+\w+\s*[\[;,])", re.MULTILINE)
_TOGETHER = re.compile(r"\b(?:threadgroup_barrier|simdgroup_barrier|simd_\w+|quad_\w+)\s*\(")
_EDGE = "qwen_threads"  # the input with the size of a grid that is no multiple of the block


def translate(header: str, source: str, scalars: Sequence[str], ragged: bool = False) -> tuple[str, str]:
    """CUDA for a Metal kernel.

    Args:
        header, source: as `mx.fast.metal_kernel` takes them.
        scalars: names of the inputs that are numbers; in CUDA they are called `<name>_pointer`.
        ragged: blocks reach over the edge of the grid, whose size in threads is the input `qwen_threads`.

    Returns:
        Header and source for `mx.fast.cuda_kernel`.

    Raises:
        ValueError: the kernel uses something that only Metal has, or `ragged` one in which threads work together.
    """
    text = _without_comments(source)
    unknown = [name for name in ("atomic_", "simdgroup_matrix", "simdgroup_load") if name in header + source]
    if unknown:
        raise ValueError(f"{unknown[0].rstrip('_')} operations have no translation to CUDA")
    if ragged and (together := _TOGETHER.search(_without_comments(header) + text)):
        raise ValueError(f"a grid that is no multiple of the threadgroup: {together[0]}...) needs whole blocks on CUDA")
    first = ["const uint qwen_index = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);"]
    first.append("(void)qwen_index;")
    if ragged:
        axes = " || ".join(
            f"blockIdx.{x} * blockDim.{x} + threadIdx.{x} >= uint({_EDGE}[{i}])" for i, x in enumerate("xyz")
        )
        first.append(f"if ({axes}) return;")
    first += [f"const auto {name} = *{name}_pointer;" for name in scalars]
    for name, (ctype, value) in _ATTRIBUTES.items():
        if re.search(rf"\b{name}\b", text):
            if ragged and name == "threads_per_grid":
                value = f"make_uint3({_EDGE}[0], {_EDGE}[1], {_EDGE}[2])"
            first.append(f"const {ctype} {name} = {value};")
    return PRELUDE + header, "\n".join(first) + "\n" + _VARIABLE.sub(r"\1\2__shared__ \3", source)


def _without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)


class metal_kernel:  # noqa: N801 - named for the function it stands for
    """A kernel written for `mx.fast.metal_kernel`, on MLX's CUDA backend. Arguments as there.

    MLX keeps compiled CUDA kernels by their name alone, so every combination of source and types gets its own.

    Raises:
        ValueError: atomic outputs, or `compile_options`, which MLX has for Metal only.
    """

    def __init__(
        self,
        name: str,
        input_names: Sequence[str],
        output_names: Sequence[str],
        source: str,
        header: str = "",
        ensure_row_contiguous: bool = True,
        atomic_outputs: bool = False,
        compile_options: Mapping[str, str] | None = None,
    ) -> None:
        if atomic_outputs or compile_options:
            raise ValueError(f"{name}: atomic outputs and compile options have no translation to CUDA")
        self.name, self.header, self.source = name, header, source
        self.input_names, self.output_names = list(input_names), list(output_names)
        self._contiguous = ensure_row_contiguous
        self._digest = hashlib.sha256(f"{header}\0{source}".encode()).hexdigest()[:12]
        self._built: dict[tuple[Any, ...], Callable[..., list[mx.array]]] = {}

    def __call__(
        self,
        *,
        inputs: Sequence[Any],
        output_dtypes: Sequence[mx.Dtype],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        **options: Any,
    ) -> list[mx.array]:
        """Launch. Arguments as for a kernel of `mx.fast.metal_kernel`."""
        arrays = [x if isinstance(x, mx.array) else mx.array(x) for x in inputs]
        block = tuple(min(size, threads) for size, threads in zip(threadgroup, grid))
        ragged = any(threads % size for size, threads in zip(block, grid))
        scalars = tuple(name for name, x in zip(self.input_names, arrays) if x.ndim == 0)
        types = tuple(str(t).rsplit(".", 1)[-1] for t in (*(x.dtype for x in arrays), *output_dtypes))
        key = scalars, types, ragged
        if key not in self._built:
            self._built[key] = self._build(*key)
        if ragged:
            arrays.append(mx.array(grid, mx.int32))
        return self._built[key](
            inputs=arrays, output_dtypes=list(output_dtypes), grid=grid, threadgroup=block, **options
        )

    def _build(self, scalars: tuple[str, ...], types: tuple[str, ...], ragged: bool) -> Callable[..., list[mx.array]]:
        header, source = translate(self.header, self.source, scalars, ragged)
        names = [f"{name}_pointer" if name in scalars else name for name in self.input_names]
        kind = hashlib.sha256(repr((scalars, types, ragged)).encode()).hexdigest()[:8]
        made: Any = mx.fast.cuda_kernel(
            name=f"{self.name}_{self._digest}_{kind}",
            input_names=names + [_EDGE] * ragged,
            output_names=self.output_names,
            source=source,
            header=header,
            ensure_row_contiguous=self._contiguous,
        )
        return made

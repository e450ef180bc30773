"""What happens to the heads of new tokens before attention: norm, rotation, and for a quantized cache packing.

`qk_norm_rope` equals, in float32 and rounded once at the end,

    q = mx.fast.rope(mx.fast.rms_norm(q, q_weight, eps).swapaxes(1, 2), dims, offset=..., freqs=periods) and the same
    for k,

one launch instead of four. `qk_norm_rope_pack` also takes v and gives `pack(layout, k, v)`, the record that one slice
update puts into the cache: one launch instead of twelve (or about forty of plain MLX).

Bytes read: q, k (and v) twice at most, the second time out of the cache of the core, and the weights; written: q, and
k or the records. Inputs go by their strides, so that slices of one fused projection need no copy.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from qwen_mlx.kernels.kernel import DTYPE_NAMES, Arrays, Kernel
from qwen_mlx.kernels.launch import Program
from qwen_mlx.kernels.packed_kv import PackedKV, pack, steps, unpack

_SIMD_GROUPS = 8  # in a threadgroup: 256 threads, 4 or 8 KB of threadgroup memory
_FOLDER = Path(__file__).parent
_POSITIONS = ("periods", "q_offset", "k_offset", "q_weight", "k_weight", "eps", "q_gain", "k_scale")
ROTATE = Program(_FOLDER, "rotate", ["q", "k", *_POSITIONS], ["q_out", "k_out"], header="rotate.h", contiguous=False)
ROTATE_AND_PACK = Program(
    _FOLDER, "rotate_and_pack", ["q", "k", "v", *_POSITIONS], ["q_out", "records"], header="rotate.h", contiguous=False
)


def _launch(
    program: Program,
    heads: Sequence[mx.array],
    positions: Sequence[mx.array],
    weights: Sequence[mx.array],
    dims: int,
    eps: float,
    q_gain: float,
    k_scale: float,
    template: Sequence[tuple[str, Any]],
    out: tuple[Sequence[int], mx.Dtype],
) -> Arrays:
    q, k = heads[:2]
    batch, length, q_heads, head_dim = q.shape
    k_heads = k.shape[2]
    copies = positions[1].shape[-1] if positions[1].ndim == 2 else 1
    vectors = q_heads * copies + k_heads * (len(heads) - 1)
    shape, dtype = out
    rotated, second = program(
        [*heads, *positions, *(weights or (_no_weight(), _no_weight())), float(eps), float(q_gain), float(k_scale)],
        template=[
            ("T", q.dtype),
            ("D", head_dim),
            ("DIMS", dims),
            ("NORM", bool(weights)),
            ("COPIES", copies),
            ("SIMD_GROUPS", _SIMD_GROUPS),
            *template,
        ],
        grid=(32, -(-vectors // _SIMD_GROUPS) * _SIMD_GROUPS, batch * length),
        threadgroup=(32, _SIMD_GROUPS, 1),
        output_shapes=[(batch, q_heads, copies * length, head_dim), (batch, k_heads, length, *shape)],
        output_dtypes=[q.dtype, dtype],
    )
    return rotated, second


@functools.lru_cache(maxsize=1)
def _no_weight() -> mx.array:
    """Stands where a kernel without norm expects a weight; eight values, as MLX passes smaller arrays differently."""
    array = mx.ones((8,))
    mx.eval(array)
    return array


def _run(
    q: mx.array,
    k: mx.array,
    periods: mx.array,
    q_offset: mx.array,
    k_offset: mx.array,
    *weights: mx.array,
    dims: int,
    eps: float = 0.0,
    q_gain: float = 1.0,
    k_scale: float = 1.0,
) -> Arrays:
    out = (q.shape[-1:], q.dtype)
    return _launch(ROTATE, (q, k), (periods, q_offset, k_offset), weights, dims, eps, q_gain, k_scale, (), out)


def _run_pack(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    periods: mx.array,
    q_offset: mx.array,
    k_offset: mx.array,
    *weights: mx.array,
    layout: PackedKV,
    dims: int,
    eps: float = 0.0,
    q_gain: float = 1.0,
    k_scale: float = 1.0,
) -> Arrays:
    template = [("KEY_BITS", layout.key_bits), ("VALUE_BITS", layout.value_bits), ("GROUP", layout.group_size)]
    positions = (periods, q_offset, k_offset)
    out = ([layout.words], mx.uint32)
    return _launch(ROTATE_AND_PACK, (q, k, v), positions, weights, dims, eps, q_gain, k_scale, template, out)


def reference(
    q: mx.array,
    k: mx.array,
    periods: mx.array,
    q_offset: mx.array,
    k_offset: mx.array,
    *weights: mx.array,
    dims: int,
    eps: float = 0.0,
    q_gain: float = 1.0,
    k_scale: float = 1.0,
) -> Arrays:
    """`qk_norm_rope` in plain MLX.

    Args:
        q, k: (batch, length, heads, head_dim) and (batch, length, kv_heads, head_dim).
        periods: float32 (dims / 2,); a pair of channels turns by `position / period`.
        q_offset, k_offset: int32 (1,) or (batch,), the position of the first token. Where `length` is 1, `q_offset`
            may be (1 | batch, copies): then q is turned to each of these positions.
        weights: of the RMSNorms of q and k (head_dim,), or none at all.
        dims: how many channels turn, i together with i + dims / 2; even. The rest passes through.
        eps: of the norms.
        q_gain: multiplies the turning channels of q (YaRN's temperature).
        k_scale: multiplies k.

    Returns:
        q (batch, heads, copies * length, head_dim) and k (batch, kv_heads, length, head_dim), in the type of `q`.
    """
    rotated, keys = _rotate(q, k, periods, q_offset, k_offset, weights, dims, eps, q_gain, k_scale)
    return rotated.astype(q.dtype), keys.astype(q.dtype)


def reference_pack(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    periods: mx.array,
    q_offset: mx.array,
    k_offset: mx.array,
    *weights: mx.array,
    layout: PackedKV,
    dims: int,
    eps: float = 0.0,
    q_gain: float = 1.0,
    k_scale: float = 1.0,
) -> Arrays:
    """`qk_norm_rope_pack` in plain MLX; as `reference`, but v (as k) and the rotated k become records.

    Returns:
        q (batch, heads, copies * length, head_dim) and records uint32 (batch, kv_heads, length, words).
    """
    rotated, keys = _rotate(q, k, periods, q_offset, k_offset, weights, dims, eps, q_gain, k_scale)
    return rotated.astype(q.dtype), pack(layout, keys, v.swapaxes(1, 2))


def _rotate(
    q: mx.array,
    k: mx.array,
    periods: mx.array,
    q_offset: mx.array,
    k_offset: mx.array,
    weights: Sequence[mx.array],
    dims: int,
    eps: float,
    q_gain: float,
    k_scale: float,
) -> tuple[mx.array, mx.array]:
    """Both, in float32."""
    q, k = q.astype(mx.float32), k.astype(mx.float32)
    if weights:
        q, k = (mx.fast.rms_norm(x, weight.astype(mx.float32), eps) for x, weight in zip((q, k), weights))
    q, k = q.swapaxes(1, 2), k.swapaxes(1, 2)
    if q_gain != 1.0:
        q = q * mx.array([q_gain] * dims + [1.0] * (q.shape[-1] - dims))
    if k_scale != 1.0:
        k = k * k_scale
    return _turned(q, periods, q_offset, dims), _turned(k, periods, k_offset, dims)


def _turned(x: mx.array, periods: mx.array, offset: mx.array, dims: int) -> mx.array:
    def rope(x: mx.array, offset: mx.array) -> mx.array:
        return mx.fast.rope(x, dims, traditional=False, base=None, scale=1.0, offset=offset, freqs=periods)

    if offset.ndim == 1:
        return rope(x, offset)
    copies, batch, heads = offset.shape[-1], x.shape[0], x.shape[1]
    x = mx.repeat(x, copies, axis=0)
    each = mx.broadcast_to(offset, (batch, copies)).reshape(-1)
    return rope(x, each).reshape(batch, copies, heads, -1).swapaxes(1, 2)


def _eligible(q: mx.array, k: mx.array, *rest: Any, dims: int, **options: Any) -> bool:
    head_dim = q.shape[-1]
    return (
        q.dtype == k.dtype
        and q.dtype in DTYPE_NAMES
        and head_dim in (32, 64, 80, 96, 128, 256)
        and 16 <= dims <= head_dim
    )


def _eligible_pack(q: mx.array, k: mx.array, v: mx.array, *rest: Any, dims: int, **options: Any) -> bool:
    return v.dtype == q.dtype and _eligible(q, k, dims=dims)


def _configuration(
    q: mx.array, k: mx.array, periods: mx.array, q_offset: mx.array, k_offset: mx.array, *weights: mx.array,
    dims: int, **options: Any,
) -> tuple[Hashable, ...]:  # fmt: skip
    copies = q_offset.shape[-1] if q_offset.ndim == 2 else 1
    kinds = tuple(DTYPE_NAMES[weight.dtype] for weight in weights)
    return DTYPE_NAMES[q.dtype], q.shape[-1], dims, kinds, copies, q.shape[2], k.shape[2]


def _configuration_pack(
    q: mx.array, k: mx.array, v: mx.array, *rest: mx.array, layout: PackedKV, **options: Any
) -> tuple[Hashable, ...]:
    return *_configuration(q, k, *rest, **options), layout.key_bits, layout.value_bits


def _example(configuration: tuple[Any, ...]) -> tuple[Arrays, dict[str, Any]]:
    dtype, head_dim, dims, kinds, copies, q_heads, k_heads, *bits = configuration
    length = 3 if copies == 1 else 1
    keys = (mx.random.key(i) for i in range(5))
    shapes = [(2, length, q_heads, head_dim), *[(2, length, k_heads, head_dim)] * (2 if bits else 1)]
    heads = [mx.random.normal(shape, key=next(keys)).astype(getattr(mx, dtype)) for shape in shapes]
    periods = 1e4 ** (mx.arange(0, dims, 2) / dims)
    q_offset = mx.array([[7 + 40 * i + 3 * row for i in range(copies)] for row in range(2)], dtype=mx.int32)
    k_offset = q_offset[:, 0]
    weights = [mx.random.uniform(0.5, 1.5, (head_dim,), key=next(keys)).astype(getattr(mx, kind)) for kind in kinds]
    options: dict[str, Any] = {"dims": dims, "eps": 1e-6, "q_gain": 1.25, "k_scale": 0.75}
    if bits:
        options["layout"] = PackedKV(head_dim, *bits)
    return (*heads, periods, q_offset if copies > 1 else k_offset, k_offset, *weights), options


def _unpacked(got: Arrays, expected: Arrays, options: dict[str, Any]) -> tuple[Arrays, Arrays]:
    """What the self-test compares: the last bit of a sine may move one code in fifty by one, no more."""
    layout: PackedKV = options["layout"]
    ours, theirs = unpack(layout, got[1]), unpack(layout, expected[1])
    forgiven = []
    for a, b, step in zip(ours, theirs, steps(layout, expected[1])):
        near = (mx.abs(a - b) <= 1.1 * step) & ((a != b).mean() < 0.02)
        forgiven.append(mx.where(near, b, a))
    return (got[0], *forgiven), (expected[0], *theirs)


qk_norm_rope = Kernel(
    name="qk_norm_rope",
    equals="rope(rms_norm(q)), rope(rms_norm(k))",
    programs=(ROTATE,),
    run=_run,
    reference=reference,
    eligible=_eligible,
    configuration=_configuration,
    example=_example,
)
qk_norm_rope_pack = Kernel(
    name="qk_norm_rope_pack",
    equals="rope(rms_norm(q)), and rope(rms_norm(k)) and v as records of the quantized cache",
    programs=(ROTATE_AND_PACK,),
    run=_run_pack,
    reference=reference_pack,
    eligible=_eligible_pack,
    configuration=_configuration_pack,
    example=_example,
    compared=_unpacked,
)

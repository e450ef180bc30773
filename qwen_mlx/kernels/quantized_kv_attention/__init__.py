"""Attention of one new token, or a few, over keys and values of 4 or 8 bits as they lie in the cache.

It equals, with `k, v = unpack(layout, records[:, :, :length])` and a mask for window and padding,

    mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)

in float32, and gives the log-sum-exp of the scores besides. Two launches instead of the 12 of mlx-lm's composed
path: `attend` reads every record of the cache once per slice of at most four query rows (once in all for up to four
query heads per KV head), `merge` adds up what threadgroups have left, each of up to eight blocks of keys. Bytes read:
`layout.nbytes` per visible token and KV head and slice; written and read again: `4 * (head_dim + 2)` per query row and
threadgroup.

The number of blocks follows from the number of keys alone and all sums have a fixed order, so the result depends
neither on the device nor on the launch.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import mlx.core as mx

from qwen_mlx.kernels.kernel import DTYPE_NAMES, Arrays, Kernel
from qwen_mlx.kernels.launch import Program
from qwen_mlx.kernels.packed_kv import PackedKV, pack, times_keys, times_values

MAX_QUERIES = 8  # queries of one head in a call
_NO_WINDOW = 1 << 30
_KEYS_PER_BLOCK, _BLOCKS, _MANY_KEYS = 64, 64, 16384
_REGISTERS = 96  # floats that a lane may hold of queries and sums
_SIMD_GROUPS = 8  # in a threadgroup: 256 threads
_DIMS = (32, 64, 80, 96, 128, 256)
_CPU_VALUES = 1 << 22  # the reference unpacks this many keys and values at a time, float32

_FOLDER = Path(__file__).parent
ATTEND = Program(
    _FOLDER,
    "attend",
    ["q", "records", "first", "n", "window", "border_1", "border_2", "scale", "kv_heads", "blocks"],
    ["totals", "stats"],
    header="codes.h",
)
MERGE = Program(_FOLDER, "merge", ["totals", "stats", "blocks"], ["out", "lse"])


def _run(
    q: mx.array,
    records: mx.array,
    first: mx.array,
    *,
    layout: PackedKV,
    length: int,
    scale: float,
    window: int | None = None,
    borders: tuple[int, int] | None = None,
) -> Arrays:
    batch, heads, rows, dims = q.shape
    kv_heads = records.shape[1]
    queries = rows if borders is None else 1
    sharing = heads // kv_heads * queries  # query rows that read the same keys
    lanes, slice_rows = geometry(layout, sharing)
    slices = -(-sharing // slice_rows)
    blocks = block_count(length if window is None else min(length, window + queries))
    # Slices first: they read the same records.
    together = max(d for d in range(1, _SIMD_GROUPS + 1) if slices % d == 0)
    per_group = 1 << (_SIMD_GROUPS // together).bit_length() - 1
    per_group = min(per_group, blocks)
    sums = blocks // per_group
    totals, stats = ATTEND(
        [q, records, first, length, window or _NO_WINDOW, *(borders or (0, 0)), float(scale), kv_heads, blocks],
        template=[
            ("D", dims),
            ("KEY_BITS", layout.key_bits),
            ("VALUE_BITS", layout.value_bits),
            ("GROUP", layout.group_size),
            ("LANES", lanes),
            ("SLICE", slice_rows),
            ("ROWS", sharing),
            ("L", queries),
            ("REGIONS", 1 if borders is None else 3),
            ("PARTS", per_group),
            ("SIMD_GROUPS", per_group * together),
        ],
        grid=(32 * blocks, slices, batch * kv_heads),
        threadgroup=(32 * per_group, together, 1),
        output_shapes=[(batch * heads * queries, sums, dims), (batch * heads * queries, sums, 2)],
        output_dtypes=[mx.float32, mx.float32],
    )
    out, lse = MERGE(
        [totals, stats, sums],
        template=[("T", q.dtype), ("D", dims)],
        grid=(dims, batch * heads * queries, 1),
        threadgroup=(dims, 1, 1),
        output_shapes=[(batch, heads, queries, dims), (batch, heads, queries)],
        output_dtypes=[q.dtype, mx.float32],
    )
    return out, lse


def block_count(keys: int) -> int:
    """Into how many blocks that many keys are cut: a power of two, at least 4, that follows from `keys` alone."""
    most = _BLOCKS if keys <= _MANY_KEYS else 2 * _BLOCKS
    wanted = min(-(-keys // _KEYS_PER_BLOCK), most)
    return max(4, 1 << (wanted - 1).bit_length())


@functools.lru_cache(maxsize=256)
def geometry(layout: PackedKV, sharing: int) -> tuple[int, int]:
    """How many lanes decode a record together, and how many of the `sharing` query rows a SIMD-group takes.

    Among the powers of two that leave a lane at most 24 values of a key or value, the lanes are those that idle
    least, then those that are most; each has 8 values or more, so that the sum over lanes does not outweigh them.
    """

    def values(lanes: int) -> int:
        """Values of a key and of a value that a lane holds, idle ones included."""
        per_key = -(-layout.key_words // lanes) * (32 // layout.key_bits)
        return per_key + -(-layout.value_words // lanes) * (32 // layout.value_bits)

    powers = [lanes for lanes in (1, 2, 4, 8, 16, 32) if lanes <= layout.head_dim // 8]
    fitting = [lanes for lanes in powers if values(lanes) <= 48] or powers[-1:]
    lanes = min(fitting, key=lambda lanes: (lanes * values(lanes), -lanes))
    most = min(4, max(1, _REGISTERS // values(lanes)))
    slices = -(-sharing // most)
    return lanes, -(-sharing // slices)


def reference(
    q: mx.array,
    records: mx.array,
    first: mx.array,
    *,
    layout: PackedKV,
    length: int,
    scale: float,
    window: int | None = None,
    borders: tuple[int, int] | None = None,
) -> Arrays:
    """The same in plain MLX, a few KV heads at a time.

    Args:
        q: (batch, heads, queries, head_dim): the newest tokens; with `borders` the same one token three times.
        records: uint32 (batch, kv_heads, capacity, words); only the first `length` tokens are looked at.
        first: int32 (batch,), the first real token of each row; a query before it sees itself.
        length: tokens held, the queries' own included.
        scale: what the scores are multiplied with.
        window: how many keys a query sees, itself included; None for all.
        borders: two tokens a <= b; then q[:, :, 0] meets the keys before a, q[:, :, 1] those from a to b, and
            q[:, :, 2] those from b on, all in one softmax.

    Returns:
        The attention in the type of `q`, (batch, heads, queries, head_dim), one query with `borders`; and the natural
        logarithm of the sum of the exponentials of its scores, float32 (batch, heads, queries).
    """
    kv_heads = records.shape[1]
    sharing = q.shape[1] // kv_heads
    at_once = max(1, _CPU_VALUES // max(1, q.shape[0] * length * layout.head_dim))
    parts: list[Arrays] = []
    for head in range(0, kv_heads, at_once):
        some = records[:, head : head + at_once, :length]
        if parts:
            some = mx.depends([some], list(parts[-1]))[0]  # one after the other, or all would be unpacked at once
        queries = q[:, head * sharing : (head + at_once) * sharing]
        parts.append(_attend_some(queries, some, first, layout, scale, window, borders))
    if len(parts) == 1:
        return parts[0]
    return mx.concatenate([out for out, _ in parts], axis=1), mx.concatenate([lse for _, lse in parts], axis=1)


def _attend_some(
    q: mx.array,
    records: mx.array,
    first: mx.array,
    layout: PackedKV,
    scale: float,
    window: int | None,
    borders: tuple[int, int] | None,
) -> Arrays:
    batch, heads, rows, dims = q.shape
    kv_heads, length = records.shape[1], records.shape[2]
    queries = rows if borders is None else 1
    x = (q.astype(mx.float32) * scale).reshape(batch, kv_heads, -1, dims)
    scores = times_keys(layout, x, records).reshape(batch, heads, rows, length)
    place = mx.arange(length)
    if borders is not None:
        region = (place >= borders[0]).astype(mx.int32) + (place >= borders[1])
        scores = mx.take_along_axis(scores, mx.broadcast_to(region, (batch, heads, 1, length)), axis=2)
    last = mx.arange(length - queries, length)[:, None]
    low = mx.maximum(first[:, None, None], last - (window or _NO_WINDOW) + 1)
    seen = (place <= last) & (place >= mx.minimum(low, last))
    scores = mx.where(seen[:, None], scores, -mx.inf)
    top = scores.max(axis=-1, keepdims=True)
    weights = mx.exp(scores - top).reshape(batch, kv_heads, -1, length)
    # A product sums in blocks; one after the other, as MLX sums on a CPU, long rows would lose digits.
    total = (weights @ mx.ones((length, 1))).reshape(batch, heads, queries, 1)
    out = times_values(layout, weights, records).reshape(batch, heads, queries, dims) / total
    return out.astype(q.dtype), (top + mx.log(total))[..., 0]


def _eligible(q: mx.array, records: mx.array, first: mx.array, *, layout: PackedKV, **options: Any) -> bool:
    _, heads, rows, dims = q.shape
    if dims not in _DIMS or q.dtype not in DTYPE_NAMES:
        return False
    few = rows == 3 if options.get("borders") is not None else rows <= MAX_QUERIES
    return few and heads % records.shape[1] == 0 and heads * rows // records.shape[1] <= 128


def _configuration(
    q: mx.array, records: mx.array, first: mx.array, *, layout: PackedKV, **options: Any
) -> tuple[Hashable, ...]:
    regions = 1 if options.get("borders") is None else 3
    sharing = q.shape[1] // records.shape[1]
    return (
        DTYPE_NAMES[q.dtype],
        layout.head_dim,
        layout.key_bits,
        layout.value_bits,
        sharing,
        q.shape[2],
        regions,
    )


def _example(configuration: tuple[Any, ...]) -> tuple[Arrays, dict[str, Any]]:
    dtype, dims, key_bits, value_bits, sharing, rows, regions = configuration
    layout = PackedKV(dims, key_bits, value_bits)
    keys = [mx.random.key(i) for i in range(3)]
    q = mx.random.normal((2, 2 * sharing, rows, dims), key=keys[0]).astype(getattr(mx, dtype))
    records = pack(layout, *(mx.random.normal((2, 2, 77, dims), key=key) for key in keys[1:]))
    first = mx.array([0, 5 if regions == 1 else 0], dtype=mx.int32)
    options = {"layout": layout, "length": 71, "scale": dims**-0.5}
    return (q, records, first), options | ({"borders": (20, 40)} if regions == 3 else {"window": 40})


quantized_kv_attention = Kernel(
    name="quantized_kv_attention",
    equals="softmax(q @ k.T * scale) @ v over unpacked keys and values, with the log-sum-exp of the scores",
    programs=(ATTEND, MERGE),
    run=_run,
    reference=reference,
    eligible=_eligible,
    configuration=_configuration,
    example=_example,
    launches=2,
)

"""Keys and values of some tokens and heads, out of the quantized cache: what prefill gives to MLX's own attention.

It equals `unpack(layout, records[:, heads, tokens], dtype)` in one launch, where `mx.dequantize` would need the parts
of the records copied apart first and an odd size of group refused. Bytes read: `layout.nbytes` per token and head;
written: `2 * head_dim` values.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import mlx.core as mx

from qwen_mlx.kernels.kernel import DTYPE_NAMES, Arrays, Kernel
from qwen_mlx.kernels.launch import Program
from qwen_mlx.kernels.packed_kv import PackedKV, pack, unpack

_THREADS = 256

UNPACK = Program(
    Path(__file__).parent,
    "unpack",
    ["records", "first_head", "heads", "first_token", "tokens"],
    ["keys", "values"],
    header="../quantized_kv_attention/codes.h",
)


def _run(
    records: mx.array, *, layout: PackedKV, heads: tuple[int, int], tokens: tuple[int, int], dtype: mx.Dtype
) -> Arrays:
    batch, dims = records.shape[0], layout.head_dim
    head_count, token_count = heads[1] - heads[0], tokens[1] - tokens[0]
    rows = max(1, min(_THREADS // (dims // 8), token_count))
    shape = batch, head_count, token_count, dims
    keys, values = UNPACK(
        [records, heads[0], head_count, tokens[0], token_count],
        template=[
            ("T", dtype),
            ("D", dims),
            ("KEY_BITS", layout.key_bits),
            ("VALUE_BITS", layout.value_bits),
            ("GROUP", layout.group_size),
        ],
        grid=(dims // 8, -(-token_count // rows) * rows, batch * head_count),
        threadgroup=(dims // 8, rows, 1),
        output_shapes=[shape, shape],
        output_dtypes=[dtype, dtype],
    )
    return keys, values


def reference(
    records: mx.array, *, layout: PackedKV, heads: tuple[int, int], tokens: tuple[int, int], dtype: mx.Dtype
) -> Arrays:
    """The same in plain MLX.

    Args:
        records: uint32 (batch, kv_heads, capacity, words).
        heads, tokens: ranges; the end is not included.
        dtype: of the result.

    Returns:
        keys and values (batch, heads, tokens, head_dim).
    """
    return unpack(layout, records[:, slice(*heads), slice(*tokens)], dtype)


def _eligible(records: mx.array, *, tokens: tuple[int, int], dtype: mx.Dtype, **options: Any) -> bool:
    return tokens[1] > tokens[0] and dtype in DTYPE_NAMES


def _configuration(records: mx.array, *, layout: PackedKV, dtype: mx.Dtype, **options: Any) -> tuple[Hashable, ...]:
    return DTYPE_NAMES[dtype], layout.head_dim, layout.key_bits, layout.value_bits


def _example(configuration: tuple[Any, ...]) -> tuple[Arrays, dict[str, Any]]:
    dtype, dims, key_bits, value_bits = configuration
    layout = PackedKV(dims, key_bits, value_bits)
    keys, values = (mx.random.normal((2, 3, 40, dims), key=mx.random.key(i)) for i in range(2))
    options = {"layout": layout, "heads": (1, 3), "tokens": (3, 37), "dtype": getattr(mx, dtype)}
    return (pack(layout, keys, values),), options


quantized_kv_dequantize = Kernel(
    name="quantized_kv_dequantize",
    equals="keys and values of a range of packed records",
    programs=(UNPACK,),
    run=_run,
    reference=reference,
    eligible=_eligible,
    configuration=_configuration,
    example=_example,
)

"""Sampling with top-k in two launches: candidates, temperature, top-p, min-p, and the draw.

Equals `draw(*filtered(logits, ...), key)` of `candidates.py`: the same filters in the same order, the same tie rules
(of tokens tied with the k-th, `TIE_ROOM` are kept; among equals the lower id comes first), and the same random numbers.
They are made from the *key* inside the kernel, by MLX's generator and the steps of
`mx.random.gumbel`, so that the same key draws the same token on every backend, but for two candidates whose
perturbed scores differ by less than the rounding of a logarithm.

The first launch takes the maximum of every 512 logits. The tokens in question stand in the k blocks with the largest
maxima, so the second launch, one threadgroup per text, reads those blocks only.

Reads the logits once and k blocks of them once more, writes one id. Plain MLX makes 45 launches of it with top-p
(`qwen-mlx bench --launches` counts them), four sorts among them. Of tokens tied with the k-th beyond the room that
there is, the kernel keeps the lower ids; plain MLX does not say which.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import mlx.core as mx

from qwen_mlx.kernels.kernel import DTYPE_NAMES, Arrays, Kernel
from qwen_mlx.kernels.launch import Program
from qwen_mlx.kernels.sample_topk.candidates import TIE_ROOM, draw, filtered

# as in common.h
_BLOCK = 512
_MOST_BLOCKS = 1024
_THREADS = 256
_MOST_K = 64

_folder = Path(__file__).parent
_block_maxima = Program(_folder, "block_maxima", ["logits", "temperature", "vocab"], ["maxima"], header="common.h")
_draw = Program(
    _folder,
    "draw",
    ["logits", "maxima", "random_key", "temperature", "vocab", "top_k", "room", "outside", "gap"],
    ["token"],
    header="common.h",
)


def sample_topk(
    logits: mx.array, key: mx.array, *, temperature: float, top_k: int, top_p: float, min_p: float
) -> mx.array:
    """Draw one token id per text.

    Args:
        logits: (batch, vocab), any float type.
        key: (2,) uint32, from `mx.random.key` or `mx.random.split`.
        temperature: above 0.
        top_k, top_p, min_p: 0, 1 and 0 are off.

    Returns:
        (batch,) uint32.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    return kernel(logits, key, **options)[0]


def _reference(
    logits: mx.array, key: mx.array, *, temperature: float, top_k: int, top_p: float, min_p: float
) -> Arrays:
    """logits (batch, vocab), key (2,) uint32 -> ids (batch,) uint32."""
    return (draw(*filtered(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p), key),)


def _run(logits: mx.array, key: mx.array, *, temperature: float, top_k: int, top_p: float, min_p: float) -> Arrays:
    batch, vocab = logits.shape
    blocks = -(-vocab // _BLOCK)
    threads = -(-blocks * 32 // _THREADS) * _THREADS
    template = [("T", logits.dtype)]
    (maxima,) = _block_maxima(
        [logits, float(temperature), vocab],
        output_shapes=[(batch, blocks)],
        output_dtypes=[mx.uint32],
        grid=(threads, batch, 1),
        threadgroup=(_THREADS, 1, 1),
        template=template,
    )
    # Bounds that let everything through where a filter is off.
    outside = 1 - top_p if top_p < 1 else -1.0
    gap = math.log(min_p) if min_p > 0 else -math.inf
    return tuple(
        _draw(
            [logits, maxima, key, float(temperature), vocab, top_k, min(vocab, top_k + TIE_ROOM), outside, gap],
            output_shapes=[(batch,)],
            output_dtypes=[mx.uint32],
            grid=(_THREADS, batch, 1),
            threadgroup=(_THREADS, 1, 1),
            template=template,
        )
    )


def _eligible(logits: mx.array, key: mx.array, *, temperature: float, top_k: int, top_p: float, min_p: float) -> bool:
    return (
        logits.ndim == 2
        and logits.dtype in DTYPE_NAMES
        and logits.shape[0] > 0
        and key.shape == (2,)
        and 0 < top_k <= _MOST_K
        and top_k <= -(-logits.shape[1] // _BLOCK) <= _MOST_BLOCKS
        and temperature > 0
    )


def _configuration(logits: mx.array, key: mx.array, **_options: Any) -> tuple[Hashable, ...]:
    return (DTYPE_NAMES[logits.dtype],)


def _example(configuration: Any) -> tuple[Arrays, dict[str, Any]]:
    """Texts whose logits have ties at the k-th."""
    kind = getattr(mx, configuration[0])
    logits = mx.random.randint(-400, 400, (4, 30_000), key=mx.random.key(5)) / 32
    options = {"temperature": 0.7, "top_k": 20, "top_p": 0.95, "min_p": 0.01}
    return (logits.astype(kind), mx.random.key(9)), options


kernel = Kernel(
    name="sample_topk",
    equals="temperature, top-k, top-p, min-p, Gumbel noise and argmax, as in sample_topk/candidates.py",
    programs=[_block_maxima, _draw],
    run=_run,
    reference=_reference,
    eligible=_eligible,
    configuration=_configuration,
    example=_example,
    launches=2,
)

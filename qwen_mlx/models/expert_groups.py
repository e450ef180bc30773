"""Experts on a CPU: the tokens of each expert are multiplied together, by the BLAS.

MLX's gathered products, which are right for a GPU, multiply token after token on a CPU. Here the choice of experts is
read back, which is cheap where there is no other device, and every expert that was chosen gets one product with all
of its tokens. Packed experts are unpacked for it, one at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

import mlx.core as mx
import numpy as np

from qwen_mlx import device
from qwen_mlx.models import packed
from qwen_mlx.models.elementwise import swiglu
from qwen_mlx.models.spec import QuantizationSpec

# What an expert has to do, on average, before a product of its own is worth starting: tokens, multiplications.
_TOKENS, _MULTIPLICATIONS = 2, 1 << 19


_allowed = True


@contextlib.contextmanager
def never() -> Iterator[None]:
    """In this block the choice of experts is not read back: for a pass that is differentiated.

    What is evaluated while MLX traces a gradient keeps everything alive that it was computed from.
    """
    global _allowed
    before, _allowed = _allowed, False
    try:
        yield
    finally:
        _allowed = before


class Matrices(Protocol):
    """One matrix per expert, stacked: weight (experts, rows, columns), or packed as MLX packs a matrix."""

    weight: mx.array
    scales: mx.array
    biases: mx.array | None

    @property
    def quantization(self) -> QuantizationSpec | None: ...


def worth_it(matrices: Matrices, chosen: mx.array, width: int) -> bool:
    """Whether `run` is the faster way for experts int (tokens, k) of inputs of this width."""
    if not _allowed or device.backend() != "cpu":
        return False
    if matrices.quantization is None and matrices.weight.dtype != mx.float32:
        return True  # the gathered product would need all experts in float32
    count, rows, _ = matrices.weight.shape
    least = _TOKENS if matrices.quantization is None else packed.UNPACK_FROM
    tokens = chosen.size / count
    return device.fast_blas() and tokens >= least and tokens * rows * width >= _MULTIPLICATIONS


def run(x: mx.array, chosen: mx.array, gate_up: Matrices, down: Matrices) -> mx.array | None:
    """The MLPs of the chosen experts.

    Args:
        x: (tokens, hidden_size).
        chosen: experts int (tokens, k).
        gate_up: matrices (2 * intermediate, hidden_size), gate first.
        down: matrices (hidden_size, intermediate).

    Returns:
        (tokens, k, hidden_size); None inside `mx.compile` and the like, where the choice cannot be known.
    """
    try:
        flat = np.array(mx.stop_gradient(chosen)).reshape(-1)
    except ValueError:
        return None
    order = np.argsort(flat, kind="stable")
    groups = list(_groups(flat[order]))
    inner = _products(x[mx.array(order // chosen.shape[1])], groups, gate_up)
    gate, up = mx.split(inner, 2, axis=-1)
    y = _products(swiglu(gate, up), groups, down)
    return y[mx.array(np.argsort(order))].reshape(*chosen.shape, -1)


def _groups(ascending: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(expert, first pair, last pair + 1) of every expert that occurs."""
    experts, starts = np.unique(ascending, return_index=True)
    for expert, start, end in zip(experts, starts, [*starts[1:], len(ascending)]):
        yield int(expert), int(start), int(end)


def _products(x: mx.array, groups: list[tuple[int, int, int]], matrices: Matrices) -> mx.array:
    """x (pairs, columns), sorted by expert -> (pairs, rows)."""
    q, outputs = matrices.quantization, list[mx.array]()
    for expert, start, end in groups:
        own, weight = x[start:end], _of(expert, matrices.weight)
        if q is None:
            y = (own.astype(mx.float32) @ weight.astype(mx.float32).T).astype(x.dtype)
        else:
            if outputs:  # one after the other, or all would be unpacked before the first is used
                weight = mx.depends(weight, outputs[-1])
            biases = None if matrices.biases is None else _of(expert, matrices.biases)
            y = packed.multiply(own, weight, _of(expert, matrices.scales), biases, q)
        outputs.append(y)
    return mx.concatenate(outputs)


def _of(expert: int, stacked: mx.array) -> mx.array:
    """The part of one expert, without the copy that an index alone would make."""
    return stacked[expert : expert + 1].squeeze(0)

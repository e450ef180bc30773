"""GPTQ: what rounding one column of a matrix spoils, the columns after it make good.

Frantar et al. 2022, https://arxiv.org/abs/2210.17323. A layer's outputs change by `dW H dWᵀ` when its weights change
by `dW`, where H is the mean of `x xᵀ` over what the layer reads. Columns are rounded one after the other; the error of
each is passed on to those that are still floats, in the proportions that change the outputs least, which the rows of
the upper Cholesky factor of H⁻¹ are. Rows of the matrix have nothing to do with each other.

Two things differ from mlx-lm's: scales and biases of a group are searched as `rounding.py` does it when the group is
reached, for the weights as they are then; and codes are chosen for scales and biases as they will be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_mlx.checkpoints.quantizers.packing import pack_columns
from qwen_mlx.checkpoints.quantizers.rounding import Packed, as_importance, cores, join, search_piece, workers
from qwen_mlx.checkpoints.quantizers.stored_types import NotFinite, as_floats, widen

_DAMPING = 0.01  # of the mean of the diagonal, as in the authors' code
_ROWS = 1024  # of a piece, at most


@dataclass(frozen=True)
class Guide:
    """What a Hessian says about rounding.

    Attributes:
        upper: the upper Cholesky factor of its inverse, after damping, float32 (columns, columns).
        squares: its diagonal, positive, (columns,): what a group's scale is searched for.
    """

    upper: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, hessian: np.ndarray) -> Guide:
        """Of a Hessian, float32 (columns, columns): symmetric, no eigenvalue negative but by rounding."""
        squares = as_importance(np.diag(hessian))
        mean, damping = squares.mean(), _DAMPING
        while True:  # ends: with enough on the diagonal, anything is positive definite
            damped = hessian / mean
            damped[np.diag_indices_from(damped)] += np.float32(damping)
            try:
                lower = np.linalg.cholesky(np.linalg.inv(damped))
            except np.linalg.LinAlgError:
                damping *= 10
                continue
            return cls(np.ascontiguousarray(lower.T), squares)


def gptq(weight: np.ndarray, bits: int, group_size: int, dtype: str, guide: Guide) -> Packed:
    """Codes, scales and biases for rows of a matrix.

    Args:
        weight: (rows, columns), finite; float32, float16, or bfloat16 as uint16; columns is a multiple of `group_size`.
        bits: 2, 3, 4, 5, 6 or 8.
        dtype: of scales and biases: "BF16", "F16" or "F32".

    Returns:
        Codes, scales, biases; the error is that of the weights themselves, every column alike.

    Raises:
        NotFinite: a weight is NaN or infinite.
    """
    rows = len(weight)
    step = max(1, min(_ROWS, -(-rows // cores())))

    def one(row: int) -> Packed:
        return _gptq(weight[row : row + step], bits, group_size, dtype, guide)

    return join(list(workers().map(one, range(0, rows, step))))


def _gptq(part: np.ndarray, bits: int, group_size: int, dtype: str, guide: Guide) -> Packed:
    upper = guide.upper
    rows, columns = part.shape
    given = np.empty(part.shape, np.float32)
    widen(part, given)
    if not np.isfinite(given).all():
        raise NotFinite
    left = np.ascontiguousarray(given.T)  # columns, each of which is a row here; changed as they are passed
    top = np.float32((1 << bits) - 1)
    words, scales, biases = [], [], []
    error = 0.0
    for start in range(0, columns, group_size):
        own = slice(start, start + group_size)
        found = search_piece(np.ascontiguousarray(left[own].T), bits, group_size, dtype, guide.squares[own])
        scale, bias = as_floats(found.scales, dtype)[:, 0], as_floats(found.biases, dtype)[:, 0]
        codes, passed_on = np.empty((2, group_size, rows), np.float32)
        for i in range(group_size):
            k = start + i
            q = codes[i]
            np.subtract(left[k], bias, out=q)
            np.divide(q, scale, out=q)
            np.rint(q, out=q)
            np.clip(q, 0, top, out=q)
            rounded = q * scale + bias
            error += float(np.square(rounded - given[:, k]).sum(dtype=np.float64))
            passed_on[i] = (left[k] - rounded) / upper[k, k]
            left[k + 1 : own.stop] -= upper[k, k + 1 : own.stop, None] * passed_on[i]
        left[own.stop :] -= upper[own, own.stop :].T @ passed_on
        words.append(pack_columns(codes, bits))
        scales.append(found.scales)
        biases.append(found.biases)
    weight, scale, bias = (np.concatenate(parts, axis=1) for parts in (words, scales, biases))
    return Packed(weight, scale, bias, error, float(np.square(given).sum(dtype=np.float64)))

"""Queries, keys and values of new tokens on their way into attention: norm, rotation, packing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from qwen_mlx.kernels.packed_kv import PackedKV
from qwen_mlx.kernels.qk_norm_rope import qk_norm_rope, qk_norm_rope_pack
from qwen_mlx.models.norm import rms_norm


@dataclass(frozen=True)
class Rotation:
    """How queries and keys turn.

    Attributes:
        periods: float32 (dims / 2,): channels i and i + dims / 2 turn by `position / periods[i]`.
        q_offset, k_offset: int32 (1,) or (batch,), positions of the first token; for one new token `q_offset` may be
            (1, copies), which gives a query for each of these positions. For rows with several texts, int32 (batch,
            length), the position of every token; then `periods` may be (batch, length, dims / 2).
        dims: channels that turn.
        q_gain: multiplies the turning channels of q.
        k_scale: multiplies k.
        matrix: float32 (dims, dims), the same as a product, for one position and neither gain nor scale; None where
            nobody asked for it.
    """

    periods: mx.array
    q_offset: mx.array
    k_offset: mx.array
    dims: int
    q_gain: float = 1.0
    k_scale: float = 1.0
    matrix: mx.array | None = None

    @property
    def options(self) -> dict[str, Any]:
        """As the kernels take them."""
        return {"dims": self.dims, "q_gain": self.q_gain, "k_scale": self.k_scale}


@dataclass(frozen=True)
class NewHeads:
    """What the projections gave, each (batch, length, heads | kv_heads, head_dim).

    Attributes:
        weights: of the RMSNorms of q and k, or none.
        eps: of these norms.
        stacked: the same weights as (heads + kv_heads, head_dim), where somebody keeps them so.
    """

    q: mx.array
    k: mx.array
    v: mx.array
    weights: tuple[mx.array, ...] = ()
    eps: float = 0.0
    stacked: mx.array | None = None

    def normed(self) -> NewHeads:
        """The same with the norms done."""
        if not self.weights:
            return self
        q, k = (rms_norm(x, w, self.eps) for x, w in zip((self.q, self.k), self.weights))
        return NewHeads(q, k, self.v)

    def rotated(self, rotations: Sequence[Rotation]) -> tuple[mx.array, mx.array]:
        """q (batch, heads, length, head_dim) and k, normed and rotated: all rows by one, or each by its own."""
        matrix = rotations[0].matrix
        whole = self.stacked is not None or not self.weights
        if len(rotations) == 1 and matrix is not None and whole and self.q.dtype == mx.float32:
            return self._turned_together(matrix)

        def one(new: NewHeads, by: Rotation) -> Sequence[mx.array]:
            arrays = (new.q, new.k, by.periods, by.q_offset, by.k_offset, *new.weights)
            return qk_norm_rope(*arrays, **by.options, eps=new.eps)

        return self._each(one, rotations)

    def _turned_together(self, matrix: mx.array) -> tuple[mx.array, mx.array]:
        """`rotated` for one token on a CPU, where starting an operation takes longer than computing it.

        A third of the operations: q and k are normed together, and turning both is one product of matrices.
        """
        batch, _, heads, size = self.q.shape
        x = mx.concatenate([self.q, self.k], axis=2).reshape(batch, -1, size)
        if self.stacked is not None:
            x = rms_norm(x, self.stacked, self.eps)
        dims = matrix.shape[0]
        if dims < size:
            turning, rest = mx.split(x, [dims], axis=-1)
            x = mx.concatenate([turning @ matrix, rest], axis=-1)
        else:
            x = x @ matrix
        q, k = mx.split(x[:, :, None], [heads], axis=1)
        return q, k

    def packed(self, rotations: Sequence[Rotation], layout: PackedKV) -> tuple[mx.array, mx.array]:
        """q as `rotated` gives it, and the records of the new tokens, uint32 (batch, kv_heads, length, words)."""

        def one(new: NewHeads, by: Rotation) -> Sequence[mx.array]:
            arrays = (new.q, new.k, new.v, by.periods, by.q_offset, by.k_offset, *new.weights)
            return qk_norm_rope_pack(*arrays, layout=layout, **by.options, eps=new.eps)

        return self._each(one, rotations)

    def _each(
        self, one: Callable[[NewHeads, Rotation], Sequence[mx.array]], rotations: Sequence[Rotation]
    ) -> tuple[mx.array, mx.array]:
        if len(rotations) == 1:
            first, second = one(self, rotations[0])
            return first, second
        rows = [
            one(replace(self, q=self.q[i : i + 1], k=self.k[i : i + 1], v=self.v[i : i + 1]), rotation)
            for i, rotation in enumerate(rotations)
        ]
        return mx.concatenate([row[0] for row in rows]), mx.concatenate([row[1] for row in rows])

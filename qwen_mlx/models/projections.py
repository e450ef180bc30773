"""Projections that read the same input are one matrix: q, k, v, and gate, up."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import mlx.core as mx
import mlx.nn as nn


class FusedLinear(nn.Module):
    """Several linear layers over one input, computed by one matrix product.

    Rows of a matrix are independent, quantized or not, so stacking them changes no number. Members that are stored
    in different formats (say v at 6 bits, q and k at 4) cannot share a matrix; neighbours that can, do.

    Attributes:
        parts: the matrices, in order; each holds one or more members.
        members: name -> number of rows, in order, with the names of the checkpoint.
    """

    def __init__(self, input_dims: int, members: Mapping[str, int], bias: bool = False) -> None:
        super().__init__()
        self._members = dict(members)  # underscored: MLX takes any other dict for parameters
        self.parts: list[nn.Module] = [nn.Linear(input_dims, sum(members.values()), bias=bias)]
        self._group([list(members)])

    @property
    def members(self) -> dict[str, int]:
        return dict(self._members)

    def set_parts(self, parts: Sequence[nn.Module], grouping: Sequence[Sequence[str]]) -> None:
        """Replace the matrices; `grouping` names the members of each, all members in their order."""
        assert [name for group in grouping for name in group] == list(self._members)
        self.parts = list(parts)
        self._group(grouping)

    def _group(self, grouping: Sequence[Sequence[str]]) -> None:
        """Keep the names of each part, and the rows at which its members but the first begin."""
        self._grouping = [list(group) for group in grouping]
        rows = [list(itertools.accumulate(self._members[name] for name in group)) for group in grouping]
        self._borders = [ends[:-1] for ends in rows]

    @property
    def grouping(self) -> list[list[str]]:
        """The names of the members that each part holds."""
        return [list(group) for group in self._grouping]

    def __call__(self, x: mx.array) -> list[mx.array]:
        """x (..., input_dims) -> one array (..., rows) per member."""
        outputs: list[mx.array] = []
        for part, borders in zip(self.parts, self._borders):
            y = part(x)
            if borders:
                outputs += mx.split(y, borders, axis=-1)
            else:
                outputs.append(y)
        return outputs

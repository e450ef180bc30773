"""A set of tokenized examples as batches of few shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from qwen_mlx.training.data.batches import BatchShape, Row, collate, fitting_length, plan_epoch
from qwen_mlx.training.data.examples import TokenDataset
from qwen_mlx.training.ops.sft import batch_arrays
from qwen_mlx.training.stages.stage import Arrays

_ROUNDED = 32  # row lengths are multiples of it


def batch_shape(lengths: np.ndarray, tokens_per_batch: int, longest: int, packing: bool) -> BatchShape:
    """Rows and positions of a batch.

    With packing, a row is as long as the longest example may be, so that little is left over; a small set of examples
    gets no longer a row than it fills. Without, it is as long as the longest example is.

    Args:
        lengths: tokens of the examples.
        tokens_per_batch: positions of a batch; a row that is longer makes it larger.
        longest: most tokens an example may have.
    """
    largest = int(lengths.max(initial=2))
    length = max(largest, min(longest, tokens_per_batch, int(lengths.sum()))) if packing else largest
    length = -(-length // _ROUNDED) * _ROUNDED
    rows = max(1, tokens_per_batch // length)
    if packing:  # no more rows than there is something for
        rows = min(rows, -(-int(lengths.sum()) // length))
    return BatchShape(min(rows, max(len(lengths), 1)), length)


class DatasetSource:
    """Implements `Source`.

    Args:
        shape: of the batches; without packing they may be shorter, in a few lengths.
        fixed: always the order of epoch 0 of seed 0: for an evaluation.
    """

    def __init__(self, dataset: TokenDataset, shape: BatchShape, seed: int, packing: bool, fixed: bool = False) -> None:
        self._dataset, self._shape, self._packing = dataset, shape, packing
        self._seed, self._fixed = (0 if fixed else seed), fixed
        self._plan: tuple[int, list[list[Row]]] | None = None

    @property
    def digest(self) -> str:
        about = f"{self._dataset.digest} {self._shape} {self._seed} {self._packing}"
        return hashlib.sha256(about.encode()).hexdigest()[:16]

    @property
    def examples(self) -> int:
        return len(self._dataset)

    @property
    def tokens(self) -> int:
        return int(np.sum(self._dataset.lengths))

    @property
    def supervised(self) -> float:
        return float(np.sum(self._dataset.supervised))

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape.rows, self._shape.length

    def batches(self, epoch: int) -> Sequence[list[Row]]:
        epoch = 0 if self._fixed else epoch
        if self._plan is None or self._plan[0] != epoch:
            plan = plan_epoch(
                self._dataset.lengths,
                self._seed,
                epoch,
                self._shape,
                self._packing,
                source=lambda index: self._dataset[index].source,
            )
            self._plan = epoch, plan
        return self._plan[1]

    def arrays(self, batch: Any) -> Arrays:
        return batch_arrays(collate(self._dataset, batch, self._shape_of(batch)))

    def tokens_of(self, batch: Any) -> int:
        return int(sum(int(self._dataset.lengths[index]) for row in batch for index in row))

    def positions_of(self, batch: Any) -> int:
        shape = self._shape_of(batch)
        return shape.rows * shape.length

    def _shape_of(self, batch: Any) -> BatchShape:
        if self._packing:
            return self._shape
        return BatchShape(self._shape.rows, fitting_length(self._dataset.lengths, batch, self._shape))

    def sources(self, batch: Any) -> list[str]:
        return [self._dataset[index].source for row in batch for index in row]

"""One tokenised example, and what a set of them can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Example:
    """One example, ready for a model.

    Attributes:
        ids: int32 (n,), token ids.
        weights: float32 (n,), how much predicting `ids[i]` from `ids[:i]` counts; 0 is not learnt. `weights[0]` is 0:
            nothing comes before the first token.
        source: where it was read, such as "train.jsonl:12".
    """

    ids: np.ndarray
    weights: np.ndarray
    source: str


class TokenDataset(Protocol):
    """Examples that lie on the disk and are read one by one.

    Attributes:
        digest: of rows, tokenizer, template and options; a resumed run compares it.
        lengths: int32 (examples,), tokens of each.
        supervised: float64 (examples,), sum of the weights of each.
    """

    @property
    def digest(self) -> str: ...

    @property
    def lengths(self) -> np.ndarray: ...

    @property
    def supervised(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

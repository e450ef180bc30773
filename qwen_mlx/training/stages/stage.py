"""The protocol between the loop and what it trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import mlx.core as mx

from qwen_mlx.models import Decoder

Arrays = dict[str, mx.array]
Loss = tuple[mx.array, mx.array, dict[str, mx.array]]
"""The weighted sum of the token losses, the sum of the weights, and further numbers to report: float32 scalars."""


class Source(Protocol):
    """Examples in batches. What `batches` gives depends on nothing but its argument, on every machine alike."""

    @property
    def digest(self) -> str:
        """Of everything that decides the batches; a resumed run compares it."""

    @property
    def examples(self) -> int: ...

    @property
    def tokens(self) -> int:
        """Real tokens of one epoch, padding not included."""

    @property
    def supervised(self) -> float:
        """Sum of the weights of all tokens."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and positions of the largest batch."""

    def batches(self, epoch: int) -> Sequence[Any]:
        """What an epoch consists of, in order; the same number in every epoch. Cheap: nothing is read."""

    def arrays(self, batch: Any) -> Arrays:
        """The arrays of one of them, of the same few shapes for all."""

    def tokens_of(self, batch: Any) -> int:
        """Real tokens of one of them."""

    def positions_of(self, batch: Any) -> int:
        """Positions that are computed for one of them, padding included."""

    def sources(self, batch: Any) -> list[str]:
        """Where its examples were read, such as "train.jsonl:12"."""


class Stage(Protocol):
    """A kind of training. Preference and reinforcement stages bring other batches and losses to the same loop."""

    @property
    def name(self) -> str: ...

    @property
    def train(self) -> Source: ...

    @property
    def valid(self) -> Source | None: ...

    @property
    def longest(self) -> int:
        """Tokens of the longest example of all."""

    def recomputing(self, every: int) -> Stage:
        """The same with every k-th layer computed again in the backward pass, which saves memory; 0: none."""

    def window_start(self, decoder: Decoder) -> Arrays:
        """What a loss counts over a whole window, at its beginning; empty for most.

        Metrics of the same names, which begin with "window.", are added up, and are among the arrays of the window's
        next batch.
        """

    def loss(self, decoder: Decoder, arrays: Arrays) -> Loss:
        """Differentiable in the trainable parameters; traced once per shape when it is compiled."""

    def judge(self, decoder: Decoder, arrays: Arrays) -> Loss:
        """What the evaluation adds up: the plain loss, without terms that only guide the training."""

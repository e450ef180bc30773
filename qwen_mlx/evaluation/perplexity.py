"""How well a model predicts a text.

The logarithm of a sum of exponentials over a whole vocabulary is taken in blocks: adding up 152 000 float32 numbers one
after the other, as MLX does on a CPU, loses four digits, which is more than a good quantization changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from qwen_mlx.models import Decoder

# Logits that exist at a time.
_LOGITS = 1 << 24
_BLOCK = 2048


def log_sum_exp(logits: mx.array) -> mx.array:
    """float32 (rows, vocabulary) -> (rows,): log(sum(exp)) of each row, in blocks."""
    rows, vocabulary = logits.shape
    whole = vocabulary // _BLOCK * _BLOCK
    parts = []
    if whole:
        parts.append(mx.logsumexp(logits[:, :whole].reshape(rows, -1, _BLOCK), axis=-1))
    if whole < vocabulary:
        parts.append(mx.logsumexp(logits[:, whole:], axis=-1, keepdims=True))
    return mx.logsumexp(mx.concatenate(parts, axis=-1), axis=-1)


def log_probabilities(logits: mx.array) -> mx.array:
    """(rows, vocabulary) -> float32, the same shape: normalised with `log_sum_exp`."""
    logits = logits.astype(mx.float32)
    return logits - log_sum_exp(logits)[:, None]


def sum_of_rows(x: mx.array) -> mx.array:
    """float32 (rows, columns) -> (rows,): sums, in blocks for the same reason."""
    rows, columns = x.shape
    whole = columns // _BLOCK * _BLOCK
    total = x[:, whole:].sum(axis=-1)
    return total + x[:, :whole].reshape(rows, -1, _BLOCK).sum(axis=-1).sum(axis=-1) if whole else total


def pieces(hidden: mx.array, vocabulary: int) -> Iterator[tuple[int, mx.array]]:
    """hidden (tokens, hidden_size) in pieces whose logits fit in little memory, each with its first row."""
    step = max(1, _LOGITS // vocabulary)
    for start in range(0, hidden.shape[0], step):
        yield start, hidden[start : start + step]


@dataclass
class Losses:
    """Negative log-likelihoods of tokens in nats, as they come in."""

    values: list[np.ndarray] = field(default_factory=list)

    def add(self, losses: mx.array) -> None:
        self.values.append(np.array(losses, dtype=np.float64))

    @property
    def count(self) -> int:
        return sum(len(part) for part in self.values)

    @property
    def mean(self) -> float:
        return float(np.concatenate(self.values).mean())

    @property
    def perplexity(self) -> float:
        """exp of the mean; infinite where that is beyond floating point."""
        return math.exp(self.mean) if self.mean < 700 else math.inf

    @property
    def perplexity_error(self) -> float:
        """Standard error of the perplexity, tokens taken for independent."""
        return self.perplexity * standard_error(np.concatenate(self.values))


def standard_error(values: np.ndarray) -> float:
    """Of the mean of `values`."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else math.nan


def window_losses(decoder: Decoder, window: Sequence[int]) -> Iterator[mx.array]:
    """Negative log-likelihood, in nats, of every token of a window but the first; float32, some at a time."""
    hidden = decoder.hidden_states(mx.array([list(window[:-1])]))[0]
    targets = mx.array(list(window[1:]))
    for start, piece in pieces(hidden, decoder.spec.vocab_size):
        logits = decoder.logits(piece).astype(mx.float32)
        chosen = mx.take_along_axis(logits, targets[start : start + piece.shape[0], None], axis=-1)[:, 0]
        losses = log_sum_exp(logits) - chosen
        mx.eval(losses)
        yield losses

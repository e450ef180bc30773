"""Repetition, presence and frequency penalties, kept up to date without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from qwen_mlx.generation.parameters import SamplingParams


class PenaltyState:
    """What one sequence has said so far, as far as the penalties need it.

    The repetition penalty looks at prompt and output, as in transformers (after Keskar et al. 2019, CTRL,
    section 4.1); presence and frequency look at the output only, as in the OpenAI API. `update` takes the
    token that was just sampled as a lazy array, so decoding can stay one token ahead. The arrays inside are
    never written in place: `copy.copy(state)` is a snapshot to come back to.

    Args:
        prompt_ids: token ids of the prompt; ids that the logits do not have (outside 0..vocab-1) are ignored.
        vocab: width of the logits.
        params: the three penalties are read.
    """

    def __init__(self, prompt_ids: Sequence[int] | mx.array, vocab: int, params: SamplingParams) -> None:
        self._repetition = params.repetition_penalty
        self._presence = params.presence_penalty
        self._frequency = params.frequency_penalty
        # Each (vocab,) float32, or None where its penalty is off.
        self._factor: mx.array | None = None  # the repetition penalty for seen tokens, 1 for others
        self._counts: mx.array | None = None  # occurrences in the output
        self._minus: mx.array | None = None  # presence + frequency * count
        if self._repetition != 1:
            prompt = np.array(prompt_ids, dtype=np.int64).reshape(-1)
            factor = np.ones(vocab, dtype=np.float32)
            factor[prompt[(prompt >= 0) & (prompt < vocab)]] = self._repetition
            self._factor = mx.array(factor)
        if self._presence != 0 or self._frequency != 0:
            self._counts = mx.zeros(vocab)
            self._minus = mx.zeros(vocab)

    @property
    def active(self) -> bool:
        """False if all penalties are off; then `apply` and `update` do nothing."""
        return self._factor is not None or self._counts is not None

    def apply(self, logits: mx.array) -> mx.array:
        """Logits (..., vocab) with the penalties, float32; the same array if all penalties are off."""
        if not self.active:
            return logits
        logits = logits.astype(mx.float32)
        if self._factor is not None:
            # Of l / p and l * p, the smaller one is "divide positive, multiply negative" for p >= 1, the
            # larger one for p < 1; a factor of 1 changes nothing. Fewer passes than choosing by sign.
            choose = mx.minimum if self._repetition >= 1 else mx.maximum
            logits = choose(logits / self._factor, logits * self._factor)
        if self._minus is not None:
            logits = logits - self._minus
        return logits

    def update(self, tokens: mx.array) -> None:
        """Count tokens of the output: an array of ids of any shape, which may be lazy."""
        if not self.active:
            return
        tokens = tokens.reshape(-1)
        if self._factor is not None:
            self._factor = mx.put_along_axis(self._factor, tokens, mx.array(self._repetition), axis=0)
        if self._counts is not None and self._minus is not None:
            self._counts = self._counts.at[tokens].add(1)
            minus = self._presence + self._frequency * self._counts[tokens]
            self._minus = mx.put_along_axis(self._minus, tokens, minus, axis=0)

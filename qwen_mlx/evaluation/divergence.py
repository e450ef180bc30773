"""How far the next-token distributions of one model are from those of another.

Perplexity hides most of what a quantization does: errors that favour the right token pay for those that do not. The
Kullback-Leibler divergence from the original counts every change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from qwen_mlx.evaluation.perplexity import Losses, log_probabilities, pieces, standard_error, sum_of_rows
from qwen_mlx.events import Divergence
from qwen_mlx.models import Decoder


def divergence(reference: mx.array, other: mx.array) -> mx.array:
    """Kullback-Leibler divergence of each row, sum p log(p / q), in nats: (rows, vocabulary) twice -> (rows,).

    Args:
        reference: log p, normalised, float32; `other`: log q.

    Computed as sum p (q/p - 1 - log(q/p)), which is the same when both sum to one. No term is negative, so nothing
    cancels, and rounding cannot make a small divergence negative. Where q is much larger than p, q/p could overflow,
    and q - p is taken instead.
    """
    d = other - reference
    p = mx.exp(reference)
    excess = mx.where(d < 1, p * mx.expm1(mx.minimum(d, 1)), mx.exp(other) - p)
    return sum_of_rows(excess - p * d)


@dataclass
class Comparison:
    """What is added up over the windows of a text.

    Attributes:
        losses, reference: of the model and of its reference.
        kl: per token, in nats; `same`: whether both think the same token the likeliest.
    """

    losses: Losses = field(default_factory=Losses)
    reference: Losses = field(default_factory=Losses)
    kl: list[np.ndarray] = field(default_factory=list)
    same: list[np.ndarray] = field(default_factory=list)

    def add(self, model: Decoder, reference: Decoder, window: Sequence[int]) -> Iterator[int]:
        """Read one window with both; yields how many tokens have been compared, some at a time."""
        ids = mx.array([list(window[:-1])])
        targets = mx.array(list(window[1:]))
        ours, theirs = model.hidden_states(ids)[0], reference.hidden_states(ids)[0]
        common = min(model.spec.vocab_size, reference.spec.vocab_size)  # rows beyond the vocabulary are padding
        for start, piece in pieces(ours, 3 * common):
            end = start + piece.shape[0]
            q = log_probabilities(model.logits(piece)[:, :common])
            p = log_probabilities(reference.logits(theirs[start:end])[:, :common])
            kl, same = divergence(p, q), mx.argmax(p, axis=-1) == mx.argmax(q, axis=-1)
            chosen = targets[start:end, None]
            loss_q, loss_p = (-mx.take_along_axis(x, chosen, axis=-1)[:, 0] for x in (q, p))
            mx.eval(kl, same, loss_q, loss_p)
            self.kl.append(np.array(kl, dtype=np.float64))
            self.same.append(np.array(same))
            self.losses.add(loss_q)
            self.reference.add(loss_p)
            yield end - start

    def result(self) -> Divergence:
        kl = np.concatenate(self.kl)
        return Divergence(
            kl=float(kl.mean()),
            kl_error=standard_error(kl),
            kl_99=float(np.quantile(kl, 0.99)),
            kl_max=float(kl.max()),
            same_top=float(np.concatenate(self.same).mean()),
            reference_perplexity=self.reference.perplexity,
        )

"""The loss of supervised fine-tuning, for rows that hold one text each or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from qwen_mlx.models.decoder import Decoder
from qwen_mlx.models.spec import MoESpec
from qwen_mlx.training.ops.balance import balance, load_metrics, router_use
from qwen_mlx.training.ops.cross_entropy import linear_cross_entropy
from qwen_mlx.training.ops.forward import hidden_states

Loss = tuple[mx.array, mx.array, dict[str, mx.array]]
"""Sum of the weighted losses of tokens, sum of the weights, further numbers: float32 scalars."""

_FIELDS = ("ids", "targets", "weights", "positions", "starts")
# The number of rows that the head reads is one of few, so that few graphs are compiled.
_FEWEST_ROWS = 64


def batch_arrays(batch: Any) -> dict[str, mx.array]:
    """What `sft_loss` reads of a `qwen_mlx.training.data.batches.Batch` (or anything with the same numpy fields).

    Besides the fields there is `rows`: the tokens that the head must read, which are those that are learnt and a few
    more, so that there are few different numbers of them.
    """
    arrays = {name: mx.array(getattr(batch, name)) for name in _FIELDS}
    arrays["rows"] = mx.array(learnt_rows(batch.weights))
    return arrays


def learnt_rows(weights: np.ndarray) -> np.ndarray:
    """int32 (n,), indices into the flattened weights: every one that is not 0, once, and then others that are 0.

    n is 64 or 96 times a power of two, or the number of all tokens.
    """
    flat = np.asarray(weights).reshape(-1)
    learnt, rest = np.flatnonzero(flat), np.flatnonzero(flat == 0)
    size = _FEWEST_ROWS
    while 3 * size // 2 < len(learnt):
        size *= 2
    count = min(size if size >= len(learnt) else 3 * size // 2, len(flat))
    return np.concatenate([learnt, rest[: count - len(learnt)]]).astype(np.int32)


def sft_loss(
    decoder: Decoder,
    batch: Mapping[str, mx.array],
    *,
    checkpoint_every: int = 0,
    longest: int | None = None,
    chunk: int | None = None,
    balance_coefficient: float = 0.0,
    window: tuple[mx.array, mx.array] | None = None,
) -> Loss:
    """`sum_t weights[t] * -log p(targets[t])` over all tokens, and the sum of the weights.

    The mean over a window of accumulation is the sum of the first over the sum of the second: exact for each token,
    however tokens are spread over micro-batches. Differentiable in the trainable parameters; can be compiled, once for
    every set of shapes.

    Args:
        batch: ids, targets, weights, positions, starts as `qwen_mlx.training.data.batches.Batch` has them, and if given
            `rows`, see `batch_arrays`.
        checkpoint_every: recompute every k-th layer in the backward pass; 1 for all, 0 for none.
        longest: no text has more tokens than this; less attention is computed. A property of the data set is best: each
            value is another graph.
        chunk: tokens that go through the head at a time; None for what fits the vocabulary.
        balance_coefficient: what the router's loss is multiplied with before it is added to the mean loss of a token;
            `router_aux_loss_coef` in configurations. Nothing in a dense model.
        window: with the router's loss, the selections (layers, experts) of the experts and the number of tokens in the
            window of accumulation, this batch not included. The loss is then that of the global batch as far as it is
            known (Qwen3), and metrics give what to add to both, `moe_selections` and `moe_tokens`.

    Returns:
        Both sums, and metrics: of a model with experts `moe_loss` and what `load_metrics` gives. The first sum is NaN
        if `rows` leaves out a token that is to be learnt, or a text is longer than `longest`.
    """
    hidden, router_logits = hidden_states(
        decoder, batch["ids"], batch["positions"], batch["starts"], checkpoint_every, longest
    )
    hidden = hidden.reshape(-1, hidden.shape[-1])
    targets, weights = batch["targets"].reshape(-1), batch["weights"].reshape(-1).astype(mx.float32)
    total_weight = weights.sum()
    fits = mx.array(True)
    if longest is not None:
        places = mx.arange(batch["starts"].shape[1])
        fits = (places - batch["starts"]).max() < longest
    if "rows" in batch:
        rows = batch["rows"]
        learnt = weights != 0
        fits = fits & (learnt[rows].sum() == learnt.sum())
        hidden, targets, weights = hidden[rows], targets[rows], weights[rows]
    head = decoder.embed_tokens if decoder.spec.tied else decoder.lm_head
    loss = linear_cross_entropy(hidden, head, targets, weights, chunk)
    loss = mx.where(fits, loss, mx.array(float("nan")))
    metrics: dict[str, mx.array] = {}
    if router_logits:
        use = router_use(router_logits, _experts_per_token(decoder), _real(batch["starts"]))
        seen = (use.selections, use.tokens)
        if window is not None:
            metrics |= {"moe_selections": use.selections, "moe_tokens": use.tokens}
            seen = (window[0] + use.selections, window[1] + use.tokens)
        uneven = balance(use, *seen)
        metrics |= {"moe_loss": uneven, **load_metrics(use)}
        if balance_coefficient:
            loss = loss + balance_coefficient * uneven * total_weight
    return loss, total_weight, metrics


def _experts_per_token(decoder: Decoder) -> int:
    return next(la.mlp.experts_per_token for la in decoder.spec.layers if isinstance(la.mlp, MoESpec))


def _real(starts: mx.array) -> mx.array:
    """float32 (batch, length), 0 for padding: a text of one token, from which nothing is learnt either."""
    places = mx.arange(starts.shape[1])
    following = mx.concatenate([starts[:, 1:], mx.full((starts.shape[0], 1), -1, dtype=starts.dtype)], axis=1)
    return ((starts != places) | (following == places)).astype(mx.float32)

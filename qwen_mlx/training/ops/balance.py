"""Losses that keep the experts of a model equally busy.

`E sum_e f_e P_e` with E experts, f_e the selections of expert e per token and P_e its mean probability (Switch
Transformer, arXiv:2101.03961, equations 4 to 6; f as transformers counts it sums to the number of experts per token).
It is least, and equal to the number of experts per token, when all are equally busy. As in transformers, the layers of
a model are counted together.

Qwen3 counts the selections over the global batch (arXiv:2501.11873; Qwen3 technical report, arXiv:2505.09388, section
2): then experts may specialise within a batch, as long as all are busy on the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from qwen_mlx.kernels.router_topk import router_topk


class RouterUse(NamedTuple):
    """What the routers of all layers did with a number of tokens.

    Attributes:
        selections: float32 (layers, experts), how many tokens went to an expert; a constant to gradients.
        probabilities: float32 (layers, experts), summed over tokens.
        tokens: float32 scalar, how many tokens there were.
    """

    selections: mx.array
    probabilities: mx.array
    tokens: mx.array


def router_use(router_logits: Sequence[mx.array], top_k: int, mask: mx.array | None = None) -> RouterUse:
    """What the routers did.

    Args:
        router_logits: of every layer with experts, (tokens, experts).
        top_k: experts per token.
        mask: (tokens,) or any shape with as many, 0 for tokens that do not count, 1 for others; None counts all.
    """
    counts = mx.ones((router_logits[0].shape[0],)) if mask is None else mask.reshape(-1).astype(mx.float32)
    selections, probabilities = [], []
    for logits in router_logits:
        chosen = router_topk(mx.stop_gradient(logits), top_k, False)[0]
        each = mx.broadcast_to(counts[:, None], chosen.shape)
        selections.append(mx.zeros((logits.shape[-1],)).at[chosen.reshape(-1)].add(each.reshape(-1)))
        probabilities.append(counts @ mx.softmax(logits.astype(mx.float32), axis=-1))
    return RouterUse(mx.stack(selections), mx.stack(probabilities), counts.sum())


def load_balancing_loss(
    router_logits: Sequence[mx.array], experts: int, top_k: int, mask: mx.array | None = None
) -> mx.array:
    """The loss of one micro-batch, float32 scalar: `load_balancing_loss_func` of transformers.

    Arguments as `router_use`.
    """
    use = router_use(router_logits, top_k, mask)
    assert use.selections.shape[-1] == experts
    return balance(use, use.selections, use.tokens)


def balance(use: RouterUse, selections: mx.array, tokens: mx.array) -> mx.array:
    """The loss of a micro-batch when selections are counted over more than that, float32 scalar.

    With the counts of the whole window of accumulation, the mean of it over the window's micro-batches, weighted by
    their tokens, is the loss of the window as one batch.

    Args:
        use: of the micro-batch; its probabilities carry the gradient.
        selections: (layers, experts), of all tokens that count, those of the micro-batch among them.
        tokens: how many they are.
    """
    layers, experts = use.selections.shape
    frequency = mx.stop_gradient(selections).sum(axis=0) / (layers * mx.maximum(tokens, 1))
    probability = use.probabilities.sum(axis=0) / (layers * mx.maximum(use.tokens, 1))
    return experts * (frequency * probability).sum()


def load_metrics(use: RouterUse) -> dict[str, mx.array]:
    """How equally busy the experts are, float32 scalars.

    `moe_entropy` is the mean entropy of the layers' loads, 1 when all experts are equally busy; `moe_busiest` the
    largest load of any, as a multiple of the mean; `moe_idle` the share of experts that no token went to.
    """
    selections = mx.stop_gradient(use.selections)
    experts = selections.shape[-1]
    share = selections / mx.maximum(selections.sum(axis=-1, keepdims=True), 1)
    entropy = -(share * mx.log(mx.maximum(share, 1e-30))).sum(axis=-1) / mx.log(mx.array(float(max(experts, 2))))
    return {
        "moe_entropy": entropy.mean(),
        "moe_busiest": share.max() * experts,
        "moe_idle": (selections == 0).astype(mx.float32).mean(),
    }

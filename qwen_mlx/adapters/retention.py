"""How much of an adapter a fused model has kept.

A small change of large weights is lost in their rounding: into 4 bits nearly all of it, in bfloat16 whatever is below
half a unit of the last place. So the change of the predictions is measured before and after.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from qwen_mlx.checkpoints.load import LoadedModel
from qwen_mlx.errors import CheckpointError, NotFound
from qwen_mlx.events import Retention
from qwen_mlx.models import Decoder

# At least so much of the change has to be kept: its direction, and how far is left at the most, as a part of it.
LEAST_COSINE, MOST_LOST = 0.9, 0.5
_TOKENS = 96  # of each text
_NOTHING = 1e-9  # nats: below this an adapter changes nothing that could be kept or lost
_TEXTS = (
    "The quick way to learn a language is to speak it every day, to read what you like, and to make many mistakes.",
    "def mean(numbers):\n    total = 0\n    for n in numbers:\n        total += n\n    return total / len(numbers)\n",
    "<|im_start|>user\n请用一句话介绍北京。<|im_end|>\n<|im_start|>assistant\n北京是中国的首都，历史悠久。<|im_end|>\n",
    "<|im_start|>user\nWhat is 17 + 25?<|im_end|>\n<|im_start|>assistant\n17 + 25 = 42.<|im_end|>\n",
)

Distributions = list[np.ndarray]


def probes(model: LoadedModel, texts: Sequence[str] = ()) -> list[list[int]]:
    """The token ids of the texts given and of some more; without a tokenizer, ids from all over the vocabulary."""
    vocab = model.spec.vocab_size
    try:
        every = [model.tokenizer.encode(text) for text in (*texts, *_TEXTS)]
    except (NotFound, CheckpointError):
        every = []
    if not every or max(map(max, filter(None, every)), default=vocab) >= vocab:
        every = [[(7919 * (i + 1) * (j + 3) + i) % vocab for i in range(_TOKENS)] for j in range(3)]
    most = max(2, min(_TOKENS, model.spec.max_positions))
    return [ids[:most] for ids in every if len(ids) > 1]


def log_probabilities(decoder: Decoder, texts: Sequence[Sequence[int]]) -> Distributions:
    """Of each text, the log-probabilities of the next token, float32 (tokens, vocab)."""
    found = []
    for ids in texts:
        logits = decoder(mx.array([list(ids)]))[0].astype(mx.float32)
        rows = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        found.append(np.array(rows))
    return found


def retention(base: Distributions, wanted: Distributions, fused: Distributions) -> Retention:
    """Compare three models over the same texts: the base, the base with adapters, and the fused one."""
    product = own = other = 0.0
    kl: list[np.ndarray] = []
    change: list[np.ndarray] = []
    same: list[np.ndarray] = []
    for b, w, f in zip(base, wanted, fused):
        # In float64, and without what a softmax does not see.
        before, after = (_centred(w.astype(np.float64) - b), _centred(f.astype(np.float64) - b))
        product += float((before * after).sum())
        own += float((before * before).sum())
        other += float((after * after).sum())
        kl.append(_divergence(w, f))
        change.append(_divergence(w, b))
        same.append(w.argmax(-1) == f.argmax(-1))
    changed = float(np.concatenate(change).mean())
    lost = float(np.concatenate(kl).mean())
    if changed < _NOTHING:  # nothing to keep: all of it is, unless the rounding alone does more
        cosine = 1.0 if lost < 1e3 * _NOTHING else 0.0
    else:
        cosine = product / float(np.sqrt(own * other)) if other > 0 else 0.0
    tops = np.concatenate(same)
    return Retention(cosine, lost, changed, float(tops.mean()), len(tops))


def is_enough(kept: Retention) -> bool:
    """Whether a fused model may take the place of its adapters."""
    return kept.cosine >= LEAST_COSINE and (kept.change < _NOTHING or kept.kl <= MOST_LOST * kept.change)


def _centred(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(axis=-1, keepdims=True)


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """sum p log(p / q) of each row, as a sum of terms none of which is negative."""
    d = q.astype(np.float64) - p
    weights = np.exp(p.astype(np.float64))
    return (weights * np.expm1(np.minimum(d, 700)) - weights * d).sum(axis=-1)

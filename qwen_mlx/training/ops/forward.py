"""The pass over rows of several texts that training differentiates, with layers that are computed twice to save memory.

Layers are recomputed one by one, by a function that wraps the call of a layer: no class is changed, so nothing else in
the process is, and every layer may or may not be recomputed.
"""

from __future__ import annotations

import contextlib

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.adapters import adapters, dropout_keys
from qwen_mlx.errors import UsageError
from qwen_mlx.models import expert_groups
from qwen_mlx.models.decoder import Decoder, Forward, Layer
from qwen_mlx.models.positions import Texts, of_texts
from qwen_mlx.models.spec import AttentionSpec
from qwen_mlx.training.ops.attention import Reach
from qwen_mlx.training.ops.parameters import Trainable
from qwen_mlx.training.ops.segments import SegmentStore


def hidden_states(
    decoder: Decoder,
    ids: mx.array,
    positions: mx.array,
    starts: mx.array,
    checkpoint_every: int = 0,
    longest: int | None = None,
) -> Forward:
    """What the head reads, and what the routers said; the same as of every text by itself.

    Can be differentiated in the trainable parameters and compiled. Adapters may be wrapped around any module inside of
    a layer; what they drop follows from one key drawn here, so that a layer drops the same when it is recomputed.
    Rope that stretches with the length of a text stretches every text by its own.

    Args:
        ids: int (batch, length).
        positions: int32 (batch, length), of every token in its text.
        starts: int32 (batch, length), where in its row the text of a token begins; padding begins a text each.
        checkpoint_every: recompute every k-th layer in the backward pass instead of keeping what it computed: 1 for
            all of them, which needs the least memory, 0 for none.
        longest: no text has more tokens than this; None if that is not known. Attention to what is farther away is
            not computed, so a longer text would be wrong.

    Returns:
        Hidden states (batch, length, hidden_size), and per layer with experts the router's logits (batch * length,
        experts), padding included.

    Raises:
        UsageError: the model cannot be trained on rows of this length, or a recomputed layer holds a
            `mlx.nn.Dropout`, which would drop other values the second time.
    """
    if checkpoint_every < 0:
        raise UsageError("checkpoint_every counts layers", expected="0 or more", found=str(checkpoint_every))
    run = _Pass(decoder, Texts(positions, starts), longest)
    x = decoder.embed_tokens(ids)
    if decoder.compute_dtype is not None:
        x = x.astype(decoder.compute_dtype)
    routers: list[mx.array] = []
    for number, layer in enumerate(decoder.layers, start=1):
        again = checkpoint_every > 0 and number % checkpoint_every == 0
        x, *logits = run.recomputed(layer, x) if again else run.once(layer, x)
        routers += logits
    return Forward(decoder.norm(x), routers)


class _Pass:
    """One pass of rows through the layers of a decoder."""

    def __init__(self, decoder: Decoder, texts: Texts, longest: int | None) -> None:
        length = texts.starts.shape[1]
        self._decoder, self._texts = decoder, texts
        self._where = of_texts(texts)
        self._reach = Reach.whole(length) if longest is None else Reach.of_texts(length, longest)
        self._key: mx.array | None = None
        if decoder.training and any(config.dropout > 0 for config in adapters(decoder).values()):
            self._key = mx.random.randint(0, 1 << 32, (2,), dtype=mx.uint32)

    def once(self, layer: Layer, x: mx.array) -> list[mx.array]:
        """The output of a layer, and the logits of its router where it has one."""
        store = None
        if isinstance(layer.spec.mixer, AttentionSpec):
            store = SegmentStore(self._texts, layer.window, self._reach)
        # Here and not around the whole pass: a layer is recomputed when the pass is long over.
        keys = contextlib.nullcontext() if self._key is None else dropout_keys(self._decoder, self._key)
        with keys, expert_groups.never():
            return [y for y in layer.forward(x, self._where, store) if y is not None]

    def recomputed(self, layer: Layer, x: mx.array) -> list[mx.array]:
        """As `once`, but for the backward pass only the input is kept."""
        if any(isinstance(m, nn.Dropout) and m.training and m._p_1 < 1 for m in layer.modules()):
            raise UsageError(
                "a layer with mlx.nn.Dropout cannot be recomputed: it would drop other values the second time",
                hint="Train without recomputing layers, or without it.",
            )
        trainable = Trainable(layer)

        def run(x: mx.array, *parameters: mx.array) -> list[mx.array]:
            with trainable.held(parameters):
                return self.once(layer, x)

        outputs: list[mx.array] = mx.checkpoint(run)(x, *trainable.arrays)
        return outputs

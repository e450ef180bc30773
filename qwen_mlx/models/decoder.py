"""One decoder for the whole family, built from a `ModelSpec`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.errors import UsageError
from qwen_mlx.models.attention import Attention
from qwen_mlx.models.cache import KVCache, LayerCache, RecurrentCache
from qwen_mlx.models.delta_net import DeltaNet
from qwen_mlx.models.mlp import MLP
from qwen_mlx.models.moe import MoE
from qwen_mlx.models.norm import RMSNorm
from qwen_mlx.models.positions import Positions, positions
from qwen_mlx.models.rope import qwen1_theta
from qwen_mlx.models.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec


class Layer(nn.Module):
    """Pre-norm residual layer."""

    def __init__(self, spec: LayerSpec, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.spec = spec
        self.input_layernorm = RMSNorm(hidden_size, eps=eps)
        if isinstance(spec.mixer, AttentionSpec):
            self.self_attn = Attention(spec.mixer, hidden_size, eps)
        else:
            self.linear_attn = DeltaNet(spec.mixer, hidden_size, eps)
        self.post_attention_layernorm = RMSNorm(hidden_size, eps=eps)
        mlp = spec.mlp
        self.mlp = MLP(mlp, hidden_size) if isinstance(mlp, MLPSpec) else MoE(mlp, hidden_size)

    def __call__(self, x: mx.array, where: Positions, cache: Any) -> mx.array:
        """x (batch, length, hidden_size) -> the same shape; `cache` is of the kind the mixer needs, or None."""
        return self.forward(x, where, cache)[0]

    def forward(self, x: mx.array, where: Positions, cache: Any) -> tuple[mx.array, mx.array | None]:
        """As a call, and with it the logits of the router (batch * length, experts), None for a dense layer."""
        mixer = self.self_attn if isinstance(self.spec.mixer, AttentionSpec) else self.linear_attn
        x = x + mixer(self.input_layernorm(x), where, cache)
        normed = self.post_attention_layernorm(x)
        if not isinstance(self.mlp, MoE):
            return x + self.mlp(normed), None
        y, logits = self.mlp.forward(normed)
        return x + y, logits

    @property
    def window(self) -> int | None:
        """The window of its attention; None for all keys and for linear attention."""
        return self.spec.mixer.window if isinstance(self.spec.mixer, AttentionSpec) else None


class Forward(NamedTuple):
    """What one pass gives.

    Attributes:
        hidden: what the head reads, after the final norm: (batch, length, hidden_size).
        router_logits: of every layer with experts, in order: (batch * length, experts), padding included.
    """

    hidden: mx.array
    router_logits: list[mx.array]


class Decoder(nn.Module):
    """Token ids in, logits out; knows nothing of text, sampling or files.

    Follows mlx-lm's model protocol (`model(ids, cache=...)`, `.layers`, `make_cache()`). Parameters are named as in
    the checkpoint without the leading "model.", except that projections over one input are stacked.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.compute_dtype: mx.Dtype | None = None  # of activations; None: as the embedding gives them
        self.embed_tokens = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = [Layer(layer, spec.hidden_size, spec.norm_eps) for layer in spec.layers]
        self.norm = RMSNorm(spec.hidden_size, eps=spec.norm_eps)
        if not spec.tied:
            self.lm_head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)

    def __call__(self, ids: mx.array, cache: Sequence[LayerCache] | None = None) -> mx.array:
        """ids int (batch, length) -> logits (batch, length, vocab). A cache is extended by `length` tokens."""
        return self.logits(self.hidden_states(ids, cache))

    def hidden_states(self, ids: mx.array, cache: Sequence[LayerCache] | None = None) -> mx.array:
        """ids int (batch, length) -> what the head reads, after the final norm: (batch, length, hidden_size)."""
        return self._run(ids, cache, None)

    def forward(self, ids: mx.array, cache: Sequence[LayerCache] | None = None) -> Forward:
        """As `hidden_states`, and with it what the routers of the experts said, for a loss that balances them.

        Everything is returned and nothing is kept, so it can be differentiated and compiled.
        """
        routers: list[mx.array] = []
        return Forward(self._run(ids, cache, routers), routers)

    def _run(self, ids: mx.array, cache: Sequence[LayerCache] | None, routers: list[mx.array] | None) -> mx.array:
        """The hidden states; `routers` takes the logits of the routers."""
        ids = mx.array(ids)
        if cache is not None and len(cache) != len(self.layers):
            raise ValueError(f"the cache has {len(cache)} layers, the model {len(self.layers)}")
        x = self.embed_tokens(ids)
        if self.compute_dtype is not None:
            x = x.astype(self.compute_dtype)  # packed embeddings of some modes come out as bfloat16
        where: dict[int | None, Positions] = {}
        for i, layer in enumerate(self.layers):
            layer_cache = None if cache is None else cache[i]
            if layer.window not in where:
                where[layer.window] = positions(ids.shape[1], layer_cache, layer.window)
            if routers is None:
                x = layer(x, where[layer.window], layer_cache)  # a call, which programs around us may wrap
                continue
            x, logits = layer.forward(x, where[layer.window], layer_cache)
            if logits is not None:
                routers.append(logits)
        return self.norm(x)

    def logits(self, hidden: mx.array) -> mx.array:
        """hidden (..., hidden_size) -> logits (..., vocab)."""
        if self.spec.tied:
            return self.embed_tokens.as_linear(hidden)
        return self.lm_head(hidden)

    def make_cache(self, left_padding: Sequence[int] | None = None) -> list[LayerCache]:
        """An empty cache, one per layer.

        Args:
            left_padding: for a batch of texts of different length, the number of padding tokens before each.
        """
        chunked = any(isinstance(la.mixer, AttentionSpec) and la.mixer.dual_chunk for la in self.spec.layers)
        if chunked and left_padding is not None and any(left_padding):
            raise UsageError(
                "a left-padded batch cannot run through Dual Chunk Attention, which cuts texts by position",
                expected="one text at a time, or texts of one length",
            )
        return [
            KVCache(layer.mixer.window, left_padding)
            if isinstance(layer.mixer, AttentionSpec)
            else RecurrentCache(left_padding)
            for layer in self.spec.layers
        ]

    def can_continue(self, cache: Sequence[LayerCache], prompt: int) -> bool:
        """Whether a prompt of `prompt` tokens may go on from `cache`, or would have to be read anew.

        The first Qwen stretches its rope by the length of the prompt: keys of another stretch do not fit.
        """
        for layer, held in zip(self.spec.layers, cache):
            mixer = layer.mixer
            if isinstance(mixer, AttentionSpec) and mixer.rope.type == "qwen1" and held.prompt:
                return qwen1_theta(mixer.rope, held.prompt) == qwen1_theta(mixer.rope, prompt)
        return True

"""One decoder for the whole family, built from a `ModelSpec`."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.models.attention import Attention, Positions, positions
from qwen_mlx.models.cache import KVCache
from qwen_mlx.models.mlp import MLP
from qwen_mlx.models.moe import MoE
from qwen_mlx.models.spec import LayerSpec, MLPSpec, ModelSpec


class Layer(nn.Module):
    """Pre-norm residual layer."""

    def __init__(self, spec: LayerSpec, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(hidden_size, eps=eps)
        self.self_attn = Attention(spec.mixer, hidden_size, eps)
        self.post_attention_layernorm = nn.RMSNorm(hidden_size, eps=eps)
        mlp = spec.mlp
        self.mlp = MLP(mlp, hidden_size) if isinstance(mlp, MLPSpec) else MoE(mlp, hidden_size)

    def __call__(self, x: mx.array, where: Positions, cache: KVCache | None) -> mx.array:
        x = x + self.self_attn(self.input_layernorm(x), where, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Token ids in, logits out; knows nothing of text, sampling or files.

    Follows mlx-lm's model protocol (`model(ids, cache=...)`, `.layers`, `make_cache()`). Parameters are named as in
    the checkpoint without the leading "model.", except that projections over one input are stacked.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = [Layer(layer, spec.hidden_size, spec.norm_eps) for layer in spec.layers]
        self.norm = nn.RMSNorm(spec.hidden_size, eps=spec.norm_eps)
        if not spec.tied:
            self.lm_head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)

    def __call__(self, ids: mx.array, cache: Sequence[KVCache] | None = None) -> mx.array:
        """ids int (batch, length) -> logits (batch, length, vocab). A cache is extended by `length` tokens."""
        return self.logits(self.hidden_states(ids, cache))

    def hidden_states(self, ids: mx.array, cache: Sequence[KVCache] | None = None) -> mx.array:
        """ids int (batch, length) -> what the head reads, after the final norm: (batch, length, hidden_size)."""
        ids = mx.array(ids)
        if cache is not None and len(cache) != len(self.layers):
            raise ValueError(f"the cache has {len(cache)} layers, the model {len(self.layers)}")
        x = self.embed_tokens(ids)
        where: dict[int | None, Positions] = {}
        for i, layer in enumerate(self.layers):
            layer_cache = None if cache is None else cache[i]
            window = layer.self_attn.spec.window
            if window not in where:
                where[window] = positions(ids.shape[1], layer_cache, window)
            x = layer(x, where[window], layer_cache)
        return self.norm(x)

    def logits(self, hidden: mx.array) -> mx.array:
        """hidden (..., hidden_size) -> logits (..., vocab)."""
        if self.spec.tied:
            return self.embed_tokens.as_linear(hidden)
        return self.lm_head(hidden)

    def make_cache(self, left_padding: Sequence[int] | None = None) -> list[KVCache]:
        """An empty cache, one per layer.

        Args:
            left_padding: for a batch of texts of different length, the number of padding tokens before each.
        """
        return [KVCache(layer.mixer.window, left_padding) for layer in self.spec.layers]

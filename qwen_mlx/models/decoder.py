"""One decoder for the whole family, built from a `ModelSpec`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.errors import UsageError
from qwen_mlx.kernels import launch
from qwen_mlx.kernels.add_rms_norm import add_rms_norm
from qwen_mlx.kernels.packed_kv import PackedKV
from qwen_mlx.models.attention import Attention
from qwen_mlx.models.cache import KVCache, LayerCache, RecurrentCache
from qwen_mlx.models.delta_net import DeltaNet
from qwen_mlx.models.mlp import MLP
from qwen_mlx.models.moe import MoE
from qwen_mlx.models.norm import RMSNorm
from qwen_mlx.models.positions import Positions, positions
from qwen_mlx.models.quantized_cache import QuantizedKVCache, parse_kv_bits
from qwen_mlx.models.rope import qwen1_theta
from qwen_mlx.models.spec import AttentionSpec, DeltaNetSpec, LayerSpec, MLPSpec, ModelSpec


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
        x, y, logits = self.open_forward(x, None, where, cache)
        return x + y, logits

    def open_forward(
        self, x: mx.array, y: mx.array | None, where: Positions, cache: Any
    ) -> tuple[mx.array, mx.array, mx.array | None]:
        """As `forward`, but its input is `x + y`, and the sum of the first two results is its output.

        So the last addition of a layer can be one kernel with the norm that follows it in the next.
        """
        mixer = self.self_attn if isinstance(self.spec.mixer, AttentionSpec) else self.linear_attn
        x, normed = _norm_of_sum(x, y, self.input_layernorm)
        x, normed = _norm_of_sum(x, mixer(normed, where, cache), self.post_attention_layernorm)
        if isinstance(self.mlp, MoE):
            return x, *self.mlp.forward(normed)
        return x, self.mlp(normed), None

    @property
    def window(self) -> int | None:
        """The window of its attention; None for all keys and for linear attention."""
        return self.spec.mixer.window if isinstance(self.spec.mixer, AttentionSpec) else None


def _norm_of_sum(x: mx.array, y: mx.array | None, norm: RMSNorm) -> tuple[mx.array, mx.array]:
    """`x + y` and its norm; without `y`, `x` and its norm."""
    if y is not None and launch.builder() is not None:
        return add_rms_norm(x, y, norm.weight, norm.eps)
    x = x if y is None else x + y
    return x, norm(x)


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
        if cache is None:
            return self._run(ids, cache, None)
        with launch.no_gradients():  # with a cache a text is continued, and nothing is learnt
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
        y: mx.array | None = None  # what is still to be added to x
        where: dict[int | None, Positions] = {}
        for i, layer in enumerate(self.layers):
            layer_cache = None if cache is None else cache[i]
            if layer.window not in where:
                where[layer.window] = positions(ids.shape[1], layer_cache, layer.window)
            if cache is not None and routers is None and isinstance(layer, Layer):
                x, y, _ = layer.open_forward(x, y, where[layer.window], layer_cache)
                continue
            # A call, which programs around us may wrap: mlx-lm's training does, and has no cache.
            x, y = (x if y is None else x + y), None
            if routers is None:
                x = layer(x, where[layer.window], layer_cache)
                continue
            x, logits = layer.forward(x, where[layer.window], layer_cache)
            if logits is not None:
                routers.append(logits)
        return _norm_of_sum(x, y, self.norm)[1]

    def logits(self, hidden: mx.array) -> mx.array:
        """hidden (..., hidden_size) -> logits (..., vocab)."""
        if self.spec.tied:
            return self.embed_tokens.as_linear(hidden)
        return self.lm_head(hidden)

    def make_cache(self, left_padding: Sequence[int] | None = None, kv_bits: str | None = None) -> list[LayerCache]:
        """An empty cache, one per layer.

        Args:
            left_padding: for a batch of texts of different length, the number of padding tokens before each.
            kv_bits: "8", "4" or "8/4" (keys 8, values 4) quantizes keys and values; None keeps them as computed.

        Raises:
            UsageError: this model cannot have such a cache.
        """
        chunked = any(isinstance(la.mixer, AttentionSpec) and la.mixer.dual_chunk for la in self.spec.layers)
        if chunked and left_padding is not None and any(left_padding):
            raise UsageError(
                "a left-padded batch cannot run through Dual Chunk Attention, which cuts texts by position",
                expected="one text at a time, or texts of one length",
            )
        return [_layer_cache(layer.mixer, left_padding, kv_bits) for layer in self.spec.layers]

    def can_continue(self, cache: Sequence[LayerCache], prompt: int) -> bool:
        """Whether a prompt of `prompt` tokens may go on from `cache`, or would have to be read anew.

        The first Qwen stretches its rope by the length of the prompt: keys of another stretch do not fit.
        """
        for layer, held in zip(self.spec.layers, cache):
            mixer = layer.mixer
            if isinstance(mixer, AttentionSpec) and mixer.rope.type == "qwen1" and held.prompt:
                return qwen1_theta(mixer.rope, held.prompt) == qwen1_theta(mixer.rope, prompt)
        return True


def _layer_cache(
    mixer: AttentionSpec | DeltaNetSpec, left_padding: Sequence[int] | None, kv_bits: str | None
) -> LayerCache:
    if not isinstance(mixer, AttentionSpec):
        return RecurrentCache(left_padding)
    if kv_bits is None:
        return KVCache(mixer.window, left_padding)
    return QuantizedKVCache(PackedKV(mixer.head_dim, *parse_kv_bits(kv_bits)), mixer.window, left_padding)

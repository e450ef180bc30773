"""Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B: Qwen2 attention, experts and one shared expert.

Reference: transformers' `Qwen2MoeForCausalLM`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_mlx.models.families.config import Config, read_layer_types, read_mlps, read_rope
from qwen_mlx.models.spec import AttentionSpec, LayerSpec, ModelSpec, MoESpec

MODEL_TYPES = ("qwen2_moe",)
_MISSING = MoESpec(60, 4, 1408, normalise=False, shared_intermediate=5632)


def read_spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of a `config.json`. Raises `ConfigError` naming the key that cannot be followed."""
    config = Config(values, "qwen2_moe")
    hidden = config.integer("hidden_size", 2048)
    layers = config.integer("num_hidden_layers", 24, high=1024)
    heads = config.integer("num_attention_heads", 16)
    kv_heads = config.integer("num_key_value_heads", 16)
    head_dim = config.integer("head_dim", hidden // heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"a divisor of {heads} heads", kv_heads)
    rope = read_rope(config, head_dim)
    bias = config.flag("qkv_bias", True)
    spec = ModelSpec(
        family="qwen2_moe",
        vocab_size=config.integer("vocab_size", 151936),
        hidden_size=hidden,
        layers=tuple(
            LayerSpec(AttentionSpec(heads, kv_heads, head_dim, rope, qkv_bias=bias, window=window), mlp)
            for window, mlp in zip(_windows(config, layers), read_mlps(config, layers, _MISSING, 5632))
        ),
        norm_eps=config.epsilon("rms_norm_eps"),
        tied=config.flag("tie_word_embeddings", False),
        max_positions=rope.context,
    )
    config.finish()
    return spec


def _windows(config: Config, layers: int) -> list[int | None]:
    """transformers' own rule for this family: even layers below `max_window_layers` slide."""
    use = config.flag("use_sliding_window", False)
    below = config.integer("max_window_layers", 28, low=0)
    given = config.get("sliding_window", 4096 if "sliding_window" not in config.values else None)
    explicit = read_layer_types(config, layers)
    slides = explicit if explicit is not None else [use and i % 2 == 0 and i < below for i in range(layers)]
    if not use or given is None:
        if explicit is not None and any(explicit):
            raise config.error("layer_types", "no sliding_attention while use_sliding_window is off", explicit)
        return [None] * layers
    window = config.integer("sliding_window", 4096)
    return [window if s else None for s in slides]

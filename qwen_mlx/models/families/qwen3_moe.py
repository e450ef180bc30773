"""Qwen3 with experts (30B-A3B, 235B-A22B, Coder): Qwen3 attention, no shared expert.

Reference: transformers' `Qwen3MoeForCausalLM`; Qwen3 report, arXiv:2505.09388.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_mlx.models.families.config import Config, read_mlps, read_rope
from qwen_mlx.models.spec import AttentionSpec, LayerSpec, ModelSpec, MoESpec

MODEL_TYPES = ("qwen3_moe",)
# The code of transformers does not normalise unless told to; every published config tells it to.
_MISSING = MoESpec(128, 8, 768, normalise=False)


def read_spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of a `config.json`. Raises `ConfigError` naming the key that cannot be followed."""
    config = Config(values, "qwen3_moe")
    hidden = config.integer("hidden_size", 2048)
    layers = config.integer("num_hidden_layers", 24, high=1024)
    heads = config.integer("num_attention_heads", 32)
    kv_heads = config.integer("num_key_value_heads", 4)
    head_dim = config.integer("head_dim", hidden // heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"a divisor of {heads} heads", kv_heads)
    rope = read_rope(config, head_dim)
    bias = config.flag("attention_bias", False)
    # Unlike its dense sibling every layer slides, or none does.
    window = config.integer("sliding_window", 4096) if config.flag("use_sliding_window", False) else None
    config.get("sliding_window")
    config.get("max_window_layers")
    mixer = AttentionSpec(heads, kv_heads, head_dim, rope, qkv_bias=bias, out_bias=bias, qk_norm=True, window=window)
    spec = ModelSpec(
        family="qwen3_moe",
        vocab_size=config.integer("vocab_size", 151936),
        hidden_size=hidden,
        layers=tuple(LayerSpec(mixer, mlp) for mlp in read_mlps(config, layers, _MISSING, 6144)),
        norm_eps=config.epsilon("rms_norm_eps"),
        tied=config.flag("tie_word_embeddings", False),
        max_positions=rope.context,
    )
    config.finish()
    return spec

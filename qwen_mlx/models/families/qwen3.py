"""Qwen3 dense: RMSNorm on every head of q and k, no biases unless `attention_bias`.

Reference: transformers' `Qwen3ForCausalLM`; Qwen3 report, arXiv:2505.09388.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_mlx.models.families.config import Config, read_dual_chunk, read_rope, read_windows
from qwen_mlx.models.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec

MODEL_TYPES = ("qwen3",)


def read_spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of a `config.json`. Raises `ConfigError` naming the key that cannot be followed."""
    config = Config(values, "qwen3")
    hidden = config.integer("hidden_size", 4096)
    layers = config.integer("num_hidden_layers", 32, high=1024)
    heads = config.integer("num_attention_heads", 32)
    kv_heads = config.integer("num_key_value_heads", 32)
    head_dim = config.integer("head_dim", 128)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"a divisor of {heads} heads", kv_heads)
    rope = read_rope(config, head_dim)
    bias = config.flag("attention_bias", False)
    mlp = MLPSpec(config.integer("intermediate_size", 22016))
    windows = read_windows(config, layers)
    dual_chunk = read_dual_chunk(config)
    if dual_chunk is not None and (any(windows) or rope.type != "default"):
        raise config.error("dual_chunk_attention_config", "neither windows nor a rope scaling beside it", rope.type)
    spec = ModelSpec(
        family="qwen3",
        vocab_size=config.integer("vocab_size", 151936),
        hidden_size=hidden,
        layers=tuple(
            LayerSpec(
                AttentionSpec(
                    heads,
                    kv_heads,
                    head_dim,
                    rope,
                    qkv_bias=bias,
                    out_bias=bias,
                    qk_norm=True,
                    window=window,
                    dual_chunk=dual_chunk,
                ),
                mlp,
            )
            for window in windows
        ),
        norm_eps=config.epsilon("rms_norm_eps"),
        tied=config.flag("tie_word_embeddings", False),
        max_positions=rope.context,
    )
    config.finish()
    return spec

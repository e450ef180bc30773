"""The first Qwen (1.8B to 72B): multi-head attention, its own rope stretching and LogN scaling.

References: the code published beside the weights (`QWenLMHeadModel`), and the Qwen report, arXiv:2309.16609.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_mlx.models.families.config import Config
from qwen_mlx.models.spec import AttentionSpec, LayerSpec, MLPSpec, ModelSpec, RopeSpec

MODEL_TYPES = ("qwen",)
_NAMES = (
    (r"^transformer\.wte\.", "embed_tokens."),
    (r"^transformer\.ln_f\.", "norm."),
    (r"^transformer\.h\.(\d+)\.", r"layers.\1."),
    (r"^(layers\.\d+)\.ln_1\.", r"\1.input_layernorm."),
    (r"^(layers\.\d+)\.ln_2\.", r"\1.post_attention_layernorm."),
    (r"^(layers\.\d+)\.attn\.c_attn\.", r"\1.self_attn.qkv."),
    (r"^(layers\.\d+)\.attn\.c_proj\.", r"\1.self_attn.o_proj."),
    (r"^(layers\.\d+)\.mlp\.w1\.", r"\1.mlp.up_proj."),
    (r"^(layers\.\d+)\.mlp\.w2\.", r"\1.mlp.gate_proj."),  # the second one is the gate
    (r"^(layers\.\d+)\.mlp\.c_proj\.", r"\1.mlp.down_proj."),
)
# About training and about how the original code runs; none of it changes what it computes.
_IGNORED = (
    "attn_dropout_prob emb_dropout_prob bf16 fp16 fp32 use_flash_attn use_cache_quantization use_cache_kernel "
    "softmax_in_fp32 scale_attn_weights onnx_safe padded_vocab_size n_embd n_head n_layer n_positions"
).split()


def read_spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of a `config.json`. Raises `ConfigError` naming the key that cannot be followed."""
    config = Config(values, "qwen")
    hidden = config.integer("hidden_size", 4096)
    heads = config.integer("num_attention_heads", 32)
    head_dim = config.integer("kv_channels", 128)
    trained = config.integer("seq_length", 2048)
    partial = config.number("rotary_pct", 1.0)
    dims = int(head_dim * partial)
    if not 0 < dims <= head_dim or dims % 2:
        raise config.error("rotary_pct", "an even number of rotated channels", partial)
    rope = RopeSpec(
        dims,
        config.number("rotary_emb_base", 10000.0),
        "qwen1" if config.flag("use_dynamic_ntk", True) else "default",
        max_positions=trained,
    )
    if rope.theta <= 1:
        raise config.error("rotary_emb_base", "a number above 1", rope.theta)
    logn = trained if config.flag("use_logn_attn", True) and trained > 1 else None
    bias = not config.flag("no_bias", True)
    inner = config.integer("intermediate_size", 22016)
    if inner % 2:
        raise config.error("intermediate_size", "an even number: w1 and w2 have half of it each", inner)
    attention = AttentionSpec(heads, heads, head_dim, rope, qkv_bias=True, out_bias=bias, logn=logn)
    layer = LayerSpec(attention, MLPSpec(inner // 2, bias))
    spec = ModelSpec(
        family="qwen",
        vocab_size=config.integer("vocab_size", 151936),
        hidden_size=hidden,
        layers=(layer,) * config.integer("num_hidden_layers", 32, high=1024),
        norm_eps=config.epsilon("layer_norm_epsilon"),
        tied=config.flag("tie_word_embeddings", False),
        max_positions=config.integer("max_position_embeddings", 8192),
        tensor_names=_NAMES,
    )
    config.finish(ignored=_IGNORED)
    return spec

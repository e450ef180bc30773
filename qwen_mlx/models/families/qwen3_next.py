"""Qwen3-Next and Qwen3.5: three layers of Gated DeltaNet to one of gated attention, all norms zero-centred.

References: transformers' `Qwen3NextForCausalLM`, `Qwen3_5ForCausalLM` and `Qwen3_5MoeForCausalLM`. Qwen3.5 is
published as a vision-language model; its text model is the `text_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qwen_mlx.models.families.config import Config, read_mlps, read_rope
from qwen_mlx.models.spec import AttentionSpec, DeltaNetSpec, LayerSpec, MLPSpec, ModelSpec, MoESpec

_NEXT_EXPERTS = MoESpec(512, 10, 512, normalise=True, shared_intermediate=512)
_EXPERTS = MoESpec(256, 8, 512, normalise=True, shared_intermediate=512)
# Of the vision-language wrapper; what a text model does not need.
WRAPPER = frozenset(
    """
    text_config vision_config image_token_id video_token_id vision_start_token_id vision_end_token_id
    tie_word_embeddings language_model_only
    """.split()
)
# True of every model of the family, or only about training and speculation.
_IGNORED = frozenset(
    """
    full_attention_interval attn_output_gate mamba_ssm_dtype mtp_num_hidden_layers mtp_use_dedicated_embeddings
    rope_theta partial_rotary_factor
    """.split()
)


def read_next(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of a Qwen3-Next `config.json`. Raises `ConfigError` naming the key that cannot be followed."""
    config = Config(values, "qwen3_next")
    layers = config.integer("num_hidden_layers", 48, high=1024)
    return _read(
        config,
        "qwen3_next",
        DeltaNetSpec(16, 32, 128, 128, 4, interleaved=True),
        read_mlps(config, layers, _NEXT_EXPERTS, 5632),
        (2048, 16, 2),
    )


def read_dense(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of a dense Qwen3.5, alone or in its wrapper."""
    config = Config(_text(values, "qwen3_5"), "qwen3_5")
    layers = config.integer("num_hidden_layers", 32, high=1024)
    mlp = MLPSpec(config.integer("intermediate_size", 12288))
    return _read(config, "qwen3_5", DeltaNetSpec(16, 32, 128, 128, 4), [mlp] * layers, (4096, 16, 4))


def read_moe(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of a Qwen3.5 with experts, in every layer and always normalised."""
    config = Config(_text(values, "qwen3_5_moe"), "qwen3_5_moe")
    layers = config.integer("num_hidden_layers", 40, high=1024)
    config.get("intermediate_size")
    mlps = read_mlps(config, layers, _EXPERTS, 1)
    mlps = [replace(mlp, normalise=True) if isinstance(mlp, MoESpec) else mlp for mlp in mlps]
    return _read(config, "qwen3_5_moe", DeltaNetSpec(16, 32, 128, 128, 4), mlps, (2048, 16, 2))


READERS = {
    "qwen3_next": read_next,
    "qwen3_5": read_dense,
    "qwen3_5_text": read_dense,
    "qwen3_5_moe": read_moe,
    "qwen3_5_moe_text": read_moe,
}


def _text(values: Mapping[str, Any], family: str) -> Mapping[str, Any]:
    """The text model's part of a config, with the wrapper's word on tied embeddings."""
    inner = values.get("text_config")
    if inner is None:
        return values
    wrapper = Config(values, family)
    if not isinstance(inner, Mapping):
        raise wrapper.error("text_config", "an object", inner)
    wrapper.finish(ignored=WRAPPER)
    tied = values.get("tie_word_embeddings")
    return inner if tied is None else {**inner, "tie_word_embeddings": tied}


def _read(
    config: Config,
    family: str,
    missing: DeltaNetSpec,
    mlps: list[MLPSpec | MoESpec],
    sizes: tuple[int, int, int],
) -> ModelSpec:
    """What the three have in common; `missing` and `sizes` are the family's values for keys that are not there."""
    hidden = config.integer("hidden_size", sizes[0])
    heads = config.integer("num_attention_heads", sizes[1])
    kv_heads = config.integer("num_key_value_heads", sizes[2])
    head_dim = config.integer("head_dim", 256)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"a divisor of {heads} heads", kv_heads)
    rope = read_rope(config, head_dim, partial=0.25)
    bias = config.flag("attention_bias", False)
    attention = AttentionSpec(heads, kv_heads, head_dim, rope, qkv_bias=bias, out_bias=bias, qk_norm=True, gated=True)
    delta = DeltaNetSpec(
        config.integer("linear_num_key_heads", missing.key_heads),
        config.integer("linear_num_value_heads", missing.value_heads),
        config.integer("linear_key_head_dim", missing.key_dim),
        config.integer("linear_value_head_dim", missing.value_dim),
        config.integer("linear_conv_kernel_dim", missing.kernel, low=2, high=64),
        missing.interleaved,
    )
    if delta.value_heads % delta.key_heads:
        raise config.error("linear_num_value_heads", f"a multiple of {delta.key_heads} heads", delta.value_heads)
    gate = config.get("attn_output_gate", True)
    if gate is not True:
        raise config.error("attn_output_gate", "true", gate)
    spec = ModelSpec(
        family=family,
        vocab_size=config.integer("vocab_size", 151936),
        hidden_size=hidden,
        layers=tuple(
            LayerSpec(delta if linear else attention, mlp) for linear, mlp in zip(_linear(config, len(mlps)), mlps)
        ),
        norm_eps=config.epsilon("rms_norm_eps"),
        tied=config.flag("tie_word_embeddings", False),
        max_positions=rope.context,
        zero_centred_norms=True,
    )
    config.finish(ignored=_IGNORED)
    return spec


def _linear(config: Config, layers: int) -> list[bool]:
    """True for a layer of linear attention; pruned models have irregular lists, so the list wins."""
    types = config.get("layer_types")
    interval = config.integer("full_attention_interval", 4)
    if types is None:
        return [(i + 1) % interval != 0 for i in range(layers)]
    if not isinstance(types, list) or len(types) != layers:
        raise config.error("layer_types", f"a list of {layers} names", types)
    for name in types:
        if name not in ("full_attention", "linear_attention"):
            raise config.error("layer_types", "full_attention or linear_attention", name)
    return [name == "linear_attention" for name in types]

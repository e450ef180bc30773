"""Names of the parts of a decoder as other programs have them."""

from __future__ import annotations

import re

from qwen_mlx.models import ModelSpec

# The first Qwen, the other way round than `ModelSpec.tensor_names`.
_FIRST_QWEN = (
    (r"^layers\.(\d+)\.self_attn\.qkv(?=\.|$)", r"transformer.h.\1.attn.c_attn"),
    (r"^layers\.(\d+)\.self_attn\.o_proj(?=\.|$)", r"transformer.h.\1.attn.c_proj"),
    (r"^layers\.(\d+)\.mlp\.up_proj(?=\.|$)", r"transformer.h.\1.mlp.w1"),
    (r"^layers\.(\d+)\.mlp\.gate_proj(?=\.|$)", r"transformer.h.\1.mlp.w2"),
    (r"^layers\.(\d+)\.mlp\.down_proj(?=\.|$)", r"transformer.h.\1.mlp.c_proj"),
    (r"^embed_tokens(?=\.|$)", "transformer.wte"),
)


def hub_name(spec: ModelSpec, own: str, wrapped: bool = False) -> str:
    """The name of a module in transformers: "layers.0.self_attn.q_proj" -> "model.layers.0.self_attn.q_proj".

    Args:
        wrapped: as part of a vision-language model, as Qwen3.5 is published.
    """
    if own == "lm_head" or own.startswith("lm_head."):
        return own
    if spec.tensor_names:
        for pattern, replacement in _FIRST_QWEN:
            own, found = re.subn(pattern, replacement, own)
            if found:
                return own
    return f"model.language_model.{own}" if wrapped else f"model.{own}"

"""Configurations of tiny models, one function per family, spelled as published checkpoints spell them."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]
VOCAB = 96
REMOVED = object()  # as a value: leave the key out


def _config(defaults: Config, changes: Config) -> Config:
    return {key: value for key, value in {**defaults, **changes}.items() if value is not REMOVED}


def _base(model_type: str, architecture: str, **more: Any) -> Config:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-3,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "float32",
        **more,
    }


_SLIDING = {"use_sliding_window": False, "sliding_window": 8}
_NOT_SLIDING = {"use_sliding_window": False, "sliding_window": None}
_EXPERTS = {"moe_intermediate_size": 12, "num_experts": 6, "num_experts_per_tok": 2}
_SPARSE = {"decoder_sparse_step": 1, "mlp_only_layers": []}
_ROUTER_LOSS = {"output_router_logits": False, "router_aux_loss_coef": 0.001}
_DELTA_NET = {
    "num_hidden_layers": 4,
    "head_dim": 16,
    "attention_bias": False,
    "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}


def qwen2(**changes: Any) -> Config:
    return _config(_base("qwen2", "Qwen2ForCausalLM", **_SLIDING, max_window_layers=3), changes)


def qwen2_moe(**changes: Any) -> Config:
    sizes = {"num_hidden_layers": 2, "shared_expert_intermediate_size": 20, **_EXPERTS, "norm_topk_prob": False}
    rest = {**_SPARSE, **_ROUTER_LOSS, **_SLIDING, "max_window_layers": 2}
    return _config(_base("qwen2_moe", "Qwen2MoeForCausalLM") | sizes | rest, changes)


def qwen3(**changes: Any) -> Config:
    # head_dim is not hidden_size / heads in most published Qwen3
    rest = {"head_dim": 12, "attention_bias": False, **_NOT_SLIDING, "max_window_layers": 3, "rope_scaling": None}
    return _config(_base("qwen3", "Qwen3ForCausalLM") | rest, changes)


def qwen3_moe(**changes: Any) -> Config:
    sizes = {"num_hidden_layers": 2, "head_dim": 12, "attention_bias": False, **_EXPERTS, "norm_topk_prob": True}
    rest = {**_SPARSE, **_ROUTER_LOSS, **_NOT_SLIDING, "max_window_layers": 2, "rope_scaling": None}
    return _config(_base("qwen3_moe", "Qwen3MoeForCausalLM") | sizes | rest, changes)


def qwen3_next(**changes: Any) -> Config:
    experts = {"shared_expert_intermediate_size": 16, **_EXPERTS, "norm_topk_prob": True, **_SPARSE}
    rest = {"partial_rotary_factor": 0.25, "rope_scaling": None}
    return _config(_base("qwen3_next", "Qwen3NextForCausalLM") | _DELTA_NET | experts | rest, changes)


def qwen3_5_rope(**changes: Any) -> Config:
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    }
    return {"rope_parameters": _config(rope, changes)}


def qwen3_5_text(**changes: Any) -> Config:
    rope = {"rope_theta": REMOVED, **qwen3_5_rope()}
    return _config(_base("qwen3_5_text", "Qwen3_5ForCausalLM") | _DELTA_NET | rope, changes)


def qwen3_5_moe_text() -> Config:
    experts = {"intermediate_size": REMOVED, "shared_expert_intermediate_size": 16, **_EXPERTS}
    return qwen3_5_text(**experts, model_type="qwen3_5_moe_text", architectures=["Qwen3_5MoeForCausalLM"])


def wrapped(text: Config, model_type: str, architecture: str) -> Config:
    """The published shape of Qwen3.5: a vision-language wrapper around the text model."""
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "in_channels": 3,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "model_type": model_type + "_vision",
    }
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "text_config": {key: value for key, value in text.items() if key != "architectures"},
        "vision_config": vision,
        "image_token_id": 90,
        "video_token_id": 91,
        "vision_start_token_id": 92,
        "vision_end_token_id": 93,
        "tie_word_embeddings": text["tie_word_embeddings"],
        "torch_dtype": "float32",
    }


def qwen1(**changes: Any) -> Config:
    config = {
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "kv_channels": 8,
        "intermediate_size": 96,  # of w1 and w2 together
        "seq_length": 512,
        "max_position_embeddings": 512,
        "layer_norm_epsilon": 1e-3,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "no_bias": True,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "use_flash_attn": False,
        "scale_attn_weights": True,
        "attn_dropout_prob": 0.0,
        "emb_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bf16": False,
        "fp16": False,
        "fp32": True,
    }
    return _config(config, changes)


def yarn(factor: float = 4.0, key: str = "type", **more: Any) -> Config:
    block = {key: "yarn", "factor": factor, "original_max_position_embeddings": 16, **more}
    return {"max_position_embeddings": 16, "rope_scaling": block}

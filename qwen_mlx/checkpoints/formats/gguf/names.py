"""Names and settings of a model in GGUF and on the hub, in both directions, for the Qwens that both have.

Weights need no change on the way: of all families only LLaMA has its queries and keys permuted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwen_mlx.checkpoints.foreign import quote
from qwen_mlx.errors import CheckpointError, ConfigError, UnsupportedModel

_ADVICE = "Take the original model, or an MLX version of it."


@dataclass(frozen=True)
class Architecture:
    """`name` in GGUF and `model_type` on the hub; what the others of the family do not have."""

    name: str
    model_type: str
    class_name: str
    qkv_bias: bool = False
    experts: bool = False
    shared_expert: bool = False
    normalise: bool = False


ARCHITECTURES: Mapping[str, Architecture] = {
    arch.name: arch
    for arch in (
        Architecture("qwen2", "qwen2", "Qwen2ForCausalLM", qkv_bias=True),
        Architecture("qwen3", "qwen3", "Qwen3ForCausalLM"),
        Architecture("qwen2moe", "qwen2_moe", "Qwen2MoeForCausalLM", qkv_bias=True, experts=True, shared_expert=True),
        Architecture("qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", experts=True, normalise=True),
    )
}
_REASONS = {
    "qwen3next": "its norms and the order of its heads differ from the hub's",
    "qwen35": "its norms and the order of its heads differ from the hub's",
    "qwen35moe": "its norms and the order of its heads differ from the hub's",
    "qwen": "it is the first Qwen",
    "qwen2vl": "it is a vision model",
    "qwen3vl": "it is a vision model",
    "qwen3vlmoe": "it is a vision model",
    "clip": "it is the vision part of a model",
}

_FIXED = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.switch_mlp.gate_proj",
    "ffn_up_exps": "mlp.switch_mlp.up_proj",
    "ffn_down_exps": "mlp.switch_mlp.down_proj",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
}
_OUT_OF_LAYER = {hub: gguf for gguf, hub in _IN_LAYER.items()}
_OUT = {hub: gguf for gguf, hub in _FIXED.items()}
_BLOCK = re.compile(r"blk\.(\d{1,4})\.(\w+)\.(weight|bias)")
_LAYER = re.compile(r"model\.layers\.(\d{1,4})\.(.+)\.(weight|bias)")


def hub_name(name: str) -> str | None:
    """The name on the hub of a tensor in GGUF; None for one that no Qwen has."""
    if match := _BLOCK.fullmatch(name):
        inner = _IN_LAYER.get(match[2])
        return None if inner is None else f"model.layers.{int(match[1])}.{inner}.{match[3]}"
    module, _, part = name.rpartition(".")
    return f"{_FIXED[module]}.{part}" if module in _FIXED and part == "weight" else None


def gguf_name(name: str) -> str | None:
    """The name in GGUF of a tensor on the hub; None for one that GGUF has no name for."""
    if match := _LAYER.fullmatch(name):
        inner = _OUT_OF_LAYER.get(match[2])
        return None if inner is None else f"blk.{int(match[1])}.{inner}.{match[3]}"
    module, _, part = name.rpartition(".")
    return f"{_OUT[module]}.{part}" if module in _OUT and part == "weight" else None


def architecture(metadata: Mapping[str, Any]) -> Architecture:
    """Which model the file holds.

    Raises:
        UnsupportedModel: one that is not imported; the message says why.
        CheckpointError: the file does not say.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CheckpointError("the GGUF file does not say what it holds", expected="general.architecture")
    if name not in ARCHITECTURES:
        reason = f": {_REASONS[name]}" if name in _REASONS else ""
        raise UnsupportedModel(
            f"GGUF models of the architecture {name[:40]!r} are not imported{reason}",
            expected=", ".join(ARCHITECTURES),
            hint=_ADVICE,
        )
    return ARCHITECTURES[name]


# --------------------------------------------------------------------------------------------------- GGUF -> config

# Keys of the architecture that say what is said elsewhere, or nothing that changes a number.
_HARMLESS = frozenset({"vocab_size", "pooling_type", "rope.dimension_sections", "attention.causal"})
# Keys with the one value that changes nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "expert_gating_func": (0, 1),  # softmax
    "expert_weights_scale": (0.0, 1.0),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "leading_dense_block_count": (0,),
    "interleave_moe_layer_step": (0, 1),
    "attention.scale": (0.0,),
    "attention.sliding_window": (0,),
    "logit_scale": (0.0, 1.0),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
}


class _Keys:
    """The keys of one architecture while they are read."""

    def __init__(self, metadata: Mapping[str, Any], prefix: str) -> None:
        self._values = {
            key[len(prefix) + 1 :]: value for key, value in metadata.items() if key.startswith(f"{prefix}.")
        }
        self._prefix = prefix
        self._used: set[str] = set()

    def get(self, key: str) -> Any:
        self._used.add(key)
        return self._values.get(key)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.get(key)
        value = default if value is None else value
        if type(value) is not int or not 0 <= value < 2**31:
            raise self.error(key, "a whole number", value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(key, "a finite number", value)
        return as_written(float(value))

    def error(self, key: str, expected: str, found: Any) -> ConfigError:
        shown = f"a list of {len(found)}" if isinstance(found, (list, np.ndarray)) else quote(str(found), 60)
        return ConfigError(
            f"the GGUF key '{self._prefix}.{key}' is not usable", expected=expected, found=shown, hint=_ADVICE
        )

    def finish(self) -> None:
        """Refuse a key that was not used and could change the numbers."""
        for key, value in self._values.items():
            if key in self._used or key in _HARMLESS:
                continue
            if key not in _NEUTRAL:
                raise ConfigError(
                    f"the GGUF key {quote(f'{self._prefix}.{key}')} is not known and could change what the model "
                    "computes",
                    hint=_ADVICE,
                )
            if isinstance(value, (list, np.ndarray)) or value not in _NEUTRAL[key]:
                raise self.error(key, " or ".join(map(str, _NEUTRAL[key])), value)


def as_written(value: float) -> float:
    """The shortest decimal that float32 rounds to the same number: 1e-06, not 9.999999974752427e-07."""
    return float(str(np.float32(value))) if value == float(np.float32(value)) else value


def read_config(metadata: Mapping[str, Any], vocabulary: int, tied: bool, attention_bias: bool) -> dict[str, Any]:
    """`config.json` of the model.

    Args:
        vocabulary: rows of the embedding.
        tied: whether there is no head of its own.
        attention_bias: whether queries have a bias; a matter of course for qwen2.

    Raises:
        ConfigError: a key that is missing, damaged, or not known.
    """
    arch = architecture(metadata)
    keys = _Keys(metadata, arch.name)
    heads = keys.integer("attention.head_count")
    hidden = keys.integer("embedding_length")
    if not heads or hidden % heads:
        raise keys.error("attention.head_count", f"a divisor of {hidden}", heads)
    head_dim = keys.integer("attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if keys.integer(key, head_dim) != head_dim:
            raise keys.error(key, f"{head_dim}, as the keys have", keys.get(key))
    config: dict[str, Any] = {
        "architectures": [arch.class_name],
        "model_type": arch.model_type,
        "hidden_size": hidden,
        "num_hidden_layers": keys.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": keys.integer("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "hidden_act": "silu",
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "use_sliding_window": False,
    }
    if arch.model_type.startswith("qwen3"):
        config["attention_bias"] = attention_bias
    _read_mlps(config, keys, arch)
    _read_scaling(config, keys)
    keys.finish()
    return config


def _read_mlps(config: dict[str, Any], keys: _Keys, arch: Architecture) -> None:
    if not arch.experts:
        config["intermediate_size"] = keys.integer("feed_forward_length")
        return
    size = keys.integer("expert_feed_forward_length")
    config |= {
        "intermediate_size": keys.integer("feed_forward_length", size) or size,
        "moe_intermediate_size": size,
        "num_experts": keys.integer("expert_count"),
        "num_experts_per_tok": keys.integer("expert_used_count"),
        "norm_topk_prob": arch.normalise,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
    normalise = keys.get("expert_weights_norm")
    if normalise is not None and normalise is not arch.normalise:
        raise keys.error("expert_weights_norm", str(arch.normalise).lower(), normalise)
    shared = keys.get("expert_shared_feed_forward_length")
    keys.get("expert_shared_count")
    if arch.shared_expert:
        if shared is None:
            raise keys.error("expert_shared_feed_forward_length", "a whole number", "nothing")
        config["shared_expert_intermediate_size"] = keys.integer("expert_shared_feed_forward_length")
    elif shared:
        raise keys.error("expert_shared_feed_forward_length", "nothing", shared)


def _read_scaling(config: dict[str, Any], keys: _Keys) -> None:
    """The stretching of positions, in the hub's words."""
    kind = keys.get("rope.scaling.type") or "none"
    factor = keys.number("rope.scaling.factor", keys.get("rope.scale_linear") or 1.0)
    original = keys.get("rope.scaling.original_context_length")
    keys.get("rope.scaling.finetuned")
    attention = keys.get("rope.scaling.attn_factor")
    if attention not in (None, 1.0):
        raise keys.error("rope.scaling.attn_factor", "1", attention)
    if kind == "none" and factor == 1:
        return
    if kind == "linear" or (kind == "none" and factor != 1):
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    elif kind == "yarn":
        config["rope_scaling"] = {"rope_type": "yarn", "factor": factor}
        if original is not None:
            config["rope_scaling"]["original_max_position_embeddings"] = keys.integer(
                "rope.scaling.original_context_length"
            )
    else:
        raise keys.error("rope.scaling.type", "none, linear or yarn", kind)


# --------------------------------------------------------------------------------------------------- config -> GGUF


def write_metadata(config: Mapping[str, Any], arch: Architecture) -> dict[str, Any]:
    """The keys of the architecture for a `config.json` that `read_config` would make, or a published one.

    Values are Python's: whole numbers become uint32, floats float32, texts strings.
    """
    from qwen_mlx.models import read_spec
    from qwen_mlx.models.spec import AttentionSpec, MLPSpec, MoESpec

    spec = read_spec(config)
    layer = spec.layers[0]
    mixer, mlp = layer.mixer, layer.mlp
    assert isinstance(mixer, AttentionSpec)
    rope = mixer.rope
    values: dict[str, Any] = {
        "block_count": len(spec.layers),
        "context_length": spec.max_positions,
        "embedding_length": spec.hidden_size,
        "attention.head_count": mixer.heads,
        "attention.head_count_kv": mixer.kv_heads,
        "attention.layer_norm_rms_epsilon": float(spec.norm_eps),
        "attention.key_length": mixer.head_dim,
        "attention.value_length": mixer.head_dim,
        "rope.freq_base": float(rope.theta),
        "vocab_size": spec.vocab_size,
    }
    if isinstance(mlp, MLPSpec):
        values["feed_forward_length"] = mlp.intermediate
    elif isinstance(mlp, MoESpec):
        values |= {
            "feed_forward_length": int(config.get("intermediate_size") or mlp.intermediate),
            "expert_feed_forward_length": mlp.intermediate,
            "expert_count": mlp.experts,
            "expert_used_count": mlp.experts_per_token,
        }
        if mlp.shared_intermediate is not None:
            values["expert_shared_feed_forward_length"] = mlp.shared_intermediate
    if rope.type in ("linear", "yarn"):
        values["rope.scaling.type"] = rope.type
        values["rope.scaling.factor"] = float(rope.factor)
        if rope.original_max_positions:
            values["rope.scaling.original_context_length"] = rope.original_max_positions
    return {f"{arch.name}.{key}": value for key, value in values.items()}


def exportable(config: Mapping[str, Any]) -> Architecture:
    """The architecture of GGUF that computes what this `config.json` says.

    Raises:
        UnsupportedModel: GGUF has none; the message says what is in the way.
    """
    from qwen_mlx.models import read_spec
    from qwen_mlx.models.spec import AttentionSpec, MoESpec

    spec = read_spec(config)
    arch = next((arch for arch in ARCHITECTURES.values() if arch.model_type == spec.family), None)

    def refuse(reason: str) -> UnsupportedModel:
        return UnsupportedModel(
            f"this model cannot be exported to GGUF: {reason}",
            expected=", ".join(arch.model_type for arch in ARCHITECTURES.values()),
            hint="Export it as safetensors.",
        )

    if arch is None:
        raise refuse(f"its family is {spec.family}")
    if len(set(spec.layers)) > 1:
        raise refuse("its layers differ from each other")
    mixer, mlp = spec.layers[0].mixer, spec.layers[0].mlp
    assert isinstance(mixer, AttentionSpec)
    if mixer.window is not None or mixer.dual_chunk is not None:
        raise refuse("its attention has a window or chunks")
    if mixer.qkv_bias != arch.qkv_bias and arch.qkv_bias:
        raise refuse("its queries, keys and values have no bias")
    if mixer.out_bias:
        raise refuse("its attention has a bias at its output")
    if mixer.rope.type not in ("default", "linear", "yarn") or mixer.rope.dims != mixer.head_dim:
        raise refuse(f"GGUF has no positions of the type {mixer.rope.type}")
    if mixer.rope.type == "yarn" and abs(mixer.rope.attention_factor - _yarn_attention(mixer.rope.factor)) > 1e-6:
        raise refuse("its rope scaling has an attention factor of its own")
    if isinstance(mlp, MoESpec) != arch.experts:
        raise refuse("it has no experts" if arch.experts else "it has experts")
    if isinstance(mlp, MoESpec) and mlp.normalise != arch.normalise:
        raise refuse(f"norm_topk_prob is {str(mlp.normalise).lower()}")
    return arch


def _yarn_attention(factor: float) -> float:
    """The attention factor that every reader of GGUF computes (YaRN, arXiv:2309.00071, equation 22)."""
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0

"""Reading a `config.json` strictly: every key is used, ignored on purpose, or an error.

Both spellings are understood: the hub's (`rope_theta`, `rope_scaling`, `torch_dtype`) and the one transformers 5
writes (`rope_parameters`, `layer_types`, `dtype`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from qwen_mlx.errors import ConfigError
from qwen_mlx.models.spec import DualChunkSpec, MLPSpec, MoESpec, RopeSpec

T = TypeVar("T")

# Keys that change nothing in the numbers of inference, in any family.
HARMLESS = frozenset(
    """
    output_router_logits router_aux_loss_coef router_jitter_noise
    _name_or_path _commit_hash _attn_implementation architectures attention_dropout auto_map bos_token_id dtype
    eos_token_id initializer_range model_type pad_token_id quantization quantization_config sep_token_id
    tokenizer_class torch_dtype transformers_version unsloth_fixed unsloth_version use_cache id2label label2id
    problem_type return_dict output_attentions output_hidden_states is_encoder_decoder is_decoder
    tie_encoder_decoder add_cross_attention cross_attention_hidden_size chunk_size_feed_forward torchscript
    use_bfloat16 pruned_heads finetuning_task task_specific_params prefix decoder_start_token_id tf_legacy_loss
    early_stopping max_length min_length do_sample num_beams num_beam_groups diversity_penalty temperature top_k
    top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens language
    name_or_path description license tags pretraining_tp max_new_tokens model_max_length chat_template
    """.split()  # fmt: skip
)
# Keys with a value that would change the numbers, and the values that do not.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False, None),
    "use_mrope": (False, None),
    "final_logit_softcapping": (None,),
    "attn_logit_softcapping": (None,),
    "logits_scaling": (None, 1, 1.0),
    "residual_multiplier": (None, 1, 1.0),
    "embedding_multiplier": (None, 1, 1.0),
    "attention_multiplier": (None,),
    "query_pre_attn_scalar": (None,),
    "sparse_attention_config": (None,),
}
MAX_FACTOR = 100_000  # of a rope scaling
MAX_SIZE = 1 << 24  # no dimension of any Qwen comes near; larger ones are damage or malice


class Config:
    """A `config.json` while it is read: remembers which keys were asked for."""

    def __init__(self, values: Mapping[str, Any], family: str) -> None:
        self.values = values
        self.family = family
        self.used: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The value; a missing key and a null are both the default."""
        self.used.add(key)
        value = self.values.get(key)
        return default if value is None else value

    def integer(self, key: str, default: int | None = None, *, low: int = 1, high: int = MAX_SIZE) -> int:
        value = self.get(key, default)
        if value is None:
            raise self.error(key, "an integer", "nothing")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(key, f"an integer from {low} to {high}", value)
        return value

    def number(self, key: str, default: float, *, source: Mapping[str, Any] | None = None) -> float:
        value = self.get(key, default) if source is None else source.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(key, "a finite number", value)
        return float(value)

    def epsilon(self, key: str) -> float:
        """What keeps a norm from dividing by zero."""
        value = self.number(key, 1e-6)
        if value <= 0:
            raise self.error(key, "a number above 0", value)
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false", value)
        return value

    def error(self, key: str, expected: str, found: object) -> ConfigError:
        return ConfigError(
            f"config.json: {key!r} of this {self.family} model is not usable",
            expected=expected,
            found=_short(found),
            hint="Download the file again, or report the model if this is how it is published.",
        )

    def finish(self, ignored: Iterable[str] = ()) -> None:
        """Refuse every key that was not used, is not harmless, and could therefore change the numbers."""
        known = self.used | HARMLESS | set(ignored)
        for key, value in self.values.items():
            if key in self.used:
                continue
            if key in NEUTRAL:
                if not any(value == v and type(value) is type(v) for v in NEUTRAL[key]):
                    expected = " or ".join(repr(v) for v in NEUTRAL[key])
                    raise self.error(key, expected, value)
            elif key not in known and not key.startswith("_"):
                raise ConfigError(
                    f"config.json: {key!r} is not known for {self.family} and could change what the model computes",
                    found=_short(value),
                    hint="If the key is harmless, remove it from config.json; else this model is not supported yet.",
                )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# ---------------------------------------------------------------------------------------------------- shared parts


def read_rope(config: Config, head_dim: int, *, theta: float = 10000.0, partial: float = 1.0) -> RopeSpec:
    """The rope of all attention layers, from either spelling.

    `rope_scaling`, when given and not empty, is the dictionary; else `rope_parameters`. Theta and the partial factor
    are looked for in the dictionary, then on the top level, then take the family's default.
    """
    rope: Any = config.get("rope_scaling")
    parameters = config.get("rope_parameters")
    key = "rope_scaling" if rope else "rope_parameters"
    rope = rope or parameters or {}
    if not isinstance(rope, Mapping):
        raise config.error(key, "an object", rope)
    top_theta = config.number("rope_theta", theta)
    top_partial = config.number("partial_rotary_factor", partial)
    base = config.number("rope_theta", top_theta, source=rope)
    factor = config.number("partial_rotary_factor", top_partial, source=rope)
    if base <= 1:
        raise config.error("rope_theta", "a number above 1", base)
    dims = int(head_dim * factor)
    if not 0 < dims <= head_dim or dims % 2:
        raise config.error("partial_rotary_factor", "an even number of rotated channels", factor)
    max_positions = config.integer("max_position_embeddings", 32768)
    top_original = config.get("original_max_position_embeddings")

    kind = rope.get("rope_type") or rope.get("type") or "default"
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"}
    # For text all three position axes are equal, and this is plain rope.
    known |= {"mrope_section", "mrope_interleaved"}
    kind = "default" if kind == "mrope" else kind
    common: dict[str, Any] = {"dims": dims, "theta": base, "max_positions": max_positions}
    if kind == "default":
        spec = RopeSpec(**common)
        known |= {"factor"} if rope.get("factor") in (None, 1, 1.0) else set()
    elif kind in ("linear", "dynamic"):
        known |= {"factor"}
        original = top_original or rope.get("original_max_position_embeddings")
        spec = RopeSpec(
            type="linear" if kind == "linear" else "dynamic",
            factor=_factor(config, rope, key),
            original_max_positions=_original(config, key, original) if original else 0,
            **common,
        )
        known |= {"alpha"} if rope.get("alpha") is None else set()
    elif kind == "yarn":
        known |= {
            "factor",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "truncate",
            "mscale",
            "mscale_all_dim",
        }
        spec = _yarn(config, rope, key, common, top_original)
    else:
        raise config.error(key, "rope type default, linear, dynamic or yarn", kind)
    for name, value in rope.items():
        if name not in known and value is not None:
            raise config.error(key, f"no key {name!r} for rope type {kind}", value)
    return spec


def _factor(config: Config, rope: Mapping[str, Any], key: str) -> float:
    factor = config.number("factor", 0.0, source=rope)
    if not 1 <= factor <= MAX_FACTOR:
        raise config.error(key, f"a factor from 1 to {MAX_FACTOR}", rope.get("factor"))
    return factor


def _original(config: Config, key: str, value: Any) -> int:
    """The training length that a scaling stretches from."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= MAX_SIZE:
        raise config.error(key, "a positive original_max_position_embeddings", value)
    return int(value)


def _yarn(config: Config, rope: Mapping[str, Any], key: str, common: dict[str, Any], top_original: Any) -> RopeSpec:
    given = top_original or rope.get("original_max_position_embeddings") or common["max_positions"]
    original = _original(config, key, given)
    if rope.get("factor") is None:
        factor = common["max_positions"] / original
    else:
        factor = _factor(config, rope, key)
    # None and 0 both mean "not given" for these four
    mscale = config.number("mscale", 0.0, source=rope)
    mscale_all = config.number("mscale_all_dim", 0.0, source=rope)
    if rope.get("attention_factor") is not None:
        attention = config.number("attention_factor", 1.0, source=rope)
        if attention <= 0:
            raise config.error(key, "a positive attention_factor", attention)
    elif mscale and mscale_all:
        attention = _mscale(factor, mscale) / _mscale(factor, mscale_all)
    else:
        attention = _mscale(factor, 1.0)
    truncate = rope.get("truncate", True)
    if not isinstance(truncate, bool):
        raise config.error(key, "truncate true or false", truncate)
    return RopeSpec(
        type="yarn",
        factor=factor,
        original_max_positions=original,
        attention_factor=attention,
        beta_fast=config.number("beta_fast", 32.0, source=rope) or 32.0,
        beta_slow=config.number("beta_slow", 1.0, source=rope) or 1.0,
        truncate=truncate,
        **common,
    )


def _mscale(factor: float, m: float) -> float:
    """YaRN's attention temperature, equation 22 of arXiv:2309.00071, as a factor of cos and sin."""
    return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0


def read_dual_chunk(config: Config) -> DualChunkSpec | None:
    """`dual_chunk_attention_config` of the 1M models; the defaults are those of the engines that run them."""
    value = config.get("dual_chunk_attention_config")
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise config.error("dual_chunk_attention_config", "an object", value)
    inner = Config(value, config.family)
    spec = DualChunkSpec(
        inner.integer("chunk_size", 8192),
        inner.integer("local_size", 1024, low=0),
        inner.integer("original_max_position_embeddings", 0, low=0),
    )
    if spec.local_size >= spec.chunk_size or spec.local_size > spec.stride:
        raise config.error("dual_chunk_attention_config", "a local_size of at most half of chunk_size", dict(value))
    # An approximation on top, for speed: without it the result is the exact one.
    inner.finish(ignored=("sparse_attention_config", "sparse_attention_enabled", "sparse_attention_threshold"))
    return spec


def read_layer_types(config: Config, layers: int) -> list[bool] | None:
    """True for a layer with a window, from an explicit `layer_types`; None when there is none."""
    types = config.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list) or len(types) != layers:
        raise config.error("layer_types", f"a list of {layers} names", types)
    for name in types:
        if name not in ("full_attention", "sliding_attention"):
            raise config.error("layer_types", "full_attention or sliding_attention", name)
    return [name == "sliding_attention" for name in types]


def read_windows(config: Config, layers: int) -> list[int | None]:
    """The window of every layer by the rule of qwen2 and qwen3.

    Layers from `max_window_layers` up slide, the first `max_window_layers` are full; `layer_types` wins when given.
    Nothing slides unless `use_sliding_window` is true and `sliding_window` is a number.
    """
    use = config.flag("use_sliding_window", False)
    full = config.integer("max_window_layers", 28, low=0)
    given = config.get("sliding_window", None if "sliding_window" in config.values else 4096)
    explicit = read_layer_types(config, layers)
    slides = explicit if explicit is not None else [use and i >= full for i in range(layers)]
    if not use or given is None or not any(slides):
        if explicit is not None and any(explicit):
            raise config.error("layer_types", "no sliding_attention while use_sliding_window is off", explicit)
        return [None] * layers
    window = config.integer("sliding_window", 4096)
    return [window if s else None for s in slides]


def read_mlps(config: Config, layers: int, missing: MoESpec, intermediate: int) -> list[MLPSpec | MoESpec]:
    """The MLP of every layer: layer i has experts iff `(i + 1) % decoder_sparse_step == 0` and it is not excluded.

    Args:
        missing: the family's values for keys that are not there; no shared expert is read where this has none.
        intermediate: the same for the dense MLP.
    """
    dense = MLPSpec(config.integer("intermediate_size", intermediate))
    alias = config.get("num_local_experts")  # transformers 5 writes it for some families
    experts = config.integer("num_experts", missing.experts if alias is None else alias, low=0, high=1 << 16)
    if alias is not None and alias != experts:
        raise config.error("num_local_experts", f"{experts}, as num_experts", alias)
    step = config.integer("decoder_sparse_step", 1)
    excluded = config.get("mlp_only_layers", [])
    if not isinstance(excluded, list) or not all(type(i) is int for i in excluded):
        raise config.error("mlp_only_layers", "a list of layer numbers", excluded)
    chosen = config.integer("num_experts_per_tok", missing.experts_per_token, low=0, high=1 << 16)
    if experts and not 1 <= chosen <= experts:
        raise config.error("num_experts_per_tok", f"1 to {experts}", chosen)
    shared = missing.shared_intermediate
    sparse = MoESpec(
        experts,
        chosen,
        config.integer("moe_intermediate_size", missing.intermediate),
        config.flag("norm_topk_prob", missing.normalise),
        None if shared is None else config.integer("shared_expert_intermediate_size", shared),
    )
    return [sparse if experts and i not in excluded and (i + 1) % step == 0 else dense for i in range(layers)]

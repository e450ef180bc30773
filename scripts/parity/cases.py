"""The table of cases: one tiny model for every rule of a family that can be got wrong.

Configurations are spelled as published checkpoints of the family spell them. `mistakes` are patches of the
configuration that stand for a wrong reading of it; a case is only kept when each of them moves the logits.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Literal

from scripts.parity.configs import (
    REMOVED,
    Config,
    qwen1,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_5_moe_text,
    qwen3_5_rope,
    qwen3_5_text,
    qwen3_moe,
    qwen3_next,
    wrapped,
    yarn,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One model and how it is recorded.

    Attributes:
        length: tokens of the prompt.
        mistakes: what a careless reader might do, as patches of the configuration.
        engine: who computes the reference; see `engines` and `plain_engines`.
        batch: whether a left-padded batch is recorded.
        decode_equals_full: whether decoding through a cache has to give the logits of one forward.
        extra, fused_experts: see `weights.hub_layout`.
        small_queries: make queries and keys of the linear attention tiny.
        insensitive: parts of parameter names that cannot change the logits.
    """

    name: str
    config: Config
    seed: int
    notes: str
    length: int = 24
    mistakes: dict[str, Config] = dataclasses.field(default_factory=dict)
    engine: Literal["transformers", "qwen1", "dual_chunk"] = "transformers"
    batch: bool = True
    decode_equals_full: bool = True
    extra: tuple[str, ...] = ()
    fused_experts: bool = False
    small_queries: bool = False
    insensitive: tuple[str, ...] = ()

    @property
    def text_config(self) -> Config:
        return self.config.get("text_config", self.config)

    @property
    def model_type(self) -> str:
        """Of the text model."""
        return self.text_config["model_type"]

    @property
    def small_rows(self) -> int:
        """See `weights.random_weights`."""
        text = self.text_config
        return 2 * text["linear_num_key_heads"] * text["linear_key_head_dim"] if self.small_queries else 0


def patched(config: Config, patch: Config) -> Config:
    """A copy of a configuration, changed where its text model is described; None removes optional blocks."""
    config = copy.deepcopy(config)
    target = config.get("text_config", config)
    for key, value in patch.items():
        if value is None and key in ("layer_types", "dual_chunk_attention_config"):
            target.pop(key, None)
        else:
            target[key] = value
    return config


_THETA = {"rope_theta": {"rope_theta": 1000000.0}}
_SMALL_THETA = {"rope_theta": {"rope_theta": 10000.0}}
_EPS = {"rms_norm_eps": {"rms_norm_eps": 1e-6}}
_NORMALISED = {"norm_topk_prob": {"norm_topk_prob": True}}
_NOT_NORMALISED = {"norm_topk_prob": {"norm_topk_prob": False}}
_NO_WINDOW = {"window off": {"use_sliding_window": False}}
_NO_YARN = {"yarn off": {"rope_scaling": None}}


def _qwen2_cases() -> list[Case]:
    alternating = ["sliding_attention", "full_attention"] * 2
    four = {"num_hidden_layers": 4, "use_sliding_window": True}
    options = {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "attention_factor": 1.4,
        "beta_fast": 6.0,
        "beta_slow": 1.5,
        "truncate": False,
    }
    few_heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 100.0}
    absent = ("rope_theta", "tie_word_embeddings", "use_sliding_window", "sliding_window", "max_window_layers")

    def without(*keys: str) -> Config:
        return {"rope_scaling": {key: value for key, value in options.items() if key not in keys}}

    return [
        Case("qwen2_base", qwen2(), 0, "grouped queries, untied, q/k/v biases", extra=("inv_freq",),
             mistakes=_THETA | _EPS),
        Case("qwen2_base_s1", qwen2(num_key_value_heads=4, rope_theta=1000000.0), 1,
             "as many kv heads as heads (Qwen1.5)", mistakes=_SMALL_THETA | _EPS),
        Case("qwen2_tied", qwen2(tie_word_embeddings=True), 2, "tied embeddings (3B and smaller)", mistakes=_THETA),
        Case("qwen2_long", qwen2(num_hidden_layers=2), 21, "160 positions cross the blocks of caches and prefills",
             length=160, batch=False, mistakes=_THETA),
        Case("qwen2_swa", qwen2(**four, sliding_window=6, max_window_layers=1), 3,
             "layers max_window_layers and up slide",
             mistakes=_NO_WINDOW | {"window + 1": {"sliding_window": 7}, "all slide": {"max_window_layers": 0},
                                    "one less slides": {"max_window_layers": 2}}),
        Case("qwen2_swa_layer_types", qwen2(**four, sliding_window=5, max_window_layers=4, layer_types=alternating), 4,
             "explicit layer_types win over max_window_layers", mistakes={"ignored": {"layer_types": None}}),
        Case("qwen2_swa_yarn", qwen2(use_sliding_window=True, sliding_window=6, max_window_layers=2, **yarn()), 5,
             "yarn and a window: both kinds of layers use the same rope", length=40, mistakes=_NO_YARN | _NO_WINDOW),
        Case("qwen2_yarn", qwen2(**yarn()), 6, "the block of the Qwen2 and 2.5 model cards, with the old key 'type'",
             length=40, mistakes=_NO_YARN | {"attention factor 1": yarn(attention_factor=1.0), "factor": yarn(2.0)}),
        Case("qwen2_yarn_options", qwen2(**few_heads, max_position_embeddings=64, rope_scaling=options), 7,
             "attention_factor, beta_fast, beta_slow, truncate; a small theta, so that each of them shows", length=40,
             mistakes={"attention_factor ignored": without("attention_factor"), "truncate ignored": without("truncate"),
                       "betas ignored": without("beta_fast", "beta_slow")}),
        Case("qwen2_yarn_implicit",
             qwen2(max_position_embeddings=64, rope_scaling={"rope_type": "yarn", "factor": 4.0}), 8,
             "without original_max_position_embeddings transformers takes max_position_embeddings", length=40,
             mistakes={"original 4096": {"rope_scaling": {"type": "yarn", "factor": 4.0,
                                                          "original_max_position_embeddings": 4096}}}),
        Case("qwen2_linear", qwen2(rope_scaling={"type": "linear", "factor": 4.0}), 9, "position interpolation",
             length=40, mistakes={"linear off": {"rope_scaling": None}}),
        Case("qwen2_dynamic", qwen2(max_position_embeddings=16, rope_scaling={"type": "dynamic", "factor": 2.0}), 10,
             "dynamic NTK: frequencies follow the current length, cached keys keep the old ones", length=40,
             batch=False, decode_equals_full=False, mistakes={"dynamic off": {"rope_scaling": None}}),
        Case("qwen2_head_dim", qwen2(head_dim=12), 45, "head_dim is not hidden_size / heads"),
        Case("qwen2_defaults", qwen2(**dict.fromkeys(absent, REMOVED)), 46,
             "keys left out: rope_theta 10000, not tied, no window", mistakes=_THETA),
    ]  # fmt: skip


def _qwen2_moe_cases() -> list[Case]:
    return [
        Case("qwen2_moe", qwen2_moe(), 11, "shared expert, top-k not normalised", mistakes=_NORMALISED | _THETA),
        Case("qwen2_moe_norm", qwen2_moe(norm_topk_prob=True), 12, "top-k normalised", mistakes=_NOT_NORMALISED),
        Case("qwen2_moe_mixed", qwen2_moe(num_hidden_layers=4, mlp_only_layers=[3], decoder_sparse_step=2), 13,
             "only layer 1 is sparse", mistakes=_NORMALISED),
        Case("qwen2_moe_nobias_tied", qwen2_moe(qkv_bias=False, tie_word_embeddings=True, num_experts_per_tok=3), 14,
             "qkv_bias false, tied, three experts per token", mistakes=_NORMALISED),
        Case("qwen2_moe_swa",
             qwen2_moe(num_hidden_layers=3, use_sliding_window=True, sliding_window=6, max_window_layers=3), 15,
             "transformers' own rule for qwen2_moe: even layers below max_window_layers slide",
             mistakes=_NO_WINDOW | {"max_window_layers": {"max_window_layers": 1}}),
        Case("qwen2_moe_yarn", qwen2_moe(**yarn()), 16, "Qwen2-57B-A14B with yarn", length=40, mistakes=_NO_YARN),
    ]  # fmt: skip


def _qwen3_cases() -> list[Case]:
    return [
        Case("qwen3_untied", qwen3(), 17, "norms of q and k, head_dim 12 with hidden 32", mistakes=_THETA | _EPS),
        Case("qwen3_tied", qwen3(tie_word_embeddings=True, num_key_value_heads=1), 18,
             "tied with lm_head.weight stored as well, as in Qwen3-0.6B; one kv head", extra=("lm_head",),
             mistakes=_THETA),
        Case("qwen3_s1", qwen3(num_hidden_layers=2, head_dim=8, num_key_value_heads=4, rope_theta=5000000.0), 19,
             "theta of the 2507 models", mistakes=_SMALL_THETA),
        Case("qwen3_bias", qwen3(attention_bias=True), 20, "attention_bias: q, k, v and o have one", mistakes=_THETA),
        Case("qwen3_swa", qwen3(num_hidden_layers=4, use_sliding_window=True, sliding_window=6, max_window_layers=2),
             22, "same rule as qwen2", mistakes=_NO_WINDOW | {"all slide": {"max_window_layers": 0}}),
        Case("qwen3_yarn", qwen3(**yarn(key="rope_type")), 23, "the block of the Qwen3 model cards, key 'rope_type'",
             length=40, mistakes=_NO_YARN),
    ]  # fmt: skip


def _qwen3_moe_cases() -> list[Case]:
    return [
        Case("qwen3_moe", qwen3_moe(), 24, "no shared expert, normalised", mistakes=_NOT_NORMALISED | _THETA),
        Case("qwen3_moe_nonorm_mixed",
             qwen3_moe(num_hidden_layers=4, norm_topk_prob=False, mlp_only_layers=[0], decoder_sparse_step=2), 25,
             "layers 1 and 3 are sparse, 0 and 2 dense", mistakes=_NORMALISED),
        Case("qwen3_moe_tied_bias",
             qwen3_moe(tie_word_embeddings=True, attention_bias=True, num_experts=8, num_experts_per_tok=4), 26,
             "tied, biases, 4 of 8 experts", mistakes=_NOT_NORMALISED),
        Case("qwen3_moe_yarn", qwen3_moe(**yarn(key="rope_type")), 27, "Qwen3-30B-A3B with yarn", length=40,
             mistakes=_NO_YARN),
        Case("qwen3_moe_swa", qwen3_moe(use_sliding_window=True, sliding_window=6), 28,
             "use_sliding_window: every layer slides", mistakes=_NO_WINDOW),
    ]  # fmt: skip


def _hybrid_cases() -> list[Case]:
    quarter = {"mrope_interleaved": REMOVED}
    vision = ("visual",)
    return [
        Case("qwen3_next", qwen3_next(), 29,
             "three gated delta net layers, one gated attention; 72 positions cross the chunk of 64", length=72,
             extra=("mtp",),
             mistakes=_NOT_NORMALISED | _THETA | _EPS | {"partial rotary": {"partial_rotary_factor": 1.0}}),
        Case("qwen3_next_mixed",
             qwen3_next(layer_types=["full_attention", "linear_attention", "linear_attention", "full_attention"],
                        full_attention_interval=REMOVED, mlp_only_layers=[1], attention_bias=True,
                        tie_word_embeddings=True, norm_topk_prob=False, linear_num_key_heads=4,
                        linear_conv_kernel_dim=3, partial_rotary_factor=0.5), 30,
             "layer_types for an interval, one dense layer, biases, tied, as many value heads as key heads, kernel 3",
             length=40, mistakes=_NORMALISED),
        Case("qwen3_next_dense", qwen3_next(num_experts=0, num_experts_per_tok=0), 31,
             "num_experts 0: dense MLPs (none is published)", length=30, mistakes=_THETA),
        Case("qwen3_5_text", qwen3_5_text(), 32, "dense Qwen3.5, the text model alone", length=72,
             mistakes=_EPS | {"partial rotary": qwen3_5_rope(partial_rotary_factor=0.25, **quarter),
                              "rope_theta": qwen3_5_rope(rope_theta=100000.0, **quarter)}),
        Case("qwen3_5_text_tied",
             qwen3_5_text(tie_word_embeddings=True, num_hidden_layers=3, full_attention_interval=REMOVED,
                          layer_types=["linear_attention", "full_attention", "linear_attention"]), 33,
             "tied, layer_types without an interval", length=40),
        Case("qwen3_5_text_smallqk", qwen3_5_text(), 34,
             "tiny queries and keys: the 1e-6 inside their l2 norm is visible", small_queries=True),
        Case("qwen3_5_wrapped", wrapped(qwen3_5_text(), "qwen3_5", "Qwen3_5ForConditionalGeneration"), 35,
             "the published shape: model.language_model.*, model.visual.*, lm_head; text input only", length=40,
             extra=("mtp",), insensitive=vision),
        Case("qwen3_5_moe_text", qwen3_5_moe_text(), 36,
             "one tensor per expert; the top-k weights are always normalised, there is no norm_topk_prob", length=72),
        Case("qwen3_5_moe_wrapped",
             wrapped(qwen3_5_moe_text(), "qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration"), 37,
             "the published shape: experts.gate_up_proj (E, 2I, H) and experts.down_proj (E, H, I)", length=40,
             extra=("mtp",), fused_experts=True, insensitive=vision),
    ]  # fmt: skip


def _qwen1_cases() -> list[Case]:
    no_ntk, no_logn = {"ntk off": {"use_dynamic_ntk": False}}, {"logn off": {"use_logn_attn": False}}
    return [
        Case("qwen1_base", qwen1(), 38, "shorter than seq_length: neither NTK nor LogN does anything", engine="qwen1",
             mistakes={"base": {"rotary_emb_base": 1000000}}),
        Case("qwen1_long", qwen1(seq_length=16), 39, "40 tokens with seq_length 16: alpha 7, LogN from position 16",
             length=40, engine="qwen1", decode_equals_full=False, mistakes=no_ntk | no_logn),
        Case("qwen1_ntk", qwen1(seq_length=16, use_logn_attn=False, no_bias=False), 40, "NTK alone, alpha 3; biases",
             engine="qwen1", decode_equals_full=False, mistakes=no_ntk),
        Case("qwen1_logn", qwen1(seq_length=16, use_dynamic_ntk=False), 41, "LogN alone", length=40, engine="qwen1",
             mistakes=no_logn),
    ]  # fmt: skip


def _dual_chunk_cases() -> list[Case]:
    key = "dual_chunk_attention_config"
    block = {"chunk_size": 16, "local_size": 4, "original_max_position_embeddings": 16}
    off = {"dca off": {key: None}}

    def model(**chunks: int) -> Config:
        return qwen2(num_hidden_layers=2, **{key: chunks})

    return [
        Case("qwen2_dca", model(**block), 42,
             "chunks of 12: intra, successive and inter attention, length scaling of keys and queries", length=60,
             engine="dual_chunk", batch=False, decode_equals_full=False,
             mistakes=off | {"no mscale": {key: {"chunk_size": 16, "local_size": 4}},
                             "local_size": {key: block | {"local_size": 8}}}),
        Case("qwen2_dca_nomscale", model(chunk_size=16, local_size=6), 43, "no length scaling",
             length=40, engine="dual_chunk", batch=False, mistakes=off),
        Case("qwen2_dca_short", model(**block), 44, "shorter than a chunk: equals plain attention", length=11,
             engine="dual_chunk", batch=False),
    ]  # fmt: skip


def all_cases() -> list[Case]:
    """Every case, in the order of the families' age."""
    return [
        *_qwen1_cases(),
        *_qwen2_cases(),
        *_dual_chunk_cases(),
        *_qwen2_moe_cases(),
        *_qwen3_cases(),
        *_qwen3_moe_cases(),
        *_hybrid_cases(),
    ]

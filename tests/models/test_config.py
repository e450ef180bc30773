"""What `config.json` can say, and what is refused because it would change the numbers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.errors import ConfigError, UnsupportedModel
from qwen_mlx.models import Decoder, read_spec
from qwen_mlx.models.rope import yarn_periods
from tests.models import tiny
from tests.parity import ParityCase

import mlx.utils  # isort: skip

BAD: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": 0}, "hidden_size"),
    ({"hidden_size": "64"}, "hidden_size"),
    ({"hidden_size": True}, "hidden_size"),
    ({"hidden_size": 64.5}, "hidden_size"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ({"num_key_value_heads": 3}, "num_key_value_heads"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ({"rms_norm_eps": 0}, "rms_norm_eps"),
    ({"rms_norm_eps": -1e-6}, "rms_norm_eps"),
    ({"rope_theta": -1}, "rope_theta"),
    ({"rope_theta": []}, "rope_theta"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 0.5}}, "rope_scaling"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "new_option": 3}}, "new_option"),
    ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
    ({"rope_scaling": "yarn"}, "rope_scaling"),
    ({"partial_rotary_factor": 2.0}, "partial_rotary_factor"),
    ({"layer_types": ["full_attention"]}, "layer_types"),
    ({"layer_types": ["full_attention", "linear_attention"]}, "layer_types"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ({"use_sliding_window": True, "sliding_window": 0, "max_window_layers": 0}, "sliding_window"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"logit_scale": 0.5}, "logit_scale"),
    ({"num_experts": 8}, "num_experts"),
    ({"dual_chunk_attention_config": {"chunk_size": 8}}, "dual_chunk_attention_config"),
]


@pytest.mark.parametrize("base", [tiny.QWEN2, tiny.QWEN3], ids=["qwen2", "qwen3"])
@pytest.mark.parametrize(("change", "key"), BAD, ids=[str(sorted(c)) + str(i) for i, (c, _) in enumerate(BAD)])
def test_what_cannot_be_followed_is_named(base: dict[str, Any], change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        read_spec(base | change)


@pytest.mark.parametrize(
    "change",
    [
        {"sliding_window": None},
        {"sliding_window": 131072, "max_window_layers": 70},
        {"sliding_window": 0},
        {"rope_scaling": None},
        {"rope_scaling": {}},
        {"architectures": ["X"], "transformers_version": "4.51.0", "use_cache": False},
        {"dual_chunk_attention_config": None},
        {"hidden_act": "silu", "attention_dropout": 0.1, "initializer_range": 0.5},
        {"_attn_implementation_autoset": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("base", [tiny.QWEN2, tiny.QWEN3], ids=["qwen2", "qwen3"])
def test_what_means_nothing_is_ignored(base: dict[str, Any], change: dict[str, Any]) -> None:
    assert read_spec(base | change) == read_spec(base)


def test_both_spellings_of_rope_are_one() -> None:
    yarn = {"factor": 4.0, "original_max_position_embeddings": 64}
    old = tiny.QWEN3 | {"rope_theta": 5e5, "rope_scaling": {"type": "yarn", **yarn}}
    new = {k: v for k, v in tiny.QWEN3.items() if k != "rope_theta"}
    new["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 5e5, **yarn}
    assert read_spec(old) == read_spec(new)


def test_missing_keys_take_the_defaults_of_transformers() -> None:
    config = {k: v for k, v in tiny.QWEN2.items() if k not in ("rope_theta", "tie_word_embeddings", "rms_norm_eps")}
    spec = read_spec(config)
    assert (spec.layers[0].mixer.rope.theta, spec.tied, spec.norm_eps) == (10000.0, False, 1e-6)


def test_which_layers_slide() -> None:
    config = tiny.QWEN2 | {"num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 9}
    windows = [layer.mixer.window for layer in read_spec(config | {"max_window_layers": 3}).layers]
    assert windows == [None, None, None, 9]
    types = ["sliding_attention", "full_attention"] * 2
    assert [la.mixer.window for la in read_spec(config | {"layer_types": types}).layers] == [9, None, 9, None]


@pytest.mark.parametrize("name", ["llama", "qwen9", "qwen2_vl", "qwen2_audio", "qwen3_omni_moe"])
def test_other_models_are_refused_with_a_list(name: str) -> None:
    with pytest.raises(UnsupportedModel, match="qwen2, qwen2_moe"):
        read_spec(tiny.QWEN3 | {"model_type": name})


@pytest.mark.parametrize("base", [tiny.QWEN2_MOE, tiny.QWEN3_MOE], ids=["qwen2_moe", "qwen3_moe"])
@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_experts_per_tok": 6}, "num_experts_per_tok"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok"),
        ({"num_experts": -1}, "num_experts"),
        ({"num_local_experts": 4}, "num_local_experts"),
        ({"mlp_only_layers": 3}, "mlp_only_layers"),
        ({"mlp_only_layers": ["a"]}, "mlp_only_layers"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step"),
        ({"norm_topk_prob": 1}, "norm_topk_prob"),
        ({"n_group": 2}, "n_group"),
    ],
)
def test_experts_that_cannot_be_followed(base: dict[str, Any], change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        read_spec(base | change)


FAMILIES = {
    "qwen": ParityCase("qwen1_base").config(),
    "qwen2": tiny.QWEN2,
    "qwen2_moe": tiny.QWEN2_MOE,
    "qwen3": tiny.QWEN3,
    "qwen3_moe": tiny.QWEN3_MOE,
    "qwen3_next": tiny.QWEN3_NEXT,
    "qwen3_5": tiny.QWEN3_5,
}
SIZES = re.compile(r"_size$|^num_|_dim$|^max_position|^kv_channels$|^seq_length$")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("value", [-1, 2.5, "8", True, [4], 1 << 40], ids=str)
def test_a_size_that_is_none_is_named(family: str, value: object) -> None:
    base = FAMILIES[family]
    sizes = [key for key in base if SIZES.search(key)]
    assert len(sizes) >= 6
    for key in sizes:
        with pytest.raises(ConfigError, match=rf"^config\.json: '{key}' of this \w+ model is not usable; expected "):
            read_spec(base | {key: value})


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "qwen"])
@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_attention_heads": 2, "num_key_value_heads": 4}, "num_key_value_heads"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "ntk-by-parts", "factor": 4.0}}, "rope_parameters"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "extra": 1}}, "rope_parameters"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 1e9}}, "rope_scaling"),
        ({"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": -5}}, "rope_scaling"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "original_max_position_embeddings": "x"}}, "rope_scaling"),
        ({"logit_scale": 0.5}, "logit_scale"),
    ],
)
def test_in_every_family(family: str, change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^config\.json: '{key}' ") as caught:
        read_spec(FAMILIES[family] | change)
    assert caught.value.found is not None


@pytest.mark.parametrize("base", [tiny.QWEN3_NEXT, tiny.QWEN3_5], ids=["qwen3_next", "qwen3_5"])
@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"linear_num_value_heads": 3}, "linear_num_value_heads"),
        ({"linear_num_key_heads": 3}, "linear_num_value_heads"),
        ({"linear_conv_kernel_dim": 1}, "linear_conv_kernel_dim"),
        ({"attn_output_gate": False}, "attn_output_gate"),
        ({"layer_types": ["linear_attention", "sliding_attention"]}, "layer_types"),
        ({"layer_types": ["linear_attention"]}, "layer_types"),
    ],
)
def test_states_that_cannot_be_followed(base: dict[str, Any], change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{key}'"):
        read_spec(base | change)


def test_a_wrapper_is_read_as_strictly_as_what_is_in_it() -> None:
    wrapped = ParityCase("qwen3_5_wrapped").config()
    for config in (wrapped | {"flavour": 1}, wrapped | {"text_config": wrapped["text_config"] | {"flavour": 1}}):
        with pytest.raises(ConfigError, match="'flavour'"):
            read_spec(config)
    with pytest.raises(ConfigError, match="'text_config'"):
        read_spec(wrapped | {"text_config": [1]})


def test_a_length_that_a_scaling_reaches_counts() -> None:
    """The cards tell to add a scaling and say nothing of `max_position_embeddings`."""
    rope = {"factor": 4.0, "original_max_position_embeddings": 100}
    for kind, expected in (("yarn", 400), ("linear", 400), ("dynamic", 400)):
        assert read_spec(tiny.QWEN3 | {"rope_scaling": {"rope_type": kind, **rope}}).max_positions == expected
    longer = tiny.QWEN3 | {"max_position_embeddings": 1000}
    assert read_spec(longer | {"rope_scaling": {"rope_type": "yarn", **rope}}).max_positions == 1000
    assert read_spec(longer | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}).max_positions == 1000


def test_parameters_are_counted() -> None:
    for config in (tiny.QWEN2, tiny.QWEN3, tiny.QWEN2_MOE, tiny.QWEN3_MOE, tiny.QWEN3_NEXT, tiny.QWEN3_5):
        spec = read_spec(config)
        assert spec.parameters == sum(a.size for _, a in mlx.utils.tree_flatten(Decoder(spec).parameters()))
    moe = read_spec(tiny.QWEN3_MOE)
    assert moe.parameters - moe.active_parameters == 3 * 3 * 128 * 128


@pytest.mark.parametrize("value", [None, 3, [], ""])
def test_a_damaged_model_type_is_an_error(value: object) -> None:
    with pytest.raises((ConfigError, UnsupportedModel)):
        read_spec({"model_type": value})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([tiny.QWEN2, tiny.QWEN3]), st.data(), json_values)
def test_any_value_of_any_key_gives_a_spec_or_an_error(base: dict[str, Any], data: st.DataObject, value: Any) -> None:
    keys = [*base, "rope_scaling", "rope_parameters", "layer_types", "sliding_window", "head_dim", "attention_bias"]
    key = data.draw(st.sampled_from(sorted(keys)))
    try:
        read_spec(base | {key: value})
    except (ConfigError, UnsupportedModel) as error:
        assert len(str(error)) < 600


def test_yarn_keeps_fast_channels_and_stretches_slow_ones() -> None:
    config = tiny.QWEN3 | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}
    rope = read_spec(config).layers[0].mixer.rope
    plain = [rope.theta ** (2 * i / rope.dims) for i in range(rope.dims // 2)]
    periods = yarn_periods(rope)
    assert periods[0] == pytest.approx(plain[0])
    assert periods[-1] == pytest.approx(4 * plain[-1])


def test_reading_a_configuration_needs_no_mlx() -> None:
    code = (
        "import json, sys; from qwen_mlx.models import read_spec; from qwen_mlx.models.families import overrides; "
        f"read_spec(json.loads({json.dumps(tiny.QWEN3)!r})); print([m for m in sys.modules if m.startswith('mlx')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"

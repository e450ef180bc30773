"""Keys of config.json that a person overrules, and rope scalings asked for by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.errors import ConfigError, UsageError
from qwen_mlx.models import read_spec
from qwen_mlx.models.families.config import MAX_FACTOR, MAX_SIZE
from qwen_mlx.models.families.overrides import RopeScaling, merge, parse_rope_scaling, scale_rope
from qwen_mlx.models.spec import ModelSpec, RopeSpec
from tests.models import tiny
from tests.parity import parity_cases

kinds = st.sampled_from(["linear", "dynamic", "yarn"])
factors = st.integers(1, MAX_FACTOR).map(float) | st.decimals(1, 1000, places=3).map(float)
lengths = st.none() | st.integers(1, MAX_SIZE)


def scaled(config: dict[str, Any], text: str) -> ModelSpec:
    return read_spec(scale_rope(config, parse_rope_scaling(text)))


def rope_of(spec: ModelSpec) -> RopeSpec:
    return next(layer.mixer.rope for layer in spec.layers if hasattr(layer.mixer, "rope"))


# -------------------------------------------------------------------------------------------------- the words


@given(kinds, factors, lengths)
def test_what_is_written_is_read_back(kind: Any, factor: float, original: int | None) -> None:
    scaling = RopeScaling(kind, factor, original)
    assert parse_rope_scaling(str(scaling)) == scaling
    assert parse_rope_scaling(f" {str(scaling).upper()} ") == scaling


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", RopeScaling("none")),
        ("yarn:4", RopeScaling("yarn", 4.0)),
        ("yarn:4:32768", RopeScaling("yarn", 4.0, 32768)),
        ("linear:2.5", RopeScaling("linear", 2.5)),
        ("dynamic:2", RopeScaling("dynamic", 2.0)),
    ],
)
def test_forms(text: str, expected: RopeScaling) -> None:
    assert parse_rope_scaling(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "yarn", "yarn:", "yarn:x", "yarn:4:", "yarn:4:x", "yarn:4:1:1", "ntk:2", "llama3:8", "4", "none:2"),
        *("yarn:0", "yarn:0.5", "yarn:-4", "yarn:nan", "yarn:inf", "yarn:1e9", "yarn:4:0", "yarn:4:-1", "yarn:4:1.5"),
        *("yarn:999999", "yarn:4:99999999", "yarn:٤", "yarn: 4", "yarn:4 4", "yarn;4", "yarn:1_0", "yarn:" + "9" * 500),
    ],
)
def test_what_cannot_be_meant_names_the_forms(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rope_scaling(text)
    assert len(str(caught.value)) < 300
    assert "yarn:4:32768" in str(caught.value) or "expected 1 to" in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_a_scaling_or_an_error(text: str) -> None:
    try:
        assert isinstance(parse_rope_scaling(text), RopeScaling)
    except UsageError:
        pass


# -------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize(
    ("longest", "text", "original", "context"),
    [
        (32768, "yarn:4", 32768, 131072),
        (40960, "yarn:4", 32768, 131072),  # Qwen3: 32,768 of text and 8,192 for the reply
        (40960, "yarn:1", 32768, 40960),
        (262144, "yarn:4", 262144, 1048576),
        (131072, "yarn:2:32768", 32768, 131072),
        (32768, "linear:2", 32768, 65536),
        (32768, "dynamic:2", 32768, 65536),
        (32768, "dynamic:2:1000", 1000, 2000),
        (100, "yarn:2.5", 100, 250),
    ],
)
def test_lengths_as_the_model_cards_have_them(longest: int, text: str, original: int, context: int) -> None:
    spec = scaled(tiny.QWEN3 | {"max_position_embeddings": longest}, text)
    rope = rope_of(spec)
    assert (rope.original_max_positions, spec.max_positions) == (original, context)
    assert f"{rope.type}:{rope.factor:g}" == text.rpartition(f":{original}")[0] or text


def test_the_config_is_what_a_card_tells_to_write() -> None:
    config = tiny.QWEN3 | {"max_position_embeddings": 40960}
    by_hand = config | {
        "max_position_embeddings": 131072,
        "rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32768},
    }
    assert scale_rope(config, parse_rope_scaling("yarn:4")) == by_hand
    assert config["max_position_embeddings"] == 40960  # what was given stays


def test_a_card_that_leaves_the_length_alone_means_the_same() -> None:
    config = tiny.QWEN2 | {"max_position_embeddings": 32768}
    rope = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    spec = read_spec(config | {"rope_scaling": rope})
    assert spec.max_positions == 131072
    assert rope_of(spec).factor == rope_of(scaled(config, "yarn:4")).factor == 4.0


def test_dynamic_still_begins_at_the_trained_length() -> None:
    spec = scaled(tiny.QWEN3 | {"max_position_embeddings": 4096}, "dynamic:2")
    assert rope_of(spec).max_positions == 4096
    assert spec.max_positions == 8192


@pytest.mark.parametrize("top", [{}, {"original_max_position_embeddings": 1024}])
def test_an_earlier_scaling_is_replaced(top: dict[str, Any]) -> None:
    rope = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "beta_fast": 16}
    config = tiny.QWEN3 | {"max_position_embeddings": 4096, "rope_scaling": rope} | top
    plain = scaled(config, "none")
    assert (rope_of(plain).type, plain.max_positions) == ("default", 1024)
    again = scaled(config, "yarn:2")
    assert (rope_of(again).factor, rope_of(again).beta_fast, again.max_positions) == (2.0, 32.0, 2048)
    other = scaled(config, "yarn:2:2000")
    assert (rope_of(other).original_max_positions, other.max_positions) == (2000, 4000)


@settings(max_examples=60, deadline=None)
@given(kinds, st.integers(1, 50), st.none() | st.integers(64, 5000), st.sampled_from(parity_cases()), st.data())
def test_any_model_scaled_is_a_model_or_an_error(kind: str, factor: int, original: int | None, case, data) -> None:
    """Whatever the family and spelling: the scaling asked for is there, and taken away it is gone."""
    config = case.config(data.draw(st.sampled_from(case.spellings)))
    before = read_spec(config)
    scaling = RopeScaling(kind, float(factor), original)  # type: ignore[arg-type]
    if before.family == "qwen" or "dca" in case.name:
        with pytest.raises(UsageError):
            scale_rope(config, scaling)
        return
    changed = scale_rope(config, scaling)
    rope, old = rope_of(read_spec(changed)), rope_of(before)
    assert (rope.type, rope.factor) == (kind, float(factor))
    assert (rope.theta, rope.dims) == (old.theta, old.dims)
    assert rope.original_max_positions == original if original else rope.original_max_positions > 0
    assert read_spec(changed).max_positions >= factor * rope.original_max_positions
    bare = rope_of(read_spec(scale_rope(changed, RopeScaling("none"))))
    assert (bare.type, bare.theta, bare.dims) == ("default", old.theta, old.dims)
    if old.type == "default" and original is None:
        back = read_spec(scale_rope(changed, RopeScaling("none"))).max_positions
        assert back == before.max_positions


def test_models_with_their_own_way_to_long_texts_say_so() -> None:
    qwen1 = next(case for case in parity_cases() if case.name == "qwen1_base")
    with pytest.raises(UsageError, match="first Qwen"):
        scale_rope(qwen1.config(), parse_rope_scaling("yarn:4"))
    chunked = tiny.QWEN2 | {"dual_chunk_attention_config": {"chunk_size": 64, "local_size": 16}}
    with pytest.raises(UsageError, match="Dual Chunk Attention"):
        scale_rope(chunked, parse_rope_scaling("yarn:4"))
    assert rope_of(scaled(chunked, "none")).type == "default"


def test_a_length_beyond_reason_is_refused() -> None:
    with pytest.raises(UsageError, match="too long"):
        scale_rope(tiny.QWEN3 | {"max_position_embeddings": 262144}, parse_rope_scaling("yarn:1000"))


# -------------------------------------------------------------------------------------------------- any key

WRAPPED: dict[str, Any] = {
    "model_type": "qwen3_5",
    "tie_word_embeddings": True,
    "text_config": {k: v for k, v in tiny.QWEN3_5.items() if k != "tie_word_embeddings"},
    "vision_config": {"depth": 1},
}


def test_changes_replace_keys() -> None:
    spec = read_spec(merge(tiny.QWEN3, {"rope_theta": 5e5, "num_hidden_layers": 1, "rms_norm_eps": None}))
    assert (rope_of(spec).theta, len(spec.layers), spec.norm_eps) == (5e5, 1, 1e-6)
    assert tiny.QWEN3["num_hidden_layers"] == 2


@pytest.mark.parametrize("inner", [True, False])
def test_in_a_wrapped_config_keys_of_the_text_model_go_into_it(inner: bool) -> None:
    changes = {"max_position_embeddings": 999, "rope_theta": 7e4}
    merged = merge(WRAPPED, {"text_config": changes} if inner else changes)
    spec = read_spec(merged)
    assert (spec.max_positions, rope_of(spec).theta, spec.hidden_size) == (999, 7e4, 128)
    assert "rope_theta" not in merged
    assert WRAPPED["text_config"]["max_position_embeddings"] == 256


def test_keys_of_the_wrapper_stay_beside_the_text_model() -> None:
    merged = merge(WRAPPED, {"tie_word_embeddings": False, "quantization": {"bits": 4}, "image_token_id": 3})
    assert not read_spec(merged).tied
    assert merged["quantization"] == {"bits": 4}
    both = merge(
        {**WRAPPED, "dtype": "float32", "text_config": {**WRAPPED["text_config"], "dtype": "x"}}, {"dtype": "y"}
    )
    assert both["dtype"] == both["text_config"]["dtype"] == "y"


def test_a_change_is_checked_as_the_file_is() -> None:
    with pytest.raises(ConfigError, match="num_key_value_heads"):
        read_spec(merge(tiny.QWEN3, {"num_key_value_heads": 3}))
    with pytest.raises(ConfigError, match="flavour"):
        read_spec(merge(WRAPPED, {"flavour": "vanilla"}))

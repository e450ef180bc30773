"""Bits for every matrix: presets, overrides, aims, and what cannot be meant."""

from __future__ import annotations

import re

import pytest

from qwen_mlx.checkpoints.mlx_names import Matrix, Piece
from qwen_mlx.checkpoints.recipes import PRESETS, Override, Recipe, aim_at, make_recipe, stored_bytes
from qwen_mlx.cli import quantize as command
from qwen_mlx.errors import UsageError
from qwen_mlx.models.spec import QuantizationSpec

import mlx.core as mx  # isort: skip

LAYERS = 16


def matrix(own: str, *shape: int) -> Matrix:
    return Matrix(own if own == "lm_head" else f"model.{own}", own, shape, (Piece("x", 0, shape[0]),))


def model() -> list[Matrix]:
    """A model with experts in its second half, and DeltaNet in its first layer."""
    found = [matrix("embed_tokens", 1000, 256), matrix("lm_head", 1000, 256)]
    for i in range(LAYERS):
        path = f"layers.{i}"
        names = ("q_proj", "k_proj", "v_proj", "o_proj")
        found += [matrix(f"{path}.self_attn.{name}", 256, 256) for name in names]
        if i == 0:
            found += [matrix(f"{path}.linear_attn.in_proj_ba", 16, 256)]
        if i < LAYERS // 2:
            found += [matrix(f"{path}.mlp.{name}_proj", 512, 256) for name in ("gate", "up")]
            found += [matrix(f"{path}.mlp.down_proj", 256, 512)]
        else:
            found += [matrix(f"{path}.mlp.gate", 8, 256), matrix(f"{path}.mlp.shared_expert_gate", 1, 256)]
            found += [matrix(f"{path}.mlp.switch_mlp.down_proj", 8, 256, 64)]
    return found


def bits(recipe: Recipe) -> dict[str, int | None]:
    formats = recipe.formats(model(), LAYERS)
    return {name.removeprefix("model."): None if form is None else form.bits for name, form in formats.items()}


def test_presets() -> None:
    assert set(PRESETS) == set(command.PRESETS) and all(name in command.EPILOG for name in PRESETS)
    balanced = bits(PRESETS["balanced"])
    assert (balanced["embed_tokens"], balanced["lm_head"]) == (6, 6)
    assert balanced["layers.3.self_attn.q_proj"] == balanced["layers.3.mlp.up_proj"] == 4
    # The first and last eighth of the layers, and every third between them.
    favoured = {i for i in range(LAYERS) if balanced[f"layers.{i}.self_attn.v_proj"] == 6}
    assert favoured == {0, 1, 4, 7, 10, 13, 14, 15}
    assert {i for i in range(8) if balanced[f"layers.{i}.mlp.down_proj"] == 6} == {0, 1, 4, 7}
    assert balanced["layers.14.mlp.switch_mlp.down_proj"] == 6 and balanced["layers.11.mlp.switch_mlp.down_proj"] == 4
    assert bits(PRESETS["max"])["layers.3.self_attn.q_proj"] == 8


@pytest.mark.parametrize("recipe", [*PRESETS.values(), make_recipe(bits=2), make_recipe(mode="mxfp4")])
def test_routers_always_have_eight_bits(recipe: Recipe) -> None:
    formats = recipe.formats(model(), LAYERS)
    for name in ("model.layers.9.mlp.gate", "model.layers.9.mlp.shared_expert_gate"):
        assert formats[name] == QuantizationSpec(8, 64, "affine")


def test_one_format_for_all() -> None:
    flat = make_recipe(bits=3, group_size=128).formats(model(), LAYERS)
    assert flat["model.embed_tokens"] == flat["model.layers.0.self_attn.v_proj"] == QuantizationSpec(3, 128)
    assert flat["model.layers.9.mlp.switch_mlp.down_proj"] is None, "no group of 128 in 64 columns"
    assert make_recipe(mode="nvfp4").formats(model(), LAYERS)["lm_head"] == QuantizationSpec(4, 16, "nvfp4")


def test_presets_take_a_smaller_group_where_theirs_does_not_fit() -> None:
    odd = [matrix("layers.0.mlp.up_proj", 4, 96), matrix("layers.0.mlp.down_proj", 4, 48)]
    formats = PRESETS["balanced"].formats(odd, 1)
    assert formats == {
        "model.layers.0.mlp.up_proj": QuantizationSpec(4, 32),
        "model.layers.0.mlp.down_proj": None,
    }


def test_the_last_override_that_matches_decides() -> None:
    overrides = [Override.parse(text) for text in ("self_attn=5", r"layers\.1\..*q_proj$=8:32", "lm_head=16")]
    formats = make_recipe(bits=4, overrides=overrides).formats(model(), LAYERS)
    assert formats["model.layers.0.self_attn.q_proj"] == QuantizationSpec(5, 64)
    assert formats["model.layers.1.self_attn.q_proj"] == QuantizationSpec(8, 32)
    assert formats["lm_head"] is None and formats["model.embed_tokens"] == QuantizationSpec(4, 64)
    router = make_recipe(bits=4, overrides=[Override.parse("mlp.gate$=6")]).formats(model(), LAYERS)
    assert router["model.layers.9.mlp.gate"] == QuantizationSpec(6, 64)
    floats = make_recipe(mode="mxfp4", overrides=[Override.parse("lm_head=6")]).formats(model(), LAYERS)
    assert floats["lm_head"] == QuantizationSpec(6, 64)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("q_proj", "REGEX=BITS"),
        ("=4", "REGEX=BITS"),
        ("q_proj=four", "REGEX=BITS"),
        ("q(=4", "REGEX=BITS"),
        ("q_proj=4:", "REGEX=BITS"),
        ("q_proj=7", "does not compute 7 bits"),
        ("q_proj=4:48", "does not compute groups of 48"),
    ],
)
def test_overrides_that_cannot_be_read(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Override.parse(text)


def test_overrides_that_do_not_fit_the_model() -> None:
    with pytest.raises(UsageError, match="matches no matrix"):
        make_recipe(overrides=[Override.parse("qproj=4")]).formats(model(), LAYERS)
    with pytest.raises(UsageError, match=r"groups of 128 do not fit model\.layers\.8\.mlp\.switch_mlp\.down_proj"):
        make_recipe(overrides=[Override.parse("down_proj=4:128")]).formats(model(), LAYERS)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"preset": "huge"}, "no preset 'huge'; expected tiny, small"),
        ({"preset": "max", "bits": 4}, "a preset decides"),
        ({"bits": 7}, "--bits 7: MLX does not compute 7 bits; expected 2, 3, 4, 5, 6, 8"),
        ({"bits": 4, "group_size": 48}, "--group-size 48: MLX does not compute groups of 48; expected 32, 64, 128"),
        ({"group_size": 48}, "groups of 48"),
        ({"mode": "mxfp5"}, "no mode 'mxfp5'"),
        ({"mode": "mxfp4", "bits": 8}, "mxfp4 has no other format; expected 4 bits in groups of 32"),
        ({"mode": "nvfp4", "group_size": 32}, "nvfp4 has no other format"),
    ],
)
def test_formats_that_do_not_exist(options: dict, problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        make_recipe(**options)


# ------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
def test_stored_bytes_is_what_mlx_stores(mode: str) -> None:
    for bits in (2, 3, 4, 5, 6, 8) if mode == "affine" else (None,):
        recipe = make_recipe(bits=bits, mode=mode)
        parts = mx.quantize(mx.zeros((8, 256), mx.bfloat16), recipe.group_size, recipe.bits, mode)
        form = QuantizationSpec(recipe.bits, recipe.group_size, recipe.mode)
        assert stored_bytes(8 * 256, form, 2) == sum(part.nbytes for part in parts)


@pytest.mark.parametrize("target", [2.9, 3.5, 4.0, 4.6, 5.0, 6.1, 7.0, 8.4, 12])
def test_aims_are_reached_but_never_passed(target: float) -> None:
    matrices = model()
    parameters = sum(m.size for m in matrices)
    formats = aim_at(target, matrices, LAYERS, parameters, 0, 2, Recipe(4))
    total = sum(stored_bytes(m.size, formats[m.module], 2) for m in matrices)
    reached = 8 * total / parameters
    assert reached <= target
    assert reached > min(target - 0.15, 8.45), "room was left"
    body = [
        form.bits for name, form in formats.items() if form is not None and "gate" not in name and "_ba" not in name
    ]
    head = formats["lm_head"]
    assert head is not None and head.bits == max(body) and max(body) - min(body) <= 2, "the head comes first"


def test_aims_that_cannot_be_reached() -> None:
    with pytest.raises(UsageError, match=r"--target-bpw 2 cannot be reached; expected 2\.\d\d or more"):
        aim_at(2.0, model(), LAYERS, sum(m.size for m in model()), 0, 2, Recipe(4))

"""Tensors that are missing, of another shape, or too many: each is named, in every family."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_mlx import load
from qwen_mlx.errors import CheckpointError
from tests.parity import ParityCase

import mlx.core as mx  # isort: skip

CASES = [
    "qwen1_base",
    "qwen2_base",
    "qwen2_moe_mixed",
    "qwen3_bias",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5_text",
    "qwen3_5_moe_wrapped",
]
# Not read: vision, the heads of multi-token prediction, and what old programs saved of the rope.
IGNORED = re.compile(r"visual|^mtp\.|inv_freq")
# Stored as one by the checkpoint, but not here: what is missing then are its parts.
PARTS = {"c_attn": "q_proj", "in_proj_qkvz": "in_proj_qkv", "in_proj_ba": "in_proj_b", "gate_up_proj": "gate_proj"}
PARTS |= {"experts.down_proj": "experts.0.down_proj"}
# Other names of the first Qwen.
NAMES = {"wte": "embed_tokens", "ln_f": "norm", "ln_1": "input_layernorm", "ln_2": "post_attention_layernorm"}
NAMES |= {"attn.c_proj": "o_proj", "mlp.c_proj": "down_proj", "w1": "up_proj", "w2": "gate_proj"}


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, mx.array]]:
    case = ParityCase(request.param)
    folder = case.build(tmp_path_factory.mktemp(case.name))
    return folder, {name: mx.array(array) for name, array in case.weights().items()}


def one_of_each(tensors: dict[str, mx.array]) -> Iterator[str]:
    """A name of every kind of tensor, whatever its layer and expert; the last one, so that an order would show."""
    kinds = {re.sub(r"\d+", "#", name): name for name in tensors if not IGNORED.search(name)}
    yield from kinds.values()


def error(folder: Path, tensors: dict[str, mx.array]) -> str:
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    text = str(caught.value)
    assert text.startswith("config.json and the weights do not belong together: ")
    assert len(text) < 1000
    assert "\n" not in text
    return text


def test_a_missing_tensor_is_named(model: tuple[Path, dict[str, mx.array]]) -> None:
    folder, tensors = model
    for name in one_of_each(tensors):
        found = error(folder, {key: array for key, array in tensors.items() if key != name})
        own = next((new for old, new in {**NAMES, **PARTS}.items() if f".{old}." in f"{name}."), None)
        wanted = own or re.sub(r"^(model\.|language_model\.)+", "", name)
        assert wanted in found, name
        assert "is missing" in found
        assert "not part of this model" not in found or name.endswith(".c_attn.weight")


def test_a_tensor_of_another_shape_is_named_alone(model: tuple[Path, dict[str, mx.array]]) -> None:
    folder, tensors = model
    for name in one_of_each(tensors):
        for array in (mx.concatenate([tensors[name]] * 2), tensors[name].reshape(-1)[0]):
            found = error(folder, {**tensors, name: array})
            assert f"together: {name} is float32 ({', '.join(map(str, array.shape))}" in found
            assert "expected" in found
            assert "missing" not in found


def test_a_tensor_of_integers_is_named_alone(model: tuple[Path, dict[str, mx.array]]) -> None:
    folder, tensors = model
    for name in one_of_each(tensors):
        found = error(folder, {**tensors, name: tensors[name].astype(mx.int32)})
        assert f"together: {name} is int32" in found
        assert "missing" not in found


def test_a_tensor_too_many_is_named(model: tuple[Path, dict[str, mx.array]]) -> None:
    folder, tensors = model
    layers = {re.match(r"(.*layers|transformer\.h)\.\d+", name) for name in tensors} - {None}
    prefix = next(match[1] for match in layers if match is not None and not IGNORED.search(match[0]))
    for name in (f"{prefix}.0.adapter.weight", f"{prefix}.0.mlp.experts.77.down_proj.weight", "head.weight"):
        assert f"together: {name} is not part of this model" in error(folder, {**tensors, name: mx.ones((2, 2))})


def test_every_problem_counts_in_one_error(model: tuple[Path, dict[str, mx.array]]) -> None:
    folder, tensors = model
    names = list(one_of_each(tensors))
    found = error(folder, {name: mx.ones((3,)) if name in names else array for name, array in tensors.items()})
    assert found.count(" is float32 (3,)") == 5
    assert re.search(r"; and [1-9]\d* more\. ", found)

"""Folders -> models: plain and quantized, whole and in shards; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_mlx import load
from qwen_mlx.checkpoints.save import hub_tensors
from qwen_mlx.errors import CheckpointError, ConfigError, NotFound, UsageError
from qwen_mlx.events import CancelToken, Progress
from tests.models import tiny

import mlx.core as mx  # isort: skip

IDS = mx.array([[1, 5, 9, 2, 60, 33]])
Format = Callable[[str], "dict[str, Any] | None"]


def uniform(bits: int, group_size: int = 64, mode: str = "affine") -> Format:
    return lambda _: {"bits": bits, "group_size": group_size, "mode": mode}


def mixed(module: str) -> dict[str, Any] | None:
    """v and down at 6 bits, the embedding at 8, one layer left alone."""
    if "layers.1.mlp" in module:
        return None
    if module.endswith(("v_proj", "down_proj")):
        return {"bits": 6, "group_size": 64}
    return {"bits": 8 if "embed" in module else 4, "group_size": 32 if "q_proj" in module else 64}


# In-dims that all group sizes divide.
CONFIG = tiny.QWEN3 | {"intermediate_size": 256, "num_attention_heads": 4, "head_dim": 32}
FORMATS: dict[str, Format] = {
    **{f"affine-{bits}": uniform(bits) for bits in (2, 3, 4, 5, 6, 8)},
    "affine-4-g32": uniform(4, 32),
    "affine-8-g128": uniform(8, 128),
    "mxfp4": uniform(4, 32, "mxfp4"),
    "mxfp8": uniform(8, 32, "mxfp8"),
    "nvfp4": uniform(4, 16, "nvfp4"),
    "mixed": mixed,
}


def dequantized(tensors: dict[str, mx.array], form: Format) -> dict[str, mx.array]:
    """What mlx itself makes of the packed weights."""
    out = {}
    for name, array in tensors.items():
        f = form(name.removesuffix(".weight")) if tiny.is_matrix(name, array) else None
        if f is not None:
            options = {"group_size": f["group_size"], "bits": f["bits"], "mode": f.get("mode", "affine")}
            array = mx.dequantize(*mx.quantize(array, **options), **options).astype(mx.float32)
        out[name] = array
    return out


@pytest.mark.parametrize("weights", ["quantized", "expanded", "auto"])
@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("tied", [True, False])
def test_quantized_weights_compute_what_mlx_dequantizes(name: str, weights: str, tied: bool, tmp_path: Path) -> None:
    config = CONFIG | {"tie_word_embeddings": tied}
    form = FORMATS[name]
    original = hub_tensors(tiny.decoder(config))
    reference = load(tiny.save(tmp_path / "plain", config, dequantized(original, form)))
    model = load(tiny.save(tmp_path / "packed", config, original, form), weights=weights)  # type: ignore[arg-type]
    expected, got = reference.decoder(IDS), model.decoder(IDS)
    scale = float(mx.abs(expected).max())
    assert float(mx.abs(got - expected).max()) < 2e-5 * max(scale, 1.0)
    if weights != "auto":
        assert model.weights == weights


@pytest.mark.parametrize("weights", ["quantized", "expanded"])
@pytest.mark.parametrize("name", ["affine-4", "affine-8", "mxfp4", "nvfp4"])
@pytest.mark.parametrize(
    "config",
    [tiny.QWEN2_MOE, tiny.QWEN3_MOE, tiny.QWEN3_NEXT, tiny.QWEN3_5],
    ids=["qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5"],
)
def test_quantized_experts_and_states(config: dict[str, Any], name: str, weights: str, tmp_path: Path) -> None:
    def form(module: str) -> dict[str, Any] | None:
        if module.endswith(("in_proj_ba", "in_proj_a", "in_proj_b", "conv1d")):
            return None
        return None if module.endswith("gate") else FORMATS[name](module)  # a router chooses: rounding it is no fun

    original = hub_tensors(tiny.decoder(config))
    reference = load(tiny.save(tmp_path / "plain", config, dequantized(original, form)))
    model = load(tiny.save(tmp_path / "packed", config, original, form), weights=weights)  # type: ignore[arg-type]
    text = mx.random.randint(0, 97, (1, 50), key=mx.random.key(1))  # long enough to be sorted by expert
    for ids in (IDS, text):
        expected, got = reference.decoder(ids), model.decoder(ids)
        assert float(mx.abs(got - expected).max()) < 1e-4 * max(1.0, float(mx.abs(expected).max()))
    # and once more through MLX's layout, all experts of a matrix in one tensor
    again = tiny.save(tmp_path / "stacked", config, hub_tensors(model.decoder))
    assert mx.allclose(load(again).decoder(IDS), model.decoder(IDS), atol=1e-4)


def test_projections_of_one_format_are_one_matrix(tmp_path: Path) -> None:
    original = hub_tensors(tiny.decoder(CONFIG))
    same = load(tiny.save(tmp_path / "a", CONFIG, original, uniform(4)), weights="quantized")
    assert same.decoder.layers[0].self_attn.qkv_proj.grouping == [["q_proj", "k_proj", "v_proj"]]
    other = load(tiny.save(tmp_path / "b", CONFIG, original, mixed), weights="quantized")
    assert other.decoder.layers[0].self_attn.qkv_proj.grouping == [["q_proj"], ["k_proj"], ["v_proj"]]
    assert other.decoder.layers[0].mlp.gate_up_proj.grouping == [["gate_proj", "up_proj"]]


@pytest.mark.parametrize("table", [{"group_size": None, "bits": None}, {}, {"bits": 8, "group_size": 128}])
def test_the_shapes_know_the_format_better_than_the_config(table: dict[str, Any], tmp_path: Path) -> None:
    original = hub_tensors(tiny.decoder(CONFIG))
    folder = tiny.save(tmp_path, CONFIG, original, uniform(4))
    expected = load(folder).decoder(IDS)
    config = json.loads((folder / "config.json").read_text()) | {"quantization": table}
    (folder / "config.json").write_text(json.dumps(config))
    assert mx.array_equal(load(folder).decoder(IDS), expected)


@pytest.mark.parametrize(
    "config",
    [tiny.QWEN2, tiny.QWEN3, tiny.QWEN2_MOE, tiny.QWEN3_MOE, tiny.QWEN3_NEXT, tiny.QWEN3_5],
    ids=["qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5"],
)
def test_saved_and_loaded_again_is_the_same(config: dict[str, Any], tmp_path: Path) -> None:
    original = tiny.decoder(config)
    tensors = hub_tensors(original)
    assert mx.allclose(load(tiny.save(tmp_path / "o", config, tensors)).decoder(IDS), original(IDS), atol=1e-4)
    model = load(tiny.save(tmp_path / "a", config, tensors))
    again = hub_tensors(model.decoder)
    assert sorted(again) == sorted(tensors)
    assert all(mx.array_equal(again[name], tensors[name]) for name in tensors)


def test_a_stored_head_of_a_tied_model_is_ignored(tmp_path: Path) -> None:
    tensors = hub_tensors(tiny.decoder(CONFIG))
    expected = load(tiny.save(tmp_path / "a", CONFIG, tensors)).decoder(IDS)
    more = tensors | {
        "lm_head.weight": mx.ones((97, 128)),
        "model.layers.0.self_attn.rotary_emb.inv_freq": mx.ones((4,)),
    }
    assert mx.array_equal(load(tiny.save(tmp_path / "b", CONFIG, more)).decoder(IDS), expected)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_is_close_to_float32(dtype: mx.Dtype, tmp_path: Path) -> None:
    tensors = hub_tensors(tiny.decoder(CONFIG))
    exact = load(tiny.save(tmp_path / "a", CONFIG, tensors)).decoder(IDS)
    half = load(tiny.save(tmp_path / "b", CONFIG, {k: v.astype(dtype) for k, v in tensors.items()})).decoder(IDS)
    assert float(mx.abs(half.astype(mx.float32) - exact).max()) < 0.05 * float(mx.abs(exact).max())


def test_shards_are_read_by_the_index(tmp_path: Path) -> None:
    tensors = hub_tensors(tiny.decoder(CONFIG))
    folder = tiny.save(tmp_path, CONFIG, tensors)
    expected = load(folder).decoder(IDS)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{i}-of-00002.safetensors"
        mx.save_safetensors(str(folder / file), {n: tensors[n] for n in part})
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert mx.array_equal(load(folder).decoder(IDS), expected)


Change = Callable[[dict[str, mx.array], dict[str, Any]], None]


def _drop(t: dict[str, mx.array], c: dict[str, Any]) -> None:
    del t["model.layers.1.self_attn.k_proj.weight"]


def _add(t: dict[str, mx.array], c: dict[str, Any]) -> None:
    t["model.layers.1.self_attn.k_proj.lora"] = mx.ones((3,))


def _shape(t: dict[str, mx.array], c: dict[str, Any]) -> None:
    t["model.layers.0.mlp.down_proj.weight"] = mx.ones((3, 5))


def _integers(t: dict[str, mx.array], c: dict[str, Any]) -> None:
    t["model.norm.weight"] = mx.ones((128,), dtype=mx.int32)


def _other_size(t: dict[str, mx.array], c: dict[str, Any]) -> None:
    c["hidden_size"] = 64


def _more_layers(t: dict[str, mx.array], c: dict[str, Any]) -> None:
    c["num_hidden_layers"] = 3


def _fewer_layers(t: dict[str, mx.array], c: dict[str, Any]) -> None:
    c["num_hidden_layers"] = 1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_drop, r"layers\.1\.self_attn\.k_proj\.weight is missing"),
        (_add, r"k_proj\.lora is not part"),
        (_shape, r"down_proj\.weight is float32 \(3, 5\)"),
        (_integers, r"norm\.weight is int32"),
        (_other_size, r"expected floats \(97, 64\)"),
        (_more_layers, r"layers\.2\.input_layernorm"),
        (_fewer_layers, r"layers\.1\..* is not part"),
    ],
)
def test_config_and_weights_that_disagree(change: Change, name: str, tmp_path: Path) -> None:
    tensors, config = hub_tensors(tiny.decoder(CONFIG)), dict(CONFIG)
    change(tensors, config)
    with pytest.raises(CheckpointError, match=name) as caught:
        load(tiny.save(tmp_path, config, tensors))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("part", ["weight", "scales", "biases"])
def test_damaged_parts_of_a_packed_matrix(part: str, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path, CONFIG, hub_tensors(tiny.decoder(CONFIG)), uniform(4))
    path = str(folder / "model.safetensors")
    tensors = dict(mx.load(path).items())
    name = f"model.layers.0.mlp.down_proj.{part}"
    mx.eval(tensors)
    tensors[name] = tensors[name][:, :-1]
    mx.save_safetensors(path, tensors)
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.down_proj has"):
        load(folder)


def test_formats_that_cannot_be_read_yet_are_named(tmp_path: Path) -> None:
    config = CONFIG | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    with pytest.raises(CheckpointError, match="awq"):
        load(tiny.save(tmp_path, config, hub_tensors(tiny.decoder(CONFIG))))


def test_errors_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path)
    with pytest.raises(UsageError, match="weights"):
        load(tmp_path, weights="fast")  # type: ignore[arg-type]
    folder = tiny.save(tmp_path / "m", CONFIG | {"vocab_size": -1}, hub_tensors(tiny.decoder(CONFIG)))
    with pytest.raises(ConfigError, match="vocab_size"):
        load(folder)


def test_loading_tells_how_far_it_is_and_can_be_cancelled(tmp_path: Path) -> None:
    from qwen_mlx.checkpoints.load import iter_load
    from qwen_mlx.errors import Cancelled

    folder = tiny.save(tmp_path, CONFIG, hub_tensors(tiny.decoder(CONFIG)))
    events = list(iter_load(folder))
    assert [(e.done, e.total) for e in events if isinstance(e, Progress)] == [(1, 3), (2, 3), (3, 3)]
    cancel = CancelToken()
    steps = iter_load(folder, cancel=cancel)
    next(steps)
    cancel.cancel()
    with pytest.raises(Cancelled):
        next(steps)


def test_code_beside_a_model_is_never_run(tmp_path: Path) -> None:
    """`auto_map` is what makes other programs import files of the repository."""
    config = tiny.QWEN3 | {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}, "model_file": "modeling.py"}
    folder = tiny.save(tmp_path / "model", tiny.QWEN3, hub_tensors(tiny.decoder(tiny.QWEN3)))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    try:
        load(folder)
    except ConfigError as refusal:
        assert "model_file" in str(refusal)  # not understood, so not guessed
    assert not (tmp_path / "ran").exists()
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "model_file"}))
    load(folder)
    assert not (tmp_path / "ran").exists()

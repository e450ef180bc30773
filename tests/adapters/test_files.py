"""Folders of adapters: written and read again, other programs' layouts, and files that cannot be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_mlx.adapters import (
    AdapterConfig,
    adapter_arrays,
    adapters,
    attach,
    load_adapter,
    mix,
    read_adapter,
    save_adapter,
    set_mix,
)
from qwen_mlx.checkpoints.load import load
from qwen_mlx.checkpoints.save import hub_tensors
from qwen_mlx.errors import CheckpointError, NotFound, QwenError, UsageError
from qwen_mlx.models import Decoder, read_spec
from tests.adapters.tools import FAMILIES, IDS, adapted, shake
from tests.checkpoints import originals
from tests.models import tiny
from tests.parity import ParityCase

import mlx.core as mx  # isort: skip
from mlx.utils import tree_flatten

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
QWEN3 = FAMILIES["qwen3"]
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


def values_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CONFIG).read_text())


def tensors_of(folder: Path) -> dict[str, mx.array]:
    return mx.load(str(folder / WEIGHTS))


def rewrite(folder: Path, values: dict[str, Any] | None = None, tensors: dict[str, mx.array] | None = None) -> Path:
    if values is not None:
        (folder / CONFIG).write_text(json.dumps(values))
    if tensors is not None:
        mx.save_safetensors(str(folder / WEIGHTS), tensors, {"format": "pt"})
    return folder


# ----------------------------------------------------------------------------------------------------- written and read


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_written_and_read_it_is_the_same_to_the_bit(family: str, method: str, tmp_path: Path) -> None:
    """And goes on where it was: the same arrays, the same configuration, nothing else trained."""
    config = AdapterConfig(
        method,
        3,
        7,
        0.1,
        rslora=True,
        rank_pattern={"out_proj": 2, "q_proj": 5},
        alpha_pattern={"layers.1.self_attn.o_proj": 5},
        modules_to_save=("lm_head",),
    )
    decoder = adapted(config, family)
    save_adapter(decoder, tmp_path / "a", base="some/base")
    again = tiny.decoder(FAMILIES[family])
    found = load_adapter(again, tmp_path / "a", "again", train=True)
    assert found.base == "some/base" and adapters(again) == {"again": config} and mix(again) == {"again": 1.0}
    one, other = adapter_arrays(decoder), adapter_arrays(again, "again")
    assert one.keys() == other.keys() and all(mx.array_equal(one[key], other[key]) for key in one)
    decoder.eval(), again.eval()
    assert mx.array_equal(decoder(IDS), again(IDS))
    assert len(tree_flatten(again.trainable_parameters())) == len(one)
    save_adapter(again, tmp_path / "b", "again", base="some/base")
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_read_to_be_used_it_is_not_trained(tmp_path: Path) -> None:
    save_adapter(adapted(AdapterConfig(rank=2, modules_to_save=("embed_tokens",))), tmp_path / "a")
    decoder = tiny.decoder(QWEN3)
    load_adapter(decoder, tmp_path / "a")
    assert not tree_flatten(decoder.trainable_parameters())
    attach(decoder, AdapterConfig(rank=2), "new")
    load_adapter(decoder, tmp_path / "a", "other")
    names = [name for name, _ in tree_flatten(decoder.trainable_parameters())]
    assert names and all(".new." in name for name in names)


@pytest.mark.parametrize("name", ["qwen1_base", "qwen3_5_wrapped"])
def test_names_of_the_model_s_own_tensors(name: str, tmp_path: Path) -> None:
    """The first Qwen's, and those of a text model inside a vision-language model."""
    folder = ParityCase(name).build(tmp_path / "model")
    decoder = load(folder).decoder
    attach(decoder, AdapterConfig(rank=2))
    shake(decoder)
    save_adapter(decoder, tmp_path / "a", wrapped=name == "qwen3_5_wrapped")
    key = {
        "qwen1_base": "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight",
        "qwen3_5_wrapped": "base_model.model.model.language_model.layers.0.linear_attn.in_proj_qkv.lora_A.weight",
    }[name]
    assert key in tensors_of(tmp_path / "a")
    again = load(folder).decoder
    load_adapter(again, tmp_path / "a")
    ids = mx.array([[1, 2, 3, 4]])
    assert mx.array_equal(again(ids), decoder(ids))
    assert not mx.allclose(again(ids), load(folder).decoder(ids), atol=1e-2)
    with pytest.raises(CheckpointError, match="is missing"):
        tensors = tensors_of(tmp_path / "a")
        del tensors[key], tensors[key.replace("lora_A", "lora_B")]
        load_adapter(load(folder).decoder, rewrite(tmp_path / "a", tensors=tensors))


def test_the_first_qwen_has_one_adapter_for_queries_keys_and_values(tmp_path: Path) -> None:
    decoder = load(ParityCase("qwen1_base").build(tmp_path)).decoder
    with pytest.raises(UsageError, match="as one matrix"):
        attach(decoder, AdapterConfig(targets=("q_proj",)))
    attach(decoder, AdapterConfig(rank=2, targets=("q_proj", "k_proj", "v_proj")))
    assert len(adapter_arrays(decoder)) == 2 * len(decoder.layers)


def test_short_names_mean_exactly_what_is_adapted(tmp_path: Path) -> None:
    decoder = adapted(AdapterConfig(rank=2, targets=("q_proj", "down_proj"), layers=(1,)))
    save_adapter(decoder, tmp_path / "a")
    assert values_of(tmp_path / "a")["target_modules"] == ["1.self_attn.q_proj", "1.mlp.down_proj"]
    decoder = adapted(AdapterConfig(rank=2, targets=("experts", "shared_expert", "q_proj")), "qwen2_moe")
    save_adapter(decoder, tmp_path / "b")
    values = values_of(tmp_path / "b")
    assert values["target_modules"] == ["q_proj"]
    assert values["target_parameters"][:2] == ["gate_up_proj", "down_proj"]
    assert set(values["target_parameters"][2:]) == {f"{name}_proj.weight" for name in ("gate", "up", "down")}


def test_a_new_folder_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = adapted(AdapterConfig(rank=2))

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qwen_mlx.adapters.files.atomic_write", fail)
    with pytest.raises(QwenError, match="cannot be"):
        save_adapter(decoder, tmp_path / "a")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="in the way"):
        save_adapter(decoder, tmp_path / "file")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    save_adapter(decoder, tmp_path / "there")
    assert sorted(entry.name for entry in (tmp_path / "there").iterdir()) == [CONFIG, WEIGHTS, "notes.txt"]


# ------------------------------------------------------------------------------------------------------- other programs


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3_moe", "qwen3_next"])
def test_mlx_lm_s_adapters_are_read(family: str, kind: str, tmp_path: Path) -> None:
    """As mlx-lm wrote them, with the logits that it computes; routers are among what it adapts."""
    tuner = pytest.importorskip("mlx_lm.tuner.utils")
    utils = pytest.importorskip("mlx_lm.utils")
    keys_it_wants = {"qwen3_moe": {"decoder_sparse_step": 1}, "qwen3_next": originals.HALF | {"decoder_sparse_step": 1}}
    config = FAMILIES[family] | keys_it_wants.get(family, {})
    if family == "qwen3_moe" and kind == "dora":
        pytest.skip("mlx-lm has no DoRA of experts")
    folder = tiny.save(tmp_path / "model", config, hub_tensors(tiny.decoder(config)))
    model, _ = utils.load_model(folder)
    parameters = {"rank": 3, "scale": 5.0, "dropout": 0.0}
    if kind == "dora":
        parameters["keys"] = ["self_attn.q_proj", "self_attn.o_proj", "linear_attn.in_proj_qkvz"]
    tuner.linear_to_lora_layers(model, 2, parameters, use_dora=kind == "dora")
    found = dict(tree_flatten(model.parameters()))
    keys = [key for key in found if key.endswith((".lora_a", ".lora_b", ".m"))]
    randoms = zip(keys, mx.random.split(mx.random.key(1), len(keys)))
    adapter = {
        key: found[key] * (1 + 0.1 * mx.random.normal(found[key].shape, key=k))
        + (0.05 * mx.random.normal(found[key].shape, key=k) if key.endswith("lora_b") else 0)
        for key, k in randoms
    }
    model.load_weights(list(adapter.items()), strict=False)
    (tmp_path / "a").mkdir()
    mx.save_safetensors(str(tmp_path / "a" / "adapters.safetensors"), adapter)
    values = {"fine_tune_type": kind, "num_layers": 2, "lora_parameters": parameters, "model": "some/base"}
    (tmp_path / "a" / CONFIG).write_text(json.dumps(values))
    ours = load(folder).decoder
    before = ours(IDS)
    found_adapter = load_adapter(ours, tmp_path / "a")
    assert found_adapter.base == "some/base" and found_adapter.config.method == kind
    assert mx.abs(ours(IDS) - model(IDS)).max().item() < 1e-3
    assert not mx.allclose(ours(IDS), before, atol=0.1)
    save_adapter(ours, tmp_path / "peft")
    again = load(folder).decoder
    load_adapter(again, tmp_path / "peft")
    assert mx.allclose(again(IDS), ours(IDS), rtol=1e-5, atol=1e-4)


def test_what_mlx_lm_trained_in_full_is_no_adapter(tmp_path: Path) -> None:
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), {"model.norm.weight": mx.ones(128)})
    (tmp_path / CONFIG).write_text(json.dumps({"fine_tune_type": "full", "num_layers": 2}))
    with pytest.raises(CheckpointError, match="a model, no adapter"):
        read_adapter(tmp_path, read_spec(QWEN3))
    (tmp_path / CONFIG).write_text(json.dumps({"fine_tune_type": "lora", "lora_parameters": {"rank": 2}}))
    with pytest.raises(CheckpointError, match="a scale"):
        read_adapter(tmp_path, read_spec(QWEN3))


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "a"
    return save_adapter(adapted(AdapterConfig(rank=2, targets=("q_proj", "o_proj"))), folder, base="some/base")


def refused(folder: Path, family: str = "qwen3", error: type[QwenError] = CheckpointError) -> str:
    decoder = tiny.decoder(FAMILIES[family])
    before = tree_flatten(decoder.parameters())
    with pytest.raises(error) as told:
        load_adapter(decoder, folder)
    assert [name for name, _ in before] == [name for name, _ in tree_flatten(decoder.parameters())]
    assert not adapters(decoder)
    return str(told.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "IA3"}, "'peft_type' cannot be followed"),
        ({"peft_type": None}, "'peft_type' cannot be followed"),
        ({"bias": "all"}, "'bias' cannot be followed"),
        ({"use_qalora": True}, "'use_qalora' (QALoRA)"),
        ({"layer_replication": [[0, 1]]}, "'layer_replication'"),
        ({"lora_bias": True}, "'lora_bias'"),
        ({"alora_invocation_tokens": [5]}, "'alora_invocation_tokens'"),
        ({"trainable_token_indices": [5]}, "'trainable_token_indices'"),
        ({"fan_in_fan_out": True}, "'fan_in_fan_out'"),
        ({"something_new": 3}, "'something_new' may change what the adapter computes"),
        ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
        ({"r": 3}, "has 2 rows, but its rank is 3"),
        ({"r": "2"}, "r is no rank"),
        ({"lora_alpha": 0}, "lora_alpha is no alpha"),
        ({"use_dora": True}, "lora_magnitude_vector.weight is missing"),
        ({"use_dora": "yes"}, "'use_dora' cannot be followed"),
        ({"rank_pattern": {"q_proj": 1}}, "has 2 rows, but its rank is 1"),
        ({"rank_pattern": ["q_proj"]}, "'rank_pattern' cannot be followed"),
        ({"alpha_pattern": {"(a+)+": 1}}, "is not usable"),
        ({"target_modules": ["q_proj", "o_proj", "v_proj"]}, f"{Q_PROJ[:-6]}v_proj.lora_A.weight is missing"),
        ({"target_modules": r".*\.(q|o|k)_proj"}, f"{Q_PROJ[:-6]}k_proj.lora_A.weight is missing"),
        ({"target_modules": 7}, "'target_modules' cannot be followed"),
        ({"layers_to_transform": "all"}, "'layers_to_transform' cannot be followed"),
    ],
)
def test_a_configuration_that_is_not_followed_is_refused(good: Path, tmp_path: Path, change: dict, told: str) -> None:
    rewrite(tmp_path, values_of(good) | change, tensors_of(good))
    text = refused(tmp_path)
    assert told in text and str(tmp_path) in text


@pytest.mark.parametrize(
    "change",
    [
        {"init_lora_weights": "gaussian"},
        {"eva_config": {"rho": 2}},
        {"exclude_modules": ["v_proj"], "target_modules": ["q_proj", "o_proj", "v_proj"]},
        {"target_modules": "all-linear"},
        {"layers_to_transform": [0, 1]},
        {"some_new_switch": False},
        {"revision": "main", "loftq_config": {}, "megatron_core": "megatron.core"},
    ],
)
def test_a_configuration_that_changes_nothing_is_followed(good: Path, tmp_path: Path, change: dict) -> None:
    rewrite(tmp_path, values_of(good) | change, tensors_of(good))
    decoder, other = tiny.decoder(QWEN3), tiny.decoder(QWEN3)
    load_adapter(decoder, tmp_path)
    load_adapter(other, good)
    assert mx.array_equal(decoder(IDS), other(IDS))


Tensors = dict[str, mx.array]


def without(key: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: a for k, a in tensors.items() if k != key}


def also(key: str, array: mx.array) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, key: array}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without(f"{Q_PROJ}.lora_B.weight"), f"{Q_PROJ}.lora_B.weight is missing"),
        (also(f"{Q_PROJ}.lora_A.weight", mx.ones((2, 64))), "is float32 (2, 64), expected floats (any, 128)"),
        (also(f"{Q_PROJ}.lora_B.weight", mx.ones((128, 3))), "expected floats (128, 2)"),
        (also(f"{Q_PROJ}.lora_A.weight", mx.ones((2, 128), mx.int32)), "is int32"),
        (also(f"{Q_PROJ}.lora_A.weight", mx.full((2, 128), float("nan"))), "holds NaN or infinity"),
        (also(f"{Q_PROJ}.lora_A.weight", mx.zeros((0, 128))), "expected floats"),
        (also(f"{Q_PROJ}.lora_A.bias", mx.ones(2)), "lora_A.bias is not part of this model"),
        (also(f"{Q_PROJ}.lora_embedding_A", mx.ones(2)), "is not part of this model"),
        (also(f"{Q_PROJ}.lora_magnitude_vector", mx.ones(128)), "lora_magnitude_vector is not part of this model"),
        (also("base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", mx.ones((2, 128))), "is not part of"),
        (also("base_model.model.lm_head.lora_A.weight", mx.ones((2, 128))), "is not part of this model"),
        (also("base_model.model.lm_head.weight", mx.ones((98, 128))), "expected floats (97, 128)"),
        (lambda _: {"model.norm.weight": mx.ones(3)}, "holds no adapter"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(good: Path, tmp_path: Path, change: Callable, told: str) -> None:
    rewrite(tmp_path, values_of(good), change(tensors_of(good)))
    text = refused(tmp_path)
    assert told in text and WEIGHTS in text


def test_the_adapter_of_another_model(good: Path) -> None:
    text = refused(good, "qwen3_5")
    assert "Perhaps it is the adapter of another model" in text and "some/base" in text


def test_folders_without_an_adapter(good: Path, tmp_path: Path) -> None:
    assert "there is no folder" in refused(tmp_path / "none", error=NotFound)
    assert "adapter_config.json is missing" in refused(tmp_path, error=NotFound)
    (tmp_path / "config.json").write_text("{}")
    assert "That is a model" in refused(tmp_path, error=NotFound)
    (tmp_path / CONFIG).write_text((good / CONFIG).read_text())
    assert "is missing" in refused(tmp_path, error=NotFound)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04")
    assert "Pickles" in refused(tmp_path, error=NotFound)


def test_damaged_files(good: Path, tmp_path: Path) -> None:
    rewrite(tmp_path, values_of(good), tensors_of(good))
    data = (tmp_path / WEIGHTS).read_bytes()
    for broken in (b"", data[:20], data[:-4], data + b"1234", data.replace(b"F32", b"F64", 1)):
        (tmp_path / WEIGHTS).write_bytes(broken)
        assert WEIGHTS in refused(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(data)
    for text in ("", "[]", "{", '{"peft_type": "LORA", "peft_type": "LORA"}', '{"r": NaN}'):
        (tmp_path / CONFIG).write_text(text)
        assert CONFIG in refused(tmp_path)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_configuration_says_there_is_an_adapter_or_one_error(good: Path, data: st.DataObject) -> None:
    values = values_of(good)
    changes = data.draw(st.dictionaries(st.sampled_from([*values, "new"]), VALUES, min_size=1, max_size=3))
    folder = good.parent / "changed"
    folder.mkdir(exist_ok=True)
    rewrite(folder, values | changes, tensors_of(good))
    try:
        found = read_adapter(folder, read_spec(QWEN3))
    except QwenError as error:
        assert len(str(error)) < 1000
    else:
        assert found.parts


def test_another_configuration_beside_the_arrays_is_believed_only_where_they_agree(good: Path, tmp_path: Path) -> None:
    values = values_of(good) | {"lora_alpha": 64}
    (tmp_path / CONFIG).write_text(json.dumps(values))
    (tmp_path / WEIGHTS).write_bytes((good / WEIGHTS).read_bytes())
    found = read_adapter(tmp_path, read_spec(QWEN3))
    assert found.config.alpha == 64 and found.parts["layers.0.self_attn.q_proj"].scale == 32
    decoder = Decoder(read_spec(QWEN3))
    load_adapter(decoder, tmp_path)
    set_mix(decoder, {})

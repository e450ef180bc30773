"""Every family in mlx-lm's layout: the same numbers, the same tensors as mlx-lm writes, and clear refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qwen_mlx import load
from qwen_mlx.checkpoints.convert import iter_convert
from qwen_mlx.checkpoints.folder import load_folder_tensors
from qwen_mlx.checkpoints.quantize import iter_quantize
from qwen_mlx.errors import Cancelled, CheckpointError, UnsupportedModel, UsageError
from qwen_mlx.events import CancelToken, ConversionPlanned, Converted, ConvertModel, Event, Progress, QuantizeModel
from tests.checkpoints import originals
from tests.models import tiny
from tests.parity import ParityCase, parity_cases

import mlx.core as mx  # isort: skip

IDS = mx.array([[1, 5, 9, 2, 60, 33]])
CASES = [case for case in parity_cases() if case.name.startswith(("qwen1_base", "qwen2_moe", "qwen3"))]
needs_mlx_lm = pytest.mark.skipif(sys.version_info < (3, 11) or find_spec("mlx_lm") is None, reason="needs mlx-lm")


def convert(source: Path, target: Path, **options: Any) -> Converted:
    return finish(iter_convert(ConvertModel(str(source), str(target), **options)))


def quantize(source: Path, target: Path, **options: Any) -> Converted:
    return finish(iter_quantize(QuantizeModel(str(source), str(target), **options)))


def finish(events: Iterator[Event]) -> Converted:
    *_, last = events
    assert isinstance(last, Converted)
    return last


def bits_of(array: mx.array) -> mx.array:
    return array.view(mx.uint16) if array.dtype == mx.bfloat16 else array


def differences(a: dict[str, mx.array], b: dict[str, mx.array]) -> list[str]:
    """Names of tensors that are not the same to the bit."""
    found = sorted(set(a) ^ set(b))
    for name in set(a) & set(b):
        x, y = a[name], b[name]
        if x.dtype != y.dtype or x.shape != y.shape or not bool(mx.array_equal(bits_of(x), bits_of(y))):
            found.append(name)
    return found


# ------------------------------------------------------------------------------------------- same numbers


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_family_computes_the_same_afterwards(case: ParityCase, tmp_path: Path) -> None:
    """Also when it is converted once more: what has been done to norms and convolutions is not done twice."""
    for spelling in case.spellings:
        source = case.build(tmp_path / spelling, spelling)
        expected = load(source).decoder(IDS)
        for name in ("once", "twice"):
            finished = convert(source, tmp_path / f"{spelling} {name}")
            source = tmp_path / f"{spelling} {name}"
            assert float(mx.abs(load(source).decoder(IDS) - expected).max()) <= case.tolerance
            assert finished.plan.nbytes == sum(a.nbytes for a in load_folder_tensors(source).values())
        names = load_folder_tensors(source)
        assert not any(".experts." in name or name.startswith(("mtp", "model.visual")) for name in names)


@pytest.mark.parametrize("family", originals.CONFIGS)
def test_shards_change_nothing(family: str, tmp_path: Path) -> None:
    config = originals.CONFIGS[family]
    originals.save(tmp_path / "one", config)
    originals.save(tmp_path / "three", config, shards=3)
    for name in ("one", "three"):
        convert(tmp_path / name, tmp_path / f"{name} converted")
    tensors = [load_folder_tensors(tmp_path / f"{name} converted") for name in ("one", "three")]
    assert differences(*tensors) == []


@pytest.mark.parametrize("dtype", ["float32", "float16", "bf16"])
def test_another_type(dtype: str, tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3_next"])
    convert(source, tmp_path / "new", dtype=dtype)
    found = {name: array.dtype for name, array in load_folder_tensors(tmp_path / "new").items()}
    wanted = {"float32": mx.float32, "float16": mx.float16, "bf16": mx.bfloat16}[dtype]
    assert {kind for name, kind in found.items() if not name.endswith("A_log")} == {wanted}
    assert {kind for name, kind in found.items() if name.endswith("A_log")} == {mx.bfloat16}, "as it was stored"
    said = json.loads((tmp_path / "new" / "config.json").read_text())["torch_dtype"]
    assert said == {"bf16": "bfloat16"}.get(dtype, dtype)


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe", "qwen3_5_moe"])
def test_unpacking(family: str, mode: str, tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS[family] | {"intermediate_size": 256})
    quantize(source, tmp_path / "packed", mode=mode, bits=None if mode != "affine" else 4)
    packed = load(tmp_path / "packed", weights="expanded").decoder(IDS)
    finished = convert(tmp_path / "packed", tmp_path / "plain", dequantize=True, dtype="float32")
    assert finished.plan.bits_before < 9 and finished.plan.bits_after > 31
    assert "quantization" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    assert float(mx.abs(load(tmp_path / "plain").decoder(IDS) - packed).max()) < 1e-4


def test_a_packed_model_stays_packed(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3_moe"])
    quantize(source, tmp_path / "packed", preset="balanced")
    convert(tmp_path / "packed", tmp_path / "again")
    tensors = [load_folder_tensors(tmp_path / name) for name in ("packed", "again")]
    assert differences(*tensors) == []
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("packed", "again")]
    assert configs[0] == configs[1]


# ---------------------------------------------------------------------------------------- as mlx-lm writes it


@needs_mlx_lm
@pytest.mark.parametrize("family", originals.CONFIGS)
def test_the_tensors_are_those_of_mlx_lm(family: str, tmp_path: Path) -> None:
    """To the bit, plain and with the rounding "mlx"; and mlx-lm loads ours."""
    from mlx_lm.convert import convert as peer
    from mlx_lm.utils import load_model

    source = originals.save(tmp_path / "source", originals.CONFIGS[family])
    # mlx-lm has no rule for the routers of qwen2_moe, and rounds A_log of qwen3_next, which we never do.
    routers = ("mlp.gate$=4:64", "shared_expert_gate$=4:64") if family == "qwen2_moe" else ()
    allowed = {"qwen3_next": ["model.layers.0.linear_attn.A_log"]}.get(family, [])
    for kind in ("plain", "packed"):
        peer(str(source), str(tmp_path / f"peer {kind}"), quantize=kind == "packed", q_bits=4, q_group_size=64)
        if kind == "plain":
            convert(source, tmp_path / kind)
        else:
            quantize(source, tmp_path / kind, bits=4, rounding="mlx", overrides=routers)
        theirs, ours = load_folder_tensors(tmp_path / f"peer {kind}"), load_folder_tensors(tmp_path / kind)
        assert [name for name in differences(theirs, ours) if ours[name].size > 4 or name not in allowed] == []
        load_model(tmp_path / kind)  # complains of any name or shape that it does not expect


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_the_rounding_of_mlx_is_that_of_mlx(bits: int, dtype: str, tmp_path: Path) -> None:
    """To the bit in every type, however the rows were cut and shared out."""
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"] | {"torch_dtype": dtype})
    quantize(source, tmp_path / "new", bits=bits, group_size=32, rounding="mlx")
    plain, packed = load_folder_tensors(source), load_folder_tensors(tmp_path / "new")
    for name in [name.removesuffix(".scales") for name in packed if name.endswith(".scales")]:
        parts = mx.quantize(plain[f"{name}.weight"], group_size=32, bits=bits)
        expected = dict(zip(("weight", "scales", "biases"), parts))
        assert differences(expected, {part: packed[f"{name}.{part}"] for part in expected}) == []


@needs_mlx_lm
def test_mixed_formats_are_read_by_mlx_lm(tmp_path: Path) -> None:
    from mlx_lm.utils import load_model

    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3_moe"], dtype="float32")
    quantize(source, tmp_path / "new", preset="balanced", overrides=("o_proj=16", "k_proj=3:32"), dtype="float32")
    model, config = load_model(tmp_path / "new")
    model.set_dtype(mx.float32)
    assert config["quantization"]["model.layers.1.self_attn.k_proj"] == {"group_size": 32, "bits": 3, "mode": "affine"}
    expected = load(tmp_path / "new", weights="quantized").decoder(IDS)
    assert float(mx.abs(model(IDS) - expected).max()) < 1e-3


# -------------------------------------------------------------------------------------------------- events


def test_what_is_told(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"])
    events = list(iter_convert(ConvertModel(str(source), str(tmp_path / "new"))))
    plan, last = events[0], events[-1]
    assert isinstance(plan, ConversionPlanned) and isinstance(last, Converted) and last.plan == plan
    assert {type(event) for event in events[1:-1]} == {Progress}
    assert plan.bits_before == plan.bits_after == 16 and plan.formats == {"bfloat16": 15}
    assert plan.disk == sum(file.stat().st_size for file in (tmp_path / "new").iterdir())
    assert {file.name for file in (tmp_path / "new").iterdir()} >= {"tokenizer.json", "tokenizer_config.json"}


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"])
    last = convert(source, tmp_path / "new", dry_run=True)
    assert last.files == 0 and last.plan.disk > 0 and sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_cancelling(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"])
    token = CancelToken()
    events = iter_convert(ConvertModel(str(source), str(tmp_path / "new")), token)
    for _ in range(5):
        next(events)
    token.cancel()
    with pytest.raises(Cancelled):
        next(events)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


# ------------------------------------------------------------------------------------------------- refusals


def test_nothing_to_unpack(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"])
    with pytest.raises(UsageError, match="is not quantized; there is nothing to unpack"):
        convert(source, tmp_path / "new", dequantize=True)
    with pytest.raises(UsageError, match="no type 'int8' of weights; expected bfloat16, float16, float32"):
        convert(source, tmp_path / "new", dtype="int8")


def test_a_missing_shard(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"], shards=3)
    (source / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors missing.*pull"):
        convert(source, tmp_path / "new")


def test_a_truncated_shard(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"], shards=3)
    file = source / "model-00003-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model-00003-of-00003\.safetensors is cut off; expected \d+ bytes"):
        convert(source, tmp_path / "new")


def test_an_index_that_lies(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"], shards=3)
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00003.safetensors"}}
    index["weight_map"]["model.other.weight"] = "model-00002-of-00003.safetensors"
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError):
        convert(source, tmp_path / "new")


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"], shards=2)
    first = source / "model-00001-of-00002.safetensors"
    mx.save_safetensors(str(source / "model-00002-of-00002.safetensors"), dict(mx.load(str(first))))
    with pytest.raises(CheckpointError, match="twice"):
        convert(source, tmp_path / "new")


def test_another_architecture(tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"])
    for kind, words in (("qwen9", "'qwen9' are not supported"), ("qwen2_5_vl", "a vision model")):
        (source / "config.json").write_text(json.dumps(originals.CONFIGS["qwen3"] | {"model_type": kind}))
        with pytest.raises(UnsupportedModel, match=words):
            convert(source, tmp_path / "new")


def test_weights_of_another_model(tmp_path: Path) -> None:
    """Missing, wrong and superfluous tensors are listed together, and nothing is written."""
    config = originals.CONFIGS["qwen3"]
    tensors = {name: array.astype(mx.bfloat16) for name, array in originals.published(config).items()}
    del tensors["model.layers.0.mlp.up_proj.weight"]
    tensors["model.norm.weight"] = mx.zeros((64,), mx.bfloat16)
    tensors["model.layers.7.extra.weight"] = mx.zeros((64, 64), mx.bfloat16)
    source = tiny.save(tmp_path / "source", config, tensors)
    with pytest.raises(CheckpointError, match="do not belong together") as error:
        convert(source, tmp_path / "new")
    for words in (
        "layers.0.mlp.up_proj.weight is missing",
        "model.norm.weight is BF16 (64,), expected floats (128,)",
        "model.layers.7.extra.weight is not part of this model",
        "mixed up in this folder",
    ):
        assert words in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_experts_that_are_not_all_there(tmp_path: Path) -> None:
    config = originals.CONFIGS["qwen3_moe"]
    tensors = {name: array.astype(mx.bfloat16) for name, array in originals.published(config).items()}
    del tensors["model.layers.1.mlp.experts.3.down_proj.weight"]
    source = tiny.save(tmp_path / "source", config, tensors)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.experts\.3\.down_proj\.weight is missing"):
        convert(source, tmp_path / "new")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_pickles_pointers_and_web_pages(file: str, tmp_path: Path) -> None:
    source = originals.save(tmp_path / "source", originals.CONFIGS["qwen3"])
    (source / "model.safetensors").unlink()
    contents = {
        "pytorch_model.bin": [(b"\x80\x02pickle", "only pickle weights")],
        "model.safetensors": [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git-lfs pointer"),
            (b"<!doctype html><html>Log in</html>", "web page"),
        ],
    }
    for content, words in contents[file]:
        (source / file).write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            convert(source, tmp_path / "new")


def test_no_network_word_of_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="there is no model folder"):
        convert(tmp_path / "nowhere", tmp_path / "new")

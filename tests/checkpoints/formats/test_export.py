"""A model that is exported and imported again computes the same; files are as other programs expect them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qwen_mlx.checkpoints.export import iter_export
from qwen_mlx.checkpoints.formats.gguf.reader import read_header
from qwen_mlx.checkpoints.load import load
from qwen_mlx.checkpoints.save import hub_tensors
from qwen_mlx.errors import Cancelled, CheckpointError, TokenizerError, UnsupportedModel, UsageError
from qwen_mlx.events import CancelToken, Exported, ExportModel, ExportPlanned, Progress
from tests.checkpoints.formats.helpers import run_import
from tests.models import tiny
from tests.text import tiny as tiny_text

import mlx.core as mx  # isort: skip

CONFIGS = {
    "qwen2": tiny.QWEN2,
    "qwen3": tiny.QWEN3,
    "qwen2_moe": tiny.QWEN2_MOE,
    "qwen3_moe": tiny.QWEN3_MOE | {"mlp_only_layers": []},
}
IDS = [3, 14, 15, 92, 65, 35]
DTYPES = {"f16": mx.float16, "bf16": mx.bfloat16, "q8_0": mx.bfloat16}


def model(folder, name, dtype=mx.float32, quantize=None):
    """A tiny model with a tokenizer."""
    config = CONFIGS[name] | {"vocab_size": 432}
    tensors = {key: array.astype(dtype) for key, array in hub_tensors(tiny.decoder(config)).items()}
    tiny.save(folder, config, tensors, quantize)
    return tiny_text.write_tokenizer_json(folder)


def logits(folder):
    return np.array(load(folder, weights="expanded").decoder(mx.array([IDS]))[0].astype(mx.float32))


def export(source, target, form, **options):
    events = list(iter_export(ExportModel(str(source), str(target), form, **options)))
    assert isinstance(events[0], ExportPlanned) and isinstance(events[-1], Exported)
    return events[0]


@pytest.mark.parametrize("form", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("name", CONFIGS)
def test_gguf_there_and_back(name, form, tmp_path):
    source = model(tmp_path / "a", name, mx.bfloat16)
    plan = export(source, tmp_path / "m.gguf", form)
    assert plan.form == f"GGUF {form.upper()}"
    run_import(tmp_path / "m.gguf", tmp_path / "b", dtype="float32")
    if form == "q8_0":
        new, old = (hub_tensors(load(folder, weights="expanded").decoder) for folder in (tmp_path / "b", source))
        for key, array in old.items():  # half a step of 127, and the step is rounded to a half
            assert mx.abs(new[key] - array).max() <= mx.abs(array).max() / 254 * 1.1, key
    else:  # halves hold these, too, though they are stored with 8 bits of mantissa
        assert np.abs(logits(tmp_path / "b") - logits(source)).max() < 5e-5
    first, second = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "b"))
    for key in ("model_type", "hidden_size", "num_hidden_layers", "rope_theta", "rms_norm_eps", "tie_word_embeddings"):
        assert first[key] == second[key]
    assert load(source).tokenizer.encode("Hello, 你好 <|im_end|>") == load(tmp_path / "b").tokenizer.encode(
        "Hello, 你好 <|im_end|>"
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_safetensors_have_the_names_and_shapes_of_the_hub(name, tmp_path):
    source = model(tmp_path / "a", name, mx.bfloat16, lambda module: {"bits": 8, "group_size": 32})
    plan = export(source, tmp_path / "b", "float32")
    assert plan.bits_after == pytest.approx(32, abs=0.01)
    np.testing.assert_allclose(logits(tmp_path / "b"), logits(source), atol=5e-5)
    written = mx.load(str(tmp_path / "b" / "model.safetensors"))
    expected = hub_tensors(tiny.decoder(CONFIGS[name] | {"vocab_size": 432}))
    assert {key: array.shape for key, array in written.items()} == {key: a.shape for key, a in expected.items()}
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert "quantization" not in config and "quantization_config" not in config and config["torch_dtype"] == "float32"


def test_in_small_blocks_experts_are_cut_at_the_right_rows(tmp_path, monkeypatch):
    from qwen_mlx.checkpoints import rewrite

    source = model(tmp_path / "a", "qwen3_moe", mx.bfloat16, lambda module: {"bits": 8, "group_size": 32})
    monkeypatch.setattr(rewrite, "BLOCK", 4 * 128 * 50)  # 50 rows: neither a part nor a multiple of an expert's
    export(source, tmp_path / "b", "float32")
    np.testing.assert_allclose(logits(tmp_path / "b"), logits(source), atol=5e-5)


def test_tensors_and_keys_are_as_llama_cpp_has_them(tmp_path):
    source = model(tmp_path / "a", "qwen2_moe", mx.bfloat16)
    export(source, tmp_path / "m.gguf", "q8_0")
    header = read_header(tmp_path / "m.gguf")
    kinds = {name: (tensor.kind.name, tensor.shape) for name, tensor in header.tensors.items()}
    assert kinds["token_embd.weight"] == ("Q8_0", (432, 128))
    assert kinds["output.weight"] == ("Q8_0", (432, 128))
    assert kinds["blk.0.ffn_gate_exps.weight"] == ("Q8_0", (5, 128, 128))
    assert kinds["blk.0.ffn_gate_inp.weight"] == ("F32", (5, 128))
    assert kinds["blk.0.ffn_gate_inp_shexp.weight"] == ("F32", (128,))
    assert kinds["blk.0.attn_q.bias"] == ("F32", (128,))
    found = header.metadata
    assert found["general.architecture"] == "qwen2moe" and found["general.file_type"] == 7
    assert found["qwen2moe.expert_shared_feed_forward_length"] == 64
    assert found["qwen2moe.expert_used_count"] == 2 and found["qwen2moe.attention.key_length"] == 32


def test_rows_that_are_no_multiple_of_32_become_halves(tmp_path):
    config = CONFIGS["qwen3"] | {"vocab_size": 432, "intermediate_size": 40}
    tensors = {key: array.astype(mx.bfloat16) for key, array in hub_tensors(tiny.decoder(config)).items()}
    source = tiny_text.write_tokenizer_json(tiny.save(tmp_path / "a", config, tensors))
    plan = export(source, tmp_path / "m.gguf", "q8_0")
    assert "no multiple of 32 become F16: blk.0.ffn_down.weight" in plan.notes[0]
    assert read_header(tmp_path / "m.gguf").tensors["blk.1.ffn_down.weight"].kind.name == "F16"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen3", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}, "a window or chunks"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}, "layers differ"),
        ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob is false"),
        ("qwen2_moe", {"norm_topk_prob": True}, "norm_topk_prob is true"),
        ("qwen3", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "positions of the type dynamic"),
        (
            "qwen3",
            {
                "rope_scaling": {
                    "rope_type": "yarn",
                    "factor": 2.0,
                    "attention_factor": 3.0,
                    "original_max_position_embeddings": 64,
                }
            },
            "attention factor",
        ),
    ],
)
def test_what_gguf_cannot_say_is_refused(name, changes, message, tmp_path):
    source = model(tmp_path / "a", name)
    config = json.loads((source / "config.json").read_text()) | changes
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=message):
        export(source, tmp_path / "m.gguf", "bf16")
    assert not (tmp_path / "m.gguf").exists()


def test_families_without_an_export_are_named(tmp_path):
    config = tiny.QWEN3_5
    source = tiny.save(tmp_path / "a", config, hub_tensors(tiny.decoder(config)))
    for target, form in (("m.gguf", "bf16"), ("b", "bfloat16")):
        with pytest.raises(UnsupportedModel, match=r"family qwen3_5 are not exported.*convert --dequantize"):
            export(source, tmp_path / target, form)


def test_numbers_that_halves_do_not_hold(tmp_path):
    source = model(tmp_path / "a", "qwen3")
    tensors = dict(mx.load(str(source / "model.safetensors")))
    tensors["model.layers.0.mlp.up_proj.weight"] *= 1e6
    mx.save_safetensors(str(source / "model.safetensors"), tensors, {"format": "mlx"})
    for target, form in (("m.gguf", "f16"), ("b", "float16")):
        with pytest.raises(CheckpointError, match="up_proj"):
            export(source, tmp_path / target, form)
    assert {entry.name for entry in tmp_path.iterdir()} == {"a"}
    export(source, tmp_path / "m.gguf", "bf16")


def test_a_gguf_file_needs_a_tokenizer(tmp_path):
    source = model(tmp_path / "a", "qwen3")
    (source / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="no tokenizer"):
        export(source, tmp_path / "m.gguf", "bf16")
    export(source, tmp_path / "b", "bfloat16")  # safetensors do not


@pytest.mark.parametrize(
    ("target", "form", "message"),
    [
        ("m.gguf", "q4_k_m", "not written as 'q4_k_m'; expected f16, bf16, q8_0"),
        ("b", "q8_0", "not written as 'q8_0'.*ends in .gguf"),
        ("a", "bfloat16", "is the model that is read"),
        ("there.gguf", "bf16", "exists.*--force"),
        ("folder.gguf", "bf16", "is a folder"),
    ],
)
def test_targets_that_cannot_be_meant(target, form, message, tmp_path):
    source = model(tmp_path / "a", "qwen3")
    (tmp_path / "there.gguf").write_text("x")
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(UsageError, match=message):
        export(source, tmp_path / target, form)
    assert (tmp_path / "there.gguf").read_text() == "x"


def test_all_or_nothing(tmp_path):
    source = model(tmp_path / "a", "qwen3")
    export(source, tmp_path / "m.gguf", "bf16", dry_run=True)
    assert {entry.name for entry in tmp_path.iterdir()} == {"a"}
    cancel = CancelToken()
    with pytest.raises(Cancelled):
        for event in iter_export(ExportModel(str(source), str(tmp_path / "m.gguf"), "bf16"), cancel):
            if isinstance(event, Progress) and event.done:
                cancel.cancel()
    assert {entry.name for entry in tmp_path.iterdir()} == {"a"}
    (tmp_path / "m.gguf").write_text("old")
    export(source, tmp_path / "m.gguf", "bf16", force=True)
    assert read_header(tmp_path / "m.gguf").tensors

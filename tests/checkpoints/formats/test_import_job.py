"""The import as a job: a plan first, then bytes, and all of it or nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple

import pytest

from qwen_mlx import paths
from qwen_mlx.checkpoints import stream
from qwen_mlx.checkpoints.describe import describe
from qwen_mlx.checkpoints.export import iter_export
from qwen_mlx.checkpoints.import_ import iter_import
from qwen_mlx.errors import Cancelled, NoSpace, QwenError, UsageError
from qwen_mlx.events import CancelToken, ExportModel, Imported, ImportModel, ImportPlanned, Progress
from scripts.formats import samples
from tests.checkpoints.formats.helpers import run_import, write_sample


def nothing_new(folder, *known):
    return {entry.name for entry in folder.iterdir()} == set(known)


def test_events(tmp_path):
    source = write_sample(tmp_path, "Q4_K_M", "qwen3_moe")
    first, *progress, last = iter_import(ImportModel(str(source), str(tmp_path / "new")))
    assert isinstance(first, ImportPlanned) and isinstance(last, Imported)
    assert all(isinstance(event, Progress) and event.unit == "bytes" for event in progress)
    assert [p.done for p in progress] == sorted(p.done for p in progress)
    assert progress[-1].done == progress[-1].total == first.nbytes
    assert last.plan is first and last.files == 1


def test_the_plan_says_what_will_be_there(tmp_path):
    source = write_sample(tmp_path, "Q4_K_M", "qwen3_moe")
    plan = run_import(source, tmp_path / "new")
    found = describe(tmp_path / "new")
    assert (plan.model_type, plan.dtype, plan.parameters) == ("qwen3_moe", "float16", found.parameters)
    assert plan.nbytes == found.tensor_bytes
    assert plan.bits_after == pytest.approx(found.bits, abs=0.01)
    assert plan.disk == sum(file.stat().st_size for file in (tmp_path / "new").iterdir())
    assert plan.source_bytes == sum(share.source_bytes for share in plan.shares) < source.stat().st_size
    packed = {form.name: form.count for form in found.formats if form.bits}
    planned: dict[str, int] = {}
    for share in plan.shares:
        if share.becomes != "floats":
            planned[share.becomes] = planned.get(share.becomes, 0) + share.tensors
    assert packed == planned
    assert {(s.stored, s.fate) for s in plan.shares} == {
        ("Q4_K", "scales rounded"),
        ("Q6_K", "requantized"),
        ("float32", "floats"),
    }


def test_the_new_folder_is_as_mlx_lm_writes_it(tmp_path):
    run_import(write_sample(tmp_path, "Q4_K_M", "qwen3_moe"), tmp_path / "new")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["quantization"] == config["quantization_config"]
    assert config["quantization"]["bits"] == 4 and config["quantization"]["group_size"] == 32
    own = config["quantization"]["model.layers.0.self_attn.v_proj"]
    assert own == {"group_size": 64, "bits": 8, "mode": "affine"}
    assert "model.layers.0.self_attn.q_proj" not in config["quantization"]
    assert config["num_experts"] == 3 and config["norm_topk_prob"] is True and config["head_dim"] == 64
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= {
        file.name for file in (tmp_path / "new").iterdir()
    }


def test_small_files_of_a_folder_come_along_and_the_method_goes(tmp_path):
    source = write_sample(tmp_path, "gptq", "qwen3")
    for name in ("generation_config.json", "LICENSE", "modeling_qwen.py"):
        (source / name).write_text("{}")
    run_import(source, tmp_path / "new")
    names = {file.name for file in (tmp_path / "new").iterdir()}
    assert {"generation_config.json", "LICENSE"} <= names and "modeling_qwen.py" not in names
    assert "quant_method" not in json.loads((tmp_path / "new" / "config.json").read_text())["quantization_config"]


def test_a_dry_run_writes_nothing(tmp_path):
    source = write_sample(tmp_path, "Q8_0", "qwen3")
    first, last = iter_import(ImportModel(str(source), str(tmp_path / "new"), dry_run=True))
    assert isinstance(first, ImportPlanned) and last.files == 0
    assert nothing_new(tmp_path, source.name)


def test_what_is_there_is_only_replaced_when_asked(tmp_path):
    source = write_sample(tmp_path, "Q8_0", "qwen3")
    run_import(source, tmp_path / "new")
    with pytest.raises(UsageError, match=r"exists.*--force"):
        run_import(source, tmp_path / "new")
    run_import(source, tmp_path / "new", force=True, dtype="float32")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["torch_dtype"] == "float32"
    folder = write_sample(tmp_path, "awq", "qwen3")
    with pytest.raises(UsageError, match="is the model that is read"):
        run_import(folder, folder, force=True)


def test_cancelled_in_the_middle_nothing_is_left(tmp_path):
    source = write_sample(tmp_path, "Q8_0", "qwen3")
    cancel = CancelToken()
    events = iter_import(ImportModel(str(source), str(tmp_path / "new")), cancel)
    with pytest.raises(Cancelled):
        for event in events:
            if isinstance(event, Progress) and event.done:
                cancel.cancel()
    assert nothing_new(tmp_path, source.name)


def test_left_in_the_middle_nothing_is_left(tmp_path):
    source = write_sample(tmp_path, "awq", "qwen3")
    events = iter_import(ImportModel(str(source), str(tmp_path / "new")))
    for event in events:
        if isinstance(event, Progress) and event.done:
            break
    events.close()
    assert nothing_new(tmp_path, source.name)


def test_what_a_killed_run_left_is_replaced(tmp_path):
    source = write_sample(tmp_path, "Q8_0", "qwen3")
    left = tmp_path / ".new.partial"
    left.mkdir()
    (left / "model.safetensors").write_text("half of it")
    run_import(source, tmp_path / "new")
    assert nothing_new(tmp_path, source.name, "new")


def test_two_at_once_do_not_write_the_same_folder(tmp_path):
    source = write_sample(tmp_path, "Q8_0", "qwen3")
    first = iter_import(ImportModel(str(source), str(tmp_path / "new")))
    assert any(isinstance(event, Progress) for event in (next(first), next(first)))
    with pytest.raises(UsageError, match="another process is writing"):
        run_import(source, tmp_path / "new")
    list(first)
    assert nothing_new(tmp_path, source.name, "new")


def test_a_disk_that_is_too_small_is_seen_before_the_first_byte(tmp_path, monkeypatch):
    source = write_sample(tmp_path, "Q8_0", "qwen3")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(NoSpace, match="does not fit on its disk") as caught:
        run_import(source, tmp_path / "new")
    assert caught.value.exit_code == 4
    assert nothing_new(tmp_path, source.name)


def test_a_disk_that_becomes_full(tmp_path, monkeypatch):
    source = write_sample(tmp_path, "Q8_0", "qwen3")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stream, "_write_at", full)
    with pytest.raises(NoSpace):
        run_import(source, tmp_path / "new")
    assert nothing_new(tmp_path, source.name)


@pytest.mark.parametrize("target", ["x" * 300, "file/inside", "file"])
def test_places_that_cannot_be_written(target, tmp_path):
    source = write_sample(tmp_path, "Q8_0", "qwen3")
    (tmp_path / "file").write_text("")
    with pytest.raises(QwenError, match=r"cannot be written|is in the way"):
        run_import(source, tmp_path / target)
    if target != "file":
        with pytest.raises(QwenError, match="cannot be written"):
            list(iter_export(ExportModel(str(paths.demo_model()), str(tmp_path / f"{target}.gguf"), "bf16")))
    assert nothing_new(tmp_path, source.name, "file")


def test_the_gate_and_up_projections_of_experts_share_a_format(tmp_path):
    """They run as one matrix; a file that mixes them is quantized anew where it must be."""
    from tests.checkpoints.formats.helpers import logits, write_gguf

    metadata, tensors = samples.gguf_sample("Q4_0", "qwen3_moe")
    tensors["blk.0.ffn_up_exps.weight"] = samples.gguf_sample("Q5_0", "qwen3_moe")[1]["blk.0.ffn_up_exps.weight"]
    plan = run_import(write_gguf(tmp_path / "x.gguf", metadata, tensors), tmp_path / "new")
    anew = {share.stored: share.becomes for share in plan.shares if share.fate == "requantized"}
    assert anew == {"Q4_0": "8-bit g64 affine", "Q5_0": "8-bit g64 affine"}
    assert logits(tmp_path / "new").std() > 0.5


def test_parts_are_imported_as_one(tmp_path):
    import numpy as np

    from tests.checkpoints.formats.helpers import logits
    from tests.checkpoints.formats.test_gguf_reader import parts

    (tmp_path / "parts").mkdir()
    parts(tmp_path / "parts")
    run_import(tmp_path / "parts", tmp_path / "a")
    run_import(write_sample(tmp_path, "Q8_0", "qwen3"), tmp_path / "b")
    np.testing.assert_array_equal(logits(tmp_path / "a"), logits(tmp_path / "b"))


def test_rope_scaling_comes_along(tmp_path):
    from tests.checkpoints.formats.helpers import write_gguf

    metadata, tensors = samples.gguf_sample("F16", "qwen3")
    metadata |= {
        "qwen3.rope.scaling.type": "yarn",
        "qwen3.rope.scaling.factor": 4.0,
        "qwen3.rope.scaling.original_context_length": 64,
        "qwen3.context_length": 256,
    }
    run_import(write_gguf(tmp_path / "x.gguf", metadata, tensors), tmp_path / "new")
    context = describe(tmp_path / "new").context
    assert (context.scaling, context.factor, context.length, context.trained) == ("yarn", 4.0, 256, 64)


def test_numbers_of_the_configuration_are_written_as_people_write_them(tmp_path):
    run_import(write_sample(tmp_path, "F16", "qwen3"), tmp_path / "new")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-6 and config["rope_theta"] == 10000.0

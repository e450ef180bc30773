"""`qwen-mlx import` and `qwen-mlx export`: the plan is shown, the folder is the only word on standard output."""

from __future__ import annotations

import json
import shutil

import pytest

from qwen_mlx import paths
from qwen_mlx.cli.main import main
from tests.checkpoints.formats.helpers import write_sample


@pytest.fixture
def awq(tmp_path):
    return write_sample(tmp_path, "awq", "qwen2")


@pytest.fixture
def gguf(tmp_path):
    return write_sample(tmp_path, "Q4_K_M", "qwen3_moe")


def test_import_shows_its_plan(gguf, tmp_path, capsys):
    assert main(["import", str(gguf), "-o", str(tmp_path / "new")]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'new'}\n"
    lines = err.splitlines()
    assert lines[0].startswith("GGUF Q4_K, Q6_K") and "bits per weight" in lines[0]
    assert "not every number is kept" in lines[1]
    table = {line.split("  ")[0]: line for line in lines if "-bit" in line}
    assert "4-bit g32 affine" in table["Q4_K"] and "scales rounded" in table["Q4_K"]
    assert "8-bit g64 affine" in table["Q6_K"] and "quantized anew" in table["Q6_K"]
    assert any(line.startswith("note: codes are kept") for line in lines)
    assert any(line.startswith("disk: ") for line in lines)
    assert lines[-1].startswith("done in")


def test_import_options(awq, tmp_path, capsys):
    assert main(["import", str(awq), "-o", str(tmp_path / "a"), "--dtype", "f32"]) == 0
    assert "every number is kept" in capsys.readouterr().err
    assert main(["import", str(awq), "-o", str(tmp_path / "b"), "--requantize", "8", "-q"]) == 0
    assert capsys.readouterr().err == ""
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert (config["quantization"]["bits"], config["quantization"]["group_size"]) == (8, 64)
    assert main(["import", str(awq), "-o", str(tmp_path / "c"), "--dequantize"]) == 0
    assert "quantization" not in json.loads((tmp_path / "c" / "config.json").read_text())
    assert main(["import", str(awq), "-o", str(tmp_path / "d"), "--dry-run"]) == 0
    assert not (tmp_path / "d").exists()


def test_a_folder_is_not_called_like_a_file(gguf, tmp_path, capsys):
    assert main(["import", str(gguf), "-o", str(tmp_path / "x.gguf")]) == 2
    err = capsys.readouterr().err
    assert "would be a folder with the name of a file" in err and "qwen-mlx export" in err
    assert not (tmp_path / "x.gguf").exists()


def test_the_tokenizer_of_a_model_by_its_name(gguf, tmp_path, capsys):
    assert main(["alias", "set", "tiny", "demo"]) == 0
    assert main(["import", str(gguf), "-o", str(tmp_path / "a"), "--tokenizer", "tiny", "-q"]) in (0, 6)
    err = capsys.readouterr().err
    assert "tiny" not in err  # it was found; whether it fits this model is another question
    assert main(["import", str(gguf), "-o", str(tmp_path / "b"), "--tokenizer", "org/none"]) == 3
    assert "there is no model 'org/none'" in capsys.readouterr().err


def test_import_as_json(awq, tmp_path, capsys):
    assert main(["import", str(awq), "-o", str(tmp_path / "new"), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [events[0]["type"], events[-1]["type"]] == ["import_planned", "imported"]
    assert events[0]["form"] == "AWQ 4-bit g128" and events[0]["exact"] is False
    assert {event["type"] for event in events[1:-1]} == {"progress"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "{new}"], 2, "SOURCE"),
        (["{awq}"], 2, "-o/--output"),
        (["{awq}", "-o", "{new}", "--dtype", "int4"], 2, "no type 'int4'"),
        (["{awq}", "-o", "{awq}"], 2, "is the model that is read"),
        (["{new}/nowhere.gguf", "-o", "{new}"], 3, "nowhere"),
        (["{damaged}", "-o", "{new}"], 6, "cut off"),
    ],
)
def test_import_errors_have_one_line_and_a_code(arguments, code, message, awq, gguf, tmp_path, capsys):
    (tmp_path / "x.gguf").write_bytes(gguf.read_bytes()[:-4096])
    names = {"awq": awq, "new": tmp_path / "new", "damaged": tmp_path / "x.gguf"}
    assert main(["import", *(word.format(**names) for word in arguments)]) == code
    out, err = capsys.readouterr()
    assert out == "" and message in err and "Traceback" not in err
    assert err.startswith("qwen-mlx: error: ") and not (tmp_path / "new").exists()


def test_import_of_a_quantization_in_the_hub_cache(gguf, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0" * 40
    snapshot = tmp_path / "hub" / "models--Qwen--Tiny-GGUF" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    refs = tmp_path / "hub" / "models--Qwen--Tiny-GGUF" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    shutil.copy(gguf, snapshot / "tiny-q4_k_m.gguf")
    shutil.copy(write_sample(tmp_path, "Q8_0", "qwen3"), snapshot / "tiny-q8_0.gguf")
    assert main(["import", "Qwen/Tiny-GGUF:Q8_0", "-o", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().err.startswith("GGUF Q8_0, qwen3:")


def test_export_and_import_of_the_demo_model(tmp_path, capsys):
    assert main(["export", "demo", "-o", str(tmp_path / "demo.gguf")]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'demo.gguf'}\n" and "GGUF BF16" in err
    assert main(["import", str(tmp_path / "demo.gguf"), "-o", str(tmp_path / "back"), "-q"]) == 0
    assert main(["show", str(tmp_path / "back"), "--json"]) == 0
    back = json.loads(capsys.readouterr().out)
    assert main(["show", "demo", "--json"]) == 0
    demo = json.loads(capsys.readouterr().out)
    assert {key: back[key] for key in ("family", "parameters", "vocabulary", "context")} == {
        key: demo[key] for key in ("family", "parameters", "vocabulary", "context")
    }
    ends = [set(facts["generation"]["end"]) for facts in (back, demo)]
    assert ends[0] <= ends[1]


def test_export_options(tmp_path, capsys):
    assert main(["export", "demo", "-o", str(tmp_path / "plain"), "--type", "float32", "-q"]) == 0
    assert (tmp_path / "plain" / "model.safetensors").stat().st_size > 3 * paths.demo_model().stat().st_size
    assert main(["export", "demo", "-o", str(tmp_path / "x.gguf"), "--type", "Q8_0", "--dry-run"]) == 0
    assert not (tmp_path / "x.gguf").exists() and "GGUF Q8_0" in capsys.readouterr().err
    assert main(["export", "demo", "-o", str(tmp_path / "x.gguf"), "--type", "q4_0"]) == 2
    assert "expected f16, bf16, q8_0" in capsys.readouterr().err

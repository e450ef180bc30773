"""`qwen-mlx show`: one screen of facts, the same facts as JSON, and errors as loading gives them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from qwen_mlx import paths
from qwen_mlx.checkpoints.save import hub_tensors
from qwen_mlx.cli.main import main
from tests.models import tiny
from tests.text import tiny as tiny_text

import mlx.core as mx  # isort: skip

CONFIG = tiny.QWEN3_MOE | {"vocab_size": 512, "max_position_embeddings": 40960}


def four_bits(module):
    return None if module.endswith("mlp.gate") else {"bits": 4, "group_size": 32}


@pytest.fixture
def folder(tmp_path):
    """Half of it packed, with a tokenizer."""
    tensors = {name: array.astype(mx.bfloat16) for name, array in hub_tensors(tiny.decoder(CONFIG)).items()}
    folder = tiny.save(tmp_path / "Tiny-MoE", CONFIG, tensors, four_bits)
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.3, "top_k": 7, "eos_token_id": 5}))
    return tiny_text.write_tokenizer_json(folder)


def test_one_screen(folder, capsys):
    assert main(["show", str(folder)]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 24
    rows = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in out.splitlines()}
    assert rows["model"] == "Tiny-MoE"
    assert rows["family"] == "qwen3_moe"
    assert rows["parameters"].endswith(" active")
    assert rows["layers"] == "2 full attention"
    assert rows["attention"] == "4 query heads and 2 key/value heads of 32"
    assert rows["experts"] == "5 of 128, 2 per token, in 1 of 2 layers"
    assert "4-bit g32 affine ×27" in rows["weights"] and "bfloat16 ×10" in rows["weights"]
    assert rows["context"] == "40,960 tokens, rope theta 10,000"
    assert rows["KV cache"] == "512 B per token in 16 bits, 1.0 kB in 32 bits"
    assert rows["memory"].count(" at ") == 3 and rows["memory"].endswith("cache in bfloat16)")
    assert rows["vocabulary"].endswith("3 special: <|endoftext|> <|im_start|> <|im_end|>")
    assert rows["template"] == "the built-in chat template qwen3; thinking: optional; tools"
    assert rows["sampling"].startswith("temperature 0.3, top-p 0.8, top-k 7")
    assert rows["ends with"] == "5 <|endoftext|> <|im_end|>"
    starts = {len(line) - len(line.split("  ", 1)[1].lstrip()) for line in out.splitlines() if line[0] != " "}
    assert starts == {len("hidden size") + 2}  # aligned


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal_long_lines_are_folded(columns, folder, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    out, _ = terminal()
    assert main(["show", str(folder)]) == 0
    lines = out.getvalue().splitlines()
    path = str(folder).split()
    assert max(len(line) for line in lines if not any(part in line for part in path)) <= columns
    if columns >= 80:
        assert len(lines) <= 30


def test_json_says_the_same_and_more(folder, capsys):
    assert main(["show", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["family"], facts["model_type"]) == ("Tiny-MoE", "qwen3_moe", "qwen3_moe")
    assert facts["files"] == {"model.safetensors": (folder / "model.safetensors").stat().st_size}
    assert facts["experts"]["experts_per_token"] == 2
    assert facts["formats"][0]["bits"] == 4
    assert facts["context"] == {
        "length": 40960,
        "scaling": "default",
        "factor": 1.0,
        "trained": 40960,
        "rope_theta": 10000.0,
        "rotated": 32,
    }
    assert [memory["context"] for memory in facts["memory"]] == [4096, 32768, 40960]
    assert facts["generation"]["answering"]["top_k"] == facts["generation"]["thinking"]["top_k"] == 7
    assert facts["generation"]["thinking"]["top_p"] == 0.95
    assert 5 in facts["generation"]["end"]


def test_a_scaling_shows_what_it_would_do(folder, capsys):
    assert main(["show", str(folder), "--rope-scaling", "yarn:4"]) == 0
    assert "131,072 tokens, by yarn ×4 from 32,768" in capsys.readouterr().out
    assert main(["show", "--rope-scaling", "yarn:4:10000", "--json", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["context"]["length"] == 40960


def test_a_repository_of_the_cache(folder, capsys):
    home = paths.hf_cache() / "models--org--Tiny"
    (home / "snapshots").mkdir(parents=True)
    folder.rename(home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    assert main(["show", "org/Tiny"]) == 0
    assert "Tiny\n" in capsys.readouterr().out


def test_the_default_model(folder, capsys, monkeypatch):
    monkeypatch.setenv("QWEN_MLX_MODEL", str(folder))
    assert main(["show"]) == 0
    assert "Tiny-MoE" in capsys.readouterr().out


def test_other_kinds_of_layers(tmp_path, capsys):
    config = tiny.QWEN3_NEXT | {"mlp_only_layers": []}
    folder = tiny.save(tmp_path, config, hub_tensors(tiny.decoder(config)))
    assert main(["show", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "2: 1 linear attention (Gated DeltaNet), 1 full attention" in out
    assert "4 value heads of 32, 2 key heads of 32" in out
    assert "and a shared one of 64" in out
    assert "per conversation" in out
    assert "no tokenizer in the folder" in out


def test_errors_have_the_exit_codes_of_their_kind(folder, tmp_path, capsys):
    def fails(code, *words):
        assert main(["show", *words]) == code
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("qwen-mlx: error: ") and err.count("\n") == 1
        return err

    fails(3, str(tmp_path / "nothing"))
    fails(3, "org/nothing")
    fails(2, str(folder / "config.json"))
    fails(2, str(folder), "--rope-scaling", "yarn")
    (folder / "generation_config.json").write_text('{"temperature": "hot"}')
    assert "temperature" in fails(6, str(folder))
    (folder / "tokenizer.json").write_text("[]")
    assert "tokenizer.json" in fails(6, str(folder))
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "model.safetensors is cut off" in fails(6, str(folder))
    (folder / "config.json").write_text("{}")
    assert "model_type" in fails(6, str(folder))


def test_control_characters_of_a_file_do_not_reach_the_terminal(folder, capsys):
    description = json.loads((folder / "tokenizer.json").read_text())
    description["added_tokens"][0]["content"] = "<\x1b[31m|>"
    (folder / "tokenizer.json").write_text(json.dumps(description))
    assert main(["show", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "<[31m|>" in out


def test_neither_the_app_nor_the_tokenizer_library_is_loaded(folder):
    code = (
        f"import sys; from qwen_mlx.cli.main import main; main(['show', {str(folder)!r}]); print(sorted(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = eval(result.stdout.splitlines()[-1])
    assert "qwen_mlx.checkpoints.describe" in modules
    assert not {"textual", "tokenizers", "qwen_mlx.runtime", "tui", "mlx_lm"} & set(modules)

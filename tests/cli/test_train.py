"""`qwen-mlx train` as a person meets it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_mlx import paths
from qwen_mlx.cli.main import main
from qwen_mlx.cli.train_report import duration, step_line
from qwen_mlx.events import Step

demo = pytest.mark.skipif(
    not (paths.demo_model() / "model.safetensors").is_file(), reason="the demo model is not built"
)
SMALL = (
    *("--set", "adapter.layers=[4]", "--set", "adapter.rank=2", "--set", "loop.tokens_per_batch=96"),
    *("--set", "data.max_len=96", "--set", "optim.lr=0.01", "--set", "loop.epochs=2"),
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QWEN_MLX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    words = ("red", "blue", "green", "black")
    turns = [({"role": "user", "content": f"Say {w}."}, {"role": "assistant", "content": f"{w}!"}) for w in words]
    path.write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    return path


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


@demo
def test_from_a_plan_to_an_adapter(rows, tmp_path, capsys):
    begin = ("-m", "demo", "--data", rows, "--valid", "0.3", *SMALL)
    code, out, _ = run(capsys, "train", "plan", *begin)
    assert code == 0 and "trained: " in out and "memory: " in out and "estimated" in out and "fits" in out

    folder = tmp_path / "run"
    code, out, err = run(capsys, "train", "sft", *begin, "-o", folder)
    assert code == 0 and out == ""
    assert re.search(r"step 1/\d+  epoch \d\.\d\d  loss \d", err) and "evaluation loss" in err and "done: " in err

    code, out, _ = run(capsys, "train", "status", folder)
    assert code == 0 and "finished (done)" in out and "checkpoints: " in out and "best: " in out

    code, out, _ = run(capsys, "train", "compare", folder, "--test", rows, "--limit", 1, "--tokens", 4)
    assert code == 0 and re.match(r"before +\d of 1 exactly right.*\nafter +\d of 1 exactly right", out)

    code, out, _ = run(capsys, "train", "export", folder, "-o", tmp_path / "adapter")
    assert code == 0 and out == f"{tmp_path / 'adapter'}\n"
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"

    code, out, err = run(capsys, "train", "fuse", folder, "-o", tmp_path / "fused", "--dtype", "float32")
    assert code == 0 and out == f"{tmp_path / 'fused'}\n" and "kept: cosine " in err
    assert (tmp_path / "fused" / "model.safetensors").is_file()

    code, _, err = run(capsys, "train", "resume", folder)
    assert code == 2 and "is finished" in err


@demo
def test_ctrl_c_saves_and_resume_goes_on(rows, tmp_path):
    """In a process of its own, as a person does it: one Ctrl-C after the first step."""
    folder = tmp_path / "run"
    begin = [sys.executable, "-m", "qwen_mlx.cli.main", "train"]
    words = ["sft", "-m", "demo", "--data", str(rows), "-o", str(folder), "--json", *SMALL, "--set", "loop.epochs=500"]
    with subprocess.Popen([*begin, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["type"] == "step" and events[-1]["step"] == 1:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert [event["type"] for event in events[-2:]] == ["saved", "training_stopped"]
    stopped = events[-1]
    assert stopped["resume"] == f"qwen-mlx train resume {folder}" and stopped["step"] < stopped["total"]
    assert (folder / "latest" / "state.json").is_file()


@pytest.mark.parametrize(
    "words, code, said",
    [
        (("sft",), 2, "-c FILE, or -m MODEL and --data FILE"),
        (("sft", "-m", "demo"), 2, "--data FILE"),
        (("sft", "folder", "-c", "x.toml"), 2, "takes no folder"),
        (("sft", "-c", "/nowhere/run.toml"), 3, "there is no file"),
        (("resume",), 2, "needs the folder of a run"),
        (("resume", "/nowhere"), 3, "is not the folder of a run"),
        (("status", "/nowhere"), 3, "is not the folder of a run"),
        (("export", "/nowhere"), 2, "-o FOLDER"),
        (("compare", "/nowhere"), 2, "--test FILE"),
        (("compare", "/nowhere", "--test", "x", "--limit", "0"), 2, "--limit cannot be 0"),
        (("learn",), 2, "invalid choice"),
        (("sft", "-m", "demo", "--data", "/nowhere.jsonl", "--set", "optim.lrr=1"), 2, "Did you mean 'lr'?"),
        (("fuse", "x", "-o", "y", "--dtype", "int8"), 2, "bfloat16"),
    ],
)
def test_words_that_cannot_be_meant(words, code, said, capsys):
    got, _, err = run(capsys, "train", *words)
    assert got == code and said in err and "Traceback" not in err


def test_a_damaged_run_is_told(tmp_path, capsys):
    (tmp_path / "run.toml").write_text("[model]\npath = 3\n")
    code, _, err = run(capsys, "train", "status", tmp_path)
    assert code == 2 and "run.toml:2" in err


def test_a_step_in_words():
    step = Step(120, 600, 0.4, 1.23456, 9.5e-5, 0.7, 100, 40.0, 1234.5, 0, 1_200_000_000, 61.0, 154.0)
    line = step_line(step)
    assert line.startswith("step 120/600  epoch 0.40  loss 1.2346  lr 9.50e-05  1,234 tok/s  2:34 left  1.2 GB")
    assert [duration(seconds) for seconds in (5, 125, 3725)] == ["0:05", "2:05", "1:02:05"]

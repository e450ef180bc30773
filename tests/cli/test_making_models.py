"""`convert`, `quantize` and `eval` as a person meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen_mlx.cli.main import main
from qwen_mlx.cli.work import describe
from qwen_mlx.events import Progress
from tests.checkpoints import originals


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return originals.save(tmp_path_factory.mktemp("models") / "original", originals.CONFIGS["qwen3"])


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_quantize_says_what_it_will_do_and_has_done(original, tmp_path, capsys):
    code, out, err = run(capsys, "quantize", original, "-o", tmp_path / "new")
    assert code == 0 and out == f"{tmp_path / 'new'}\n"
    assert "16.00 bits per weight -> " in err and "4-bit g64 affine ×" in err and "6-bit g64 affine ×" in err
    assert "disk: " in err and "memory: about 200.0 MB" in err and "rounding changed the weights by " in err


def test_quantize_and_evaluate(original, tmp_path, capsys):
    code, _, err = run(capsys, "quantize", original, "-o", tmp_path / "new", "--bits", 8, "--evaluate")
    assert code == 0
    assert "perplexity" in err and "KL divergence" in err and "same first choice" in err and "the bundled text" in err


def test_convert_and_eval_as_json(original, tmp_path, capsys):
    code, out, err = run(capsys, "convert", original, "-o", tmp_path / "new", "--dtype", "f32", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and err == ""
    assert [events[0]["type"], events[-1]["type"]] == ["conversion_planned", "converted"]
    assert events[0]["bits_after"] == 32 and events[-1]["files"] == 1
    assert {event["type"] for event in events[1:-1]} == {"progress"}
    words = ("eval", tmp_path / "new", "--against", original, "--limit", 200, "--ctx", 64, "--json")
    code, out, err = run(capsys, *words)
    last = json.loads(out.splitlines()[-1])
    assert code == 0 and last["type"] == "evaluated" and last["divergence"]["kl"] == 0 and last["tokens"] == 196


def test_eval_in_words(original, capsys):
    code, out, err = run(capsys, "eval", original, "--limit", 200)
    assert code == 0 and out.startswith("perplexity ") and "200" not in out.splitlines()[0]
    assert "199 tokens of the bundled text in windows of 200" not in out  # the model's context is shorter
    assert "tokens of the bundled text in windows of" in out and err == ""


def test_quiet(original, tmp_path, capsys):
    assert run(capsys, "quantize", original, "-o", tmp_path / "new", "-q") == (0, "", "")


def test_a_dry_run(original, tmp_path, capsys):
    code, out, err = run(capsys, "quantize", original, "-o", tmp_path / "new", "--dry-run", "--preset", "max")
    assert code == 0 and out == "" and "8-bit g64 affine" in err and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["--bits", "7"], 2, "does not compute 7 bits"),
        (["--bits", "4", "--group-size", "48"], 2, "groups of 48"),
        (["--override", "x"], 2, "REGEX=BITS"),
        (["--override", "nothing=4"], 2, "matches no matrix"),
        (["--target-bpw", "1"], 2, "cannot be reached"),
        *((["--target-bpw", number], 2, "is no number of bits") for number in ("inf", "nan", "0")),
        (["--preset", "max", "--bits", "4"], 2, "a preset decides"),
        (["--calib-file", "x"], 2, "is for --calibrate activations or gptq"),
        (["--dtype", "int4"], 2, "no type 'int4'"),
    ],
)
def test_options_that_cannot_be_meant(words, code, problem, original, tmp_path, capsys):
    found, out, err = run(capsys, "quantize", original, "-o", tmp_path / "new", *words)
    assert (found, out) == (code, "") and problem in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_exit_codes_of_other_failures(original, tmp_path, capsys, monkeypatch):
    assert run(capsys, "quantize", tmp_path / "nowhere", "-o", tmp_path / "new")[0] == 3
    (original / "model.safetensors.bak").write_bytes((original / "model.safetensors").read_bytes())
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in original.iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[: 500 if file.suffix == ".safetensors" else None])
    assert run(capsys, "quantize", broken, "-o", tmp_path / "new")[0] == 6
    assert run(capsys, "convert", original, "-o", tmp_path / "new")[0] == 0
    code, _, err = run(capsys, "convert", original, "-o", tmp_path / "new")
    assert code == 2 and "--force replaces it" in err
    assert run(capsys, "convert", original, "-o", tmp_path / "new", "--force")[0] == 0
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    code, out, err = run(capsys, "convert", original, "-o", tmp_path / "other", "--json")
    assert code == 4 and "does not fit on its disk" in err
    assert json.loads(out.splitlines()[-1])["type"] == "job_failed"


def test_in_a_script_force_is_enough(original, tmp_path):
    """A pipe is asked nothing: --force has said it."""
    words = [
        sys.executable,
        "-m",
        "qwen_mlx.cli.main",
        "convert",
        str(original),
        "-o",
        str(tmp_path / "new"),
        "--force",
    ]
    for _ in range(2):
        done = subprocess.run(words, input="n\n", capture_output=True, text=True)
        assert done.returncode == 0 and "Replace" not in done.stderr


@pytest.mark.parametrize("command", ["convert", "quantize", "export"])
def test_why_a_target_is_refused(command, original, tmp_path, capsys):
    """The reason is the one that holds."""
    home = tmp_path / "home"
    source = home / "source"
    source.mkdir(parents=True)
    for file in original.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").write_bytes(b"x")
    reasons = {
        source: "is the model that is read",
        source / "new": "is inside",
        home: "is a folder in which",
        tmp_path / "link": "found a symbolic link to",
        tmp_path / "file": "found a file",
    }
    if command != "export":
        reasons[tmp_path / "new.gguf"] = "would be a folder with the name of a file"
    for target, reason in reasons.items():
        code, _, err = run(capsys, command, source, "-o", target, "--force", "-y")
        assert code == 2 and reason in err, (target, err)
    assert not (tmp_path / "new.gguf").exists()


@pytest.mark.parametrize(("answer", "words", "code"), [("n\n", [], 130), ("y\n", [], 0), ("", ["-y"], 0)])
def test_a_person_is_asked_before_a_model_is_replaced(answer, words, code, original, tmp_path, terminal, monkeypatch):
    assert main(["convert", str(original), "-o", str(tmp_path / "new"), "-q"]) == 0
    before = (tmp_path / "new" / "model.safetensors").stat().st_ino
    _, err = terminal()
    person = type(err)(answer)
    monkeypatch.setattr("sys.stdin", person)
    assert main(["convert", str(original), "-o", str(tmp_path / "new"), "-q", "--force", *words]) == code
    assert ("Replace " in err.getvalue()) == (not words)
    replaced = (tmp_path / "new" / "model.safetensors").stat().st_ino != before
    assert replaced == (code == 0)


def test_progress_in_words():
    event = Progress("write", 2_000_000, 8_000_000, "bytes", "x", 1_000_000.0, 6.0)
    assert describe(event) == "write:  25 %  2.0 MB of 8.0 MB  1.0 MB/s  0:06 left"
    assert describe(Progress("evaluate", 500, 2000, "tokens")) == "evaluate:  25 %  500 of 2,000 tokens"


_SLOW = """
import sys, time
from qwen_mlx.checkpoints import rewrite
real = rewrite.search
def slow(*args):
    time.sleep(0.2)
    return real(*args)
rewrite.search = slow
from qwen_mlx.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_leaves_nothing_behind(original, tmp_path):
    target = tmp_path / "new"
    words = [sys.executable, "-c", _SLOW, "quantize", str(original), "-o", str(target)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not Path(tmp_path / ".new.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and "stopped; nothing was left behind" in err
    assert "Traceback" not in err and list(tmp_path.iterdir()) == []


def test_force_never_takes_files_of_other_kinds_along(original, tmp_path, capsys):
    there = tmp_path / "there"
    assert run(capsys, "convert", original, "-o", there, "-q")[0] == 0
    (there / "photos").mkdir()
    (there / "photos" / "a.jpg").write_text("mine")
    (there / "notes.txt").write_text("mine")
    code, _, err = run(capsys, "convert", original, "-o", there, "--force", "-y", "-q")
    assert code == 2 and "holds more than a model" in err and "notes.txt, photos" in err
    assert (there / "photos" / "a.jpg").read_text() == "mine"
    (there / "photos" / "a.jpg").unlink()
    (there / "photos").rmdir()
    (there / "notes.txt").unlink()
    assert run(capsys, "convert", original, "-o", there, "--force", "-y", "-q")[0] == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["quantize", "MODEL", "-o", ""], "the name of the output is empty"),
        (["import", "", "-o", "x"], "is empty"),
        (["eval", "MODEL", "--text", ""], "the name of the text is empty"),
        (["quantize", "MODEL", "-o", "x" * 300], "too long"),
        (["quantize", "MODEL", "-o", "new", "--bits", "0"], "0"),
        (["eval", "MODEL", "--text", "/dev/zero"], "is a device"),
    ],
)
def test_what_cannot_be_meant(original, tmp_path, monkeypatch, capsys, words, problem):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *[original if word == "MODEL" else word for word in words])
    assert (code, out) == (2, "") and problem in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_json_has_no_word_for_nan():
    from qwen_mlx.cli.json_events import as_dictionary

    event = Progress("x", 0, 1, "bytes", speed=float("nan"), remaining=float("inf"))
    assert as_dictionary(event)["speed"] is None and as_dictionary(event)["remaining"] is None

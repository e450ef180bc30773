"""`qwen-mlx pull` as a person and a script see it, against a hub on this machine."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_mlx import paths
from qwen_mlx.cli.main import main
from qwen_mlx.cli.pull import describe
from qwen_mlx.cli.reply_writer import format_bytes
from qwen_mlx.events import Progress
from qwen_mlx.hub import transport
from tests.hub.fake_hub import FakeHub, Trouble

NAME = "mlx-community/Qwen3-0.6B-8bit"
WEIGHTS = "model.safetensors"


def demo_files() -> dict[str, bytes]:
    """The demo model as a repository."""
    wanted = (".json", ".jinja", ".safetensors")
    return {file.name: file.read_bytes() for file in paths.demo_model().iterdir() if file.suffix in wanted}


COUNT = f"{len(demo_files())} files"
SIZE = format_bytes(sum(map(len, demo_files().values())))
CONTEXT = json.loads(demo_files()["config.json"])["max_position_embeddings"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub()
    server.add(NAME, demo_files())
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(os, "fsync", lambda file: None)
    quick = transport.Patience(read=5, attempts=3, first_wait=0.01)
    monkeypatch.setattr(transport.Patience, "from_environment", classmethod(lambda cls: quick))
    yield server
    server.close()


def test_the_plan_comes_first_and_the_folder_last(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "qwen3:0.6b"]) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[0] == f"qwen3:0.6b is {NAME} at main (aaaaaaaa)"
    assert lines[1] == f"{COUNT}, {SIZE} to download"
    assert lines[2].startswith(f"memory: fits: 1.0 GB at {CONTEXT:,} tokens; with what is in use")
    assert lines[-1].startswith(f"done: {SIZE} in 0:0") and lines[-1].endswith("every checksum is right")
    assert Path(out.strip()).is_dir() and out.count("\n") == 1
    assert "\x1b" not in err + out
    assert main(["pull", "qwen3:0.6b"]) == 0
    err = capsys.readouterr().err
    assert f"{COUNT}, {SIZE}; all here" in err and "nothing to download" in err


def test_what_is_pulled_can_be_used(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "qwen3:0.6b"]) == 3
    assert "To download it: `qwen-mlx pull qwen3:0.6b`" in capsys.readouterr().err
    main(["pull", "qwen3:0.6b", "-q"])
    assert main(["show", "qwen3:0.6b"]) == 0
    assert "Qwen3-0.6B-8bit" in capsys.readouterr().out


def test_quiet_is_the_folder_and_nothing_else(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", NAME, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.endswith("a\n") and out.count("\n") == 1


def test_json_is_a_line_for_every_event(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", NAME, "--json"]) == 0
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert events[0]["type"] == "pull_planned" and events[0]["files"][WEIGHTS] == len(demo_files()[WEIGHTS])
    assert events[-1]["type"] == "pull_finished" and events[-1]["received"] == events[0]["size"]
    assert {"done", "total", "unit", "speed", "remaining"} <= next(e for e in events if e["type"] == "progress").keys()


def test_a_failure_in_json(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repos[NAME].gate = "gated"
    assert main(["pull", NAME, "--json"]) == 5
    out, err = capsys.readouterr()
    last = json.loads(out.splitlines()[-1])
    assert (last["type"], last["exit_code"]) == ("job_failed", 5) and "is gated" in last["error"]
    assert err.startswith("qwen-mlx: error: ") and err.count("\n") == 1


def test_a_dry_run(hub: FakeHub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["pull", "qwen3:0.6b", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and f"{COUNT}, {SIZE} to download" in err
    assert not (tmp_path / "hub").exists()


def test_a_terminal_sees_one_moving_line(hub: FakeHub, terminal: object, stdin: object) -> None:
    hub.rate = 8e6
    _, err = terminal()  # type: ignore[operator]
    assert main(["pull", NAME]) == 0
    text = err.getvalue()
    assert "\r\x1b[Kdownloading: " in text and text.rstrip().endswith("every checksum is right")
    assert "\n\x1b" not in text


@pytest.mark.parametrize("size", [0, 999, 4_600_000_000, 999_999_999_999])
@pytest.mark.parametrize("seconds", [0.0, 59.6, 86_000.0])
def test_the_moving_line_fits_into_80_columns(size: int, seconds: float) -> None:
    line = describe(Progress("downloading", size, 999_999_999_999, "bytes", speed=999_900_000.0, remaining=seconds))
    assert len(line) < 80


@pytest.mark.parametrize(
    ("trouble", "code", "message"),
    [
        (Trouble("flip"), 6, "has another checksum"),
        (Trouble("html"), 6, "a web page (HTML)"),
        (Trouble("pointer"), 6, "a git-lfs pointer"),
        (Trouble("status", status=503), 5, "error 503"),
        (Trouble("status", status=404), 5, "but does not have it"),
    ],
)
def test_errors_are_one_line_and_a_code(
    hub: FakeHub, trouble: Trouble, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repos[NAME].trouble[WEIGHTS] = trouble
    assert main(["pull", NAME, "-q"]) == code
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["pull"], 2, "required: MODEL"),
        (["pull", "qwen3:9b"], 3, "there is no size '9b' of qwen3"),
        (["pull", "org/none"], 3, "there is no repository org/none"),
        (["pull", NAME, "--revision", "v9"], 3, "has no revision 'v9'"),
        (["pull", NAME, "--limit-rate", "fast"], 2, "is not a speed"),
        (["pull", NAME, "--limit-rate", "0"], 2, "is not a speed"),
        (["pull", NAME, "--offline"], 3, "offline, and"),
        (["pull", "demo"], 2, "is a folder"),
        (["pull", NAME, "--include", "*.py"], 3, "no file that matches"),
    ],
)
def test_command_lines_that_fail(
    hub: FakeHub, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    assert message in capsys.readouterr().err


def test_a_model_that_is_not_of_the_family_is_told_before_it_comes(
    hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repos[NAME].files["config.json"] = b'{"model_type": "llama"}'
    assert main(["pull", NAME, "--dry-run"]) == 0
    assert "note: qwen-mlx may not be able to use it: " in capsys.readouterr().err


def test_a_model_that_is_too_big_is_asked_about(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, terminal: object
) -> None:
    from qwen_mlx.evaluation import fitting
    from qwen_mlx.hub.fit import Machine

    monkeypatch.setattr(fitting, "machine", lambda: Machine(1_100_000_000, 1_000_000_000))
    for answer, code in (("n\n", 130), ("\n", 130), ("y\n", 0)):
        _, err = terminal()  # type: ignore[operator]
        typed = io.StringIO(answer)
        typed.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", typed)
        assert main(["pull", NAME]) == code
        assert "memory: too big" in err.getvalue() and "Download it all the same? [y/N]" in err.getvalue()


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_ctrl_c_keeps_what_has_arrived(hub: FakeHub, extra: list[str]) -> None:
    hub.rate = 2e6
    command = [sys.executable, "-m", "qwen_mlx.cli.main", "pull", NAME, *extra]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while hub.sent(WEIGHTS) < 500_000 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 3  # a second, and the interpreter's own end on a loaded machine
    assert process.returncode == 130 and "Traceback" not in err
    if extra:
        assert json.loads(out.splitlines()[-1]) == {"type": "job_cancelled"}
    else:
        assert f"of {SIZE} are here, and the same command goes on" in err.splitlines()[-1]
    hub.rate = None
    assert main(["pull", NAME, "-q"]) == 0
    assert hub.sent(WEIGHTS) < len(demo_files()[WEIGHTS]) + 300_000

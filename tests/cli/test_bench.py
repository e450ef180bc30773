"""`qwen-mlx bench` with contenders that follow a script."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qwen_mlx.cli.main import main
from qwen_mlx.errors import QwenError
from qwen_mlx.evaluation import random_model, speed
from qwen_mlx.evaluation.contenders import Limits, Run
from qwen_mlx.evaluation.speed import Task


class Fake:
    load_seconds = 0.04

    def __init__(self, task: Task) -> None:
        if task.form == "bfloat16":
            raise QwenError("mlx-lm failed: no memory")
        self.task = task
        self.note = "weights expanded" if task.engine == "qwen-mlx" else task.form

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *rest: object) -> None: ...

    def run(self, context: int, limits: Limits) -> Run:
        slower = 1 if self.task.engine == "qwen-mlx" else 4
        return Run(context, 0.1 * slower * context, [50.0 * slower] * (limits.tokens - 2), 600_000_000 * slower)

    def turns(self, history: int, turn: int) -> tuple[float, float]:
        return 0.8, 0.0004


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(speed, "Process", Fake)
    monkeypatch.setattr(random_model, "ensure", lambda *args: tmp_path)


def test_a_table_with_aligned_columns_and_no_number_that_became_0(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlx_lm")
    assert main(["bench"]) == 0
    out, said = capsys.readouterr()
    head, ours, theirs, *_ = out.split("\n")
    for name in ("load", "prefill", "decode", "memory"):
        end = head.index(name) + len(name)
        assert ours[end - 1] != " " and theirs[end - 1] != " " and (ours[end : end + 1] or " ") == " "
    assert "0.02 t/s" in ours and "0.005 t/s" in theirs
    assert "prefill of 128 tokens 4.00x, decode 4.00x, memory 0.25x" in out
    assert "0.0004 s" in out
    assert "no memory" in said


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--json", "--against", "nothing"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ours"]["decode_speed"] == pytest.approx(0.02)
    assert data["peers"] == [] and data["ratios"] == {"second_turn": pytest.approx(2000)}


@pytest.mark.parametrize("options", [["--prompt", "0"], ["--tokens", "1"], ["--bits", "9"]])
def test_what_cannot_be_meant(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *options]) == 2
    assert f"error: {options[0]} " in capsys.readouterr().err

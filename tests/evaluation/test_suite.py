"""Comparisons: who takes turns when, what counts, and what the table says; with contenders that follow a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qwen_mlx.errors import QwenError
from qwen_mlx.evaluation import suite, tables
from qwen_mlx.evaluation.contenders import Limits, Run
from qwen_mlx.evaluation.speed import Task

# seconds per token of (engine, form): reading, writing
Speeds = dict[tuple[str, str], tuple[float, float]]
OURS, QUANTIZED = ("qwen-mlx", "auto"), ("qwen-mlx", "quantized")
FLOAT, HALF = ("mlx-lm", "float32"), ("mlx-lm", "bfloat16")


class Stage:
    """Makes fake processes; keeps what they were asked."""

    def __init__(self, speeds: Speeds) -> None:
        self.speeds = speeds
        self.asked: list[tuple[str, int]] = []
        self.open = 0

    def process(self, task: Task) -> Any:
        stage = self
        if (task.engine, task.form) not in self.speeds:
            raise QwenError(f"{task.engine} failed: no such model")

        class Fake:
            note = (
                f"weights {'expanded' if task.form == 'auto' else task.form}"
                if task.engine == "qwen-mlx"
                else task.form
            )

            def __init__(self) -> None:
                self.task = task

            def __enter__(self) -> Fake:
                stage.open += 1
                return self

            def __exit__(self, *rest: object) -> None:
                stage.open -= 1

            def run(self, context: int, limits: Limits) -> Run:
                stage.asked.append((task.form, context))
                read, write = stage.speeds[task.engine, task.form]
                memory = 3_000_000_000 if task.form == "auto" else 500_000_000
                return Run(context, context * read, [write] * (limits.tokens - 1), memory)

        return Fake()


def compare(
    monkeypatch: pytest.MonkeyPatch, speeds: Speeds, **options: Any
) -> tuple[suite.Comparison, list[tuple[str, int]]]:
    stage = Stage(speeds)
    monkeypatch.setattr(suite, "Process", stage.process)
    *_, last = suite.compare(Path("model"), "qwen3", "tiny", suite.Plan(tokens=5, **options))
    assert isinstance(last, suite.Comparison) and stage.open == 0
    return last, stage.asked


def test_turns_alternate_and_end_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {OURS: (0.001, 0.001), FLOAT: (0.3, 0.3)}
    found, asked = compare(
        monkeypatch, speeds, contexts=(2,), weights=("auto",), dtypes=("float32",), turns=3, seconds=4.0
    )
    assert asked == [("auto", 2), ("float32", 2), ("auto", 2), ("auto", 2)]
    assert [m.turns for m in found.measurements] == [3, 1]
    assert [m.written for m in found.measurements] == [12, 4]


def test_a_ratio_is_against_the_faster_type_number_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {OURS: (0.01, 0.01), FLOAT: (0.02, 0.04), HALF: (0.05, 0.03)}
    found, _ = compare(monkeypatch, speeds, contexts=(1, 8), weights=("auto",))
    first, second = suite.rows(found)
    assert first.prefill_ratio is None and first.context == 1
    assert second.prefill_ratio == pytest.approx(2)
    assert second.decode_ratio == pytest.approx(3)
    assert second.memory_ratio == pytest.approx(6)


def test_a_type_that_cannot_win_is_left_out_and_this_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {OURS: (0.01, 0.01), FLOAT: (0.02, 0.02), HALF: (0.2, 0.2)}
    found, asked = compare(monkeypatch, speeds, contexts=(1, 8, 16), weights=("auto",), turns=1)
    assert [context for form, context in asked if form == "bfloat16"] == [1]
    assert [context for form, context in asked if form == "float32"] == [1, 8, 16]
    assert len(found.remarks) == 1 and "bfloat16" in found.remarks[0]
    assert "bfloat16" in tables.of_comparisons([found])


def test_a_peer_that_fails_is_a_remark_and_one_of_ours_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = compare(monkeypatch, {OURS: (0.01, 0.01), FLOAT: (0.1, 0.1)}, weights=("auto",), contexts=(1,))
    assert "no such model" in found.remarks[0]
    with pytest.raises(QwenError):
        compare(monkeypatch, {FLOAT: (0.1, 0.1)}, weights=("auto",))


def test_forms_that_came_to_the_same_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {OURS: (0.01, 0.01), QUANTIZED: (0.02, 0.02), ("qwen-mlx", "expanded"): (0.01, 0.01)}
    found, _ = compare(monkeypatch, speeds, weights=("auto", "expanded", "quantized"), dtypes=(), contexts=(1,))
    assert [row.form for row in suite.rows(found)] == ["expanded", "quantized"]
    assert suite.rows(found)[0].decode_ratio is None


def test_json_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = compare(monkeypatch, {OURS: (0.01, 0.01), FLOAT: (0.1, 0.1)}, weights=("auto",), contexts=(1, 4))
    data = suite.as_json([found], suite.Plan(), {"cores": 2})
    assert len(data["models"][0]["measurements"]) == 4
    assert data["models"][0]["rows"][1]["prefill_ratio"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (56.78, "56.8"), (2.345, "2.35"), (0.01234, "0.0123"), (0, "")]
)
def test_speeds_keep_three_digits(value: float, text: str) -> None:
    assert tables.speed(value) == text


def test_columns_stand_under_their_names() -> None:
    lines = tables.plain((("", "<"), ("decode", ">")), [["a long name", "0.0123 t/s"], ["b", "9 t/s"]]).split("\n")
    assert lines == ["                 decode", "a long name  0.0123 t/s", "b                 9 t/s"]

"""Training in the thread that owns MLX: planned, run, stopped, resumed, and used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen_mlx.events import (
    JobFailed,
    LoadModel,
    Message,
    ModelLoaded,
    PlanTraining,
    Reply,
    ReplyFinished,
    SamplingOptions,
    Saved,
    Step,
    TrainingControls,
    TrainingFinished,
    TrainingPlanned,
    TrainingStopped,
    TrainModel,
)
from qwen_mlx.runtime.thread import ThreadRuntime
from qwen_mlx.runtime.workshop import LocalWorkshop


@pytest.fixture
def changes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.setenv("QWEN_MLX_CACHE", str(tmp_path / "cache"))
    rows = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "no no no"}]},
        {"messages": [{"role": "user", "content": "ho"}, {"role": "assistant", "content": "yes yes"}]},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 4), "utf-8")
    return (
        f'model.path="{folder}"',
        f'data.train="{tmp_path / "rows.jsonl"}"',
        *("data.max_len=64", "loop.tokens_per_batch=64", "loop.epochs=8", "optim.lr=0.005", "adapter.rank=4"),
        *("loop.compile=false", "save.every=4"),
        f'out="{tmp_path / "runs" / "hi"}"',
    )


def hello(bare: bool) -> Reply:
    sampling = SamplingOptions(max_tokens=8, temperature=0.0)
    return Reply(f"bare {bare}", (Message("user", "hi"),), sampling, keep=False, bare=bare)


def said(runtime: ThreadRuntime, bare: bool) -> str:
    last = list(runtime.submit(hello(bare)))[-1]
    assert isinstance(last, ReplyFinished)
    return last.message.content


def test_a_run_from_its_plan_to_a_chat(runtime: ThreadRuntime, folder: Path, tmp_path: Path, changes: tuple) -> None:
    planned = list(runtime.submit(PlanTraining(changes)))[-1]
    assert isinstance(planned, TrainingPlanned)
    assert not (tmp_path / "runs").exists(), "a plan leaves nothing behind"

    controls = TrainingControls()
    handle = runtime.submit(TrainModel(None, changes, controls=controls))
    events = []
    for event in handle:
        events.append(event)
        if isinstance(event, Step) and event.step == 3:
            handle.cancel()
    assert isinstance(events[-1], TrainingStopped) and isinstance(events[-2], Saved)
    assert next(event for event in events if isinstance(event, Step)).total == planned.forecast.steps

    workshop = LocalWorkshop([tmp_path / "runs"])
    run = str(tmp_path / "runs" / "hi")
    assert [(entry.name, entry.state) for entry in workshop.runs()] == [("hi", "stopped")]
    events = list(runtime.submit(TrainModel(run, resume=True)))
    assert isinstance(events[-1], TrainingFinished)
    record = workshop.record(run)
    steps = [event.step for event in record.events if isinstance(event, Step)]
    assert steps == list(range(1, planned.forecast.steps + 1))
    assert record.entry.state == "finished" and record.base == str(folder)
    best = next(checkpoint for checkpoint in record.checkpoints if checkpoint.best)

    assert isinstance(list(runtime.submit(LoadModel(str(folder))))[-1], ModelLoaded)
    before = said(runtime, bare=False)
    loaded = list(runtime.submit(LoadModel(str(folder), adapter=best.path)))[-1]
    assert isinstance(loaded, ModelLoaded) and loaded.info.name.endswith("+ hi")
    assert said(runtime, bare=True) == before
    assert said(runtime, bare=False) != before
    assert said(runtime, bare=True) == before, "without the adapter it is the base to the bit"


def test_an_adapter_that_is_not_there(runtime: ThreadRuntime, folder: Path, tmp_path: Path) -> None:
    list(runtime.submit(LoadModel(str(folder))))
    failed = list(runtime.submit(LoadModel(str(folder), adapter=str(tmp_path / "none"))))[-1]
    assert isinstance(failed, JobFailed) and failed.expected
    assert said(runtime, bare=False) == said(runtime, bare=True), "the model before stays"


def test_a_plan_of_nonsense(runtime: ThreadRuntime) -> None:
    failed = list(runtime.submit(PlanTraining(("optim.lr=-1", 'model.path="demo"', 'data.train="x"'))))[-1]
    assert isinstance(failed, JobFailed) and failed.expected and "optim.lr" in failed.error

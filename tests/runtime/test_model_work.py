"""Converting, quantizing and evaluating as jobs of the thread that owns MLX."""

from __future__ import annotations

from pathlib import Path

from qwen_mlx.events import (
    Converted,
    ConvertModel,
    Evaluated,
    EvaluateModel,
    Event,
    Job,
    JobCancelled,
    JobFailed,
    Progress,
    QuantizeModel,
)
from qwen_mlx.runtime.thread import ThreadRuntime
from tests.checkpoints import originals


def run(runtime: ThreadRuntime, job: Job) -> list[Event]:
    return list(runtime.submit(job))


def test_a_model_is_made_and_judged(tmp_path: Path) -> None:
    source = str(originals.save(tmp_path / "source", originals.CONFIGS["qwen3"]))
    runtime = ThreadRuntime()
    try:
        for job in (
            ConvertModel(source, str(tmp_path / "new")),
            QuantizeModel(str(tmp_path / "new"), str(tmp_path / "best"), bits=4),
            QuantizeModel(str(tmp_path / "new"), str(tmp_path / "mlx"), bits=4, rounding="mlx"),
        ):
            events = run(runtime, job)
            assert isinstance(events[-1], Converted) and any(isinstance(event, Progress) for event in events)
        last = run(runtime, EvaluateModel(str(tmp_path / "best"), str(tmp_path / "new"), limit=100))[-1]
        assert isinstance(last, Evaluated) and last.divergence is not None and last.divergence.kl > 0
    finally:
        runtime.close(20)
    assert not runtime.running


def test_refusals_and_cancelling_are_events(tmp_path: Path) -> None:
    source = str(originals.save(tmp_path / "source", originals.CONFIGS["qwen3"]))
    runtime = ThreadRuntime()
    try:
        last = run(runtime, QuantizeModel(source, str(tmp_path / "new"), bits=7))[-1]
        assert isinstance(last, JobFailed) and last.expected and last.exit_code == 2
        handle = runtime.submit(EvaluateModel(source))
        handle.cancel()
        assert isinstance(list(handle)[-1], JobCancelled)
    finally:
        runtime.close(20)
    assert not (tmp_path / "new").exists()

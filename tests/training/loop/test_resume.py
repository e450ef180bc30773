"""A run that is stopped anywhere and resumed is bitwise the run that never stopped."""

from __future__ import annotations

import dataclasses

import pytest

from qwen_mlx.events import CancelToken, Eval, Step, TrainingFinished, TrainingStopped
from tests.training.loop import runs


class StopAfter(CancelToken):
    """Cancels once the loop has looked at it a number of times, which it does once per batch."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def cancelled(self) -> bool:
        self.looks -= 1
        return self.looks < 0 or super().cancelled


@pytest.mark.parametrize(
    "name, compiled", [("adamw", True), ("adamw", False), ("muon", False), ("lion", False), ("adafactor", False)]
)
def test_stopped_at_many_places_is_as_never_stopped(tmp_path, name, compiled):
    changes = [f"optim.name={name}", f"loop.compile={str(compiled).lower()}", "loop.eval_every=2"]
    valid = runs.Rows.random(5, seed=9)
    whole = runs.prepared(runs.config(tmp_path / "whole", *changes), valid=valid, dropout=0.1)
    expected = list(runs.loop(whole).events())
    assert isinstance(expected[-1], TrainingFinished)

    settings = runs.config(tmp_path / "parts", *changes)
    events, stops = [], []
    for _ in range(40):
        # Everything is made anew, as in another process; 2 looks: one border, one batch.
        run = runs.prepared(settings, valid=valid, dropout=0.1)
        events += runs.loop(run, StopAfter(4)).events()
        if not isinstance(events[-1], TrainingStopped):
            break
        stops.append(events[-1])
    assert isinstance(events[-1], TrainingFinished)
    assert any("batch" in stop.path for stop in stops), "never stopped within a window"
    assert runs.losses(events) == runs.losses(expected)
    assert runs.same(runs.weights(run), runs.weights(whole))

    def evaluations(found):
        return [dataclasses.replace(e, seconds=0) for e in found if isinstance(e, Eval)]

    assert evaluations(events) == evaluations(expected)


def test_steps_of_the_whole_run(tmp_path):
    """15 examples, 2 a row, windows of 3 batches: 8 batches, so the last window of an epoch has 2."""
    run = runs.prepared(runs.config(tmp_path))
    events = [event for event in runs.loop(run).events() if isinstance(event, Step)]
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6]
    assert [round(event.epoch * 8) for event in events] == [3, 6, 8, 11, 14, 16]
    assert sum(event.tokens for event in events) == 2 * run.stage.train.tokens

"""What the loop promises besides resuming: exact sums, guards, controls, best and last kept."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tests.training.loop import runs  # first: it prepares the BLAS

import mlx.core as mx  # isort: skip
import numpy as np

from qwen_mlx.errors import TrainingError
from qwen_mlx.events import (
    CancelToken,
    Eval,
    RunStarted,
    Sample,
    Saved,
    Step,
    TrainingControls,
    TrainingFinished,
    TrainingNotice,
    TrainingStopped,
)
from qwen_mlx.training.config import OptimSection
from qwen_mlx.training.data.examples import Example
from qwen_mlx.training.engine import Engine
from qwen_mlx.training.run_folder import RunFolder, read_state


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


# ------------------------------------------------------------------------------------------------------ arithmetic


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_accumulated_is_one_big_batch(tmp_path, optimizer):
    """12 examples as 6 batches of 2 in one step, and as one batch of 12: the same losses, norms and weights."""
    rows = runs.Rows.random(12)
    found = []
    for batch, windows in ((2, 6), (12, 1)):
        changes = [f"optim.name={optimizer}", f"loop.accumulate={windows}", "loop.epochs=3"]
        run = runs.prepared(runs.config(tmp_path / str(batch), *changes), rows, batch=batch)
        run = dataclasses.replace(run, stage=dataclasses.replace(run.stage, counts=False))
        steps = of(Step, runs.loop(run).events())
        found.append((steps, runs.weights(run)))
    (many, weights), (one, others) = found
    assert len(many) == len(one) == 3
    for a, b in zip(many, one):
        assert (a.loss, a.gradient_norm) == pytest.approx((b.loss, b.gradient_norm), rel=1e-5)
        assert (a.tokens, a.supervised) == (b.tokens, b.supervised)
    for name, array in weights.items():
        if name.startswith("weights"):
            np.testing.assert_allclose(array, others[name], atol=2e-4, err_msg=name)


def test_compiled_is_eager(tmp_path):
    found = []
    for compiled in ("true", "false"):
        run = runs.prepared(runs.config(tmp_path / compiled, f"loop.compile={compiled}"), dropout=0.2)
        found.append((of(Step, runs.loop(run).events()), runs.weights(run)))
    (a, weights), (b, others) = found
    assert [e.loss for e in a] == pytest.approx([e.loss for e in b], rel=1e-4)
    for name, array in weights.items():
        np.testing.assert_allclose(array, others[name], atol=2e-4, rtol=1e-3, err_msg=name)


def test_weights_move_and_are_learnt(tmp_path):
    run = runs.prepared(runs.config(tmp_path, "loop.epochs=12"), runs.Rows.random(6))
    before = runs.weights(run)
    events = list(runs.loop(run).events())
    steps = of(Step, events)
    assert steps[-1].loss < 0.3 * steps[0].loss
    after = runs.weights(run)
    assert all((before[name] != after[name]).any() for name in before if name.startswith("weights"))


def test_the_loss_is_of_tokens_not_of_batches(tmp_path):
    """A window of a long and a short example: every token counts the same."""
    rows = runs.Rows([runs.Rows.random(1, seed, longest).examples[0] for seed, longest in ((1, 4), (2, 12))])
    run = runs.prepared(runs.config(tmp_path, "loop.accumulate=2", "loop.epochs=1"), rows, batch=1)
    run = dataclasses.replace(run, stage=dataclasses.replace(run.stage, counts=False))
    total = weight = 0.0
    for batch in run.stage.train.batches(0):
        loss, count, _ = run.stage.judge(run.model.decoder, run.stage.train.arrays(batch))
        total, weight = total + loss.item(), weight + count.item()
    (step,) = of(Step, runs.loop(run).events())
    assert step.loss == pytest.approx(total / weight, rel=1e-5) and step.supervised == weight


def test_clipping(tmp_path):
    """The update is made with a gradient of the norm `clip`, whatever norm it had."""
    run = runs.prepared(runs.config(tmp_path))
    norms = {}
    for clip in (0.0, 0.01, 1e9):
        run = runs.prepared(runs.config(tmp_path / str(clip)))
        engine = Engine(run.model.decoder, run.stage, run.optimizer, OptimSection(clip=clip, betas=(0.0, 0.0)), False)
        source = run.stage.train
        sums, (_, weight, _) = engine.gradients(source.arrays(source.batches(0)[0]), None)
        norm = engine.norm(sums, weight)
        engine.update(sums, weight, norm, 1e-3)
        # With beta 0, m is what was given to the optimizer, (1 - 0.9) of it with the default.
        moments = [array for name, array in runs.weights(run).items() if name.endswith(".m")]
        norms[clip] = norm, 10 * math.sqrt(sum(float((m.astype(np.float64) ** 2).sum()) for m in moments))
    assert norms[0.0][1] == pytest.approx(norms[0.0][0], rel=1e-4)
    assert norms[1e9] == pytest.approx(norms[0.0], rel=1e-6)
    assert norms[0.01][1] == pytest.approx(0.01, rel=1e-3)


# ---------------------------------------------------------------------------------------------------------- guards


def poisoned(tmp_path, rows_poisoned: int, *changes: str):
    """A run in which some rows have no loss that is a number."""
    rows = runs.Rows.random(12)
    examples = [
        dataclasses.replace(e, ids=np.concatenate([[96], e.ids[1:]]).astype(np.int32)) if i < rows_poisoned else e
        for i, e in enumerate(rows.examples)
    ]
    run = runs.prepared(runs.config(tmp_path, "loop.accumulate=1", *changes), runs.Rows(examples), batch=1)
    return dataclasses.replace(run, stage=dataclasses.replace(run.stage, poison={96}))


def test_a_step_that_is_no_number_is_skipped_and_its_row_named(tmp_path):
    run = poisoned(tmp_path, 1, "loop.epochs=1")
    events = list(runs.loop(run).events())
    (notice,) = of(TrainingNotice, events)
    assert notice.code == "not-a-number" and "rows.jsonl:1" in notice.text
    assert [step.skipped for step in of(Step, events)].count(True) == 1
    assert all(np.isfinite(array).all() for array in runs.weights(run).values())
    assert isinstance(events[-1], TrainingFinished)


def test_after_three_of_them_the_run_is_saved_and_ends(tmp_path):
    run = poisoned(tmp_path, 12)
    events = []
    with pytest.raises(TrainingError, match=r"3 steps in a row.*rows\.jsonl:\d"):
        for event in runs.loop(run).events():
            events.append(event)
    assert len(of(Step, events)) == 3 and isinstance(events[-1], Saved)
    assert RunFolder(tmp_path).latest() is not None


def test_a_window_without_anything_to_learn_is_skipped(tmp_path):
    rows = runs.Rows.random(4)
    first = dataclasses.replace(rows.examples[0], weights=np.zeros_like(rows.examples[0].weights))
    run = runs.prepared(
        runs.config(tmp_path, "loop.accumulate=1", "loop.epochs=1"), runs.Rows([first, *rows.examples[1:]]), batch=1
    )
    events = list(runs.loop(run).events())
    (notice,) = of(TrainingNotice, events)
    assert notice.code == "nothing-supervised" and "rows.jsonl:1" in notice.text
    assert sum(step.skipped for step in of(Step, events)) == 1


def test_weights_that_never_change_end_the_run(tmp_path):
    """A learning rate that is too small for the type of the weights would learn nothing for hours."""
    run = runs.prepared(runs.config(tmp_path, "optim.lr=1e-30", "loop.epochs=3", "optim.weight_decay=0"))
    with pytest.raises(TrainingError, match="no weight has changed"):
        list(runs.loop(run).events())


def test_a_spike_is_told(tmp_path):
    """Rows that are learnt, and then one that is very unlike them."""
    example = runs.Rows.random(1).examples[0]
    rows = runs.Rows([example] * 30)
    run = runs.prepared(runs.config(tmp_path, "loop.accumulate=1", "optim.lr=0.02", "loop.epochs=1"), rows, batch=1)
    strange = Example(np.array([50, 51, 52], np.int32), np.array([0, 1, 1], np.float32), "strange.jsonl:1")

    class Then:
        """The same source, whose 25th batch is another one."""

        def __init__(self, source):
            self._source = source

        def __getattr__(self, name):
            return getattr(self._source, name)

        def arrays(self, batch):
            arrays = self._source.arrays(batch)
            if self._source.batches(0).index(batch) == 25:
                other = runs.DatasetSource(runs.Rows([strange]), runs.BatchShape(1, 32), 0, False)
                arrays = other.arrays([[0]])
            return arrays

    run = dataclasses.replace(run, stage=dataclasses.replace(run.stage, train=Then(run.stage.train), counts=False))
    notices = of(TrainingNotice, runs.loop(run).events())
    assert "loss-spike" in [notice.code for notice in notices]


# ------------------------------------------------------------------------------------------------ keeping, stopping


def test_best_and_last_are_kept(tmp_path):
    run = runs.prepared(
        runs.config(tmp_path, "loop.epochs=4", "loop.eval_every=2", "save.every=1", "save.keep=2", "optim.lr=0.1"),
        valid=runs.Rows.random(4, seed=5),
    )
    events = list(runs.loop(run).events())
    finished = events[-1]
    assert isinstance(finished, TrainingFinished)
    judged = {event.step: event.loss for event in of(Eval, events) if event.step}
    best = min(judged, key=judged.get)
    folder = RunFolder(tmp_path)
    assert (finished.best_step, finished.best_loss) == (best, judged[best])
    assert read_state(folder.best())["position"]["step"] == best
    assert finished.path == str(folder.best())
    assert read_state(folder.latest())["position"]["finished"] == "done"
    assert len(folder.checkpoints()) in (2, 3)


def test_the_evaluation_is_of_all_and_the_same_every_time(tmp_path):
    valid = runs.Rows.random(7, seed=5)
    run = runs.prepared(runs.config(tmp_path, "optim.lr=1e-7", "loop.eval_every=2", "loop.accumulate=2"), valid=valid)
    judged = of(Eval, runs.loop(run).events())
    assert len(judged) > 2 and all(event.tokens == valid.supervised.sum() for event in judged)
    assert max(event.loss for event in judged) - min(event.loss for event in judged) < 1e-3
    assert judged[0].perplexity == pytest.approx(math.exp(judged[0].loss))
    assert judged[0].step == 0 and not judged[0].best


def test_early_stop(tmp_path):
    """A model that only gets worse ends after two looks without a better loss."""
    run = runs.prepared(
        runs.config(tmp_path, "optim.lr=1", "loop.epochs=9", "loop.eval_every=1", "loop.early_stop=2"),
        valid=runs.Rows.random(4, seed=5),
    )
    events = list(runs.loop(run).events())
    finished = events[-1]
    assert isinstance(finished, TrainingFinished) and finished.reason == "early stop"
    assert finished.step == finished.best_step + 2


def test_steps_end_a_run_early(tmp_path):
    run = runs.prepared(runs.config(tmp_path, "loop.steps=2"))
    events = list(runs.loop(run).events())
    assert len(of(Step, events)) == 2 == events[-1].step
    started = of(RunStarted, events)[0]
    assert started.forecast.steps == 2


def test_controls(tmp_path):
    run = runs.prepared(runs.config(tmp_path, "optim.schedule=constant", "optim.warmup=0"))
    controls = TrainingControls()
    events = []
    for event in runs.loop(run, controls=controls).events():
        events.append(event)
        if isinstance(event, Step) and event.step == 1:
            controls.save_now()
            controls.set_learning_rate(0.005)
        if isinstance(event, Step) and event.step == 2:
            controls.stop_after_step()
    assert [step.learning_rate for step in of(Step, events)] == [0.01, 0.005, 0.005][: len(of(Step, events))]
    assert [saved.why for saved in of(Saved, events)][:1] == ["asked"]
    assert isinstance(events[-1], TrainingStopped) and events[-1].step == 2
    # The rate that was set is still the peak after the run is resumed.
    again = runs.prepared(run.config)
    steps = of(Step, runs.loop(again).events())
    assert steps[0].step == 3 and {step.learning_rate for step in steps} == {0.005}
    with pytest.raises(ValueError, match="learning rate"):
        controls.set_learning_rate(float("nan"))


def test_a_pause_can_be_ended_and_cancelled(tmp_path):
    run = runs.prepared(runs.config(tmp_path))
    controls, cancel = TrainingControls(), CancelToken()
    codes = []
    for event in runs.loop(run, cancel, controls).events():
        if isinstance(event, Step) and event.step in (1, 2):
            controls.pause()
        if isinstance(event, TrainingNotice):
            codes.append(event.code)
            if event.code == "paused":
                controls.resume() if codes.count("paused") == 1 else cancel.cancel()
    assert codes == ["paused", "resumed", "paused", "resumed"]
    assert isinstance(event, TrainingStopped) and event.step == 2


def test_samples_leave_the_training_alone(tmp_path, monkeypatch):
    """Whatever random numbers answering takes, the run computes the same."""
    monkeypatch.setattr("qwen_mlx.training.loop.sample", lambda *_: f"{mx.random.uniform().item():.0f} ok")
    plain = runs.prepared(runs.config(tmp_path / "plain"), dropout=0.2)
    list(runs.loop(plain).events())
    run = runs.prepared(runs.config(tmp_path / "asked", 'log.samples=["Hi"]', "log.sample_every=1"), dropout=0.2)
    events = list(runs.loop(run).events())
    assert [event.step for event in of(Sample, events)] == list(range(events[-1].step + 1))
    assert runs.same(runs.weights(run), runs.weights(plain))

"""Experts in the loop: their balance is counted over a whole window, and that survives a stop within it."""

from __future__ import annotations

import dataclasses

import pytest

from qwen_mlx.events import Step, TrainingFinished
from qwen_mlx.training.data.batches import BatchShape
from qwen_mlx.training.stages.dataset_source import DatasetSource
from qwen_mlx.training.stages.sft import SFT
from tests.models import tiny
from tests.training.loop import runs
from tests.training.loop.test_resume import StopAfter  # first: it prepares the BLAS

MOE = tiny.QWEN3_MOE | {"hidden_size": 32, "head_dim": 8, "intermediate_size": 48, "moe_intermediate_size": 16}


def prepared(settings, dropout: float = 0.0):
    """Packed rows through the real loss, on a model with experts."""
    run = runs.prepared(settings)
    decoder = tiny.decoder(MOE, seed=3)
    decoder.unfreeze()
    rows = runs.Rows.random(24)
    source = DatasetSource(rows, BatchShape(1, 32), settings.seed, True)
    stage = SFT(source, None, 12, settings.loop.router_balance)
    model = runs.LoadedModel(run.model.folder, MOE, decoder, 0, "plain")
    optimizer = runs.make_optimizer(settings.optim, decoder.trainable_parameters())
    said = runs.forecast(settings, model, stage)
    return dataclasses.replace(run, model=model, stage=stage, optimizer=optimizer, forecast=said)


@pytest.mark.parametrize("balance", [0.0, 0.1])
def test_stopped_within_a_window(tmp_path, balance):
    changes = [f"loop.router_balance={balance}", "loop.epochs=1", "loop.accumulate=3"]
    whole = prepared(runs.config(tmp_path / "whole", *changes))
    expected = list(runs.loop(whole).events())
    assert all(0 < step.metrics["moe_entropy"] <= 1 for step in expected if isinstance(step, Step))
    parts, events = runs.config(tmp_path / "parts", *changes), []
    while not events or not isinstance(events[-1], TrainingFinished):
        run = prepared(parts)
        events += runs.loop(run, StopAfter(2)).events()
    assert runs.losses(events) == runs.losses(expected)
    assert runs.same(runs.weights(run), runs.weights(whole))


def test_the_balance_is_part_of_the_loss(tmp_path):
    found = {}
    for balance in (0.0, 0.1):
        changes = [f"loop.router_balance={balance}", "loop.steps=1"]
        run = prepared(runs.config(tmp_path / str(balance), *changes))
        (found[balance],) = [event for event in runs.loop(run).events() if isinstance(event, Step)]
    told = found[0.1].metrics["moe_loss"]
    assert told > 0 and found[0.1].loss > found[0.0].loss

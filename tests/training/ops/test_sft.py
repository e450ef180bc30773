"""What `sft_loss` is given, and the numbers it gives besides the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from qwen_mlx.training.ops import batch_arrays, learnt_rows, sft_loss
from tests.models import tiny
from tests.training.ops.rows import in_rows, texts_of

import mlx.core as mx  # isort: skip
import numpy as np


@pytest.mark.parametrize("learnt", [0, 1, 63, 64, 65, 100, 150, 200, 383, 384])
def test_rows_that_the_head_reads(learnt: int) -> None:
    random = np.random.default_rng(learnt)
    weights = np.zeros(384, np.float32)
    places = random.permutation(384)[:learnt]
    weights[places] = random.uniform(0.1, 2, learnt)
    rows = learnt_rows(weights.reshape(4, 96))
    assert len(rows) in (64, 96, 128, 192, 256, 384) and len(rows) < max(1.52 * learnt, 65)
    assert len(set(rows.tolist())) == len(rows)
    assert set(np.flatnonzero(weights)) <= set(rows.tolist())


def test_the_loss_with_chosen_rows_is_the_loss() -> None:
    @dataclass
    class Batch:
        ids: Any
        targets: Any
        weights: Any
        positions: Any
        starts: Any

    arrays = in_rows([texts_of([20, 31])], 100)
    batch = Batch(**{name: np.array(array) for name, array in arrays.items()})
    batch.weights[:, 25:] = 0
    decoder = tiny.decoder(tiny.QWEN3)
    given = batch_arrays(batch)
    assert given["rows"].shape == (64,)
    found = sft_loss(decoder, given)
    expected = sft_loss(decoder, {name: array for name, array in given.items() if name != "rows"})
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)
    assert found[1].item() == expected[1].item() == batch.weights.sum()


def test_how_busy_experts_are() -> None:
    decoder = tiny.decoder(tiny.QWEN3_MOE | {"mlp_only_layers": [], "num_experts": 4})
    arrays = in_rows([texts_of([30])], 40)
    for layer in decoder.layers:
        layer.mlp.gate.weight = mx.zeros_like(layer.mlp.gate.weight)
    _, _, metrics = sft_loss(decoder, arrays)  # of equals, the last two are chosen
    assert metrics["moe_entropy"].item() == pytest.approx(0.5)
    assert metrics["moe_busiest"].item() == pytest.approx(2.0)
    assert metrics["moe_idle"].item() == pytest.approx(0.5)
    assert metrics["moe_loss"].item() == pytest.approx(2.0)  # all probabilities are 1/4
    assert sft_loss(tiny.decoder(tiny.QWEN3), arrays)[2] == {}


def test_weights_scale_what_is_learnt() -> None:
    decoder = tiny.decoder(tiny.QWEN3)
    arrays = in_rows([texts_of([20, 31])], 60)
    once = sft_loss(decoder, arrays)
    twice = sft_loss(decoder, arrays | {"weights": 2 * arrays["weights"]})
    assert twice[0].item() == pytest.approx(2 * once[0].item(), rel=1e-6)
    assert twice[1].item() == 2 * once[1].item()

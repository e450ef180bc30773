"""Optimizers against torch's numbers and the formulas of their papers, and which weights get what."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_mlx.training import optim  # first: it prepares the BLAS

import mlx.core as mx  # isort: skip
import numpy as np

from qwen_mlx.errors import CheckpointError
from qwen_mlx.training.config import OptimSection

FIXTURE = Path(__file__).parents[2] / "fixtures" / "training" / "optimizers.npz"


def run(section: OptimSection, start: np.ndarray, gradients: np.ndarray, rates, name: str = "layers.0.w.weight"):
    """The weight after every update, float32 (steps, ...)."""
    first, second, third, last = name.split(".")
    assert second == "0"
    weights = {first: [{third: {last: mx.array(start)}}]}
    optimizer = optim.make_optimizer(section, weights)
    number, state = optim.places(optimizer, weights)[name]
    member, after, weight = optimizer.optimizers[number], [], mx.array(start)
    update = optim.one_update(member)
    for gradient, rate in zip(gradients, rates):
        optim.set_learning_rate(optimizer, section, float(rate))
        member.state["step"] = member.state["step"] + 1
        weight, changed = update(
            mx.array(2 * gradient), mx.array(0.5), weight, dict(state), member.learning_rate, member.step
        )
        state.update(changed)
        after.append(np.array(weight))
    return np.stack(after)


@pytest.mark.parametrize("case", ["qwen", "torch_defaults", "no_decay"])
def test_adamw_is_torchs(case):
    held = np.load(FIXTURE)
    first, second, eps, decay = map(float, held[f"{case}.settings"])
    section = OptimSection(betas=(first, second), eps=eps, weight_decay=decay)
    got = run(section, held["start"], held["gradients"], held[f"{case}.rates"])
    expected = held[f"{case}.weights"]
    # What the updates add up to, not the weights, which would hide an error of a small learning rate.
    moved, wanted = got - held["start"], expected - held["start"]
    assert np.abs(moved - wanted).max() <= 2e-5 * np.abs(wanted).max()
    assert np.abs(got - expected).max() <= 3e-7 * np.abs(expected).max()


def test_lion_is_the_papers():
    """Algorithm 2 of arXiv:2302.06675, in float64."""
    rng = np.random.default_rng(1)
    start, gradients = rng.normal(size=(4, 3)), rng.normal(size=(6, 4, 3))
    section = OptimSection(name="lion", betas=(0.9, 0.99), weight_decay=0.1)
    got = run(section, start.astype(np.float32), gradients.astype(np.float32), [0.01] * 6)
    weight, m = start, np.zeros_like(start)
    for step, g in enumerate(gradients):
        weight = weight - 0.01 * (np.sign(0.9 * m + 0.1 * g) + 0.1 * weight)
        m = 0.99 * m + 0.01 * g
        np.testing.assert_allclose(got[step], weight, rtol=1e-5, atol=1e-6)


def test_muon_is_the_papers():
    """Momentum, Nesterov, five steps of Newton-Schulz, and the scale of tall matrices, in float64."""
    rng = np.random.default_rng(2)
    start, gradients = rng.normal(size=(6, 4)), rng.normal(size=(3, 6, 4))
    section = OptimSection(name="muon", momentum=0.9, weight_decay=0.1)
    got = run(section, start.astype(np.float32), gradients.astype(np.float32), [0.02] * 3)
    weight, v = start, np.zeros_like(start)
    for step, g in enumerate(gradients):
        v = 0.9 * v + 0.1 * g
        x = (0.1 * g + 0.9 * v).T
        x = x / np.linalg.norm(x)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        weight = weight * (1 - 0.02 * 0.1) - 0.02 * np.sqrt(6 / 4) * x.T
        np.testing.assert_allclose(got[step], weight, rtol=1e-4, atol=1e-4)


def test_adafactor_is_the_papers():
    """Algorithm 4 of arXiv:1804.04235 with a given rate and without scaling by the weights, in float64."""
    rng = np.random.default_rng(3)
    start, gradients = rng.normal(size=(4, 3)), rng.normal(size=(5, 4, 3))
    got = run(OptimSection(name="adafactor"), start.astype(np.float32), gradients.astype(np.float32), [0.01] * 5)
    weight, rows, columns = start, np.zeros(4), np.zeros(3)
    for step, g in enumerate(gradients, 1):
        beta = 1 - step**-0.8
        square = g * g + 1e-30
        rows = beta * rows + (1 - beta) * square.mean(axis=1)
        columns = beta * columns + (1 - beta) * square.mean(axis=0)
        update = g / np.sqrt(np.outer(rows, columns) / rows.mean())
        update /= max(1, np.sqrt((update**2).mean()))
        weight = weight - 0.01 * update
        np.testing.assert_allclose(got[step - 1], weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name, shape, decayed",
    [
        ("layers.0.mlp.weight", (4, 4), True),
        ("layers.0.input_layernorm.weight", (4,), False),
        ("layers.0.q_norm.weight", (4, 4), False),
        ("layers.0.proj.bias", (4,), False),
        ("layers.0.linear_attn.A_log", (4,), False),
        ("layers.0.adapters.lora_a", (4, 4), False),
        ("layers.0.adapters.magnitude", (4,), False),
    ],
)
def test_what_decays(name, shape, decayed):
    assert optim.is_decayed(name, mx.zeros(shape), adapters=False) is decayed
    if "lora" in name:
        assert optim.is_decayed(name, mx.zeros(shape), adapters=True)


def test_decay_moves_only_what_decays():
    """With gradients of 0, AdamW moves nothing but what decays."""
    section = OptimSection(lr=0.1, weight_decay=0.5)
    ones = np.ones((2, 2), np.float32)
    matrix = run(section, ones, np.zeros((1, 2, 2), np.float32), [0.1])[0]
    norm = run(section, ones, np.zeros((1, 2, 2), np.float32), [0.1], "layers.0.q_norm.weight")[0]
    np.testing.assert_allclose(matrix, 0.95, rtol=1e-6)
    assert (norm == 1).all()


def test_muon_leaves_the_embedding_to_adamw():
    section = OptimSection(name="muon", lr=0.02, other_lr=0.003)
    weights = {
        "embed_tokens": {"weight": mx.zeros((3, 2))},
        "layers": [{"w": mx.zeros((2, 2))}],
        "norm": {"weight": mx.ones((2,))},
    }
    optimizer = optim.make_optimizer(section, weights)
    kinds = {
        name: type(optimizer.optimizers[number]).__name__
        for name, (number, _) in optim.places(optimizer, weights).items()
    }
    assert kinds == {"embed_tokens.weight": "AdamW", "layers.0.w": "Muon", "norm.weight": "AdamW"}
    optim.set_learning_rate(optimizer, section, 0.01)
    assert [round(float(member.learning_rate), 6) for member in optimizer.optimizers] == [0.01, 0.01, 0.0015, 0.0015]


def test_a_state_of_something_else_is_refused():
    weights = {"a": mx.zeros((2, 2))}
    optimizer = optim.make_optimizer(OptimSection(), weights)
    arrays = optim.flat(optimizer.state)
    optim.load_state(optimizer, dict(arrays), "file")
    name = next(name for name in arrays if name.endswith("a.m"))
    with pytest.raises(CheckpointError, match="does not fit"):
        optim.load_state(optimizer, {key: array for key, array in arrays.items() if key != name}, "file")
    with pytest.raises(CheckpointError, match="another form"):
        optim.load_state(optimizer, arrays | {name: mx.zeros((3, 3))}, "file")


def test_global_norm():
    tree = {"a": mx.array([3.0]), "b": [mx.array([[4.0]], dtype=mx.bfloat16)]}
    assert float(optim.global_norm(tree)) == 5.0

"""Experts whose tokens are multiplied together, against a plain loop over tokens."""

from __future__ import annotations

import pytest

from qwen_mlx import device
from qwen_mlx.models import expert_groups
from qwen_mlx.models.moe import Experts
from qwen_mlx.models.spec import QuantizationSpec

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import numpy as np

COUNT, SIZE, HIDDEN, K = 5, 64, 128, 2
FORMS = ("float32", "bfloat16", "packed")

pytestmark = pytest.mark.skipif(device.backend() != "cpu", reason="what a CPU does")


def experts(form: str) -> tuple[Experts, list[np.ndarray]]:
    """Experts, and their plain matrices gate_up and down."""
    made, plain = Experts(COUNT, SIZE, HIDDEN), []
    for i, layer in enumerate((made.gate_up_proj, made.down_proj)):
        weight = mx.random.normal(layer.weight.shape, key=mx.random.key(i)) * 0.1
        if form == "packed":
            codes, scales, biases = mx.quantize(weight, 64, 4)
            layer.set_weights(codes, scales, biases, QuantizationSpec(4, 64))
            weight = mx.dequantize(codes, scales, biases, 64, 4)
        else:
            weight = weight.astype(getattr(mx, form))
            layer.set_weights(weight, None, None, None)
        plain.append(np.array(weight.astype(mx.float32)).astype(np.float64))
    made.eval()
    return made, plain


def expected(x: mx.array, chosen: mx.array, plain: list[np.ndarray]) -> np.ndarray:
    gate_up, down = plain
    rows = []
    for token, own in zip(np.array(x.astype(mx.float32)).astype(np.float64), np.array(chosen)):
        for e in own:
            gate, up = np.split(gate_up[e] @ token, 2)
            rows.append(down[e] @ (gate / (1 + np.exp(-gate)) * up))
    return np.array(rows).reshape(*chosen.shape, -1)


def some(tokens: int, form: str = "float32") -> tuple[mx.array, mx.array]:
    """Inputs, and choices that leave expert 3 out."""
    x = mx.random.normal((tokens, HIDDEN), key=mx.random.key(3))
    chosen = np.random.default_rng(0).choice([0, 1, 2, 4], (tokens, K))
    return x.astype(mx.bfloat16) if form == "bfloat16" else x, mx.array(chosen.astype(np.uint32))


@pytest.mark.parametrize("tokens", [1, 40, 300])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_size(form: str, tokens: int) -> None:
    made, plain = experts(form)
    x, chosen = some(tokens, form)
    y = made(x, chosen)
    assert y.dtype == x.dtype and y.shape == (tokens, K, HIDDEN)
    tolerance = 0.05 if form == "bfloat16" else 1e-5
    np.testing.assert_allclose(np.array(y.astype(mx.float32)), expected(x, chosen, plain), atol=tolerance)


@pytest.mark.parametrize("form", ["float32", "packed"])
def test_it_is_done_for_many_tokens_and_not_for_one(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not device.fast_blas():
        pytest.skip("needs a fast BLAS")
    runs = []
    real = expert_groups.run
    monkeypatch.setattr(expert_groups, "run", lambda *args: runs.append(1) or real(*args))  # type: ignore[func-returns-value]
    made, _ = experts(form)
    made(*some(1))
    assert not runs
    made(*some(300))
    assert runs


def test_inside_a_compiled_function_the_choice_is_not_known() -> None:
    made, plain = experts("float32")
    x, chosen = some(300)
    y = mx.compile(lambda x, chosen: made(x, chosen))(x, chosen)
    np.testing.assert_allclose(np.array(y), expected(x, chosen, plain), atol=1e-5)


@pytest.mark.parametrize("form", ["float32", "packed"])
def test_gradient_of_the_input(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = experts(form)
    x, chosen = some(300)

    def gradient() -> np.ndarray:
        return np.array(mx.grad(lambda x: (made(x, chosen) ** 2).sum())(x))

    found = gradient()
    monkeypatch.setattr(expert_groups, "worth_it", lambda *args: False)
    np.testing.assert_allclose(found, gradient(), atol=1e-4)


def test_what_somebody_put_around_a_matrix_is_called() -> None:
    class Watched(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer, self.calls = layer, 0

        def __call__(self, *args: mx.array) -> mx.array:
            self.calls += 1
            return self.layer(*args)

    made, plain = experts("float32")
    made.down_proj = Watched(made.down_proj)  # type: ignore[assignment]
    x, chosen = some(300)
    np.testing.assert_allclose(np.array(made(x, chosen)), expected(x, chosen, plain), atol=1e-5)
    assert made.down_proj.calls == 1  # type: ignore[attr-defined]

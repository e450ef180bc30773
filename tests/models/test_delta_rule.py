"""The gated delta rule in chunks, against the recurrence in float64."""

from __future__ import annotations

import pytest

from qwen_mlx.models import delta_rule

import mlx.core as mx  # isort: skip
import numpy as np

KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM = 2, 4, 16, 8
Inputs = dict[str, mx.array]


def inputs(length: int, decay: float = 1.0, alike: bool = False, state: bool = True) -> Inputs:
    """Random inputs; `decay` 0 forgets nothing, `alike` gives all tokens nearly the same key."""
    random = np.random.default_rng(length)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal((2, *shape)).astype(np.float32)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    keys = normal(length, KEY_HEADS, KEY_DIM)
    if alike:
        keys = 0.001 * keys + keys[:, :1]
    made = {
        "q": unit(normal(length, KEY_HEADS, KEY_DIM)) * KEY_DIM**-0.5,
        "k": unit(keys),
        "v": normal(length, VALUE_HEADS, VALUE_DIM),
        "log_decay": -decay * np.abs(normal(length, VALUE_HEADS)),
        "beta": np.ones((2, length, VALUE_HEADS), np.float32)
        if alike
        else 1 / (1 + np.exp(-normal(length, VALUE_HEADS))),
    }
    if state:
        made["state"] = normal(VALUE_HEADS, VALUE_DIM, KEY_DIM)
    return {name: mx.array(x.astype(np.float32)) for name, x in made.items()} | ({} if state else {"state": None})  # type: ignore[dict-item]


def expected(x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    q, k, v, g, beta = (np.array(x[name]).astype(np.float64) for name in ("q", "k", "v", "log_decay", "beta"))
    q, k = (np.repeat(part, VALUE_HEADS // KEY_HEADS, axis=2) for part in (q, k))
    shape = (2, VALUE_HEADS, VALUE_DIM, KEY_DIM)
    s = np.zeros(shape) if x["state"] is None else np.array(x["state"]).astype(np.float64)
    outputs = []
    for t in range(q.shape[1]):
        s = s * np.exp(g[:, t])[..., None, None]
        change = beta[:, t][..., None] * (v[:, t] - np.einsum("bhvk,bhk->bhv", s, k[:, t]))
        s = s + change[..., None] * k[:, t][..., None, :]
        outputs.append(np.einsum("bhvk,bhk->bhv", s, q[:, t]))
    return np.stack(outputs, axis=1), s


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 31, 32, 33, 100])
def test_lengths(length: int, state: bool) -> None:
    x = inputs(length, state=state)
    y, s = delta_rule.delta_rule(**x)
    y_expected, s_expected = expected(x)
    np.testing.assert_allclose(np.array(y), y_expected, atol=1e-5)
    np.testing.assert_allclose(np.array(s), s_expected, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 1e-3, 50.0])
def test_alike_keys_and_extreme_decays(decay: float) -> None:
    """Where powers of the matrix within a chunk would reach 1e8 before they vanish."""
    x = inputs(70, decay, alike=True)
    y, s = delta_rule.delta_rule(**x)
    y_expected, s_expected = expected(x)
    np.testing.assert_allclose(np.array(y), y_expected, atol=1e-3)
    np.testing.assert_allclose(np.array(s), s_expected, atol=1e-3)


@pytest.mark.parametrize("length", [1, 40])
def test_gradient_is_that_of_mlx(length: int) -> None:
    x = inputs(length)
    names = ("q", "k", "v", "log_decay", "beta", "state")
    weights = mx.random.normal((2, length, VALUE_HEADS, VALUE_DIM), key=mx.random.key(0))

    def gradients(rule) -> list[np.ndarray]:
        def loss(*arrays: mx.array) -> mx.array:
            y, s = rule(*arrays)
            return (y * weights).sum() + (s * s).sum()

        return [np.array(g) for g in mx.grad(loss, argnums=list(range(6)))(*(x[name] for name in names))]

    for name, ours, theirs in zip(names, gradients(delta_rule.delta_rule), gradients(delta_rule._tokens)):
        np.testing.assert_allclose(ours, theirs, atol=3e-4, err_msg=name)

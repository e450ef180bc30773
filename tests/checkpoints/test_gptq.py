"""GPTQ against its definition: the outputs, not the weights, come out closest."""

from __future__ import annotations

import numpy as np
import pytest

from qwen_mlx.checkpoints.quantizers import gptq as module
from qwen_mlx.checkpoints.quantizers.gptq import Guide, gptq
from qwen_mlx.checkpoints.quantizers.rounding import Packed, as_importance, search
from qwen_mlx.checkpoints.quantizers.stored_types import NotFinite
from qwen_mlx.checkpoints.recipes import AFFINE_BITS

import mlx.core as mx  # isort: skip

ROWS, COLUMNS = 96, 256


def correlated(columns: int = COLUMNS, tokens: int = 2000, seed: int = 0) -> np.ndarray:
    """Inputs (tokens, columns) of which each column says something about the others, as a model's do."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((columns // 4, columns)) * np.exp(random.standard_normal(columns))
    few = random.standard_normal((tokens, columns // 4)) @ mixing
    return (few + 0.3 * random.standard_normal((tokens, columns))).astype(np.float32)


def matrix(rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    return (0.02 * np.random.default_rng(1).standard_normal((rows, columns))).astype(np.float32)


def read(packed: Packed, bits: int, group_size: int) -> np.ndarray:
    parts = (mx.array(part) for part in (packed.scales, packed.biases))
    return np.array(mx.dequantize(mx.array(packed.weight), *parts, group_size=group_size, bits=bits))


@pytest.mark.parametrize("bits", AFFINE_BITS)
def test_outputs_are_closer_than_with_weighted_rounding(bits: int) -> None:
    x, weight = correlated(), matrix()
    hessian = x.T @ x / len(x)
    plain = search(weight, bits, 64, "F32", as_importance(np.diag(hessian)))
    guided = gptq(weight, bits, 64, "F32", Guide.of(hessian))
    errors = [np.square((read(packed, bits, 64) - weight) @ x.T).mean() for packed in (plain, guided)]
    assert errors[1] < 0.5 * errors[0]
    changes = [float(np.square(read(packed, bits, 64) - weight).sum()) for packed in (plain, guided)]
    assert guided.error == pytest.approx(changes[1], rel=1e-3)
    assert changes[1] > 0.9 * changes[0]  # it does not come from better weights


def test_each_step_is_the_best_answer_to_what_was_rounded() -> None:
    """With scales that are fixed, against the formula of the paper: least squares over all columns that are left."""
    hessian = (lambda x: x.T @ x / len(x))(correlated(32, 500)).astype(np.float64)
    damped = hessian / hessian.diagonal().mean() + 0.01 * np.eye(32)
    weight = matrix(5, 32)
    packed = gptq(weight, 4, 32, "F32", Guide.of(hessian.astype(np.float32)))
    scale, bias = packed.scales.astype(np.float64), packed.biases.astype(np.float64)
    left = weight.astype(np.float64)
    for k in range(32):
        code = np.clip(np.rint((left[:, k] - bias[:, 0]) / scale[:, 0]), 0, 15)
        change = code * scale[:, 0] + bias[:, 0] - left[:, k]
        rest = damped[k + 1 :, k + 1 :]
        # argmin over d of (change, d) H (change, d)ᵀ
        left[:, k + 1 :] -= np.outer(change, np.linalg.solve(rest, damped[k + 1 :, k])) if k < 31 else 0
        left[:, k] += change
    assert np.mean(np.abs(read(packed, 4, 32) - left) < 1e-4) > 0.99  # but for a tie that fell the other way


def test_columns_without_correlation_are_rounded_as_ever() -> None:
    weight = matrix()
    guided = gptq(weight, 4, 64, "BF16", Guide.of(np.eye(COLUMNS, dtype=np.float32)))
    plain = search(weight, 4, 64, "BF16", np.ones(COLUMNS, np.float32))
    assert np.array_equal(guided.scales, plain.scales) and np.array_equal(guided.weight, plain.weight)


@pytest.mark.parametrize("kind", ["nothing", "few texts", "dead columns", "one value"])
def test_hessians_that_have_no_inverse(kind: str) -> None:
    x = {
        "nothing": np.zeros((4, COLUMNS)),
        "few texts": correlated(tokens=3),
        "dead columns": correlated() * (np.arange(COLUMNS) % 3 > 0),
        "one value": np.ones((50, COLUMNS)) * 1e4,
    }[kind].astype(np.float32)
    weight = matrix()
    packed = gptq(weight, 4, 64, "F32", Guide.of(x.T @ x / len(x)))
    back = read(packed, 4, 64)
    assert np.isfinite(back).all()
    assert (
        np.square((back - weight) @ x.T).mean()
        <= np.square((read(search(weight, 4, 64, "F32"), 4, 64) - weight) @ x.T).mean()
    )


def test_the_result_does_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    x = correlated()
    guide = Guide.of(x.T @ x / len(x))
    whole = gptq(matrix(), 3, 64, "F32", guide)
    monkeypatch.setattr(module, "_ROWS", 17)
    cut = gptq(matrix(), 3, 64, "F32", guide)
    assert np.mean(cut.weight == whole.weight) > 0.98  # sums of a product may be made in another order
    assert np.square(read(cut, 3, 64) - read(whole, 3, 64)).mean() < 1e-7


def test_weights_that_are_no_numbers() -> None:
    weight = matrix()
    weight[3, 200] = np.nan
    with pytest.raises(NotFinite):
        gptq(weight, 4, 64, "BF16", Guide.of(np.eye(COLUMNS, dtype=np.float32)))

"""Products with quantized matrices, however many rows there are, against float64."""

from __future__ import annotations

import pytest

from qwen_mlx.checkpoints.stored import StoredMatrix
from qwen_mlx.models import packed
from qwen_mlx.models.spec import QuantizationSpec

import mlx.core as mx  # isort: skip
import numpy as np

FORMS = {
    "4 bits": QuantizationSpec(4, 64),
    "3 bits": QuantizationSpec(3, 32),
    "mxfp4": QuantizationSpec(4, 32, "mxfp4"),
}


def stored(form: QuantizationSpec, rows: int = 96, columns: int = 64, bias: bool = False) -> StoredMatrix:
    weight = mx.random.normal((rows, columns), key=mx.random.key(0))
    parts = mx.quantize(weight, form.group_size, form.bits, mode=form.mode)
    added = mx.random.normal((rows,), key=mx.random.key(1)) if bias else None
    return StoredMatrix(parts[0], parts[1], parts[2] if len(parts) > 2 else None, added, form)


def expected(matrix: StoredMatrix, x: mx.array) -> np.ndarray:
    plain = np.array(matrix.expand(mx.float32).weight).astype(np.float64)
    y = np.array(x.astype(mx.float32)).astype(np.float64) @ plain.T
    return y if matrix.bias is None else y + np.array(matrix.bias)


@pytest.mark.parametrize("rows", [1, 3, 4, 33])
@pytest.mark.parametrize("form", FORMS)
def test_a_layer(form: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = stored(FORMS[form], bias=True)
    x = mx.random.normal((2, rows, 64), key=mx.random.key(2))
    for block in (packed._BLOCK, 64 * 40):  # in one piece, and 40 rows of the matrix at a time
        monkeypatch.setattr(packed, "_BLOCK", block)
        np.testing.assert_allclose(np.array(matrix.linear()(x)), expected(matrix, x), atol=2e-5)


def test_a_head() -> None:
    matrix = stored(FORMS["4 bits"])
    x = mx.random.normal((5, 64), key=mx.random.key(2))
    np.testing.assert_allclose(np.array(matrix.embedding().as_linear(x)), expected(matrix, x), atol=2e-5)


@pytest.mark.parametrize("rows", [1, 9])
def test_half_precision_in_and_out_but_not_between(rows: int) -> None:
    matrix = stored(FORMS["4 bits"]).cast(mx.bfloat16)
    x = mx.random.normal((rows, 64), key=mx.random.key(2)).astype(mx.bfloat16)
    y = matrix.linear()(x)
    assert y.dtype == mx.bfloat16
    wide = StoredMatrix(
        matrix.weight,
        matrix.scales.astype(mx.float32),  # type: ignore[union-attr]
        matrix.biases.astype(mx.float32),  # type: ignore[union-attr]
        quantization=matrix.quantization,
    )
    # One rounding to bfloat16, at the end.
    np.testing.assert_allclose(np.array(y.astype(mx.float32)), expected(wide, x), rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 9])
def test_gradient(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_BLOCK", 64 * 40)
    matrix = stored(FORMS["4 bits"])
    layer = matrix.linear()
    x = mx.random.normal((rows, 64), key=mx.random.key(2))
    found = mx.grad(lambda x: layer(x).sum())(x)
    plain = np.array(matrix.expand(mx.float32).weight).sum(axis=0)
    np.testing.assert_allclose(np.array(found), np.broadcast_to(plain, (rows, 64)), atol=2e-5)

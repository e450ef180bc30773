"""Products with packed matrices have the gradients of the matrices they stand for, and do not keep these."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_mlx.models import packed
from qwen_mlx.models.spec import QuantizationSpec

import mlx.core as mx  # isort: skip

FORMS = {
    "affine": QuantizationSpec(4, 32),
    "affine 6": QuantizationSpec(6, 64),
    "mxfp4": QuantizationSpec(4, 32, "mxfp4"),
    "nvfp4": QuantizationSpec(4, 16, "nvfp4"),
    "mxfp8": QuantizationSpec(8, 32, "mxfp8"),
}


@pytest.fixture(autouse=True)
def unpacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU with a fast BLAS, in several blocks."""
    monkeypatch.setattr(packed, "unpacks", lambda rows: True)
    monkeypatch.setattr(packed, "_BLOCK", 7 * 128)


@pytest.mark.parametrize("name", FORMS)
def test_gradients(name: str) -> None:
    form = FORMS[name]
    options: dict[str, Any] = {"group_size": form.group_size, "bits": form.bits, "mode": form.mode}
    x = mx.random.normal((5, 128), key=mx.random.key(1))
    into = mx.random.normal((5, 50), key=mx.random.key(2))
    weight, *scaling = mx.quantize(mx.random.normal((50, 128), key=mx.random.key(3)), **options)

    def ours(x: mx.array, *scaling: mx.array) -> mx.array:
        biases = scaling[1] if len(scaling) > 1 else None
        return (packed.multiply(x, weight, scaling[0], biases, form) * into).sum()

    def plain(x: mx.array, *scaling: mx.array) -> mx.array:
        return (x @ mx.dequantize(weight, *scaling, **options, dtype=mx.float32).T * into).sum()

    arguments = tuple(range(1 + len(scaling))) if form.mode == "affine" else (0,)
    found, expected = (mx.value_and_grad(f, argnums=arguments)(x, *scaling) for f in (ours, plain))
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    pairs = zip(found[1], expected[1]) if isinstance(found[1], tuple) else [(found[1], expected[1])]
    for a, b in pairs:
        assert mx.abs(a - b).max().item() <= 1e-5 * mx.abs(b).max().item()

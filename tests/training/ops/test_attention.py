"""Attention within texts against a softmax with a mask over everything."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_mlx.training.ops import attention, segment_attention
from qwen_mlx.training.ops.attention import Reach

import mlx.core as mx  # isort: skip
import numpy as np

SIZE, SCALE = 16, 0.3


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", 16)
    attention._attention.cache_clear()
    yield
    attention._attention.cache_clear()


def starts_of(*rows: list[int]) -> mx.array:
    """Rows of texts with these lengths."""
    return mx.array(np.stack([np.repeat(np.cumsum([0, *row[:-1]]), row) for row in rows]).astype(np.int32))


def masked(
    q: mx.array, k: mx.array, v: mx.array, starts: mx.array, window: int | None, dtype: mx.Dtype = mx.float32
) -> mx.array:
    """Every score, and a mask."""
    repeats = q.shape[1] // k.shape[1]
    q, k, v = (x.astype(dtype) for x in (q, mx.repeat(k, repeats, axis=1), mx.repeat(v, repeats, axis=1)))
    place = mx.arange(q.shape[2])
    visible = (place <= place[:, None]) & (place >= starts[..., None])
    if window is not None:
        visible = visible & (place > place[:, None] - window)
    scores = mx.where(visible[:, None], q @ k.swapaxes(-1, -2) * SCALE, -mx.inf)
    return mx.softmax(scores, axis=-1) @ v


def inputs(heads: int, kv_heads: int, batch: int, length: int) -> tuple[mx.array, ...]:
    keys = mx.random.split(mx.random.key(length), 4)
    counts = (heads, kv_heads, kv_heads, heads)
    return tuple(mx.random.normal((batch, n, length, SIZE), key=key) for n, key in zip(counts, keys))


CASES = {
    "one text": (starts_of([50]), 4, 2, None),
    "texts": (starts_of([7, 20, 23], [50]), 4, 2, None),
    "no grouping": (starts_of([16, 16, 18]), 3, 3, None),
    "one key head": (starts_of([33]), 6, 1, None),
    "window": (starts_of([7, 20, 23], [50]), 4, 2, 5),
    "window over blocks": (starts_of([64]), 4, 2, 20),
    "single tokens": (starts_of([1] * 10 + [23]), 4, 2, 9),
    "a row of one": (starts_of([1]), 2, 1, None),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reach", ["unknown", "known"])
def test_values_and_gradients(name: str, reach: str) -> None:
    starts, heads, kv_heads, window = CASES[name]
    batch, length = starts.shape
    q, k, v, into = inputs(heads, kv_heads, batch, length)
    longest = int((mx.arange(length) - starts).max().item()) + 1
    known = Reach.of_texts(length, longest) if reach == "known" else None

    def gradients(compute: Any) -> Any:
        return mx.value_and_grad(lambda *x: (compute(*x) * into).sum(), argnums=(0, 1, 2))(q, k, v)

    found = gradients(lambda q, k, v: segment_attention(q, k, v, starts, SCALE, window, known))
    expected = gradients(lambda q, k, v: masked(q, k, v, starts, window))
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-4, abs=1e-4)
    for a, b in zip(found[1], expected[1]):
        assert mx.abs(a - b).max().item() <= 1e-5 * max(mx.abs(b).max().item(), 1.0)
    value = segment_attention(q, k, v, starts, SCALE, window, known)
    assert mx.allclose(value, masked(q, k, v, starts, window), atol=1e-5)


def test_half_precision_has_a_softmax_in_float32() -> None:
    starts = starts_of([20, 30])
    q, k, v, _ = (x.astype(mx.bfloat16) for x in inputs(4, 2, 1, 50))
    found = segment_attention(q * 4, k, v, starts, SCALE)
    assert found.dtype == mx.bfloat16
    exact = masked(q * 4, k, v, starts, None)
    assert mx.abs(found - exact).max().item() < 0.06
    gradient = mx.grad(lambda k: segment_attention(q, k, v, starts, SCALE).astype(mx.float32).sum())(k)
    assert gradient.dtype == mx.bfloat16


def test_huge_scores_stay_finite() -> None:
    starts = starts_of([20, 30])
    q, k, v, _ = inputs(4, 2, 1, 50)
    found, gradient = mx.value_and_grad(lambda q: segment_attention(q * 1e4, k, v, starts, SCALE).sum())(q)
    assert mx.isfinite(found).item() and mx.isfinite(gradient).all().item()


def test_scores_are_computed_where_texts_reach() -> None:
    """Blocks of 16 queries: keys are read from where the text of their first query may begin."""
    assert Reach.whole(40).first == (0, 0, 0)
    assert Reach.of_texts(64, 20).first == (0, 0, 13, 29)
    assert Reach.of_texts(64, 64).within(10).first == (0, 7, 23, 39)
    assert Reach.of_texts(64, 5).within(None).first == (0, 12, 28, 44)


def test_memory_grows_with_the_length_not_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", 32)
    attention._attention.cache_clear()

    def peak(compute: Any, length: int) -> int:
        q, k, v, _ = inputs(8, 4, 1, length)
        starts = mx.zeros((1, length), dtype=mx.int32)
        mx.eval(q, k, v, starts)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(mx.grad(lambda q, k, v: (compute(q, k, v, starts) ** 2).sum(), argnums=(0, 1, 2))(q, k, v))
        return mx.get_peak_memory() - before

    def ours(q: mx.array, k: mx.array, v: mx.array, starts: mx.array) -> mx.array:
        return segment_attention(q, k, v, starts, SCALE)

    def theirs(q: mx.array, k: mx.array, v: mx.array, starts: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=SCALE, mask="causal")

    assert peak(ours, 512) < peak(theirs, 512) / 3
    assert peak(ours, 512) < 2.8 * peak(ours, 256)

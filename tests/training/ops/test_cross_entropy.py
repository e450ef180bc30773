"""The loss over chunks is the loss over all logits, and so are its gradients, for every kind of head."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_mlx.models.packed import PackedEmbedding, PackedLinear
from qwen_mlx.training.ops import cross_entropy, linear_cross_entropy, linear_log_probabilities
from qwen_mlx.training.ops.cross_entropy import eager_cross_entropy

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import mlx.utils
import numpy as np

TOKENS, SIZE, WORDS = 37, 64, 203
HIDDEN = mx.random.normal((TOKENS, SIZE), key=mx.random.key(1))
TARGETS = mx.random.randint(0, WORDS, (TOKENS,), key=mx.random.key(2))
WEIGHTS = mx.random.uniform(0, 2, (TOKENS,), key=mx.random.key(3)) * (mx.arange(TOKENS) % 3 != 0)


def packed(module: Any, kind: type, **options: Any) -> Any:
    quantized = module.to_quantized(**options)
    quantized.__class__ = kind
    return quantized


def head(name: str) -> Any:
    mx.random.seed(4)
    module: Any = nn.Linear(SIZE, WORDS, bias=False) if "linear" in name else nn.Embedding(WORDS, SIZE)
    module.weight = mx.random.normal(module.weight.shape) / 4
    options = {
        "q4": {"group_size": 32, "bits": 4},
        "q8": {"group_size": 64, "bits": 8},
        "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
        "nvfp4": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
    }.get(name.partition(" ")[0])
    if options is not None:
        return packed(module, PackedLinear if "linear" in name else PackedEmbedding, **options)
    return module


KINDS = ["linear", "tied", "q4 linear", "q4 tied", "q8 tied", "mxfp4 linear", "nvfp4 tied"]


def gradients(loss: Any, head: Any, hidden: mx.array = HIDDEN) -> tuple[float, list[mx.array]]:
    """The loss, and its gradients in the hidden states and in what of the head is trainable."""

    def of(hidden: mx.array, parameters: Any) -> mx.array:
        head.update(parameters)
        return loss(hidden, head)

    parameters = head.trainable_parameters()
    value, (into_hidden, into_head) = mx.value_and_grad(of, argnums=(0, 1))(hidden, parameters)
    head.update(parameters)
    flat: Any = mlx.utils.tree_flatten(into_head)
    return value.item(), [into_hidden, *(g for _, g in flat)]


def assert_close(found: tuple[float, list[mx.array]], expected: tuple[float, list[mx.array]]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert len(found[1]) == len(expected[1])
    for a, b in zip(found[1], expected[1]):
        assert mx.abs(a - b).max().item() <= 1e-5 * max(mx.abs(b).max().item(), 1e-3)


def eager(hidden: mx.array, head: Any) -> mx.array:
    return eager_cross_entropy(hidden, head, TARGETS, WEIGHTS)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("chunk", [8, 37, 500, 1, None])
def test_chunks_are_the_whole(name: str, chunk: int | None) -> None:
    own = head(name)  # the matrix of a float head is trained too
    if "scales" in own:
        own.freeze()
    found = gradients(lambda h, m: linear_cross_entropy(h, m, TARGETS, WEIGHTS, chunk), own)
    assert len(found[1]) == (1 if "scales" in own else 2)
    assert_close(found, gradients(eager, own))


def test_pieces_of_a_chunk_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "_PIECE", 3 * WORDS)
    own = head("tied")
    assert_close(gradients(lambda h, m: linear_cross_entropy(h, m, TARGETS, WEIGHTS, 10), own), gradients(eager, own))


def test_a_wrapped_head_learns() -> None:
    """An adapter on the head: all of its parameters get their gradient."""

    class Adapted(nn.Module):
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base = base
            self.a = mx.random.normal((SIZE, 4), key=mx.random.key(8))
            self.b = mx.random.normal((4, WORDS), key=mx.random.key(9)) / 8
            base.freeze()

        def __call__(self, x: mx.array) -> mx.array:
            return self.base(x) + (x @ self.a) @ self.b

    own = Adapted(head("q4 linear"))
    found = gradients(lambda h, m: linear_cross_entropy(h, m, TARGETS, WEIGHTS, 8), own)
    assert len(found[1]) == 3
    assert_close(found, gradients(eager, own))


def test_recomputed_and_compiled_neighbours() -> None:
    """Between a function that is recomputed and the end of a loss, compiled: the same gradients."""
    own = head("tied")
    matrix = mx.random.normal((SIZE, SIZE), key=mx.random.key(5)) / 8

    def loss(matrix: mx.array, of: Any) -> mx.array:
        hidden = mx.checkpoint(lambda m: mx.tanh(HIDDEN @ m))(matrix)
        return 3.0 * of(hidden) ** 0.5

    def plain(matrix: mx.array) -> mx.array:
        return loss(matrix, lambda h: eager_cross_entropy(h, own, TARGETS, WEIGHTS))

    def chunked(matrix: mx.array) -> mx.array:
        return loss(matrix, lambda h: linear_cross_entropy(h, own, TARGETS, WEIGHTS, 8))

    expected, gradient = mx.value_and_grad(plain)(matrix)
    for differentiated in (mx.value_and_grad(chunked), mx.compile(mx.value_and_grad(chunked))):
        value, found = differentiated(matrix)
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)
        assert mx.abs(found - gradient).max().item() <= 1e-5 * mx.abs(gradient).max().item()


def test_half_precision_is_summed_in_float32() -> None:
    own = head("linear")
    exact = eager(HIDDEN, own).item()
    own.weight = own.weight.astype(mx.bfloat16)
    hidden = HIDDEN.astype(mx.bfloat16)
    found = linear_cross_entropy(hidden, own, TARGETS, WEIGHTS, 8)
    assert found.dtype == mx.float32
    assert found.item() == pytest.approx(exact, rel=5e-3)
    gradient = mx.grad(lambda h: linear_cross_entropy(h, own, TARGETS, WEIGHTS, 8))(hidden)
    assert gradient.dtype == mx.bfloat16


def test_large_logits_and_unlikely_targets_stay_finite() -> None:
    own = head("linear")
    found = gradients(lambda h, m: linear_cross_entropy(h, m, TARGETS, WEIGHTS, 8), own, HIDDEN * 1000)
    assert_close(found, gradients(eager, own, HIDDEN * 1000))
    assert np.isfinite(found[0]) and found[0] > 1000


def test_nothing_to_learn_costs_nothing() -> None:
    own = head("tied")
    nothing = mx.zeros_like(WEIGHTS)
    loss, found = gradients(lambda h, m: linear_cross_entropy(h, m, TARGETS, nothing, 8), own)
    assert loss == 0 and all(mx.abs(g).max().item() == 0 for g in found)


@pytest.mark.parametrize("name", ["tied", "q4 linear"])
def test_log_probabilities_of_tokens(name: str) -> None:
    """And the gradient of something that is no sum of them."""
    own = head(name)
    if "scales" in own:
        own.freeze()

    def chunked(hidden: mx.array, head: Any) -> mx.array:
        return (linear_log_probabilities(hidden, head, TARGETS, 8) ** 2 * WEIGHTS).sum()

    def whole(hidden: mx.array, head: Any) -> mx.array:
        logits = head.as_linear(hidden) if hasattr(head, "as_linear") else head(hidden)
        chosen = mx.take_along_axis(nn.log_softmax(logits, axis=-1), TARGETS[:, None], axis=-1)[:, 0]
        return (chosen**2 * WEIGHTS).sum()

    assert_close(gradients(chunked, own), gradients(whole, own))


def test_logits_of_all_tokens_never_exist() -> None:
    """Four times the tokens need no more memory, but for what is as long as they are; all at once would."""
    words, chunk = 8_000, 64
    own = nn.Embedding(words, 16)
    own.freeze()

    def peak(tokens: int, loss: Any) -> int:
        hidden, targets = mx.random.normal((tokens, 16)), mx.random.randint(0, words, (tokens,))
        mx.eval(own.parameters(), hidden, targets)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(mx.value_and_grad(lambda h: loss(h, own, targets, mx.ones((tokens,))))(hidden))
        return mx.get_peak_memory() - before

    def chunked(*arguments: Any) -> mx.array:
        return linear_cross_entropy(*arguments, chunk)

    # How far MLX plans ahead depends on how busy the machine is, so there is room for that.
    assert peak(1024, chunked) < 1.7 * peak(256, chunked)
    assert peak(1024, chunked) < peak(1024, eager_cross_entropy) / 3

"""Texts in rows, and what a decoder gives of each text alone: written without the code that is tested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen_mlx.models import Decoder

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import mlx.utils
import numpy as np

VOCABULARY = 97
Arrays = dict[str, mx.array]
Gradients = dict[str, mx.array]


def texts_of(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCABULARY, n).astype(np.int32) for n in lengths]


def weights_of(text: np.ndarray) -> np.ndarray:
    """Of predicting each token of a text: every third is not learnt, one counts double."""
    weights = np.ones(len(text), np.float32)
    weights[::3] = 0
    weights[1:2] = 2
    weights[0] = 0
    return weights


def in_rows(rows: Sequence[Sequence[np.ndarray]], length: int) -> Arrays:
    """Texts one after the other in rows of `length` tokens; the rest is padding."""
    shape = len(rows), length
    ids, targets, positions = (np.zeros(shape, np.int32) for _ in range(3))
    weights = np.zeros(shape, np.float32)
    starts = np.tile(np.arange(length, dtype=np.int32), (len(rows), 1))
    for number, row in enumerate(rows):
        begin = 0
        for text in row:
            end = begin + len(text)
            ids[number, begin:end] = text
            targets[number, begin : end - 1] = text[1:]
            weights[number, begin : end - 1] = weights_of(text)[1:]
            positions[number, begin:end] = np.arange(len(text))
            starts[number, begin:end] = begin
            begin = end
    arrays = {"ids": ids, "targets": targets, "weights": weights, "positions": positions, "starts": starts}
    return {name: mx.array(array) for name, array in arrays.items()}


def loss_of_each(decoder: Decoder, texts: Sequence[np.ndarray]) -> mx.array:
    """The loss of every text by itself, with all logits, summed up. What follows a text changes nothing in it."""
    total = mx.zeros(())
    for text in texts:
        if len(text) < 2:
            continue
        read = np.concatenate([text, np.zeros(max(0, 8 - len(text)), np.int32)])  # below 8 linear attention is a kernel
        logits = decoder(mx.array(read)[None])[0, : len(text) - 1]
        losses = nn.losses.cross_entropy(logits, mx.array(text[1:]))
        total = total + (losses * mx.array(weights_of(text)[1:])).sum()
    return total


def gradients_of(decoder: Decoder, loss: Any) -> tuple[float, Gradients]:
    """`loss(decoder)`, and its gradient in each trainable parameter by name."""
    value, tree = nn.value_and_grad(decoder, loss)(decoder)
    flat: Any = mlx.utils.tree_flatten(tree)
    return value.item(), dict(flat)


def assert_same(found: tuple[float, Gradients], expected: tuple[float, Gradients], tolerance: float = 2e-5) -> None:
    """Relative to the loss, and to the largest value of each gradient (or of all, where it is nothing)."""
    assert abs(found[0] - expected[0]) <= tolerance * max(1.0, abs(expected[0]))
    assert found[1].keys() == expected[1].keys()
    largest = max(mx.abs(g).max().item() for g in expected[1].values())
    for name, gradient in expected[1].items():
        size = max(mx.abs(gradient).max().item(), 1e-4 * largest)
        error = mx.abs(found[1][name] - gradient).max().item()
        assert error <= tolerance * size, f"{name}: {error:.2g} of {size:.2g}"

"""Every supported model gives the logits that transformers gives, also for texts that share a row with others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qwen_mlx import load
from qwen_mlx.errors import UsageError
from qwen_mlx.training.ops import hidden_states
from tests.parity import ParityCase, parity_cases

import mlx.core as mx  # isort: skip


def in_one_row(ids: np.ndarray) -> tuple[mx.array, mx.array, mx.array]:
    """ids, positions and starts of the beginning of a text, the text itself, and padding."""
    text = ids[0]
    lengths = [max(1, len(text) // 3), len(text)]
    joined = np.concatenate([text[: lengths[0]], text, [0, 0]])
    starts = np.array([0] * lengths[0] + [lengths[0]] * lengths[1] + [sum(lengths), sum(lengths) + 1])
    positions = np.arange(len(joined)) - starts
    ids, positions, starts = (mx.array(x.astype(np.int32))[None] for x in (joined, positions, starts))
    return ids, positions, starts


@pytest.mark.parametrize("case", parity_cases(), ids=lambda case: case.name)
def test_logits(case: ParityCase, tmp_path: Path) -> None:
    decoder = load(case.build(tmp_path)).decoder
    ids = case.arrays["input_ids"]
    row = in_one_row(ids)
    if any(getattr(layer.mixer, "dual_chunk", None) for layer in decoder.spec.layers):
        strides = {layer.mixer.dual_chunk.stride for layer in decoder.spec.layers}
        if row[0].shape[1] > min(strides):
            with pytest.raises(UsageError, match="Dual Chunk"):
                hidden_states(decoder, *row)
            return
    hidden, _ = hidden_states(decoder, *row, longest=ids.shape[1])
    first = max(1, ids.shape[1] // 3)
    logits = np.array(decoder.logits(hidden)[:, first : first + ids.shape[1]])
    assert np.abs(logits - case.arrays["logits"]).max() <= case.tolerance

"""What a step needs besides the weights, in bytes."""

from __future__ import annotations

import pytest

from qwen_mlx.training.ops import sft_loss
from tests.models import tiny
from tests.training.ops.rows import in_rows, texts_of

import mlx.core as mx  # isort: skip
import mlx.nn as nn

CONFIGS = {
    "attention": tiny.QWEN3 | {"num_hidden_layers": 8},
    "linear attention": tiny.QWEN3_5 | {"num_hidden_layers": 8, "layer_types": ["linear_attention"] * 8},
    "experts": tiny.QWEN3_MOE | {"num_hidden_layers": 8, "mlp_only_layers": []},
}


def peak(name: str, length: int, checkpoint_every: int) -> int:
    """Of a step that trains one norm of each layer."""
    decoder = tiny.decoder(CONFIGS[name])
    decoder.freeze()
    for layer in decoder.layers:
        layer.input_layernorm.unfreeze()
    decoder.train()
    rows = in_rows([texts_of([length])], length)
    mx.eval(decoder.parameters(), rows)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(nn.value_and_grad(decoder, lambda m: sft_loss(m, rows, checkpoint_every=checkpoint_every)[0])(decoder))
    return mx.get_peak_memory() - before


@pytest.mark.parametrize("name", CONFIGS)
def test_recomputing_layers_needs_less_and_length_counts_once(name: str) -> None:
    kept = peak(name, 256, 0)
    assert peak(name, 256, 1) < 0.9 * kept
    assert kept < 2.6 * peak(name, 128, 0)
    assert kept < 64 << 20  # experts of which somebody read back which were chosen take a gigabyte

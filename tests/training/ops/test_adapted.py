"""Adapters around the modules of a decoder are trained in packed rows, and recomputed layers drop what they dropped."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_mlx.adapters import AdapterConfig, attach
from qwen_mlx.models import Decoder
from qwen_mlx.training.ops import sft_loss
from tests.models import tiny
from tests.training.ops.rows import assert_same, gradients_of, in_rows, loss_of_each, texts_of
from tests.training.ops.test_packed_texts import packed_in_four_bits

import mlx.core as mx  # isort: skip
import mlx.utils

TEXTS = texts_of([9, 17, 5, 12])
ROWS = in_rows([TEXTS], 47)


def adapted(config: dict[str, Any], four_bits: bool = False, **options: Any) -> Decoder:
    """A decoder whose only trainable parameters are those of an adapter that is not zero."""
    decoder = tiny.decoder(config)
    if four_bits:
        packed_in_four_bits(decoder)
    attach(decoder, AdapterConfig(**{"method": "lora", "rank": 4, "alpha": 8, "targets": ("all-linear",), **options}))
    key = mx.random.key(3)
    changed = []
    for name, array in mlx.utils.tree_flatten(decoder.trainable_parameters()):
        key, own = mx.random.split(key)
        changed.append((name, array + 0.05 * mx.random.normal(array.shape, key=own)))
    decoder.update(mlx.utils.tree_unflatten(changed))
    decoder.train()
    return decoder


@pytest.mark.parametrize("four_bits", [False, True], ids=["float", "4 bits"])
@pytest.mark.parametrize("name", ["QWEN3", "QWEN3_MOE", "QWEN3_NEXT"])
def test_packed_is_separate(name: str, four_bits: bool) -> None:
    decoder = adapted(getattr(tiny, name), four_bits)
    expected = gradients_of(decoder, lambda m: loss_of_each(m, TEXTS))
    assert all("lora" in key for key in expected[1])
    for every in (0, 1):
        assert_same(gradients_of(decoder, lambda m, k=every: sft_loss(m, ROWS, checkpoint_every=k)[0]), expected)


@pytest.mark.parametrize("options", [{"method": "dora"}, {"modules_to_save": ("embed_tokens", "lm_head")}])
def test_dora_and_whole_matrices(options: dict[str, Any]) -> None:
    """The embedding of a tied model is its head too, and is trained as both."""
    decoder = adapted(tiny.QWEN3, **options)
    expected = gradients_of(decoder, lambda m: loss_of_each(m, TEXTS))
    assert_same(gradients_of(decoder, lambda m: sft_loss(m, ROWS, checkpoint_every=1, chunk=16)[0]), expected)


@pytest.mark.parametrize("name", ["QWEN3", "QWEN3_MOE"])
def test_recomputed_layers_drop_the_same(name: str) -> None:
    decoder = adapted(getattr(tiny, name), dropout=0.3)

    def of(every: int, seed: int) -> Any:
        mx.random.seed(seed)
        return gradients_of(decoder, lambda m: sft_loss(m, ROWS, checkpoint_every=every)[0])

    expected = of(0, 1)
    assert_same(of(1, 1), expected)
    assert of(1, 2)[0] != expected[0]
    decoder.eval()
    assert of(1, 2)[0] == of(1, 1)[0] != expected[0]


def test_compiled_dropout_moves_on_and_can_be_repeated() -> None:
    decoder = adapted(tiny.QWEN3, dropout=0.3)
    weights = decoder.trainable_parameters()
    random: Any = mx.random.state

    def loss(weights: Any) -> mx.array:
        decoder.update(weights)
        return sft_loss(decoder, ROWS, checkpoint_every=1)[0]

    step = mx.compile(mx.value_and_grad(loss), inputs=[random], outputs=[random])
    mx.random.seed(5)
    values = [step(weights)[0].item() for _ in range(2)]
    decoder.update(weights)
    assert values[0] != values[1]
    mx.random.seed(5)
    value, tree = step(weights)
    assert value.item() == values[0]
    decoder.update(weights)
    mx.random.seed(5)
    expected = gradients_of(decoder, lambda m: sft_loss(m, ROWS)[0])
    flat: Any = mlx.utils.tree_flatten(tree)
    assert_same((value.item(), dict(flat)), expected)

"""What the routers of the experts say can be had beside the hidden states, for a loss that balances them."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_mlx.models import Decoder
from qwen_mlx.models.positions import positions
from tests.models import tiny

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import numpy as np

SPARSE = {
    "qwen2_moe": tiny.QWEN2_MOE,
    "qwen3_moe": tiny.QWEN3_MOE,  # its second layer is dense
    "qwen3_next": tiny.QWEN3_NEXT | {"mlp_only_layers": []},
}
IDS = mx.random.randint(0, 97, (2, 9), key=mx.random.key(5))


def by_hand(decoder: Decoder, ids: mx.array) -> list[np.ndarray]:
    """Layer after layer; the router is a product with the normed input, in numpy."""
    x, found = decoder.embed_tokens(ids), []
    for layer in decoder.layers:
        mixer = layer.self_attn if "self_attn" in layer else layer.linear_attn
        x = x + mixer(layer.input_layernorm(x), positions(ids.shape[1], None, None), None)
        normed = layer.post_attention_layernorm(x)
        if "gate" in layer.mlp:
            rows = np.array(normed).reshape(-1, normed.shape[-1])
            found.append(rows @ np.array(layer.mlp.gate.weight).T)
        x = x + layer.mlp(normed)
    return found


@pytest.mark.parametrize("name", SPARSE)
def test_they_are_products_of_what_the_experts_read(name: str) -> None:
    decoder = tiny.decoder(SPARSE[name])
    hidden, logits = decoder.forward(IDS)
    expected = by_hand(decoder, IDS)
    assert len(logits) == len(expected) == {"qwen3_moe": 1}.get(name, 2)
    for found, hand in zip(logits, expected):
        assert found.shape == (IDS.size, 5)
        np.testing.assert_allclose(np.array(found), hand, atol=1e-4)
    assert mx.array_equal(hidden, decoder.hidden_states(IDS))
    assert mx.array_equal(decoder.logits(hidden), decoder(IDS))


def test_a_dense_model_has_none() -> None:
    decoder = tiny.decoder(tiny.QWEN3)
    hidden, logits = decoder.forward(IDS)
    assert logits == []
    assert mx.array_equal(hidden, decoder.hidden_states(IDS))


@pytest.mark.parametrize("name", SPARSE)
def test_with_a_cache_they_are_those_of_the_new_tokens(name: str) -> None:
    decoder = tiny.decoder(SPARSE[name])
    whole = [a.reshape(2, 9, -1) for a in decoder.forward(IDS).router_logits]
    cache = decoder.make_cache()
    for start, end in ((0, 4), (4, 5), (5, 9)):
        part = decoder.forward(IDS[:, start:end], cache).router_logits
        for found, expected in zip(part, whole):
            assert mx.allclose(found.reshape(2, end - start, -1), expected[:, start:end], atol=1e-4)


def loss_of(decoder: Decoder, ids: mx.array) -> mx.array:
    """Something of the logits, and the mean square of the routers' log-sum-exp (the z-loss of ST-MoE)."""
    hidden, routers = decoder.forward(ids)
    return (decoder.logits(hidden) ** 2).mean() + sum((mx.logsumexp(a, axis=-1) ** 2).mean() for a in routers)


def shifted(decoder: Decoder, direction: dict[str, Any], step: float) -> float:
    """The loss after a step along `direction`."""
    import mlx.utils

    before = decoder.parameters()
    decoder.update(mlx.utils.tree_map(lambda p, d: p + step * d, before, direction))
    loss = loss_of(decoder, IDS).item()
    decoder.update(before)
    return loss


@pytest.mark.parametrize("name", SPARSE)
def test_a_loss_of_them_can_be_differentiated(name: str) -> None:
    """Along the gradient the loss rises as fast as the gradient is long."""
    import mlx.utils

    decoder = tiny.decoder(SPARSE[name])
    _, gradient = nn.value_and_grad(decoder, loss_of)(decoder, IDS)
    flat = dict(mlx.utils.tree_flatten(gradient))
    square = sum((g * g).sum().item() for g in flat.values())
    assert (flat["layers.0.mlp.gate.weight"] ** 2).sum().item() > 0
    step = 1e-4 / square**0.5  # short, or another expert is chosen
    slope = (shifted(decoder, gradient, step) - shifted(decoder, gradient, -step)) / (2 * step)
    assert slope == pytest.approx(square, rel=0.02)


@pytest.mark.parametrize("name", SPARSE)
def test_compiled_they_are_the_same(name: str) -> None:
    decoder = tiny.decoder(SPARSE[name])
    compiled = mx.compile(lambda ids: decoder.forward(ids).router_logits, inputs=decoder.state)
    for found, expected in zip(compiled(IDS), decoder.forward(IDS).router_logits):
        assert mx.allclose(found, expected, atol=1e-5)

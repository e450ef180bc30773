"""Texts that share a row are trained as if each were alone, in every family, recomputed, compiled or not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from qwen_mlx.errors import UsageError
from qwen_mlx.models import Decoder
from qwen_mlx.training.ops import SegmentStore, attention, hidden_states, sft_loss
from tests.models import tiny
from tests.training.ops.rows import Arrays, assert_same, gradients_of, in_rows, loss_of_each, texts_of

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import numpy as np

FAMILIES = {
    "qwen2": tiny.QWEN2,
    "qwen2_windows": tiny.QWEN2
    | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1, "num_hidden_layers": 2},
    "qwen3": tiny.QWEN3,
    "qwen2_moe": tiny.QWEN2_MOE,
    "qwen3_moe": tiny.QWEN3_MOE,
    "qwen3_next": tiny.QWEN3_NEXT,
    "qwen3_5": tiny.QWEN3_5,
}
TEXTS = texts_of([9, 17, 1, 5, 33, 2])
ROWS = in_rows([TEXTS[:4], TEXTS[4:]], 38)  # the chunks of linear attention end within texts


def packed_loss(decoder: Decoder, rows: Arrays = ROWS, **options: Any) -> mx.array:
    return sft_loss(decoder, rows, **options)[0]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of several blocks of queries."""
    monkeypatch.setattr(attention, "BLOCK", 16)
    attention._attention.cache_clear()
    yield
    attention._attention.cache_clear()


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_is_separate(name: str) -> None:
    decoder = tiny.decoder(FAMILIES[name])
    decoder.train()
    expected = gradients_of(decoder, lambda m: loss_of_each(m, TEXTS))
    assert all(mx.abs(g).max().item() > 0 for g in expected[1].values())
    for options in ({}, {"checkpoint_every": 1, "longest": 33}):
        assert_same(gradients_of(decoder, lambda m, o=options: packed_loss(m, **o)), expected)


def test_packed_without_borders_is_not() -> None:
    """So that the test above can fail."""
    decoder = tiny.decoder(tiny.QWEN3)
    rows = ROWS | {"starts": mx.zeros_like(ROWS["starts"]), "positions": mx.broadcast_to(mx.arange(38), (2, 38))}
    assert abs(packed_loss(decoder, rows).item() - loss_of_each(decoder, TEXTS).item()) > 1


@pytest.mark.parametrize("name", ["qwen3_moe", "qwen3_next"])
def test_padding_changes_nothing(name: str) -> None:
    decoder = tiny.decoder(FAMILIES[name])
    expected = gradients_of(decoder, packed_loss)
    wider = in_rows([TEXTS[:4], TEXTS[4:], []], 71)
    wider["ids"] = mx.where(wider["weights"] + wider["positions"] > 0, wider["ids"], mx.array(7))  # any token pads
    wider["ids"][0, :9] = mx.array(TEXTS[0])
    first = wider["starts"] == mx.arange(71)
    real = in_rows([TEXTS[:4], TEXTS[4:], []], 71)["ids"]
    wider["ids"] = mx.where(first & (wider["positions"] == 0) & (real != 0), real, wider["ids"])
    assert_same(gradients_of(decoder, lambda m: packed_loss(m, wider)), expected)


@pytest.mark.parametrize("name", ["qwen3", "qwen3_next"])
def test_compiled_is_eager(name: str) -> None:
    decoder = tiny.decoder(FAMILIES[name])
    weights = decoder.trainable_parameters()
    expected = gradients_of(decoder, packed_loss)

    @mx.compile
    def step(weights: Any, rows: Arrays) -> Any:
        def loss(weights: Any) -> mx.array:
            decoder.update(weights)
            return packed_loss(decoder, rows, checkpoint_every=2, longest=33)

        return mx.value_and_grad(loss)(weights)

    for rows in (ROWS, in_rows([TEXTS[4:], TEXTS[:4]], 38)):  # the second time nothing is traced
        value, tree = step(weights, rows)
        decoder.update(weights)
        import mlx.utils

        assert_same((value.item(), dict(mlx.utils.tree_flatten(tree))), expected)  # type: ignore[arg-type]


ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "yarn": {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    # stretched from 12 tokens on, so that texts of one row turn differently
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 12},
    "partial": {"partial_rotary_factor": 0.5},
}


@pytest.mark.parametrize("name", ROPES)
def test_every_rope_turns_texts_by_themselves(name: str) -> None:
    decoder = tiny.decoder(tiny.QWEN2 | ROPES[name])
    plain = tiny.decoder(tiny.QWEN2)
    texts = TEXTS[:2] + TEXTS[4:5]
    for text, hidden in zip(texts, each_hidden(decoder, texts)):
        expected = decoder.hidden_states(mx.array(text)[None])
        assert mx.allclose(hidden, expected, atol=1e-4, rtol=1e-4)
        if name != "partial" and len(text) > 12:
            assert not mx.allclose(hidden, plain.hidden_states(mx.array(text)[None]), atol=1e-2)


def each_hidden(decoder: Decoder, texts: list[np.ndarray]) -> list[mx.array]:
    """Hidden states (1, n, hidden_size) of texts that were computed in one row."""
    rows = in_rows([texts], sum(map(len, texts)) + 3)
    hidden = hidden_states(decoder, rows["ids"], rows["positions"], rows["starts"]).hidden
    ends = np.cumsum([len(text) for text in texts])
    return [hidden[:, end - len(text) : end] for end, text in zip(ends.tolist(), texts)]


def test_the_first_qwen_stretches_and_sharpens_texts_by_themselves() -> None:
    """Its base doubles with whole doublings of the text, and LogN begins behind the training length."""
    config = {
        "model_type": "qwen", "architectures": ["QWenLMHeadModel"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "kv_channels": 16, "vocab_size": 97, "seq_length": 12,
        "max_position_embeddings": 128, "use_dynamic_ntk": True, "use_logn_attn": True, "rotary_emb_base": 10000,
        "rotary_pct": 1.0, "layer_norm_epsilon": 1e-6, "no_bias": True, "tie_word_embeddings": False,
    }  # fmt: skip
    decoder = tiny.decoder(config)
    attention_spec: Any = decoder.spec.layers[0].mixer
    assert attention_spec.logn == 12 and attention_spec.rope.type == "qwen1"
    texts = [TEXTS[0], TEXTS[1], TEXTS[4]]
    for text, hidden in zip(texts, each_hidden(decoder, texts)):
        assert mx.allclose(hidden, decoder.hidden_states(mx.array(text)[None]), atol=1e-4, rtol=1e-4)


def test_dual_chunk_attention_is_trained_within_one_chunk_only() -> None:
    config = tiny.QWEN2 | {
        "dual_chunk_attention_config": {"chunk_size": 48, "local_size": 8, "original_max_position_embeddings": 48}
    }
    decoder = tiny.decoder(config)
    texts = [TEXTS[0], TEXTS[1]]
    for text, hidden in zip(texts, each_hidden(decoder, texts)):
        assert mx.allclose(hidden, decoder.hidden_states(mx.array(text)[None]), atol=1e-4, rtol=1e-4)
    with pytest.raises(UsageError, match=r"Dual Chunk.*at most 40"):
        each_hidden(decoder, TEXTS[:2] + TEXTS[4:])


def test_a_base_of_four_bits_gives_its_gradients() -> None:
    """Of what is left to train: the norms. Rows are read through unpacked blocks, texts alone are not."""
    for config in (tiny.QWEN3, tiny.QWEN3_MOE):
        decoder = tiny.decoder(config)
        packed_in_four_bits(decoder)
        assert all("norm" in name for name in gradients_of(decoder, packed_loss)[1])
        expected = gradients_of(decoder, lambda m: loss_of_each(m, TEXTS))
        for every in (0, 1):
            found = gradients_of(decoder, lambda m, every=every: packed_loss(m, checkpoint_every=every))
            assert_same(found, expected)


def packed_in_four_bits(decoder: Decoder) -> None:
    """Every matrix, as loading a packed checkpoint would leave it; only norms can be trained then."""
    from qwen_mlx.models.moe import ExpertLinear
    from qwen_mlx.models.packed import PackedEmbedding, PackedLinear
    from qwen_mlx.models.spec import QuantizationSpec

    nn.quantize(decoder, 32, 4)
    for module in decoder.modules():
        if type(module) is nn.QuantizedLinear:
            module.__class__ = PackedLinear
        elif type(module) is nn.QuantizedEmbedding:
            module.__class__ = PackedEmbedding
        elif isinstance(module, ExpertLinear):
            module.set_weights(*mx.quantize(module.weight, 32, 4), QuantizationSpec(4, 32))  # type: ignore[misc]
    decoder.freeze()
    for name, module in decoder.named_modules():
        if "norm" in name:
            module.unfreeze()


def test_a_layer_with_dropout_of_mlx_is_not_recomputed() -> None:
    decoder = tiny.decoder(tiny.QWEN3)
    decoder.layers[1].mlp.dropout = nn.Dropout(0.5)
    decoder.train()
    packed_loss(decoder)
    with pytest.raises(UsageError, match="recomputed"):
        packed_loss(decoder, checkpoint_every=1)
    decoder.eval()
    packed_loss(decoder, checkpoint_every=1)


def test_the_store_follows_the_protocol() -> None:
    """Everything that attention may ask of a store is there."""
    from qwen_mlx.models.cache import Store

    asked = [name for name in vars(Store) if not name.startswith("_")]
    assert asked
    assert all(callable(getattr(SegmentStore, name)) for name in asked)


def test_a_text_that_is_too_long_or_a_row_that_is_missing_is_not_silent() -> None:
    decoder = tiny.decoder(tiny.QWEN3)
    assert np.isnan(packed_loss(decoder, longest=32).item())
    assert not np.isnan(packed_loss(decoder, longest=33).item())
    learnt = np.flatnonzero(np.array(ROWS["weights"]))
    assert np.isnan(packed_loss(decoder, ROWS | {"rows": mx.array(learnt[1:])}).item())
    found = packed_loss(decoder, ROWS | {"rows": mx.array(learnt)})
    assert found.item() == pytest.approx(packed_loss(decoder).item(), rel=1e-6)


def test_parameters_are_as_before_after_a_step() -> None:
    """No module is left with what it computed with while a gradient was traced."""
    decoder = tiny.decoder(tiny.QWEN3)
    import mlx.utils

    before = {name: np.array(p) for name, p in mlx.utils.tree_flatten(decoder.parameters())}
    gradients_of(decoder, lambda m: packed_loss(m, checkpoint_every=1))
    for name, p in mlx.utils.tree_flatten(decoder.parameters()):
        np.testing.assert_array_equal(np.array(p), before[name])


def test_windows_are_there() -> None:
    windows = [getattr(la.mixer, "window", None) for la in tiny.decoder(FAMILIES["qwen2_windows"]).spec.layers]
    assert windows == [None, 6]
    assert dataclasses.is_dataclass(tiny.decoder(tiny.QWEN2).spec)

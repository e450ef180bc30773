"""The quantized cache against a plain cache whose keys and values are rounded the same way when they are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from qwen_mlx.errors import UsageError
from qwen_mlx.kernels.packed_kv import PackedKV, pack, unpack
from qwen_mlx.models import Decoder, quantized_cache
from qwen_mlx.models.cache import KVCache, LayerCache
from qwen_mlx.models.quantized_cache import KV_BITS, QuantizedKVCache
from tests.models import tiny

import mlx.core as mx  # isort: skip

# One layer of attention each: behind a second, keys that differ in their last bit would be rounded differently.
QWEN3 = tiny.QWEN3 | {"num_hidden_layers": 1}
QWEN2 = tiny.QWEN2 | {"num_hidden_layers": 1}
CONFIGS: dict[str, dict[str, Any]] = {
    "full": QWEN3,
    "window": QWEN2 | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0},
    "yarn": QWEN3 | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
    "chunks": QWEN2 | {"dual_chunk_attention_config": {"chunk_size": 16, "local_size": 4}},
    "experts": tiny.QWEN3_MOE | {"num_hidden_layers": 1, "mlp_only_layers": []},
    "next": tiny.QWEN3_NEXT,
}
MODELS = {name: tiny.decoder(config) for name, config in CONFIGS.items()}
every_bits = pytest.mark.parametrize("kv_bits", sorted(KV_BITS))
LENGTH = 44


class RoundedKVCache(KVCache):
    """A plain cache of what a quantized one would remember."""

    def __init__(self, layout: PackedKV, window: int | None, left_padding: Sequence[int] | None) -> None:
        super().__init__(window, left_padding)
        self.layout = layout

    def append(self, keys: mx.array, values: mx.array) -> None:
        super().append(*unpack(self.layout, pack(self.layout, keys, values)))


def rounded(model: Decoder, kv_bits: str, left_padding: Sequence[int] | None = None) -> list[LayerCache]:
    return [
        RoundedKVCache(cache.layout, cache.window, left_padding) if isinstance(cache, QuantizedKVCache) else cache
        for cache in model.make_cache(left_padding, kv_bits)
    ]


def ids(length: int, seed: int = 3) -> mx.array:
    return mx.random.randint(0, 97, (1, length), key=mx.random.key(seed))


def close(a: mx.array, b: mx.array) -> bool:
    return bool(mx.abs(a - b).max() < 2e-4)


def read(model: Decoder, text: mx.array, cache: list[LayerCache], pieces: Sequence[int]) -> mx.array:
    """The logits of `text`, cut into pieces and then single tokens."""
    parts, at = [], 0
    for piece in [*pieces, *[1] * text.shape[1]]:
        if at < text.shape[1]:
            parts.append(model(text[:, at : at + piece], cache=cache))
            at += piece
    return mx.concatenate(parts, axis=1)


@every_bits
@pytest.mark.parametrize("name", sorted(MODELS))
def test_equals_attention_over_rounded_keys_and_values(name: str, kv_bits: str) -> None:
    model, text = MODELS[name], ids(LENGTH)
    for pieces in ([LENGTH], [20, 13, 3]):
        got = read(model, text, model.make_cache(kv_bits=kv_bits), pieces)
        assert close(got, read(model, text, rounded(model, kv_bits), pieces))


@every_bits
@pytest.mark.parametrize("name", ["full", "window", "yarn", "next"])
def test_a_padded_batch(name: str, kv_bits: str) -> None:
    model = MODELS[name]
    texts = [ids(n, seed=n) for n in (5, 17, 30)]
    pads = [30 - text.shape[1] for text in texts]
    batch = mx.concatenate([mx.pad(text, ((0, 0), (pad, 0))) for text, pad in zip(texts, pads)])
    for pieces in ([19, 11], [25, 5]):
        got = read(model, batch, model.make_cache(pads, kv_bits), pieces)
        expected = read(model, batch, rounded(model, kv_bits, pads), pieces)
        for row, other, pad in zip(got, expected, pads):
            assert close(row[pad:], other[pad:])


@pytest.mark.parametrize("name", ["full", "window"])
def test_tiles_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = MODELS[name], ids(LENGTH)
    whole = model(text, cache=model.make_cache(kv_bits="8"))
    monkeypatch.setattr(quantized_cache, "_ROWS", 9)
    monkeypatch.setattr(quantized_cache, "_BYTES", 1)
    assert close(model(text, cache=model.make_cache(kv_bits="8")), whole)


def test_more_bits_are_closer() -> None:
    model, text = MODELS["full"], ids(LENGTH)
    plain = model(text)
    errors = {bits: mx.abs(model(text, cache=model.make_cache(kv_bits=bits)) - plain).mean().item() for bits in KV_BITS}
    assert 8 * errors["8"] < errors["8/4"] < errors["4"]


# ---------------------------------------------------------------------------------------- as any other cache


@pytest.mark.parametrize("name", ["full", "chunks", "yarn"])
def test_trimming_forgets_exactly_the_end(name: str) -> None:
    model, text, other = MODELS[name], ids(LENGTH), ids(9, seed=4)
    cache = model.make_cache(kv_bits="8")
    model(text, cache=cache)
    assert all(layer.trim(9) == 9 for layer in cache)
    again = model.make_cache(kv_bits="8")
    model(text[:, :35], cache=again)
    assert close(model(other, cache=cache), model(other, cache=again))


@pytest.mark.parametrize("name", ["full", "window", "next"])
def test_a_snapshot_brings_back_what_was(name: str) -> None:
    model, text, other = MODELS[name], ids(LENGTH), ids(9, seed=8)
    cache = model.make_cache(kv_bits="8")
    model(text[:, :20], cache=cache)
    snapshot = [layer.snapshot() for layer in cache]
    for i in range(20, LENGTH):
        model(text[:, i : i + 1], cache=cache)
    for layer, held in zip(cache, snapshot):
        layer.restore(held)
    again = model.make_cache(kv_bits="8")
    model(text[:, :20], cache=again)
    assert close(model(other, cache=cache), model(other, cache=again))


@pytest.mark.parametrize("name", ["full", "window"])
def test_state_is_what_was_put_in(name: str) -> None:
    model, text = MODELS[name], ids(40)
    cache = model.make_cache(kv_bits="8/4")
    model(text[:, :30], cache=cache)
    copy = model.make_cache(kv_bits="8/4")
    for new, old in zip(copy, cache):
        new.offset = old.offset
        new.state = old.state
    assert close(model(text[:, 30:], cache=copy), model(text[:, 30:], cache=cache))


@every_bits
def test_bytes_follow_the_formula(kv_bits: str) -> None:
    model = tiny.decoder(QWEN3 | {"head_dim": 128})
    cache = model.make_cache(kv_bits=kv_bits)
    for layer in cache:
        layer.reserve(300)
    model(ids(300), cache=cache)
    key_bits, value_bits = KV_BITS[kv_bits]
    per_token = 2 * (
        128 * (key_bits + value_bits) // 8 + 8 * 2
    )  # two KV heads; scale and bias for each of 2 + 2 groups
    assert [layer.nbytes for layer in cache] == [300 * per_token]
    assert all(layer.state[0].nbytes == layer.nbytes for layer in cache)


def test_a_window_cache_does_not_grow_with_the_text() -> None:
    model, text = MODELS["window"], ids(80)
    cache = model.make_cache(kv_bits="8")
    sizes = []
    for i in range(80):
        model(text[:, i : i + 1], cache=cache)
        sizes.append(cache[0].nbytes)
    assert sizes[79] == sizes[20]


def test_a_prompt_takes_no_more_memory_than_with_a_plain_cache() -> None:
    model = tiny.decoder(QWEN3 | {"max_position_embeddings": 4096})
    text = ids(1536)

    def peak(kv_bits: str | None) -> int:
        cache = model.make_cache(kv_bits=kv_bits)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        model.hidden_states(text, cache)
        mx.eval([layer.state for layer in cache])
        mx.eval(model.hidden_states(text, model.make_cache(kv_bits=kv_bits)))
        return mx.get_peak_memory() - before

    plain = peak(None)
    assert all(peak(kv_bits) <= plain for kv_bits in KV_BITS)


def test_mlx_lm_may_quantize_a_plain_cache_on_the_way() -> None:
    model, text = MODELS["window"], ids(LENGTH)
    cache = model.make_cache()
    model(text[:, :30], cache=cache)
    quantized = [layer.to_quantized(group_size=64, bits=8) for layer in cache]
    assert all(isinstance(layer, QuantizedKVCache) for layer in quantized)
    got = model(text[:, 30:], cache=quantized)
    assert mx.abs(got - model(text[:, 30:], cache=cache)).max() < 0.2
    with pytest.raises(ValueError, match="64"):
        cache[0].to_quantized(group_size=32, bits=8)


def test_mlx_lm_writes_over_a_cache_that_it_quantized() -> None:
    pytest.importorskip("mlx_lm")
    from mlx_lm.generate import generate_step

    model, prompt = MODELS["full"], ids(20)[0]
    cache = model.make_cache()
    steps = generate_step(prompt, model, max_tokens=6, prompt_cache=cache, kv_bits=8, quantized_kv_start=0)
    written = [int(token) for token, _ in steps]
    assert all(isinstance(layer, QuantizedKVCache) for layer in cache)
    plain = [int(token) for token, _ in generate_step(prompt, model, max_tokens=6)]
    assert written == plain


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="quantized"):
        MODELS["full"].make_cache(kv_bits="3")
    spec = MODELS["full"].spec
    mixer = dataclasses.replace(spec.layers[0].mixer, head_dim=12)
    odd = Decoder(dataclasses.replace(spec, layers=(dataclasses.replace(spec.layers[0], mixer=mixer),)))
    with pytest.raises(UsageError, match="multiple of 8"):
        odd.make_cache(kv_bits="8")

"""Whatever the pieces, a text through the cache gives what one forward gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import tiny

import mlx.core as mx  # isort: skip

WINDOWED = tiny.QWEN2 | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
YARN = tiny.QWEN3 | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}
CONFIGS: dict[str, dict[str, Any]] = {
    "full": tiny.QWEN3,
    "window": WINDOWED,
    "yarn": YARN,
    "experts": tiny.QWEN2_MOE,
    "delta": tiny.QWEN3_5,
    "next": tiny.QWEN3_NEXT,
}
MODELS = {name: tiny.decoder(config) for name, config in CONFIGS.items()}
LENGTH = 90


def ids(length: int, seed: int = 3) -> mx.array:
    return mx.random.randint(0, 97, (1, length), key=mx.random.key(seed))


def close(a: mx.array, b: mx.array) -> bool:
    return bool(mx.abs(a - b).max() < 1e-4)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(MODELS)), st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, LENGTH))
def test_any_split_equals_one_forward(name: str, pieces: list[int], length: int) -> None:
    model, text = MODELS[name], ids(length)
    cache, at, parts = model.make_cache(), 0, []
    for piece in [*pieces, *[1] * length]:
        if at < length:
            parts.append(model(text[:, at : at + piece], cache=cache))
            at += piece
    assert close(mx.concatenate(parts, axis=1), model(text))
    assert all(layer.offset == length for layer in cache)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(MODELS)), st.integers(2, LENGTH), st.integers(1, 30), st.integers(1, 20))
def test_trimming_forgets_exactly_the_end(name: str, length: int, forget: int, more: int) -> None:
    model = MODELS[name]
    text, other = ids(length), ids(more, seed=4)
    forget = min(forget, length - 1)
    cache = model.make_cache()
    model(text, cache=cache)
    keep = length - forget
    if not all(layer.can_trim_to(keep) for layer in cache):
        assert name in ("window", "delta", "next")
        assert any(layer.trim(forget) == 0 for layer in cache if not layer.trims_freely)
        return
    assert all(layer.trim(forget) == forget for layer in cache if layer.offset > keep)
    after = model(other, cache=cache)
    assert close(after, model(mx.concatenate([text[:, :keep], other], axis=1))[:, keep:])


@pytest.mark.parametrize("length", [1, 7, 8, 30, 70])
def test_a_window_can_take_back_its_last_token(length: int) -> None:
    model = MODELS["window"]
    cache = model.make_cache()
    for i in range(length):
        model(ids(length)[:, i : i + 1], cache=cache)
        assert all(layer.can_trim_to(i) for layer in cache)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_snapshot_brings_back_what_was(name: str) -> None:
    model, text = MODELS[name], ids(60)
    cache = model.make_cache()
    model(text[:, :20], cache=cache)
    snapshot = [layer.snapshot() for layer in cache]
    for i in range(20, 60):
        model(text[:, i : i + 1], cache=cache)
    for layer, state in zip(cache, snapshot):
        layer.restore(state)
    other = ids(9, seed=8)
    assert close(model(other, cache=cache), model(mx.concatenate([text[:, :20], other], axis=1))[:, 20:])


def test_a_window_cache_does_not_grow_with_the_text() -> None:
    model = MODELS["window"]
    cache = model.make_cache()
    sizes = []
    for i in range(80):
        model(ids(80)[:, i : i + 1], cache=cache)
        sizes.append(cache[1].nbytes)
    assert sizes[79] == sizes[20]


def test_a_full_cache_copies_rarely() -> None:
    cache = MODELS["full"].make_cache()[0]
    row = mx.zeros((1, 2, 1, 32))
    capacities = set()
    for _ in range(2000):
        cache.update_and_fetch(row, row)
        assert cache.keys is not None
        capacities.add(cache.keys.shape[2])
    assert len(capacities) <= 8
    assert cache.nbytes <= 2 * 2 * 2 * 32 * 4 * 2000


def test_reserving_makes_room_once() -> None:
    cache = MODELS["full"].make_cache()[0]
    cache.reserve(900)
    row = mx.zeros((1, 2, 300, 32))
    for _ in range(3):
        cache.update_and_fetch(row, row)
        assert cache.keys is not None
        assert cache.keys.shape[2] == 900


@pytest.mark.parametrize("name", sorted(MODELS))
def test_state_is_what_was_put_in(name: str) -> None:
    model, text = MODELS[name], ids(40)
    cache = model.make_cache()
    model(text[:, :30], cache=cache)
    copy = model.make_cache()
    for new, old in zip(copy, cache):
        new.offset = old.offset
        new.state = old.state
    assert close(model(text[:, 30:], cache=copy), model(text)[:, 30:])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_left_padding_changes_nothing(name: str) -> None:
    model = MODELS[name]
    texts = [ids(n, seed=n) for n in (5, 17, 30)]
    longest = 30
    rows = [mx.concatenate([mx.zeros((1, longest - t.shape[1]), mx.int32), t], axis=1) for t in texts]
    pads = [longest - t.shape[1] for t in texts]
    cache = model.make_cache(left_padding=pads)
    batch = mx.concatenate(rows)
    got = mx.concatenate([model(batch[:, :19], cache=cache), model(batch[:, 19:], cache=cache)], axis=1)
    for row, text, pad in zip(got, texts, pads):
        assert close(row[None, pad:], model(text))
    step = mx.array([[1], [2], [3]])
    after = model(step, cache=cache)
    for i, text in enumerate(texts):
        assert close(after[i : i + 1], model(mx.concatenate([text, step[i : i + 1]], axis=1))[:, -1:])


def test_a_cache_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="layers"):
        MODELS["full"](ids(3), cache=MODELS["full"].make_cache()[:1])

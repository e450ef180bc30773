"""Dual Chunk Attention against its definition: every pair of query and key on its own, one softmax over all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.errors import UsageError
from qwen_mlx.models import blockwise
from qwen_mlx.models import dual_chunk as module
from qwen_mlx.models.cache import KVCache, Passing
from qwen_mlx.models.dual_chunk import DualChunk
from qwen_mlx.models.heads import NewHeads
from qwen_mlx.models.positions import Positions
from qwen_mlx.models.rope import Rope
from qwen_mlx.models.spec import DualChunkSpec, RopeSpec
from tests.models import tiny

import mlx.core as mx  # isort: skip

DIMS = 8
ROPE = Rope(RopeSpec(DIMS, 100.0))


def where(index: int, length: int) -> Positions:
    end = index + length
    return Positions(index, index, end, None, None, end, end)


def naive(spec: DualChunkSpec, q: mx.array, k: mx.array, v: mx.array, index: int) -> mx.array:
    """One query at a time, one key at a time; k not rotated yet."""
    groups = q.shape[1] // k.shape[1]
    s, c = spec.stride, spec.chunk_size
    keys = [ROPE.at(k[:, :, j : j + 1], j % s) for j in range(k.shape[2])]
    rows = []
    for i in range(index, index + q.shape[2]):
        scores = []
        for j in range(i + 1):
            apart = i // s - j // s
            place = i % s if apart == 0 else min(i % s + s, c) if apart == 1 else min(2 * s - 1, c)
            turned = ROPE.at(q[:, :, i - index : i - index + 1], place)
            scores.append((turned * mx.repeat(keys[j], groups, axis=1)).sum(-1) / math.sqrt(DIMS))
        weights = mx.softmax(mx.concatenate(scores, axis=-1), axis=-1)
        rows.append((weights[..., None] * mx.repeat(v[:, :, : i + 1], groups, axis=1)).sum(2))
    return mx.stack(rows, axis=2)


def random_heads(length: int) -> NewHeads:
    shapes = [(1, length, heads, DIMS) for heads in (4, 2, 2)]
    return NewHeads(*(mx.random.normal(shape, key=mx.random.key(i)) * 2 for i, shape in enumerate(shapes)))


def cut(heads: NewHeads, first: int, last: int) -> NewHeads:
    return NewHeads(*(x[:, first:last] for x in (heads.q, heads.k, heads.v)))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 9).flatmap(lambda c: st.tuples(st.just(c), st.integers(0, c // 2))),
    st.integers(0, 25),
    st.integers(1, 20),
    st.sampled_from([3, 16, 1 << 20]),
    st.sampled_from([2, 512]),
)
def test_equals_the_definition(sizes: tuple[int, int], index: int, length: int, pairs: int, queries: int) -> None:
    spec = DualChunkSpec(*sizes)
    total = index + length
    heads = random_heads(total)
    attention = DualChunk(spec, ROPE, DIMS)
    before = blockwise.PAIRS, module._QUERIES
    blockwise.PAIRS, module._QUERIES = pairs, queries
    store = KVCache() if index else Passing()
    try:
        if index:
            attention.attend(cut(heads, 0, index), where(0, index), store)
        got = attention.attend(cut(heads, index, total), where(index, length), store)
    finally:
        blockwise.PAIRS, module._QUERIES = before
    q, k, v = (x.swapaxes(1, 2) for x in (heads.q, heads.k, heads.v))
    assert mx.allclose(got, naive(spec, q[:, :, index:], k, v, index), atol=2e-5)


CONFIG = tiny.QWEN2 | {"dual_chunk_attention_config": {"chunk_size": 16, "local_size": 4}}


def test_decoding_across_a_border_equals_one_forward() -> None:
    model = tiny.decoder(CONFIG)
    text = mx.random.randint(0, 97, (1, 60), key=mx.random.key(5))
    cache = model.make_cache()
    parts = [model(text[:, :10], cache=cache)]
    parts += [model(text[:, i : i + 1], cache=cache) for i in range(10, 60)]
    assert mx.allclose(mx.concatenate(parts, axis=1), model(text), atol=1e-4)


def test_a_short_text_is_plain_attention() -> None:
    plain, chunked = tiny.decoder(tiny.QWEN2), tiny.decoder(CONFIG)
    text = mx.random.randint(0, 97, (1, 12), key=mx.random.key(5))
    assert mx.allclose(plain(text), chunked(text), atol=1e-5)


def test_memory_does_not_grow_with_the_square_of_the_text() -> None:
    attention = DualChunk(DualChunkSpec(64, 16), ROPE, DIMS)

    def peak(length: int) -> int:
        cache = KVCache()
        k, v = (mx.random.normal((1, 2, length - 256, DIMS)) for _ in range(2))
        cache.reserve(length)
        cache.append(k, v)
        heads = random_heads(256)
        mx.eval(cache.state, heads.q, heads.k, heads.v)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(attention.attend(heads, where(length - 256, 256), cache))
        return mx.get_peak_memory() - before

    assert peak(16384) < 3 * peak(8192)
    assert peak(16384) < 16384 * 256 * 2 * 4 * 4


def test_a_padded_batch_is_refused() -> None:
    with pytest.raises(UsageError, match="Dual Chunk"):
        tiny.decoder(CONFIG).make_cache(left_padding=[0, 3])


def test_length_scaling_begins_at_the_training_length() -> None:
    attention = DualChunk(DualChunkSpec(16, 4, 32), ROPE, DIMS)
    assert attention.temperature(32) == 1.0
    assert attention.temperature(64) == pytest.approx(0.1 * math.log(2) + 1)
    assert DualChunk(DualChunkSpec(16, 4), ROPE, DIMS).temperature(10**6) == 1.0

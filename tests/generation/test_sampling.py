import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qwen_mlx.generation import sampling
from qwen_mlx.generation.sampling import (
    TIE_ROOM,
    SamplingParams,
    distribution,
    filtered_logits,
    make_sampler,
    sample,
    top_candidates,
)
from tests.generation.plain_sampling import plain_distribution

QWEN = SamplingParams(temperature=0.7, top_k=20, top_p=0.8, seed=3)


def dense(logits, params):
    """`distribution` as a (batch, vocab) numpy array."""
    logits = mx.array(logits)
    ids, probabilities = distribution(logits, params)
    result = np.zeros(logits.shape)
    np.put_along_axis(result, np.array(ids).astype(np.int64), np.array(probabilities), axis=-1)
    return result


def normal(*shape, seed=0, scale=3.0):
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype(np.float32)


# ------------------------------------------------------------------------------------------------------ greedy


@pytest.mark.parametrize("params", [{"temperature": 0}, {"temperature": 1e-7}, {"top_k": 1, "temperature": 2.0}])
def test_greedy_takes_the_largest(params):
    logits = normal(5, 3000)
    ids = make_sampler(SamplingParams(**params))(mx.array(logits))
    assert ids.shape == (5,)
    assert np.array(ids).tolist() == logits.argmax(axis=-1).tolist()
    assert np.array_equal(dense(logits, SamplingParams(**params)), np.eye(3000)[logits.argmax(axis=-1)])


def test_greedy_takes_the_lowest_of_tied_ids():
    logits = mx.array([[1.0, 5.0, 5.0, 5.0], [2.0, 2.0, 2.0, 2.0]])
    assert make_sampler(SamplingParams(temperature=0))(logits).tolist() == [1, 0]


# ------------------------------------------------------------------------------------------------ distribution


@st.composite
def cases(draw):
    vocab = draw(st.integers(1, 80))
    coarse = draw(st.sampled_from([0.25, 1.0]))
    steps = st.integers(-40, 40)
    logits = np.array(draw(st.lists(steps, min_size=vocab, max_size=vocab)), dtype=np.float32) * coarse
    # Sevenths are never exact in binary: probabilities of such logits do not sum to round numbers.
    logits = (logits / 7).astype(np.float32)
    for token in draw(st.lists(st.integers(0, vocab - 1), max_size=vocab // 2)):
        logits[token] = -np.inf
    assume(np.isfinite(logits).any())
    params = SamplingParams(
        temperature=draw(st.sampled_from([0.1, 0.37, 0.7, 1.0, 1.9, 10.0])),
        top_k=draw(st.integers(0, 90)),
        top_p=draw(st.sampled_from([1.0]) | st.floats(0.01, 0.999)),
        min_p=draw(st.just(0.0) | st.floats(0.001, 1.0)),
    )
    return logits, params


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
def test_distribution_is_that_of_plain_numpy(case):
    logits, params = case
    expected, margin = plain_distribution(logits, params)
    assume(margin > 1e-5)
    if params.top_k:
        # More ties at the k-th value than there is room for are not defined.
        kth = np.sort(logits)[-min(params.top_k, len(logits))]
        assume((logits == kth).sum() <= TIE_ROOM)
    np.testing.assert_allclose(dense(logits[None], params)[0], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("vocab", [151936, 5 * 128 * 64 + 77])
@pytest.mark.parametrize(
    "changes",
    [{}, {"top_k": 20}, {"top_k": 200, "top_p": 0.9}, {"top_k": 20, "top_p": 0.8, "min_p": 0.05}, {"top_p": 0.6}],
)
def test_distribution_over_a_large_vocabulary(vocab, changes):
    params = SamplingParams(temperature=0.7, **changes)
    for seed in range(100):
        logits = normal(vocab, seed=seed)
        expected, margin = plain_distribution(logits, params)
        if margin > 1e-6:
            break
    np.testing.assert_allclose(dense(logits[None], params)[0], expected, atol=1e-6)


def test_temperature_comes_before_top_p():
    # At a temperature of 0.6 two tokens hold 0.9 of the mass; before it three are needed.
    logits = np.log([[0.55, 0.25, 0.12, 0.05, 0.03]]).astype(np.float32)
    found = dense(logits, SamplingParams(temperature=0.6, top_p=0.9))
    np.testing.assert_allclose(found, [[0.788, 0.212, 0, 0, 0]], atol=5e-4)


def test_order_is_top_k_then_top_p_then_min_p():
    logits = np.log([[0.4, 0.3, 0.2, 0.1]]).astype(np.float32)
    # Two tokens hold 7/9 of the best three, but only 7/10 of all four.
    found = dense(logits, SamplingParams(top_k=3, top_p=0.72))
    np.testing.assert_allclose(found, [[4 / 7, 3 / 7, 0, 0]], atol=1e-6)
    found = dense(logits, SamplingParams(top_p=0.72))
    np.testing.assert_allclose(found, [[4 / 9, 3 / 9, 2 / 9, 0]], atol=1e-6)
    found = dense(logits, SamplingParams(top_p=0.72, min_p=0.6))
    np.testing.assert_allclose(found, [[4 / 7, 3 / 7, 0, 0]], atol=1e-6)


def test_ties_with_the_kth_token_are_kept():
    logits = np.full((1, 400), -3.0, dtype=np.float32)
    logits[0, [300, 7, 110]] = 4.0
    logits[0, [2, 250, 399, 41]] = 1.5
    found = dense(logits, SamplingParams(top_k=4))
    assert np.flatnonzero(found[0]).tolist() == [2, 7, 41, 110, 250, 300, 399]


def test_ties_beyond_the_room_are_cut():
    found = dense(np.zeros((1, 1000), dtype=np.float32), SamplingParams(top_k=5))
    assert 5 <= np.count_nonzero(found) <= 5 + TIE_ROOM
    assert math.isclose(found.sum(), 1, rel_tol=1e-5)


@pytest.mark.parametrize("top_k", [0, 8])
def test_top_p_keeps_only_as_many_tied_tokens_as_it_needs(top_k):
    logits = np.array([[0.0, 2.0, 0.0, 2.0, 0.0, 2.0, 2.0, -9.0]], dtype=np.float32)
    # Four tokens of 0.227 each: three are needed for 0.6.
    found = dense(logits, SamplingParams(top_p=0.6, top_k=top_k))
    assert np.flatnonzero(found[0]).tolist() == [1, 3, 5]


@pytest.mark.parametrize("changes", [{"top_p": 1e-9}, {"min_p": 1.0}, {"top_p": 1e-9, "top_k": 3, "min_p": 1.0}])
def test_the_most_likely_token_always_stays(changes):
    logits = normal(4, 700, seed=9)
    found = dense(logits, SamplingParams(**changes))
    assert np.array_equal(found, np.eye(700)[logits.argmax(axis=-1)])


def test_top_k_of_the_whole_vocabulary_is_off():
    logits = normal(2, 60)
    for top_k in (60, 61, 10**9):
        np.testing.assert_allclose(
            dense(logits, SamplingParams(top_k=top_k)), dense(logits, SamplingParams()), atol=1e-7
        )


def test_rows_of_a_batch_do_not_mix():
    logits = normal(6, 12345, seed=4) * np.arange(1, 7, dtype=np.float32)[:, None]
    for params in (QWEN, SamplingParams(top_p=0.7), SamplingParams(min_p=0.2), SamplingParams()):
        together = dense(logits, params)
        for row in range(6):
            np.testing.assert_allclose(dense(logits[row : row + 1], params)[0], together[row], atol=1e-6)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize("params", [QWEN, SamplingParams(temperature=1.3), SamplingParams(top_p=0.5)])
def test_half_precision_logits_are_computed_in_float32(dtype, params):
    half = mx.array(normal(2, 9000)).astype(dtype)
    _, probabilities = distribution(half, params)
    assert probabilities.dtype == mx.float32
    assert np.array_equal(dense(half, params), dense(half.astype(mx.float32), params))
    key = mx.random.key(1)
    assert mx.array_equal(sample(half, params, key), sample(half.astype(mx.float32), params, key))


@pytest.mark.parametrize("temperature", [1e-5, 1e-3, 1000.0])
def test_extreme_temperatures_and_masks_give_numbers(temperature):
    logits = normal(3, 500, scale=30)
    logits[:, 100:300] = np.finfo(np.float32).min
    logits[:, 300:] = -np.inf
    for changes in ({}, {"top_k": 40}, {"top_k": 450, "top_p": 0.9}, {"top_p": 0.9}, {"min_p": 0.1}):
        found = dense(logits, SamplingParams(temperature=temperature, **changes))
        np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)
        assert not found[:, 100:].any()


def test_filtered_logits_are_tempered_and_minus_infinity_where_removed():
    logits = mx.array([[1.0, 4.0, 2.0, 3.0]])
    ids, scores = filtered_logits(logits, SamplingParams(temperature=0.5, top_k=2))
    found = dict(zip(ids[0].tolist(), scores[0].tolist(), strict=True))
    assert found[1] == 8.0 and found[3] == 6.0
    assert all(score == -math.inf for token, score in found.items() if token not in (1, 3))
    ids, scores = filtered_logits(logits, SamplingParams(temperature=0.5))
    assert ids.tolist() == [[0, 1, 2, 3]] and scores.tolist() == [[2.0, 8.0, 4.0, 6.0]]


# ---------------------------------------------------------------------------------------------- top candidates


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    vocab=st.integers(1, 6000),
    share=st.floats(0, 1),
    batch=st.integers(1, 3),
    levels=st.sampled_from([3, 200, 10**6]),
    masked=st.sampled_from([0.0, 0.5, 0.995]),
    seed=st.integers(0, 1000),
)
def test_top_candidates_are_the_largest(vocab, share, batch, levels, masked, seed):
    count = max(1, round(share**4 * vocab))
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, levels, size=(batch, vocab)).astype(np.float32)
    logits[rng.random(logits.shape) < masked] = -np.inf
    ids, values = top_candidates(mx.array(logits), count)
    assert ids.shape == values.shape == (batch, count)
    ids, values = np.array(ids).astype(np.int64), np.array(values)
    assert ids.max() < vocab
    assert (np.diff(ids, axis=-1) > 0).all()  # ascending, none twice
    assert np.array_equal(np.take_along_axis(logits, ids, axis=-1), values)
    assert np.array_equal(np.sort(values, axis=-1), np.sort(logits, axis=-1)[:, vocab - count :])


def test_candidates_in_one_block_and_after_the_last_whole_block_are_found():
    vocab = 200 * sampling.BLOCK + 50
    logits = np.zeros((1, vocab), dtype=np.float32)
    best = [*range(1280, 1290), *range(vocab - 10, vocab)]
    logits[0, best] = np.arange(20, 0, -1)
    ids, _ = top_candidates(mx.array(logits), 20)
    assert ids[0].tolist() == best


# -------------------------------------------------------------------------------------------------------- draws


def chi_square(counts, probabilities):
    """The statistic over tokens that are expected at all, and its degrees of freedom."""
    expected = probabilities * counts.sum()
    common = expected > 5
    assert counts[probabilities == 0].sum() == 0
    return ((counts - expected)[common] ** 2 / expected[common]).sum(), common.sum() - 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 12},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"temperature": 1.4, "top_k": 25, "top_p": 0.9, "min_p": 0.02},
    ],
    ids=str,
)
def test_frequencies_are_the_probabilities(changes):
    logits = normal(30, seed=21, scale=1.5)
    params = SamplingParams(seed=1234, **changes)
    sampler = make_sampler(params)
    batch = mx.broadcast_to(mx.array(logits), (500, 30))
    # Many rows of many steps: neither may repeat the other.
    drawn = np.concatenate([np.array(sampler(batch)) for _ in range(20)])
    statistic, freedom = chi_square(np.bincount(drawn, minlength=30), dense(logits[None], params)[0])
    # A right sampler exceeds this once in a million seeds (Wilson and Hilferty's approximation).
    limit = freedom * (1 - 2 / (9 * freedom) + 4.75 * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < limit


def test_frequencies_over_blocks():
    logits = np.full(40000, -20.0, dtype=np.float32)
    tokens = [39999, 3, 20000, 20001]
    logits[tokens] = np.log([0.4, 0.3, 0.2, 0.1])
    drawn = np.array(make_sampler(SamplingParams(top_k=10, seed=5))(mx.broadcast_to(mx.array(logits), (400, 40000))))
    counts = np.array([(drawn == token).sum() for token in tokens])
    assert counts.sum() == 400
    assert (np.abs(counts / 400 - [0.4, 0.3, 0.2, 0.1]) < 0.1).all()


def steps(params, logits, count=12):
    sampler = make_sampler(params)
    return [sampler(logits).tolist() for _ in range(count)]


@pytest.mark.parametrize("changes", [{}, {"top_k": 20, "top_p": 0.8}, {"top_p": 0.9}, {"min_p": 0.01}], ids=str)
def test_a_seed_gives_the_same_ids_whatever_else_draws_random_numbers(changes):
    params = SamplingParams(temperature=2.0, seed=77, **changes)
    logits = mx.array(normal(2, 5000, scale=0.5))
    first = steps(params, logits)
    mx.random.seed(123)
    mx.eval(mx.random.normal((10,)))
    other = make_sampler(SamplingParams(seed=8))
    sampler = make_sampler(params)
    second = []
    for _ in range(12):
        mx.eval(mx.random.uniform(shape=(3,)), other(logits))
        second.append(sampler(logits).tolist())
    assert second == first
    assert steps(SamplingParams(temperature=2.0, seed=78, **changes), logits) != first
    assert len({str(ids) for ids in first}) > 3


def test_sampling_leaves_the_global_random_state_alone():
    logits = mx.array(normal(1, 3000))
    mx.random.seed(5)
    expected = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(5)
    for params in (SamplingParams(), QWEN, SamplingParams(top_p=0.5), SamplingParams(temperature=0)):
        steps(params, logits, count=2)
    assert mx.random.uniform(shape=(4,)).tolist() == expected


def test_large_seeds_differ_in_their_upper_half():
    logits = mx.zeros((1, 1000))
    assert steps(SamplingParams(seed=1), logits) != steps(SamplingParams(seed=1 + 2**32), logits)


def test_sample_is_a_pure_function_of_its_key():
    logits = mx.array(normal(3, 4000, scale=1))
    one, two = mx.random.split(mx.random.key(0))
    assert mx.array_equal(sample(logits, QWEN, one), sample(logits, QWEN, one))
    assert any(
        not mx.array_equal(sample(logits, QWEN, one), sample(logits, QWEN, key))
        for key in [two, *mx.random.split(two, 5)]
    )


@pytest.mark.parametrize("params", [QWEN, SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(min_p=0.1)])
def test_removed_tokens_are_never_drawn(params):
    logits = normal(1, 2000)
    logits[0, ::2] = -np.inf
    allowed = set(np.flatnonzero(dense(logits, params)[0]).tolist())
    drawn = make_sampler(params)(mx.broadcast_to(mx.array(logits), (300, 2000)))
    assert set(drawn.tolist()) <= allowed


@pytest.mark.parametrize("params", [QWEN, SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(temperature=0)])
@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_hopeless_logits_still_give_an_id_of_the_vocabulary(params, value):
    ids = make_sampler(params)(mx.full((2, 9000), value))
    assert ids.shape == (2,) and all(0 <= token < 9000 for token in ids.tolist())


def test_a_vocabulary_of_one():
    for params in (QWEN, SamplingParams(), SamplingParams(top_p=0.2), SamplingParams(temperature=0)):
        assert make_sampler(params)(mx.array([[-3.0]])).tolist() == [0]


# --------------------------------------------------------------------------------------------------------- lazy


@pytest.mark.parametrize(
    "params",
    [QWEN, SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(min_p=0.1), SamplingParams(temperature=0)],
)
def test_nothing_waits_for_the_device(params):
    """While `mx.compile` traces, arrays have no values: whoever asks for one fails."""

    def step(logits):
        ids = make_sampler(params)(logits)
        return ids, *distribution(logits, params)

    assert mx.compile(step)(mx.array(normal(2, 20000)))[0].shape == (2,)
    with pytest.raises(ValueError, match="eval"):
        mx.compile(lambda logits: mx.array(step(logits)[0].tolist()))(mx.array(normal(2, 20000)))

import copy

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.generation.penalties import PenaltyState
from qwen_mlx.generation.sampling import SamplingParams, make_sampler
from tests.generation.plain_sampling import penalized

VOCAB = 50
token = st.integers(0, VOCAB - 1)


def logits_of(seed, vocab=VOCAB):
    logits = np.random.default_rng(seed).normal(scale=4, size=vocab).astype(np.float32)
    logits[::7] = 0
    logits[3::11] = -np.inf
    return logits


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    prompt=st.lists(st.integers(-3, VOCAB + 5), max_size=40),
    output=st.lists(token, max_size=30),
    repetition=st.sampled_from([1.0, 1.05, 1.7, 0.6]),
    presence=st.sampled_from([0.0, 1.5, -0.5]),
    frequency=st.sampled_from([0.0, 0.3, -0.2]),
    seed=st.integers(0, 100),
)
def test_penalties_are_their_formulas(prompt, output, repetition, presence, frequency, seed):
    params = SamplingParams(repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency)
    state = PenaltyState(prompt, VOCAB, params)
    for spoken in output:
        state.update(mx.array([spoken], dtype=mx.uint32))
    logits = logits_of(seed)
    found = np.array(state.apply(mx.array(logits)[None]))
    np.testing.assert_allclose(found, penalized(logits, prompt, output, params)[None], rtol=1e-5, atol=1e-6)


def test_the_three_together_by_hand():
    params = SamplingParams(repetition_penalty=2.0, presence_penalty=1.0, frequency_penalty=0.25)
    state = PenaltyState([0, 1], 4, params)
    for spoken in (1, 2, 2):
        state.update(mx.array([spoken]))
    # Token 0 prompt only; 1 prompt and once in the output; 2 twice in the output; 3 never.
    found = state.apply(mx.array([[4.0, -1.0, 3.0, 2.0]]))
    assert found.tolist() == [[2.0, -2.0 - 1.25, 1.5 - 1.5, 2.0]]


def test_presence_and_frequency_do_not_see_the_prompt():
    state = PenaltyState([0, 1, 2], 3, SamplingParams(presence_penalty=1, frequency_penalty=1))
    assert state.apply(mx.array([[1.0, 2.0, 3.0]])).tolist() == [[1.0, 2.0, 3.0]]


def test_nothing_happens_when_all_are_off():
    state = PenaltyState([1, 2, 3], 10, SamplingParams(temperature=0.5, top_k=3))
    logits = mx.zeros((1, 10), dtype=mx.bfloat16)
    state.update(mx.array([4]))
    assert not state.active
    assert state.apply(logits) is logits


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("dtype", [mx.uint32, mx.int32, mx.int64])
def test_a_token_of_any_shape_and_type(shape, dtype):
    state = PenaltyState([], 5, SamplingParams(frequency_penalty=0.5, repetition_penalty=2))
    state.update(mx.full(shape, 3, dtype=dtype))
    assert state.apply(mx.ones((1, 5))).tolist() == [[1.0, 1.0, 1.0, 0.0, 1.0]]


def test_several_tokens_at_once_count_as_one_by_one():
    params = SamplingParams(repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.25)
    together, single = PenaltyState([9], VOCAB, params), PenaltyState([9], VOCAB, params)
    tokens = [4, 4, 17, 4, 9, 0, 17]
    together.update(mx.array(tokens))
    for spoken in tokens:
        single.update(mx.array([spoken]))
    logits = mx.array(logits_of(1))
    assert mx.array_equal(together.apply(logits), single.apply(logits))


@pytest.mark.parametrize("prompt", [[], [2, 2, 4], mx.array([2, 4]), np.array([2, 4]), (4, 2)])
def test_prompts_of_any_kind(prompt):
    state = PenaltyState(prompt, 6, SamplingParams(repetition_penalty=4))
    expected = [1.0] * 6
    if len(prompt):
        expected[2] = expected[4] = 0.25
    assert state.apply(mx.ones((1, 6))).tolist() == [expected]


def test_half_precision_logits_become_float32():
    state = PenaltyState([0], 2, SamplingParams(repetition_penalty=1.1))
    found = state.apply(mx.array([[3.0, 3.0]], dtype=mx.bfloat16))
    assert found.dtype == mx.float32
    np.testing.assert_allclose(np.array(found), [[3 / 1.1, 3.0]], rtol=1e-6)


def test_a_copy_is_a_snapshot():
    state = PenaltyState([0], 4, SamplingParams(repetition_penalty=2, presence_penalty=1, frequency_penalty=1))
    state.update(mx.array([1]))
    before = copy.copy(state)
    logits = mx.ones((1, 4))
    expected = state.apply(logits).tolist()
    state.update(mx.array([2]))
    state.update(mx.array([1]))
    assert before.apply(logits).tolist() == expected
    assert state.apply(logits).tolist() != expected


def test_a_long_output_does_not_drift():
    state = PenaltyState([], 3, SamplingParams(frequency_penalty=0.1))
    for _ in range(2000):
        state.update(mx.array([1]))
    np.testing.assert_allclose(np.array(state.apply(mx.zeros((1, 3)))), [[0, -200, 0]], rtol=1e-6)


def test_decoding_never_waits_for_a_token():
    """While `mx.compile` traces, arrays have no values: whoever asks for one fails."""
    params = SamplingParams(repetition_penalty=1.1, presence_penalty=1, frequency_penalty=0.2, top_k=5)

    def decode(logits):
        state, sampler, tokens = PenaltyState([1, 2], VOCAB, params), make_sampler(params), []
        for _ in range(3):
            tokens.append(sampler(state.apply(logits)))
            state.update(tokens[-1])
        return mx.concatenate(tokens)

    assert mx.compile(decode)(mx.array(logits_of(0))[None]).shape == (3,)


def test_a_strong_presence_penalty_makes_greedy_say_everything_once():
    params = SamplingParams(temperature=0, presence_penalty=2)
    state, sampler = PenaltyState([], 6, params), make_sampler(params)
    logits, said = mx.array([[0.0, 0.1, 0.2, 0.3, 0.4, 0.5]]), []
    for _ in range(6):
        said.append(sampler(state.apply(logits)))
        state.update(said[-1])
    assert mx.concatenate(said).tolist() == [5, 4, 3, 2, 1, 0]


def test_prompt_ids_that_the_logits_do_not_have_are_ignored():
    state = PenaltyState([-1, -2, 4, 10**6, 1], 4, SamplingParams(repetition_penalty=2))
    assert state.apply(mx.ones((1, 4))).tolist() == [[1.0, 0.5, 1.0, 1.0]]

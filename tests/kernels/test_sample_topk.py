import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.kernels import sample_topk as module
from qwen_mlx.kernels.sample_topk import kernel
from qwen_mlx.kernels.sample_topk.candidates import TIE_ROOM, filtered
from tests.kernels.harness import (
    FLOATS,
    assert_caught,
    launched,
    launched_every_way,
    mistakes,
    needs_simulator,
    same_bits,
)
from tests.kernels.sweep import first_mistakes
from tests.metalsim import metal_kernel
from tests.metalsim.simulated import simulated_kernels

QWEN = {"temperature": 0.7, "top_k": 20, "top_p": 0.95, "min_p": 0.01}
OPEN = {"temperature": 1.0, "top_k": 20, "top_p": 1.0, "min_p": 0.0}  # top-k alone


def normal(vocab, batch=1, scale=3.0, seed=0, dtype=mx.float32):
    return mx.array(np.random.default_rng(seed).normal(scale=scale, size=(batch, vocab))).astype(dtype)


def key(seed=0):
    return mx.random.key(seed)


def close_call(logits, key, options):
    """Whether two candidates come so close that the rounding of a logarithm may decide between them."""
    _, scores = filtered(logits, **options)
    perturbed = mx.sort(scores + mx.random.gumbel(scores.shape, key=key), axis=-1)
    return mx.any(perturbed[:, -1] - perturbed[:, -2] < 1e-4).item()


def plain(logits, key, *, temperature, top_k, top_p, min_p):
    """By the definition, in numpy; of equals the lower ids are kept, whether there is room for all or not."""
    scores = np.array(logits.astype(mx.float32)) / np.float32(temperature)
    noise = np.array(mx.random.gumbel((len(scores), top_k + TIE_ROOM), key=key))
    tokens = []
    for row, gumbel in zip(scores, noise):
        order = np.argsort(-row, kind="stable")[: top_k + TIE_ROOM]
        ranked = row[order]
        ranked[ranked < ranked[top_k - 1]] = -np.inf
        with np.errstate(invalid="ignore"):  # where all are impossible
            mass = np.exp(ranked - ranked[0])
        tail = np.cumsum(mass[::-1], dtype=np.float32)[::-1]
        if top_p < 1:
            ranked[~(tail > np.float32(1 - top_p) * tail[0])] = -np.inf
        if min_p > 0:
            ranked[ranked < ranked[0] + np.float32(np.log(min_p))] = -np.inf
        tokens.append(order[np.argmax(ranked + gumbel)])
    return (mx.array(np.array(tokens, dtype=np.uint32)),)


# ------------------------------------------------------------------------------------------------- the kernel


@needs_simulator
@pytest.mark.parametrize(
    ("dtype", "batch", "vocab", "options"),
    [
        (mx.bfloat16, 1, 151_936, QWEN),
        (mx.float32, 3, 30_001, {**QWEN, "top_k": 19}),  # a ragged last block, an odd number of random words
        (mx.float16, 2, 10_240, {**OPEN, "temperature": 1.3}),
        (mx.bfloat16, 1, 512, {**OPEN, "top_k": 1}),
        (mx.float32, 1, 511, {**OPEN, "top_k": 1, "temperature": 50.0}),  # one block that is not full
        (mx.float16, 2, 40_000, {**QWEN, "top_k": 64, "temperature": 20.0}),
    ],
)
def test_draws_what_the_reference_draws(dtype, batch, vocab, options):
    logits = normal(vocab, batch, dtype=dtype)
    seed = next(s for s in range(9) if not close_call(logits, key(s), options))
    (token,) = launched_every_way(kernel, (logits, key(seed)), options)
    assert same_bits(token, kernel.reference(logits, key(seed), **options)[0])
    assert same_bits(token, plain(logits, key(seed), **options)[0])


@st.composite
def situations(draw):
    """Logits in steps, so that many are equal, and filters of every kind."""
    vocab = draw(st.integers(4 * 512, 5 * 512))
    options = {
        "top_k": draw(st.integers(1, 4)),
        "temperature": draw(st.sampled_from([0.3, 1.0, 4.0])),
        "top_p": draw(st.sampled_from([0.2, 0.7, 0.95, 1.0])),
        "min_p": draw(st.sampled_from([0.0, 0.1, 0.9])),
    }
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = numbers.integers(-1000, 1000, size=(draw(st.integers(1, 3)), vocab)) / 16
    # a peak of equals, up to as many as there is room for
    peak = draw(st.integers(0, TIE_ROOM))
    logits[:, numbers.choice(vocab, peak, replace=False)] = 70
    return mx.array(logits.astype(np.float32)), options, draw(st.integers(0, 2**32 - 1))


@needs_simulator
@settings(max_examples=25, deadline=None)
@given(situations())
def test_any_filters(situation):
    logits, options, seed = situation
    kth = mx.sort(logits, axis=-1)[:, -options["top_k"]]
    tied = (logits == kth[:, None]).sum(axis=-1).max().item()
    if tied <= TIE_ROOM and not close_call(logits, key(seed), options):
        (token,) = launched(kernel, (logits, key(seed)), options)
        assert same_bits(token, kernel.reference(logits, key(seed), **options)[0])
        assert same_bits(token, plain(logits, key(seed), **options)[0])


@needs_simulator
def test_more_candidates_than_fit_into_threadgroup_memory():
    """1,500 neighbours stand far above all others."""
    logits = np.array(normal(30_001))
    logits[0, 1000:2500] += 20
    (token,) = launched_every_way(kernel, (mx.array(logits), key(1)), OPEN)
    assert same_bits(token, kernel.reference(mx.array(logits), key(1), **OPEN)[0])


@needs_simulator
@pytest.mark.parametrize("level", [0.0, -7.5, -float("inf")])
def test_of_equals_beyond_the_room_the_lowest_ids_are_kept(level):
    arrays = mx.full((12, 2600), level), key(2)
    options = {**OPEN, "top_k": 5}
    (tokens,) = launched(kernel, arrays, options)
    assert max(tokens.tolist()) < 5 + TIE_ROOM
    assert same_bits(tokens, plain(*arrays, **options)[0])


@needs_simulator
def test_impossible_tokens_are_never_drawn():
    logits = np.full((20, 2600), -np.inf, dtype=np.float32)
    logits[:, [5, 900, 2599]] = 0.0
    (tokens,) = launched(kernel, (mx.array(logits), key(4)), {**OPEN, "top_k": 5})
    assert set(tokens.tolist()) == {5, 900, 2599}


@needs_simulator
def test_what_is_not_a_number_is_never_drawn():
    logits = np.array(normal(2600, 10))
    logits[:, ::3] = np.nan
    (tokens,) = launched(kernel, (mx.array(logits), key(4)), {**OPEN, "top_k": 5})
    assert all(token % 3 for token in tokens.tolist())


@needs_simulator
@pytest.mark.parametrize("count", [1, 2, 7, 64, 65])
def test_random_numbers_are_those_of_mlx(count):
    """An odd count has a word whose partner is dropped."""
    source = """
        uint i = thread_position_in_grid.x;
        numbers[i] = min(float(random_bits(key[0], key[1], i, uint(count))) / 4294967296.0f, 0.99999994f);
    """
    build = metal_kernel("random_numbers", ["key", "count"], ["numbers"], source, module._draw.header)
    inputs = [key(11), mx.array(count)]
    shape = {"output_shapes": [(count,)], "output_dtypes": [mx.float32], "threadgroup": (32, 1, 1)}
    (numbers,) = build(inputs=inputs, grid=(count, 1, 1), **shape)
    assert same_bits(numbers, mx.random.uniform(shape=(count,), key=key(11)))


@needs_simulator
def test_the_sampler_of_generation_uses_it():
    from qwen_mlx.generation.sampling import SamplingParams, make_sampler

    params = SamplingParams(temperature=0.7, top_k=20, top_p=0.95, seed=4)
    logits = normal(20_000, 2)
    plain, with_kernel = make_sampler(params), make_sampler(params)
    expected = [plain(logits).tolist() for _ in range(5)]
    with simulated_kernels():
        assert kernel.runs(logits, key(), temperature=0.7, top_k=20, top_p=0.95, min_p=0.0)
        assert [with_kernel(logits).tolist() for _ in range(5)] == expected


def test_eligible():
    def eligible(shape=(1, 40_000), dtype=mx.float32, **changes):
        return kernel.eligible(mx.zeros(shape, dtype), key(), **{**QWEN, **changes})

    assert all(eligible(dtype=dtype) for dtype in FLOATS)
    assert eligible(top_k=64)
    assert not eligible(top_k=65)
    assert not eligible(top_k=0)  # the whole vocabulary
    assert not eligible(shape=(1, 19 * 512))  # fewer blocks than tokens to keep
    assert not eligible(shape=(1, 1025 * 512))
    assert not eligible(shape=(40_000,))
    assert not eligible(temperature=0.0)
    assert not eligible(dtype=mx.int32)


def tricky():
    """Small vocabularies, several texts in each batch, and filters that leave much to chance."""
    vocab = 2600
    peak = np.array(normal(vocab, 4))
    peak[:, 700:1400] += 20  # too many to gather
    flat = np.zeros((4, vocab), dtype=np.float32)
    lonely = np.array(normal(5 * 512, 4)).reshape(4, 5, 512)
    lonely[:, :, 77] += 30  # one likely token in every block, and no more blocks than tokens to keep
    apart = np.array(normal(vocab, 4))
    for row in range(4):  # all likely tokens of a text in a block of its own
        apart[row, 512 * row : 512 * row + 6] += 30 - 20 * row
    coarse = np.round(np.array(normal(vocab, 4)) * 2) / 2
    options = {**OPEN, "top_k": 5, "temperature": 6.0}
    yield (mx.array(coarse), key(1)), {**QWEN, "top_k": 5}
    yield (normal(vocab, 4), key(2)), options
    yield (mx.array(lonely.reshape(4, -1)), key(3)), options
    yield (mx.array(apart), key(8)), {**options, "top_k": 2}
    yield (mx.array(peak), key(4)), options
    yield (mx.array(flat), key(5)), options
    yield (normal(vocab, 8, 1.0), key(6)), {**options, "top_p": 0.5}
    yield (normal(vocab, 8, 1.0), key(7)), {**options, "min_p": 0.9}


@needs_simulator
@mistakes(
    ("logits[row * size_t(vocab) + at]", "logits[at]"),
    ("best = simd_max(best);", ""),
    ("lane == 0 && block < blocks", "lane == 0"),
)
def test_mistakes_in_the_maxima_are_noticed(monkeypatch, mistake):
    assert_caught(monkeypatch, kernel, module._block_maxima, mistake, tricky, 0.0, plain)


@needs_simulator
@first_mistakes(
    11,
    ("(bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u", "bits"),
    ("(i + 2) % 3] + uint(i) + 1", "(i + 2) % 3] + uint(i)"),
    ("i < half_up ? words.x : words.y", "words.x"),
    ("float(bits) / 4294967296.0f", "float(bits) / 2147483648.0f"),
    ("row * size_t(vocab)", "row"),
    ("tops[b] = maxima[row * blocks + b]", "tops[b] = maxima[b]"),
    ("if (before == top_k - 1)", "if (before == top_k)"),
    ("&& other < b) ? 1 : 0", "&& other <= b) ? 1 : 0"),
    ("uint(at) <= trial_id) ? 1 : 0", "uint(at) < trial_id) ? 1 : 0"),
    ("base += s < simd ? counts[s] : 0", "base += counts[s]"),
    ("key_bit = 31;", "key_bit = 30;"),
    ("least = count >= uint(top_k) ? trial_key : least", "least = count >= uint(top_k) ? least : trial_key"),
    ("last_id = count <= uint(room) ? trial_id : last_id", "last_id = trial_id"),
    ("simd_prefix_exclusive_sum(found)", "simd_sum(found)"),
    ("slot += 1;", ""),
    ("pool_ids[j] < pool_ids[i]", "pool_ids[j] > pool_ids[i]"),
    ("if (rank < uint(room))", "if (rank < uint(top_k))"),
    ("const uint kth = keys[top_k - 1]", "const uint kth = keys[top_k]"),
    ("likely = candidate && key >= kth", "likely = candidate && key > kth"),
    ("tail = i == int(thread_id) ? sum : tail", "tail = sum"),
    ("tail > outside * sum", "tail > outside"),
    ("score >= best + gap", "score >= gap"),
    ("row) * uint(room) + thread_id", "row) + thread_id"),
    ("const bool wins = drawn[i] > top", "const bool wins = drawn[i] < top"),
    ("simd_min(top == highest ? place : uint(MOST_KEPT))", "place"),
    ("}\nthreadgroup_barrier(mem_flags::mem_threadgroup);\nif (simd == 0)", "}\nif (simd == 0)"),
    (
        "    count += counts[s];\n  }\n  threadgroup_barrier(mem_flags::mem_threadgroup);",
        "    count += counts[s];\n  }",
    ),
)
def test_mistakes_in_the_draw_are_noticed(monkeypatch, mistake):
    assert_caught(monkeypatch, kernel, module._draw, mistake, tricky, 0.0, plain)

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.kernels import router_topk as module
from qwen_mlx.kernels.router_topk import kernel, router_topk
from tests.kernels.harness import (
    FLOATS,
    assert_caught,
    assert_same_gradient,
    launched,
    launched_every_way,
    needs_simulator,
    same_bits,
    worst,
)
from tests.kernels.sweep import first_mistakes


def steps(tokens, experts, dtype=mx.float32, spread=40, seed=0):
    """Logits in steps of 1/16, many of them equal: what is not equal is told apart by any exponential."""
    numbers = np.random.default_rng(seed).integers(-spread, spread + 1, size=(tokens, experts))
    return mx.array(numbers / 16).astype(dtype)


def plain(logits, k, normalise):
    """By the definition, in numpy, in float64."""
    x = np.array(logits.astype(mx.float32)).astype(np.float64)
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    # ascending by probability, then by index
    chosen = np.argsort(x, axis=-1, kind="stable")[:, -k:]
    weights = np.take_along_axis(p, chosen, axis=-1)
    return chosen, weights / weights.sum(axis=-1, keepdims=True) if normalise else weights


@pytest.mark.parametrize("normalise", [True, False])
def test_the_reference_follows_the_definition(normalise):
    logits = steps(5, 60)
    experts, weights = router_topk(logits, 4, normalise)
    chosen, expected = plain(logits, 4, normalise)
    assert experts.dtype == mx.uint32
    assert np.array_equal(np.array(experts), chosen)
    assert np.allclose(np.array(weights), expected, rtol=1e-5)


@needs_simulator
@pytest.mark.parametrize(
    ("experts", "k", "normalise", "dtype"),
    [
        (128, 8, True, mx.bfloat16),  # Qwen3-MoE
        (60, 4, False, mx.float16),  # Qwen1.5-MoE
        (512, 10, True, mx.bfloat16),  # Qwen3-Next
        (128, 8, False, mx.float32),
        (60, 8, True, mx.float32),
        (512, 4, False, mx.float32),
        (1, 1, True, mx.float32),
        (5, 5, False, mx.float32),
        (130, 16, True, mx.float32),  # a second simdgroup with fewer experts than are chosen
    ],
)
def test_equals_the_reference(experts, k, normalise, dtype):
    for spread in (0, 3, 40, 400):  # from all equal to a single peak
        logits = steps(4, experts, dtype, spread)
        options = {"k": k, "normalise": normalise}
        found = launched_every_way(kernel, (logits,), options)
        expected = kernel.reference(logits, **options)
        assert same_bits(found[0], expected[0])
        assert worst(found, expected) <= {mx.float32: 1e-6, mx.float16: 1e-3, mx.bfloat16: 8e-3}[dtype]
        if normalise and dtype == mx.float32:
            assert mx.allclose(found[1].sum(axis=-1), mx.array(1.0))


@needs_simulator
@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(-3, 3), min_size=130, max_size=130), min_size=1, max_size=3),
    masked=st.sets(st.integers(0, 129), max_size=100),
)
def test_ties(rows, masked):
    """Seven values for 130 experts, some of them impossible."""
    numbers = np.array(rows, dtype=np.float32)
    numbers[:, sorted(masked)] = -np.inf
    logits, options = mx.array(numbers), {"k": 16, "normalise": True}
    found, expected = launched(kernel, (logits,), options), kernel.reference(logits, **options)
    assert same_bits(found[0], expected[0])
    assert worst(found, expected) <= 1e-6


@needs_simulator
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 30.0]))
def test_any_logits(seed, scale):
    """Distinct experts, ascending, and no other is likelier than the first by more than rounding."""
    logits = scale * mx.random.normal((3, 128), key=mx.random.key(seed))
    options = {"k": 8, "normalise": False}
    (experts, weights), (_, expected) = launched(kernel, (logits,), options), kernel.reference(logits, **options)
    assert worst((weights,), (expected,)) <= 1e-6
    probabilities = mx.softmax(logits, axis=-1)
    assert mx.allclose(mx.take_along_axis(probabilities, experts, axis=-1), weights, atol=1e-6)
    assert mx.all(weights[:, 1:] >= weights[:, :-1])
    assert all(len(set(row)) == 8 for row in experts.tolist())


@needs_simulator
def test_what_is_not_a_number_spoils_its_token_only():
    logits = steps(3, 128)
    logits[1, 17] = float("nan")
    experts, weights = launched_every_way(kernel, (logits,), {"k": 8, "normalise": True})
    assert experts[1].tolist() == list(range(120, 128))
    assert mx.all(mx.isnan(weights[1])).item()
    assert not mx.any(mx.isnan(weights[::2])).item()


@needs_simulator
@pytest.mark.parametrize("normalise", [True, False])
def test_gradient(normalise):
    assert_same_gradient(kernel, (steps(3, 128),), {"k": 8, "normalise": normalise}, 1e-6)


def test_eligible():
    def eligible(shape, k, dtype=mx.float32):
        return kernel.eligible(mx.zeros(shape, dtype), k=k, normalise=True)

    assert all(eligible((2, 128), 8, dtype) for dtype in FLOATS)
    assert not eligible((2, 128), 8, mx.int32)
    assert not eligible((2, 128), 17)
    assert not eligible((2, 4), 5)
    assert not eligible((2, 1025), 8)
    assert not eligible((0, 128), 8)
    assert not eligible((1, 2, 128), 8)


def tricky():
    """Ties everywhere, most of them impossible, all chosen from the last simdgroup; a single expert."""
    for spread in (0, 3, 40):
        yield (steps(2, 600, spread=spread),), {"k": 8, "normalise": True}
    likely = steps(2, 600)
    likely[:, 9:] = -float("inf")
    yield (likely,), {"k": 16, "normalise": False}
    yield (mx.concatenate([steps(2, 512) - 9, steps(2, 88)], axis=1),), {"k": 8, "normalise": True}
    yield (mx.ones((1, 1)),), {"k": 1, "normalise": False}


@needs_simulator
@first_mistakes(
    11,
    ("(EXPERTS + 127) / 128", "EXPERTS / 128"),
    ("token * EXPERTS + first + i", "token + first + i"),
    ("float(logits[token * EXPERTS + first + i]) : -INFINITY", "float(logits[token * EXPERTS + first + i]) : 0.0f"),
    ("highest = simd_max(highest);", ""),
    ("}\nthreadgroup_barrier(mem_flags::mem_threadgroup);\n\nfloat sum", "}\n\nfloat sum"),
    ("(lane < uint(SIMDS) ? partial[lane] : 0.0f)", "(partial[lane])"),
    ("1.0f / simd_sum", "1.0f + simd_sum"),
    ("first + i < uint(EXPERTS) ? bits + 1 : 0", "bits + 1"),
    ("place = key[i] >= best", "place = key[i] > best"),
    ("simd_max(best == top ? place : 0u);\n  if", "simd_min(best == top ? place : 9999u);\n  if"),
    ("key[i] = first + i == where ? 0 : key[i];", ""),
    ("}\nthreadgroup_barrier(mem_flags::mem_threadgroup);\n\nif (simd == 0)", "}\n\nif (simd == 0)"),
    ("(FOUND + 31) / 32", "FOUND / 32"),
    ("expert[i] >= place)", "expert[i] < place)"),
    ("chosen[K - 1 - rank] =", "chosen[rank] ="),
    ("experts[token * K + K - 1 - rank]", "experts[token * K + rank]"),
    ("as_type<float>(top - 1)", "as_type<float>(top)"),
    ("total = chosen[i] + total", "total = chosen[i]"),
    ("NORMALISE ? chosen[i] / total : chosen[i]", "chosen[i]"),
)
def test_mistakes_are_noticed(monkeypatch, mistake):
    assert_caught(monkeypatch, kernel, module._program, mistake, tricky, 1e-7)

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.kernels import add_rms_norm as module
from qwen_mlx.kernels.add_rms_norm import add_rms_norm, kernel
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

EPS = 1e-6


def case(size, rows=2, dtype=mx.float32, weight_dtype=None, seed=0, scale=1.0):
    keys = mx.random.split(mx.random.key(seed), 3)
    x = (scale * mx.random.normal((rows, size), key=keys[0])).astype(dtype)
    y = mx.random.normal((rows, size), key=keys[1]).astype(dtype)
    weight = mx.random.uniform(-1.5, 1.5, (size,), key=keys[2]).astype(weight_dtype or dtype)
    return (x, y, weight), {"eps": EPS}


def in_float32(x, y, weight):
    """The sum as stored, and its norm with one rounding at the end."""
    total = (x + y).astype(mx.float32)
    return total * mx.rsqrt((total * total).mean(axis=-1, keepdims=True) + EPS) * weight.astype(mx.float32)


def test_the_reference_is_the_sum_and_mlxs_norm():
    (x, y, weight), _ = case(96)
    total, normed = add_rms_norm(x, y, weight, EPS)
    assert same_bits(total, x + y)
    assert mx.allclose(normed, in_float32(x, y, weight), rtol=1e-5, atol=1e-6)


# one value, less than a lane's four, a simdgroup and a bit, some simdgroups, and more than MLX's kernel has threads
SIZES = [(1, mx.float32), (3, mx.bfloat16), (130, mx.float16), (520, mx.float32), (5120, mx.bfloat16)]


@needs_simulator
@pytest.mark.parametrize(("size", "dtype"), SIZES)
def test_equals_the_reference(size, dtype):
    arrays, options = case(size, 3, dtype)
    found = launched_every_way(kernel, arrays, options)
    expected = kernel.reference(*arrays, **options)
    assert same_bits(found[0], expected[0])
    # float32: the sum is taken in another order. Otherwise that can move a value by one step of its type, seldom.
    step = {mx.float32: 1e-6, mx.float16: 1e-3, mx.bfloat16: 8e-3}[dtype]
    assert worst(found, expected) <= step
    if dtype != mx.float32:
        assert mx.mean(found[1] == expected[1]).item() > 0.99


@needs_simulator
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_a_float32_weight_is_rounded_once(dtype):
    """Zero-centred families keep the weight in float32, and the product with it."""
    arrays, options = case(130, 4, dtype, mx.float32)
    _, normed = launched_every_way(kernel, arrays, options)
    assert normed.dtype == dtype
    assert mx.mean(normed == in_float32(*arrays).astype(dtype)).item() > 0.99


@needs_simulator
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 1e-4, 1.0, 300.0]),
)
def test_any_values(rows, seed, scale):
    arrays, options = case(130, rows, mx.float32, None, seed, scale)
    assert worst(launched(kernel, arrays, options), kernel.reference(*arrays, **options)) <= 1e-6


@needs_simulator
def test_leading_dimensions_are_rows():
    arrays, options = case(130, 6)
    x, y, weight = arrays
    folded = launched(kernel, (x.reshape(2, 3, 130), y.reshape(2, 3, 130), weight), options)
    flat = launched(kernel, arrays, options)
    assert all(same_bits(a.reshape(6, 130), b) for a, b in zip(folded, flat))


@needs_simulator
def test_the_result_does_not_depend_on_the_number_of_threads(monkeypatch):
    arrays, options = case(1030)
    many = launched(kernel, arrays, options)
    monkeypatch.setattr(module, "_MOST_THREADS", 64)
    assert same_bits(launched(kernel, arrays, options)[1], many[1])


@needs_simulator
def test_gradient():
    arrays, options = case(130)
    assert_same_gradient(kernel, arrays, options, 1e-6)


def test_eligible():
    (x, y, weight), _ = case(64)
    assert kernel.eligible(x, y, weight, eps=EPS)
    for dtype in FLOATS[1:]:
        assert kernel.eligible(x.astype(dtype), y.astype(dtype), weight, eps=EPS)
        assert not kernel.eligible(x.astype(dtype), y, weight, eps=EPS)
        assert not kernel.eligible(x, y, weight.astype(dtype), eps=EPS)
    assert not kernel.eligible(x, y[:1], weight, eps=EPS)
    assert not kernel.eligible(x[:0], y[:0], weight, eps=EPS)
    assert not kernel.eligible(x, y, weight[:1], eps=EPS)


def tricky():
    """So small that eps matters; a ragged last chunk; more partial sums than simdgroups; more chunks than sums."""
    (x, y, weight), options = case(128)
    yield (1e-4 * x, 1e-4 * y, weight), options
    for size in (1030, 2500, 5120):
        yield case(size)


@needs_simulator
@first_mistakes(
    10,
    ("* SIZE;", "* (SIZE - 1);"),  # rows overlap
    ("(SIZE + CHUNK - 1) / CHUNK", "SIZE / CHUNK"),  # the last chunk is forgotten
    ("CHUNKS < 32 ? CHUNKS : 32", "CHUNKS"),  # more partial sums than places
    ("(PARTS + SIMDS - 1) / SIMDS", "PARTS / SIMDS"),
    ("const uint lane = thread_index_in_simdgroup", "const uint lane = thread_index_in_threadgroup"),
    ("part < PARTS && at + i < SIZE) {\n        const T rounded", "at + i <= SIZE) {\n        const T rounded"),
    ("float(x[row + at + i]) + float(y[row + at + i])", "float(x[row + at + i]) - float(y[row + at + i])"),
    ("squares += value * value", "squares += value"),
    ("squares = simd_sum(squares);", ""),
    ("if (simd == 0) {\n  partial[lane] = 0.0f;\n}\nthreadgroup_barrier(mem_flags::mem_threadgroup);", ""),
    ("}\nthreadgroup_barrier(mem_flags::mem_threadgroup);\n\nconst float scale", "}\n\nconst float scale"),
    ("/ float(SIZE) + eps", "/ float(SIZE + 1) + eps"),
    ("/ float(SIZE) + eps", "/ float(SIZE)"),
    ("float(weight[at + i])", "float(weight[at])"),
    ("metal::precise::rsqrt", "metal::precise::sqrt"),
)  # fmt: skip
def test_mistakes_are_noticed(monkeypatch, mistake):
    assert_caught(monkeypatch, kernel, module._program, mistake, tricky, 2e-6)

"""The experimental products of one token with 4-bit matrices: gate and up with SwiGLU, and down with a weighted sum."""

import mlx.core as mx
import pytest

from qwen_mlx.checkpoints.stored import StoredMatrix
from qwen_mlx.kernels import expert_down, swiglu_matvec
from qwen_mlx.models.spec import QuantizationSpec
from tests.kernels.harness import assert_caught, launched_every_way, needs_simulator, worst
from tests.kernels.sweep import first_mistakes
from tests.metalsim.simulated import simulated_kernels
from tests.models import tiny

STEP = {mx.float32: 2e-6, mx.float16: 1e-3, mx.bfloat16: 8e-3}
DOWN, SWIGLU = expert_down.kernel, swiglu_matvec.kernel


def packed(experts, rows, columns, dtype, seed=0):
    matrices = mx.random.normal((experts, rows, columns), key=mx.random.key(seed)) / columns**0.5
    return mx.quantize((matrices + 0.02).astype(dtype), group_size=64, bits=4)  # codes and biases that do not cancel


def swiglu_case(columns, rows, experts=5, chosen=(3, 0), dtype=mx.float32):
    x = (mx.random.normal((1, columns), key=mx.random.key(7)) + 0.1).astype(dtype)
    return (x, *packed(experts, 2 * rows, columns, dtype), mx.array(chosen, mx.uint32)), {}


def down_case(columns, rows, experts=5, chosen=(3, 0, 4), dtype=mx.float32):
    x = (mx.random.normal((len(chosen), columns), key=mx.random.key(7)) + 0.1).astype(dtype)
    shares = mx.array([0.5, 0.3, 0.15, 0.05][: len(chosen)]).astype(dtype)
    return (x, *packed(experts, rows, columns, dtype), mx.array(chosen, mx.uint32), shares), {}


# less than a lane each, as many as lanes and a bit, ragged rows; 768 are the columns of Qwen3-30B-A3B's experts
SIZES = [(64, 1, mx.float32), (320, 9, mx.float16), (768, 8, mx.bfloat16)]


@needs_simulator
@pytest.mark.parametrize(("columns", "rows", "dtype"), SIZES)
@pytest.mark.parametrize(("kernel", "case"), [(SWIGLU, swiglu_case), (DOWN, down_case)])
def test_equal_their_references(kernel, case, columns, rows, dtype):
    arrays, options = case(columns, rows, dtype=dtype)
    found = launched_every_way(kernel, arrays, options)
    assert worst(found, kernel.reference(*arrays, **options)) <= STEP[dtype]


@pytest.mark.parametrize("dtype", [mx.float32])
def test_the_references_are_mlxs_own_products(dtype):
    (x, weight, scales, biases, experts), _ = swiglu_case(128, 6, dtype=dtype)
    packing = {"transpose": True, "group_size": 64, "bits": 4}
    both = mx.gather_qmm(x[None], weight, scales, biases, rhs_indices=experts, **packing)[:, 0]
    gate, up = mx.split(both, 2, axis=-1)
    expected = gate * mx.sigmoid(gate) * up
    assert mx.allclose(SWIGLU.reference(x, weight, scales, biases, experts)[0], expected, atol=1e-5)
    (x, weight, scales, biases, experts, shares), _ = down_case(128, 6, dtype=dtype)
    each = mx.gather_qmm(x[:, None], weight, scales, biases, rhs_indices=experts, **packing)[:, 0]
    found = DOWN.reference(x, weight, scales, biases, experts, shares)[0]
    assert mx.allclose(found, (each * shares[:, None]).sum(axis=0, keepdims=True), atol=1e-5)


def test_a_dense_matrix_is_one_expert():
    arrays, _ = swiglu_case(64, 6, 1, (0,))
    assert SWIGLU.eligible(*arrays)
    assert SWIGLU.reference(*arrays)[0].shape == (1, 6)


def test_they_are_off_unless_named(monkeypatch):
    for name, kernel in (("swiglu_matvec", SWIGLU), ("expert_down", DOWN)):
        monkeypatch.delenv("QWEN_MLX_KERNELS", raising=False)
        assert kernel.experimental and not kernel.wanted
        monkeypatch.setenv("QWEN_MLX_KERNELS", f"default,{name}")
        assert kernel.wanted


def test_eligible():
    for kernel, (arrays, _) in ((SWIGLU, swiglu_case(128, 6)), (DOWN, down_case(128, 6))):
        x, weight, scales, *rest = arrays
        assert kernel.eligible(*arrays)
        assert not kernel.eligible(x.astype(mx.bfloat16), weight, scales, *rest)
        assert not kernel.eligible(x[:, :64], weight, scales, *rest)
        assert not kernel.eligible(mx.concatenate([x, x]), weight, scales, *rest)
        assert not kernel.eligible(x, weight, scales[:, :, :1], *rest)


PACKED_MISTAKES = (
    ("constexpr int WORDS = K / 8", "constexpr int WORDS = K / 16"),
    ("constexpr int GROUPS = K / 64", "constexpr int GROUPS = K / 32"),
    ("simdgroup_index_in_threadgroup) * ROWS", "simdgroup_index_in_threadgroup)"),
    ("word += 32", "word += 64"),
    ("x[c * K + word * 8 + i]", "x[word * 8 + i]"),
    ("sum += values[i]", "sum += 1.0f"),
    ("group = word / 8", "group = word / 4"),
)


@needs_simulator
@first_mistakes(
    10,
    *(m for m in PACKED_MISTAKES if "c * K" not in m[0]),
    ("* (2 * N)", "* N"),
    ("up_row = gate_row + N", "up_row = gate_row + 1"),
    ("(gate_codes >> (4 * i)) & 15", "(gate_codes >> (4 * i)) & 7"),
    ("float(biases[up_row * GROUPS + group]) * sum", "float(biases[up_row * GROUPS + group])"),
    ("lane == 0 && first + r < N", "lane == 0"),
    ("simd_sum(up[r])", "up[r]"),
    ("exp(-g)", "exp(g)"),
    ("result[chosen * N + first + r]", "result[first + r]"),
)
def test_mistakes_in_swiglu_are_noticed(monkeypatch, mistake):
    assert_caught(monkeypatch, SWIGLU, swiglu_matvec._program, mistake, lambda: [swiglu_case(576, 9)], 2e-6)


@needs_simulator
@first_mistakes(
    10,
    *PACKED_MISTAKES,
    ("experts[c]) * N", "experts[0]) * N"),
    ("total[r] += float(shares[c])", "total[r] = float(shares[c])"),
    ("codes >> (4 * i)", "codes >> (4 * (7 - i))"),
    ("if (lane == 0 && first + r < N)", "if (lane == 0)"),
    ("simd_sum(dot[r])", "dot[r]"),
)
def test_mistakes_in_down_are_noticed(monkeypatch, mistake):
    assert_caught(monkeypatch, DOWN, expert_down._program, mistake, lambda: [down_case(576, 9)], 2e-6)


# ------------------------------------------------------------------------------------------------ in a model


def quantized(config):
    """A tiny decoder of these sizes, in 4 bits; kernels compute as the reference, whatever MLX's own products do."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 64, "mlp_only_layers": []}
    model = tiny.decoder(config | {key: size for key, size in sizes.items() if key in config})

    def pack(linear):
        packing = mx.quantize(linear.weight, group_size=64, bits=4)
        return StoredMatrix(*packing, quantization=QuantizationSpec(4, 64)).linear()

    for layer in model.layers:
        if hasattr(layer.mlp, "experts"):
            for matrices in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
                packing = mx.quantize(matrices.weight, group_size=64, bits=4)
                matrices.set_weights(*packing, QuantizationSpec(4, 64))
        else:
            layer.mlp.gate_up_proj.set_parts([pack(layer.mlp.gate_up_proj.parts[0])], [["gate_proj", "up_proj"]])
    model.eval()
    return model


@needs_simulator
@pytest.mark.parametrize("config", [tiny.QWEN3, tiny.QWEN3_MOE], ids=["dense", "experts"])
@pytest.mark.parametrize("names", ["swiglu_matvec", "expert_down", "swiglu_matvec,expert_down"])
def test_one_token_through_a_model(config, names, monkeypatch):
    model = quantized(config)
    prompt, token = mx.array([[3, 17, 5]]), mx.array([[9]])
    cache = model.make_cache()
    model(prompt, cache=cache)
    plain = model(token, cache=cache)
    launches = []
    for kernel in (SWIGLU, DOWN):
        run = kernel.run
        monkeypatch.setattr(kernel, "run", lambda *a, run=run, name=kernel.name: launches.append(name) or run(*a))
        monkeypatch.setattr(kernel, "_differentiable", kernel._with_gradient)
    monkeypatch.setenv("QWEN_MLX_KERNELS", names)
    cache = model.make_cache()
    with simulated_kernels(checked=False):
        model(prompt, cache=cache)
        assert not launches  # several tokens
        found = model(token, cache=cache)
        mx.eval(found)
    expected = set(names.split(",")) - ({"expert_down"} if config is tiny.QWEN3 else set())
    assert set(launches) == expected
    assert mx.allclose(found, plain, rtol=1e-3, atol=1e-3)

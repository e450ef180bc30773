"""Mistakes that the Metal compiler refuses are refused here, with the line."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.metalsim import CompileError, metal_kernel
from tests.metalsim.lint import lint
from tests.metalsim.tests import rms_norm
from tests.metalsim.tests.rms_norm import changed

pytestmark = pytest.mark.usefixtures("compiler")

# a statement that is wrong in a kernel with T = bfloat, and part of what is said of it
WRONG = {
    "device pointer as threadgroup pointer": ("threadgroup float* p = (device float*)0; (void)p;", "'device float *'"),
    "threadgroup array as device pointer": ("device T* p = buf; (void)p;", "'threadgroup float[8]'"),
    "device pointer as private pointer": ("thread float* p = &w[0]; (void)p;", "'const device bfloat16_t *'"),
    "float stored as bfloat": ("T y = w[0] * 1.0f; (void)y;", "implicit conversion"),
    "float assigned to bfloat": ("T y = w[0]; y = s; (void)y;", "implicit conversion"),
    "input written": ("w[0] = T(0.0f);", "read-only"),
    "scalar written": ("eps = 0.0f;", "const"),
    "max of float and double-looking int": ("float z = max(s, 3);", "ambiguous"),
    "double": ("double q = 1.0;", "there is no type double"),
    "pointer without address space": ("float* q = &v[0];", "pointer or reference without an address space"),
    "reference without address space": ("float& q = v[0];", "without an address space: `float& q`"),
    "lambda": ("auto q = [&](float a) { return a; };", "lambda expressions"),
    "SIMD operation on 64 bits": ("ulong q = simd_sum(ulong(1)); (void)q;", "no matching function"),
    "unknown function": ("float q = undefined_function(s);", "undeclared"),
    "static variable": ("static int calls = 0;", "static variables"),
    "threadgroup variable with a value": ("threadgroup int q = 0;", "cannot be initialised"),
    "goto": ("goto end; end:", "there is no goto"),
    "new": ("thread int* q = new int;", "operator new"),
    "wrong number of components": ("float4 q = float4(s, s, s); (void)q;", "wrong number of components"),
    "use before a value": ("float q; s += q;", "uninitialized"),
    "shape of a number": ("int q = eps_shape[0];", "undeclared"),
    "constant memory written": ("constant int q[2] = {1, 2}; q[0] = 1;", "const"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_statement(mistake):
    statement, message = WRONG[mistake]
    source = changed("float r = metal", statement + "\nfloat r = metal")
    with pytest.raises(CompileError) as caught:
        rms_norm.compute(source, mx.bfloat16)
    text = str(caught.value)
    assert text.startswith("kernel rms:\n") and message in text
    line = 1 + source[: source.index(statement)].count("\n")
    assert f"source line {line}" in text, text


def test_in_the_header():
    header = "template <typename U>\ninline U twice(U v) {\n  return v * missing;\n}\n"
    with pytest.raises(CompileError, match=r"header line 3 `return v \* missing;`: error: use of undeclared"):
        rms_norm.compute(changed("s = simd_sum(s);", "s = simd_sum(twice(s));"), header=header)


def test_an_attribute_that_only_the_header_mentions_is_not_declared():
    kernel = metal_kernel("k", ["x"], ["out"], "out[0] = AT;", "#define AT thread_position_in_grid.x\n")
    with pytest.raises(CompileError, match="undeclared identifier 'thread_position_in_grid'"):
        kernel(
            inputs=[mx.zeros(8)], grid=(1, 1, 1), threadgroup=(1, 1, 1),
            output_shapes=[(1,)], output_dtypes=[mx.float32],
        )  # fmt: skip


def test_threadgroup_variables_in_functions():
    header = "inline float f() {\n  threadgroup float shared[4];\n  return shared[0];\n}\n"
    assert lint(header, "") == [
        "header line 2: threadgroup variables belong in the kernel, not in a function: `shared`"
    ]


def test_what_is_right_is_left_alone():
    header = """// a double* in a comment
    struct Pair { float a; float b; };
    template <typename U> inline U add(const thread U& x, const device Pair* p, thread U* y) { return x + p->a * *y; }
    static constant float table[2] = {1.0f, 2.0f};
    """
    source = """/* new; goto */ threadgroup float shared[32];
    const device float* p = x; threadgroup float* q = shared; float a = b * c, d = e & f;
    g(a * b, c & d); int n[2] = {1, 2}; constexpr int k = a[i] * b[j];
    """
    assert lint(header, source) == []

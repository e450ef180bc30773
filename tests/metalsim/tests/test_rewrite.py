"""What becomes of Metal before clang sees it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.metalsim.rewrite import rewrite


def test_threadgroup_variables():
    made = rewrite("void f() {\n  threadgroup float a[4], b[2][N];\n  threadgroup vec<T, 4> c;\n}")
    assert made.count('section("sim_threadgroup")') == 3
    assert "__sim_bytes_b[sizeof(float[2][N])]" in made and "threadgroup float (&b)[2][N] =" in made
    assert "threadgroup vec<T, 4> (&c) =" in made
    assert re.findall(r"SIM_DECLARE\((\w+)\)", made) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "f(threadgroup float* p, const threadgroup T& q);",
        "threadgroup float* p = a;",
        "threadgroup T& r = a[0];",
        "threadgroup float f(int x);",
        "g((threadgroup float*)p);",
        "x = (const threadgroup uchar*)q;",
    ],
)
def test_pointers_and_functions_are_no_variables(text):
    assert rewrite(f"void k() {{ {text} }}") == f"void k() {{ {text} }}"


def test_vector_constructors():
    assert rewrite("float4 a = float4(1, 2, 3, 4);") == "float4 a = __sim_vector<float4>(1, 2, 3, 4);"
    assert rewrite("x = metal::uint2(a);") == "x = __sim_vector<uint2>(a);"
    assert rewrite("x = vec<T, 4>(a, b);") == "x = __sim_vector<vec<T, 4>>(a, b);"
    assert rewrite("using V = vec<T, 2>; x = V(1, 2);") == "using V = vec<T, 2>; x = __sim_vector<V>(1, 2);"
    assert rewrite("float4 f(int a); (float4)(1);") == "float4 f(int a); (float4)(1);"


def test_function_constants():
    text = "constant bool causal [[function_constant(3)]]; constant int n [[function_constant(4)]];"
    assert rewrite(text, {"causal": True, 4: 7}) == "static const bool causal = true; static const int n = 7;"
    assert rewrite(text) == "static const bool causal = 0; static const int n = 0;"


def test_copies_and_parameters():
    copy = "*((device S*)(p + 1)) = *((const threadgroup S*)(q));"
    assert rewrite(copy) == "__sim_copy((device S*)(p + 1), (const threadgroup S*)(q));"
    assert rewrite("int f(constant const int x[3], int n)") == "int f(constant const int* x, int n)"


pieces = st.sampled_from(
    [
        "threadgroup",
        " float",
        " T",
        "4",
        "(",
        ")",
        "[",
        "]",
        "<",
        ">",
        ",",
        ";",
        "{",
        "}",
        "\n",
        " a",
        "*",
        "&",
        "=",
        "vec",
    ]
)


@given(st.lists(pieces, max_size=30).map("".join))
def test_no_text_breaks_it_and_lines_stay_lines(text):
    assert rewrite(text).count("\n") == text.count("\n")

"""The text that is simulated is the text that MLX compiles, byte for byte."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metalsim import metal_kernel
from tests.metalsim.mlx_source import mlx_source
from tests.metalsim.signature import ATTRIBUTES

DTYPES = (
    mx.bool_, mx.uint8, mx.uint16, mx.uint32, mx.uint64, mx.int8, mx.int16, mx.int32, mx.int64,
    mx.float16, mx.bfloat16, mx.float32, mx.complex64,
)  # fmt: skip


def compare(construct: dict[str, Any], **call: Any) -> None:
    call = {"grid": (1, 1, 1), "threadgroup": (1, 1, 1), "verbose": True, **call}
    printed = mlx_source(lambda: mx.fast.metal_kernel(**construct)(**call)[0])
    made = metal_kernel(**construct).generate(call["inputs"], call["output_dtypes"], call.get("template"))
    assert made.text.rstrip("\n") == printed.rstrip("\n")
    assert made.text.startswith(made.definition)
    lines = made.definition.splitlines()
    assert lines[made.source_line - 1 :][: construct["source"].count("\n") + 1] == construct["source"].split("\n")


arrays = st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(1, 4), max_size=3))
numbers = st.one_of(st.booleans(), st.integers(-(2**31), 2**31 - 1), st.floats(-10, 10), st.just(2**40))
inputs = st.lists(st.one_of(numbers, arrays), max_size=4)
template = st.lists(
    st.one_of(st.booleans(), st.integers(-1000, 1000), st.sampled_from(DTYPES)), max_size=3
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    inputs=inputs,
    outputs=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3),
    template=template,
    mentioned=st.sets(st.sampled_from([f"x{i}_{what}" for i in range(4) for what in ("shape", "strides", "ndim")])),
    attributes=st.sets(st.sampled_from(sorted(ATTRIBUTES))),
    header=st.sampled_from(["", "// one line\n", "inline int f() {\n  return 1;\n}\n", "#define NO_NEWLINE 1"]),
    atomic=st.booleans(),
)
def test_any_call(inputs, outputs, template, mentioned, attributes, header, atomic):
    values = [mx.zeros(v[1], v[0]) if isinstance(v, tuple) else v for v in inputs]
    compare(
        {
            "name": "any_name",
            "input_names": [f"x{i}" for i in range(len(values))],
            "output_names": [f"y{i}" for i in range(len(outputs))],
            "source": "\n  ".join(["int a = 1;", *sorted(mentioned), *sorted(attributes), "y0[0] = a;"]),
            "header": header,
            "atomic_outputs": atomic,
        },
        inputs=values,
        output_shapes=[(2, 2)] * len(outputs),
        output_dtypes=outputs,
        template=[(f"P{i}", value) for i, value in enumerate(template)],
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (8,), (2, 3), (2, 2, 2), (0,), (1, 1)], ids=str)
def test_where_an_input_lies(dtype, shape):
    """0-d: a reference; below 8 elements: constant memory; else device memory. None of 0-d has a shape."""
    compare(
        {
            "name": "k",
            "input_names": ["x"],
            "output_names": ["y"],
            "source": "x_shape x_strides x_ndim",
        },
        inputs=[mx.zeros(shape, dtype)],
        output_shapes=[(1,)],
        output_dtypes=[dtype],
    )


def test_names_count_in_comments_and_in_other_names_but_not_in_the_header():
    compare(
        {
            "name": "k",
            "input_names": ["x"],
            "output_names": ["y"],
            "source": "// my_x_shape, threads_per_grid\ny[0] = x[0];",
            "header": "// x_strides thread_position_in_grid\n",
        },
        inputs=[mx.zeros((3, 3))],
        output_shapes=[(1,)],
        output_dtypes=[mx.float32],
    )


def test_calls_that_mlx_refuses_are_refused_with_its_words():
    build = {"name": "k", "input_names": ["x"], "output_names": ["y"], "source": "y[0] = x[0];"}
    call = {
        "inputs": [mx.zeros(3)],
        "output_shapes": [(1,)],
        "output_dtypes": [mx.float32],
        "grid": (1, 1, 1),
        "threadgroup": (1, 1, 1),
    }
    wrong_builds = [{"output_names": []}, {"compile_options": {"math_mode": "x"}}, {"compile_options": {"y": 1}}]
    wrong_calls = [
        {"inputs": []},
        {"output_shapes": []},
        {"output_dtypes": ["float32"]},
        {"grid": (1, 1)},
        {"template": [("N", 1.5)]},
        {"inputs": ["text"]},
    ]
    for wrong in wrong_builds:
        with pytest.raises(ValueError) as theirs:
            mx.fast.metal_kernel(**{**build, **wrong})
        with pytest.raises(ValueError) as ours:
            metal_kernel(**{**build, **wrong})
        assert str(ours.value) == str(theirs.value)
    for wrong in wrong_calls:
        with pytest.raises((ValueError, TypeError)) as theirs:
            mx.fast.metal_kernel(**build)(**{**call, **wrong})
        with pytest.raises((ValueError, TypeError)) as ours:
            metal_kernel(**build)(**{**call, **wrong})
        assert type(ours.value) is type(theirs.value)
        assert str(ours.value).split("Invoked")[0] == str(theirs.value).split("Invoked")[0]

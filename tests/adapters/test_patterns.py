"""Patterns out of files: PEFT's rule, and none that takes long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.adapters.patterns import first_match, fits
from qwen_mlx.errors import UsageError

NAME = "model.layers.10.self_attn.q_proj"


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("q_proj", True),
        ("proj", False),
        ("self_attn.q_proj", True),
        ("layers.0.self_attn.q_proj", False),
        (r"layers\.1\d\.self_attn\.(q|k)_proj", True),
        (r"^model\.layers\..*q_proj", True),
        (r".*\.gate_up_proj", False),
        ("[qk]_proj", True),
        ("(?:v|o)_proj", False),
        (NAME, True),
        (r"(model\.)?layers\.[0-9]+\.self_attn\.q_proj", True),
    ],
)
def test_the_end_of_a_name_from_the_beginning_of_a_part(pattern: str, matches: bool) -> None:
    assert (first_match([pattern], NAME) == pattern) is matches


def test_the_first_one_counts() -> None:
    assert first_match(["v_proj", "q_proj", ".*"], NAME) == "q_proj"
    assert first_match([], NAME) is None
    assert fits(r".*q_proj", NAME) and not fits("q_proj", NAME)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(.|..)*x",
        "(a|aa)*b",
        ".*.*.*.*.*x",
        ".?.?.?.?.?x",
        r"(.)\1",
        "(?=.*)x",
        "(a?){50}b",
        "(",
        "[",
        "x" * 401,
        "(q_proj|v_proj)+",
        3,
    ],
)
def test_what_could_take_long_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="not usable"):
        first_match([pattern], NAME)


@settings(max_examples=200, deadline=None)
@given(st.text("aq._*+?()[]|\\d{2,9}^$", max_size=24))
def test_no_pattern_takes_long(pattern: str) -> None:
    started = time.perf_counter()
    try:
        first_match([pattern], "a" * 60 + "." + NAME)
    except UsageError:
        pass
    assert time.perf_counter() - started < 1

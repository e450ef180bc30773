"""Whether a model fits, and whether the advice is true."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_mlx.hub.fit import OVERHEAD, Machine, Numbers, estimate

GB = 10**9


def numbers(parameters: float = 8.2, bits: float = 4.5, per_token: int = 147_456, states: int = 0) -> Numbers:
    """Of Qwen3-8B: 36 layers of 8 key/value heads of 128, in 16 bits."""
    weights = int(parameters * GB * bits / 8)
    return Numbers(int(parameters * GB), weights, lambda tokens: states + per_token * tokens, states, 40_960)


def test_the_sum() -> None:
    found = estimate(numbers(states=1000), Machine(32 * GB, 24 * GB), 8192)
    assert (found.weights, found.cache, found.states) == (int(8.2 * GB * 4.5 / 8), 147_456 * 8192, 1000)
    assert found.need == found.weights + found.cache + 1000 + OVERHEAD
    assert found.ratio == pytest.approx((8 * GB + found.need) / (32 * GB))
    assert (found.verdict, found.to_free, found.advice) == ("fits", 0, ())


@pytest.mark.parametrize(
    ("in_use", "verdict"), [(0, "fits"), (7.49, "fits"), (7.51, "tight"), (8.49, "tight"), (8.51, "too big")]
)
def test_the_borders_are_at_75_and_85_percent(in_use: float, verdict: str) -> None:
    nothing = Numbers(1, 0, lambda tokens: 0, 0, 4096)
    machine = Machine(10 * GB, int((10 - in_use + 1) * GB))
    assert estimate(nothing, machine, 4096).verdict == verdict  # a gigabyte of it is the overhead


def test_the_limit_of_the_gpu_counts_too() -> None:
    assert estimate(numbers(), Machine(100 * GB, 90 * GB, 5 * GB), 2048).verdict == "too big"
    assert estimate(numbers(), Machine(100 * GB, 90 * GB, 30 * GB), 2048).verdict == "fits"


def test_keys_and_values_in_fewer_bits() -> None:
    full, packed = (estimate(numbers(), Machine(32 * GB, 24 * GB), 8192, bits) for bits in (16, 4))
    assert packed.cache == int(full.cache * 4.5 / 16)


def test_advice_for_a_small_machine() -> None:
    found = estimate(numbers(bits=16), Machine(16 * GB, 12 * GB), 8192)
    assert found.verdict == "too big" and found.to_free > 0
    assert "the weights in 5 bits instead of 16.0" in found.advice
    assert not any("--kv-bits" in text for text in found.advice)


def test_advice_for_a_long_text() -> None:
    found = estimate(numbers(), Machine(16 * GB, 13 * GB), 40_960, kv_option=True)
    assert found.advice[:2] == ("keys and values in 8 bits (--kv-bits 8)", "a context of 20,480 tokens")


def test_nothing_helps() -> None:
    assert estimate(numbers(parameters=235), Machine(16 * GB, 12 * GB), 8192).advice == ()


@given(
    parameters=st.floats(0.5, 500),
    bits=st.sampled_from([4.5, 6.5, 8.5, 16.0]),
    memory=st.integers(8, 512),
    used=st.floats(0.05, 0.9),
    context=st.integers(1, 200_000),
)
def test_advice_is_true(parameters: float, bits: float, memory: int, used: float, context: int) -> None:
    model, machine = numbers(parameters, bits), Machine(memory * GB, int(memory * GB * (1 - used)))
    for text in estimate(model, machine, context, kv_option=True).advice:
        if match := re.match(r"a context of ([\d,]+)", text):
            assert estimate(model, machine, int(match[1].replace(",", ""))).verdict == "fits"
        elif match := re.match(r"the weights in (\d)", text):
            assert estimate(numbers(parameters, int(match[1]) + 0.5), machine, context).verdict == "fits"
        elif match := re.search(r"--kv-bits (\d)", text):
            assert estimate(model, machine, context, float(match[1])).verdict == "fits"
        else:
            freed = float(re.match(r"([\d.]+) GB less", text)[1])  # type: ignore[index]
            more = Machine(machine.total, machine.available + int((freed + 0.06) * GB))
            assert estimate(model, more, context).verdict != "too big"

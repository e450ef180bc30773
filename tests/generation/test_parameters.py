import dataclasses
import math

import numpy as np
import pytest

from qwen_mlx.errors import UsageError
from qwen_mlx.generation.parameters import SamplingParams

REFUSED = [
    ("temperature", math.nan),
    ("temperature", -0.1),
    ("temperature", math.inf),
    ("temperature", "0.7"),
    ("temperature", None),
    ("temperature", True),
    ("temperature", 1 + 0j),
    ("temperature", 10**400),
    ("top_k", -1),
    ("top_k", 20.0),
    ("top_k", "20"),
    ("top_k", True),
    ("top_k", None),
    ("top_p", 0),
    ("top_p", 0.0),
    ("top_p", 1.0001),
    ("top_p", -0.5),
    ("top_p", math.nan),
    ("top_p", [0.9]),
    ("min_p", -0.01),
    ("min_p", 1.01),
    ("min_p", math.nan),
    ("repetition_penalty", 0),
    ("repetition_penalty", -1.0),
    ("repetition_penalty", math.inf),
    ("repetition_penalty", math.nan),
    ("presence_penalty", 2.5),
    ("presence_penalty", -math.inf),
    ("frequency_penalty", -2.5),
    ("frequency_penalty", "a lot"),
    ("seed", -1),
    ("seed", 2**64),
    ("seed", 1.5),
    ("seed", None),
    ("max_tokens", 0),
    ("max_tokens", -5),
    ("max_tokens", 10.0),
    ("stop", "END"),
    ("stop", ("a", "")),
    ("stop", ("a", 3)),
    ("stop", None),
]


@pytest.mark.parametrize(("field", "value"), REFUSED, ids=lambda x: repr(x)[:20])
def test_what_cannot_be_meant_is_refused_by_name(field, value):
    with pytest.raises(UsageError) as caught:
        SamplingParams(**{field: value})
    message = str(caught.value)
    assert field in message
    assert caught.value.expected and "expected" in message
    assert "found" in message and len(message) < 300
    assert caught.value.exit_code == 2


ACCEPTED = [
    ("temperature", 0),
    ("temperature", 2.0),
    ("temperature", np.float32(0.5)),
    ("top_k", 0),
    ("top_k", 10**9),
    ("top_k", np.int64(5)),
    ("top_p", 1),
    ("top_p", 1e-9),
    ("min_p", 0),
    ("min_p", 1),
    ("repetition_penalty", 0.5),
    ("presence_penalty", -2),
    ("frequency_penalty", 2),
    ("seed", 2**64 - 1),
    ("max_tokens", 1),
]


@pytest.mark.parametrize(("field", "value"), ACCEPTED, ids=lambda x: repr(x)[:20])
def test_the_ends_of_each_range_are_accepted_as_plain_numbers(field, value):
    params = SamplingParams(**{field: value})
    kept = getattr(params, field)
    assert kept == value
    assert type(kept) is (int if field in ("top_k", "seed", "max_tokens") else float)


def test_range_is_named():
    with pytest.raises(UsageError, match=r"top_p cannot be 1\.5; expected a number above 0 and up to 1"):
        SamplingParams(top_p=1.5)
    with pytest.raises(UsageError, match=r"min_p .* from 0 to 1"):
        SamplingParams(min_p=2)
    with pytest.raises(UsageError, match=r"max_tokens .* whole number of at least 1"):
        SamplingParams(max_tokens=0)


def test_stop_is_a_tuple_whatever_it_was():
    assert SamplingParams(stop=["\n\n", "END"]).stop == ("\n\n", "END")


def test_parameters_are_frozen_and_hashable():
    params = SamplingParams(temperature=0.7, stop=["x"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.temperature = 1.0
    assert len({params, SamplingParams(temperature=0.7, stop=("x",))}) == 1


@pytest.mark.parametrize(
    ("params", "greedy"),
    [({"temperature": 0}, True), ({"temperature": 1e-9}, True), ({"top_k": 1}, True), ({}, False)],
)
def test_greedy(params, greedy):
    assert SamplingParams(**params).greedy is greedy

"""Distributions equal those of transformers' own processors (scripts/make_sampling_fixtures.py made the numbers)."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from qwen_mlx.generation.penalties import PenaltyState
from qwen_mlx.generation.sampling import SamplingParams, distribution
from scripts.make_sampling_fixtures import digest, make_context, make_logits

FOLDER = Path(__file__).parents[1] / "fixtures" / "sampling"
CASES = json.loads((FOLDER / "cases.json").read_text())


@pytest.fixture(scope="module")
def reference():
    with np.load(FOLDER / "reference.npz", allow_pickle=False) as stored:
        return dict(stored)


def name(case):
    params = "-".join(f"{key}={value}" for key, value in case["params"].items())
    return f"{case['kind']}-{case['vocab']}-{params or 'neutral'}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_distribution_is_that_of_transformers(case, reference):
    logits = make_logits(case["kind"], case["seed"], case["vocab"])
    assert digest(logits) == case["digest"], "numpy draws other logits from this seed than it used to"
    params = SamplingParams(**case["params"])
    # The context is a prompt of 20 tokens and an output of 7, sampled one by one.
    context = make_context(case["seed"], case["vocab"])
    state = PenaltyState(context[:20], case["vocab"], params)
    for token in context[20:]:
        state.update(mx.array([token]))

    ids, probabilities = distribution(state.apply(mx.array(logits)[None]), params)

    assert ids.shape == probabilities.shape and ids.shape[0] == 1
    assert probabilities.dtype == mx.float32
    ids, probabilities = np.array(ids[0]), np.array(probabilities[0])
    assert len(set(ids.tolist())) == len(ids)
    found = np.zeros(case["vocab"])
    found[ids] = probabilities
    expected = np.zeros(case["vocab"])
    part = slice(case["start"], case["stop"])
    expected[reference["ids"][part]] = reference["probabilities"][part]
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-4)
    # The same tokens are kept; at the far end of an unfiltered distribution rounding decides what is zero.
    big = 1e-30
    assert np.array_equal(found > big, expected > big)


def test_the_cases_cover_what_they_should():
    used = {key for case in CASES for key in case["params"]}
    assert used == {"temperature", "top_k", "top_p", "min_p", "repetition_penalty"}
    assert {case["kind"] for case in CASES} == {"normal", "flat", "peaked", "masked", "negative", "tied"}
    # Ties at the k-th value: more tokens are kept than asked for.
    assert any(
        case["stop"] - case["start"] > case["params"].get("top_k", 10**9) and len(case["params"]) == 1 for case in CASES
    )

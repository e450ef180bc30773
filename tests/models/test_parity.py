"""Every supported family gives the logits that transformers gives, however the text is fed."""

from __future__ import annotations

import functools
import itertools

import mlx.core as mx
import numpy as np
import pytest

from qwen_mlx import load
from tests.parity import ParityCase, parity_cases

CASES = parity_cases()
every_model = pytest.mark.parametrize(
    "case, spelling",
    [pytest.param(case, name, id=f"{case.name}-{name[:-5]}") for case in CASES for name in case.spellings],
)


@pytest.fixture(scope="module")
def decoder_of(tmp_path_factory):
    @functools.cache
    def build(case: ParityCase, spelling: str):
        return load(case.build(tmp_path_factory.mktemp(case.name), spelling)).decoder

    return build


def assert_close(found: mx.array, expected: np.ndarray, case: ParityCase) -> None:
    """Absolute, in float32."""
    found = np.array(found.astype(mx.float32))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= case.tolerance


def feed(decoder, ids: mx.array, pieces: list[int]) -> mx.array:
    """Logits of all positions, when the text goes through a cache in these pieces."""
    cache = decoder.make_cache()
    ends = list(itertools.accumulate(pieces))
    assert ends[-1] == ids.shape[1]
    return mx.concatenate(
        [decoder(ids[:, start:end], cache=cache) for start, end in zip([0, *ends], ends, strict=False)], axis=1
    )


def continue_greedily(decoder, ids: mx.array, cache, count: int) -> tuple[np.ndarray, mx.array]:
    """Greedy tokens (batch, count), and the logits (batch, count, vocab) each was the best of."""
    tokens, rows = [], []
    while len(tokens) < count:
        rows.append(decoder(ids, cache=cache)[:, -1:])
        ids = mx.argmax(rows[-1], axis=-1)
        tokens.append(np.array(ids))
    return np.concatenate(tokens, axis=1), mx.concatenate(rows, axis=1)


@every_model
def test_one_forward(decoder_of, case, spelling):
    logits = decoder_of(case, spelling)(mx.array(case.arrays["input_ids"]))
    assert_close(logits, case.arrays["logits"], case)


@every_model
def test_decoding_through_a_cache(decoder_of, case, spelling):
    ids = mx.array(case.arrays["input_ids"])
    logits = feed(decoder_of(case, spelling), ids, case.info["decode_pieces"])
    assert_close(logits, case.arrays["decode_logits"], case)


@every_model
def test_any_other_split_gives_the_same(decoder_of, case, spelling):
    if not case.info["decode_equals_full"]:
        pytest.skip("the logits depend on the pieces")
    ids = mx.array(case.arrays["input_ids"])
    length = ids.shape[1]
    for piece in (1, 7):
        pieces = [piece] * (length // piece) + [length % piece] * (length % piece > 0)
        assert_close(feed(decoder_of(case, spelling), ids, pieces), case.arrays["logits"], case)


@every_model
def test_greedy_continuation(decoder_of, case, spelling):
    decoder = decoder_of(case, spelling)
    expected = case.arrays["greedy_ids"]
    ids = mx.array(case.arrays["input_ids"])
    tokens, rows = continue_greedily(decoder, ids, decoder.make_cache(), len(expected))
    assert tokens[0].tolist() == expected.tolist()
    assert_close(rows[0], case.arrays["greedy_logits"], case)


@every_model
def test_left_padded_batch(decoder_of, case, spelling):
    if "batch_input_ids" not in case.arrays:
        pytest.skip("no batch was recorded")
    decoder = decoder_of(case, spelling)
    ids, mask = case.arrays["batch_input_ids"], case.arrays["batch_attention_mask"]
    padding = (mask == 0).sum(axis=1).tolist()
    assert max(padding) > 0
    logits = decoder(mx.array(ids), cache=decoder.make_cache(left_padding=padding))
    assert_close(logits * mx.array(mask)[..., None], case.arrays["batch_logits"], case)
    if "batch_greedy_ids" not in case.arrays:  # Qwen (v1) was recorded without
        return
    expected = case.arrays["batch_greedy_ids"]
    cache = decoder.make_cache(left_padding=padding)
    tokens, _ = continue_greedily(decoder, mx.array(ids), cache, expected.shape[1])
    assert tokens.tolist() == expected.tolist()

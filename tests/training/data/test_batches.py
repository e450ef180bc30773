"""Every example exactly once, in an order that is a function of the arguments, in arrays that say who sees whom."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.errors import UsageError
from qwen_mlx.training.data.batches import (
    LENGTH_BUCKETS,
    BatchShape,
    collate,
    efficiency,
    fitting_length,
    permutation,
    plan_epoch,
    row_lengths,
)
from qwen_mlx.training.data.examples import Example


@dataclass
class Rows:
    """A data set of made-up examples of given lengths; every third token has no weight."""

    lengths: np.ndarray
    digest: str = "made up"

    @property
    def supervised(self) -> np.ndarray:
        return np.array([self[index].weights.sum() for index in range(len(self))])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        length = int(self.lengths[index])
        ids = np.arange(1, length + 1, dtype=np.int32) + 1000 * index
        weights = np.array([float(place % 3 != 0) for place in range(length)], np.float32)
        return Example(ids, weights, f"rows.jsonl:{index + 1}")


@st.composite
def epochs(draw: st.DrawFn) -> tuple[list[int], BatchShape, int, int]:
    length = draw(st.integers(1, 40))
    lengths = draw(st.lists(st.integers(1, length), max_size=60))
    return lengths, BatchShape(draw(st.integers(1, 5)), length), draw(st.integers(-3, 2**40)), draw(st.integers(0, 9))


@given(epochs(), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_example_is_in_exactly_one_row(epoch, packing, longest_first):
    lengths, shape, seed, number = epoch
    plan = plan_epoch(lengths, seed, number, shape, packing, longest_first=longest_first)
    rows = [row for batch in plan for row in batch]
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= shape.length for row in rows)
    assert all(1 <= len(batch) <= shape.rows for batch in plan)
    assert sum(len(batch) < shape.rows for batch in plan) <= 1
    if not packing:
        assert all(len(row) == 1 for row in rows)
    assert plan == plan_epoch(np.array(lengths, np.int32), seed, number, shape, packing, longest_first=longest_first)
    assert 0 <= efficiency(lengths, plan, shape) <= 1


@given(epochs(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_batch_that_takes_most_comes_first(epoch, packing):
    lengths, shape, seed, _ = epoch
    plan = plan_epoch(lengths, seed, 0, shape, packing)
    if not plan:
        return
    sizes = [
        (max(sum(lengths[index] for index in row) for row in batch), sum(lengths[i] for row in batch for i in row))
        for batch in plan
    ]
    assert sizes[0] == max(sizes)
    others = plan_epoch(lengths, seed, 0, shape, packing, longest_first=False)
    assert sorted(plan) == sorted(others)


@given(epochs())
@settings(max_examples=100, deadline=None)
def test_rows_are_filled_as_best_fit_decreasing_fills_them(epoch):
    lengths, shape, seed, number = epoch
    plan = plan_epoch(lengths, seed, number, shape, packing=True)
    sums = [sum(lengths[index] for index in row) for batch in plan for row in batch]
    # Which of two rows with the same room is taken changes what is in them, but no sum.
    assert sorted(sums) == sorted(map(sum, plain_best_fit(lengths, shape.length)))


def plain_best_fit(lengths: list[int], room: int) -> list[list[int]]:
    """As a textbook says it."""
    rows: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in rows if sum(row) + length <= room]
        if fitting:
            max(fitting, key=sum).append(length)
        else:
            rows.append([length])
    return rows


def test_rows_are_those_of_trl():
    """`trl.pack_dataset(..., 10, "bfd")` of trl 1.16.0 makes these of these."""
    lengths = [5, 9, 3, 7, 2, 6, 4]
    plan = plan_epoch(lengths, 1, 0, BatchShape(1, 10), packing=True)
    assert sorted([lengths[index] for index in row] for batch in plan for row in batch) == [[5, 2], [6, 4], [7, 3], [9]]
    assert efficiency(lengths, plan, BatchShape(1, 10)) == 36 / 40


def test_the_order_depends_on_seed_and_epoch():
    lengths = [1 + index % 7 for index in range(200)]
    shape = BatchShape(4, 20)
    plans = {
        (seed, epoch): plan_epoch(lengths, seed, epoch, shape, packing=True) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len({str(plan) for plan in plans.values()}) == 4
    first = [index for row in plans[0, 1][0] for index in row]
    assert first != sorted(first)


def test_an_order_is_the_same_on_every_machine():
    """Committed numbers: a run that is resumed with another numpy must go on with the same batches."""
    assert permutation(12, 1, 0, "examples").tolist() == PERMUTATION
    lengths = [5, 9, 3, 7, 2, 6, 4, 8, 1, 10]
    assert plan_epoch(lengths, 7, 1, BatchShape(2, 12), packing=True) == PACKED
    assert plan_epoch(lengths, 7, 1, BatchShape(2, 12), packing=False) == SEPARATE


@given(st.integers(0, 300), st.integers(), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_a_permutation_is_one(count, seed, epoch):
    assert sorted(permutation(count, seed, epoch, "rows").tolist()) == list(range(count))


def test_no_global_random_state_is_used():
    random.seed(1), np.random.seed(1)
    before = (random.getstate(), np.random.get_state()[1].tolist())
    plan_epoch([1, 2, 3], 0, 0, BatchShape(1, 4), packing=True)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_a_shuffle_prefers_no_place():
    """Over many epochs, every example comes first about as often as any other."""
    firsts = [int(permutation(8, 3, epoch, "examples")[0]) for epoch in range(1600)]
    assert all(150 < firsts.count(index) < 250 for index in range(8))


@pytest.mark.parametrize(("lengths", "says"), [([3, 11, 12], "rows.jsonl:2"), ([2, 0], "no token")])
def test_examples_that_fit_no_row_are_refused(lengths, says):
    data = Rows(np.array(lengths))
    with pytest.raises(UsageError, match=says):
        plan_epoch(lengths, 0, 0, BatchShape(1, 10), True, source=lambda index: f"rows.jsonl:{index + 1}")
    with pytest.raises(UsageError, match="example 1"):
        plan_epoch(data.lengths, 0, 0, BatchShape(1, 10), packing=False)


def test_a_long_example_says_what_to_do():
    with pytest.raises(UsageError) as caught:
        plan_epoch([3, 11, 12], 0, 0, BatchShape(1, 10), packing=True)
    assert str(caught.value) == (
        "example 1, and 1 more examples: too long for a row; expected at most 10 tokens; found 11. "
        "Make rows longer, or examples shorter (data.max_len)."
    )


def test_nothing_to_plan():
    assert plan_epoch([], 0, 0, BatchShape(2, 8), packing=True) == []
    assert efficiency([], [], BatchShape(2, 8)) == 0
    with pytest.raises(UsageError, match="0 rows"):
        plan_epoch([1], 0, 0, BatchShape(0, 8), packing=True)


def test_a_hundred_thousand_examples_are_packed_in_seconds_and_tightly():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5, 1, 100_000), 4, 4096).astype(int)
    shape = BatchShape(2, 4096)
    began = time.perf_counter()
    plan = plan_epoch(lengths, 0, 0, shape, packing=True)
    assert time.perf_counter() - began < 20
    assert efficiency(lengths, plan, shape) > 0.995


# ------------------------------------------------------------------------------------------------ without packing


@given(epochs())
@settings(max_examples=60, deadline=None)
def test_rows_can_be_as_short_as_a_bucket(epoch):
    lengths, shape, seed, number = epoch
    plan = plan_epoch(lengths, seed, number, shape, packing=False)
    allowed = row_lengths(shape)
    assert len(allowed) <= LENGTH_BUCKETS and allowed[-1] == shape.length
    for batch in plan:
        cut = fitting_length(lengths, batch, shape)
        assert cut in allowed and max(lengths[index] for (index,) in batch) <= cut
        assert collate(Rows(np.array(lengths)), batch, BatchShape(shape.rows, cut)).ids.shape == (shape.rows, cut)


def test_similar_lengths_share_a_batch():
    """Padding is at most half of a row, but for the few batches where one bucket ends and the next begins."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 1025, 1000)
    shape = BatchShape(8, 1024)
    plan = plan_epoch(lengths, 0, 3, shape, packing=False)
    positions = sum(shape.rows * fitting_length(lengths, batch, shape) for batch in plan)
    assert lengths.sum() / positions > 0.7
    assert fitting_length([1], [[0]], shape) == 32


# -------------------------------------------------------------------------------------------------------- arrays


def test_two_examples_in_one_row():
    batch = collate(Rows(np.array([3, 2, 4])), [[2, 1], [0]], BatchShape(3, 8))
    assert batch.ids.tolist() == [
        [2001, 2002, 2003, 2004, 1001, 1002, 0, 0],
        [1, 2, 3, 0, 0, 0, 0, 0],
        [0] * 8,
    ]
    assert batch.targets.tolist() == [[2002, 2003, 2004, 0, 1002, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0], [0] * 8]
    assert batch.weights.tolist() == [[1, 1, 0, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0], [0] * 8]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 0, 0], [0, 1, 2, 0, 0, 0, 0, 0], [0] * 8]
    assert batch.starts.tolist() == [[0, 0, 0, 0, 4, 4, 6, 7], [0, 0, 0, 3, 4, 5, 6, 7], list(range(8))]
    kinds = [array.dtype for array in (batch.ids, batch.targets, batch.weights, batch.positions, batch.starts)]
    assert kinds == [np.int32, np.int32, np.float32, np.int32, np.int32]


@given(epochs(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_arrays_hold_every_example_and_nothing_else(epoch, packing):
    lengths, shape, seed, number = epoch
    data = Rows(np.array(lengths, np.int64))
    weight = 0.0
    for rows in plan_epoch(lengths, seed, number, shape, packing):
        batch = collate(data, rows, shape)
        weight += float(batch.weights.sum())
        for place, row in enumerate(rows):
            begin = 0
            for index in row:
                example = data[index]
                end = begin + len(example.ids)
                assert batch.ids[place, begin:end].tolist() == example.ids.tolist()
                assert batch.targets[place, begin : end - 1].tolist() == example.ids[1:].tolist()
                assert batch.weights[place, begin : end - 1].tolist() == example.weights[1:].tolist()
                assert batch.weights[place, end - 1] == 0 and batch.targets[place, end - 1] == 0
                assert (batch.starts[place, begin:end] == begin).all()
                begin = end
            assert not batch.weights[place, begin:].any() and not batch.ids[place, begin:].any()
        assert (batch.starts <= np.arange(shape.length)).all()
    assert weight == pytest.approx(sum(data[index].weights[1:].sum() for index in range(len(data))))


def test_what_does_not_fit_is_refused_by_name():
    data = Rows(np.array([3, 6, 4]))
    with pytest.raises(UsageError, match=r"rows.jsonl:2, rows.jsonl:3: more tokens than a row of 8"):
        collate(data, [[1, 2]], BatchShape(1, 8))
    with pytest.raises(UsageError, match="cannot hold 2"):
        collate(data, [[0], [1]], BatchShape(1, 8))


PERMUTATION = [8, 4, 9, 1, 2, 5, 0, 6, 7, 11, 10, 3]
PACKED = [[[1, 2], [9, 4]], [[7, 6], [3, 0]], [[5, 8]]]
SEPARATE = [[[7], [3]], [[1], [2]], [[5], [0]], [[8], [6]], [[4], [9]]]

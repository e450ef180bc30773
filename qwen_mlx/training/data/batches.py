"""Which examples are computed together, and the arrays they become.

Everything here is a pure function of its arguments: the order of an epoch depends on (seed, epoch) alone, so a resumed
run can ask for it again, and no global random state is touched.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qwen_mlx.errors import UsageError
from qwen_mlx.training.data.examples import TokenDataset

Row = list[int]
"""Indices of the examples that stand one after the other in one row of a batch."""
Plan = list[list[Row]]
"""Batches, each a list of rows."""

LENGTH_BUCKETS = 6
"""How many row lengths there are without packing; each is another compiled graph."""
_ROUNDED = 32  # row lengths are multiples of it


@dataclass(frozen=True)
class BatchShape:
    """`rows` x `length` positions are computed at once."""

    rows: int
    length: int


@dataclass(frozen=True)
class Batch:
    """What a step reads, all (rows, length).

    Attributes:
        ids: int32, token ids; 0 where there is no token.
        targets: int32, the next token of the same example; 0 where there is none.
        weights: float32, of predicting `targets`; 0 at the last token of an example and where there is no token.
        positions: int32, begin at 0 for each example; 0 where there is no token.
        starts: int32, index in the row of the first token of the example a token belongs to; where there is no token,
            its own index. A token attends from `starts` to itself.
    """

    ids: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    starts: np.ndarray


def plan_epoch(
    lengths: Sequence[int] | np.ndarray,
    seed: int,
    epoch: int,
    shape: BatchShape,
    packing: bool,
    *,
    longest_first: bool = True,
    source: Callable[[int], str] | None = None,
) -> Plan:
    """The batches of one epoch; every example is in exactly one row.

    With packing, rows are filled best-fit-decreasing: the longest example first, each into the row with the least
    room that it fits in (Johnson et al., "Worst-case performance bounds for simple one-dimensional packing
    algorithms", 1974). Examples of one length are in random order. Without it, each row holds one example, and a batch
    holds examples of similar length, so that `fitting_length` can cut the padding. Rows and batches are shuffled.

    Args:
        lengths: tokens of each example.
        longest_first: in epoch 0, the batch that takes most memory comes first, so that one that does not fit is
            known at once: that with the longest row, then that with most tokens.
        source: names an example in messages.

    Returns:
        Batches of `shape.rows` rows; the last one made may have fewer.

    Raises:
        UsageError: an example without tokens, or one longer than a row.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if shape.rows < 1 or shape.length < 1:
        raise UsageError(
            f"a batch cannot have {shape.rows} rows of {shape.length} tokens", expected="1 or more of both"
        )
    _check(lengths, shape, source)
    order = permutation(len(lengths), seed, epoch, "examples")
    if packing:
        rows = _packed(lengths, order, shape.length)
        rows = [rows[number] for number in permutation(len(rows), seed, epoch, "rows")]
    else:
        rows = [[int(index)] for index in _by_bucket(lengths, order, shape)]
    batches = [rows[start : start + shape.rows] for start in range(0, len(rows), shape.rows)]
    batches = [batches[number] for number in permutation(len(batches), seed, epoch, "batches")]
    if longest_first and epoch == 0 and batches:
        batches.insert(0, batches.pop(_largest(lengths, batches)))
    return batches


def fitting_length(lengths: Sequence[int] | np.ndarray, batch: Sequence[Row], shape: BatchShape) -> int:
    """The shortest of a few row lengths that holds a batch; use it as `BatchShape.length` for `collate`.

    There are `LENGTH_BUCKETS` of them: the row length, its half, its quarter, and so on.
    """
    longest = max((sum(int(lengths[index]) for index in row) for row in batch), default=1)
    buckets = row_lengths(shape)
    return buckets[bisect_left(buckets, longest)]


def row_lengths(shape: BatchShape) -> list[int]:
    """What `fitting_length` may answer, the shortest first."""
    halves = (-(-shape.length // 2**power) for power in range(LENGTH_BUCKETS))
    return sorted({min(-(-half // _ROUNDED) * _ROUNDED, shape.length) for half in halves})


def efficiency(lengths: Sequence[int] | np.ndarray, plan: Plan, shape: BatchShape) -> float:
    """The share of all positions, those of missing rows included, that hold a token."""
    positions = len(plan) * shape.rows * shape.length
    return float(np.sum(lengths)) / positions if positions else 0.0


def collate(dataset: TokenDataset, rows: Sequence[Row], shape: BatchShape) -> Batch:
    """The arrays of one batch; rows that are missing are left empty.

    Raises:
        UsageError: more rows than `shape` has, or a row that is too long; the text names its examples.
    """
    if len(rows) > shape.rows:
        raise UsageError(f"a batch of {shape.rows} rows cannot hold {len(rows)}")
    size = (shape.rows, shape.length)
    ids, targets, positions = (np.zeros(size, np.int32) for _ in range(3))
    weights = np.zeros(size, np.float32)
    starts = np.tile(np.arange(shape.length, dtype=np.int32), (shape.rows, 1))
    for number, row in enumerate(rows):
        start = 0
        for index in row:
            example = dataset[index]
            length = len(example.ids)
            end = start + length
            if end > shape.length:
                names = ", ".join(dataset[each].source for each in row[:4])
                raise UsageError(f"{names}: more tokens than a row of {shape.length} holds", found=f"{end:,} or more")
            ids[number, start:end] = example.ids
            targets[number, start : end - 1] = example.ids[1:]
            weights[number, start : end - 1] = example.weights[1:]
            positions[number, start:end] = np.arange(length)
            starts[number, start:end] = start
            start = end
    return Batch(ids, targets, weights, positions, starts)


def permutation(count: int, seed: int, epoch: int, purpose: str) -> np.ndarray:
    """The numbers below `count` in an order that depends on the other arguments, on every machine alike.

    Numbers are sorted by SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014) of
    their place: numpy does not promise that its generators stay the same from one version to the next.
    """
    key = hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest()
    with np.errstate(over="ignore"):
        z = np.uint64(int.from_bytes(key, "little")) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.argsort(z, kind="stable")


# ------------------------------------------------------------------------------------------------------- inside


def _check(lengths: np.ndarray, shape: BatchShape, source: Callable[[int], str] | None) -> None:
    wrong = np.flatnonzero((lengths > shape.length) | (lengths < 1))
    if len(wrong) == 0:
        return
    index = int(wrong[0])
    name = source(index) if source else f"example {index}"
    more = f", and {len(wrong) - 1:,} more examples" if len(wrong) > 1 else ""
    if lengths[index] < 1:
        raise UsageError(f"{name}{more}: there is no token in it")
    raise UsageError(
        f"{name}{more}: too long for a row",
        expected=f"at most {shape.length:,} tokens",
        found=f"{int(lengths[index]):,}",
        hint="Make rows longer, or examples shorter (data.max_len).",
    )


def _packed(lengths: np.ndarray, order: np.ndarray, length: int) -> list[Row]:
    """Best-fit-decreasing. Bit `room` of `rooms` says whether a row with so much room is there."""
    rows: list[Row] = []
    with_room: dict[int, list[int]] = {}
    rooms = 0
    for index in order[np.argsort(-lengths[order], kind="stable")].tolist():
        needed = int(lengths[index])
        enough = rooms >> needed
        if enough:
            room = needed + (enough & -enough).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
            rows[row].append(index)
        else:
            room, row = length, len(rows)
            rows.append([index])
        left = room - needed
        if left:
            with_room.setdefault(left, []).append(row)
            rooms |= 1 << left
    return rows


def _by_bucket(lengths: np.ndarray, order: np.ndarray, shape: BatchShape) -> list[int]:
    """One example per row: those of a length bucket together, so that only one batch is mixed per bucket."""
    buckets = np.searchsorted(row_lengths(shape), lengths[order])
    return order[np.argsort(buckets, kind="stable")].tolist()


def _largest(lengths: np.ndarray, batches: Plan) -> int:
    totals = [[int(lengths[row].sum()) for row in batch] for batch in batches]
    return max(range(len(batches)), key=lambda number: (max(totals[number]), sum(totals[number]), -number))

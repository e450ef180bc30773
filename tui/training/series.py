"""Numbers over steps, kept in bounded memory however long a run is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

Point = tuple[float, float]
CAPACITY = 1024  # points; four times the dots of a usual terminal


class Series:
    """Points in the order of their steps. Past `2 * CAPACITY` of them, neighbours become one, their mean."""

    def __init__(self, points: Sequence[Point] = ()) -> None:
        self._points: list[Point] = []
        self._each = 1  # points as added that one kept point stands for
        self._open: list[Point] = []
        self.last: Point | None = None
        for step, value in points:
            self.add(step, value)

    def __len__(self) -> int:
        return len(self._points) + bool(self._open)

    def __iter__(self) -> Iterator[Point]:
        yield from self._points
        if self._open:
            yield _mean(self._open)

    def add(self, step: float, value: float) -> None:
        """Take a point; one that is no number is left out."""
        if not math.isfinite(value):
            return
        self.last = (step, value)
        self._open.append(self.last)
        if len(self._open) < self._each:
            return
        self._points.append(_mean(self._open))
        self._open = []
        if len(self._points) >= 2 * CAPACITY:
            self._points = [_mean(self._points[place : place + 2]) for place in range(0, len(self._points), 2)]
            self._each *= 2

    def cut_after(self, step: float) -> None:
        """Forget what comes after a step: it will be computed again."""
        self._points = [point for point in self._points if point[0] <= step]
        self._open = [point for point in self._open if point[0] <= step]
        kept = [*self._points, *self._open]
        self.last = kept[-1] if kept else None

    @property
    def lowest(self) -> Point | None:
        return min(self, key=lambda point: point[1], default=None)


def _mean(points: Sequence[Point]) -> Point:
    if len(points) == 1:
        return points[0]
    return sum(step for step, _ in points) / len(points), sum(value for _, value in points) / len(points)


def smoothed(points: Sequence[Point], weight: float) -> list[Point]:
    """A mean of each value and its neighbours on both sides, whose share falls by `weight` from one to the next.

    Unlike the running mean of what came before, it does not lag behind a curve that falls.

    Args:
        weight: from 0 (nothing is changed) to below 1.
    """
    if not weight:
        return list(points)
    values = [value for _, value in points]
    before = _running(values, weight)
    after = _running(values[::-1], weight)[::-1]
    return [
        (step, (past + future - value) / (past_share + future_share - 1))
        for (step, value), (past, past_share), (future, future_share) in zip(points, before, after)
    ]


def _running(values: Sequence[float], weight: float) -> list[tuple[float, float]]:
    """For each value the sum of it and those before, each counted `weight` times the next, and of what they count."""
    found = []
    total = share = 0.0
    for value in values:
        total, share = weight * total + value, weight * share + 1.0
        found.append((total, share))
    return found

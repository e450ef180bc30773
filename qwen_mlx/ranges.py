"""The values that each number of `SamplingOptions` may have; interfaces check what a person types against them."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Range:
    """The values one parameter may take, both ends included unless `above` is set.

    The far ends of temperature and repetition penalty are beyond any use; they keep float32 from overflowing.
    """

    low: float
    high: float | None = None
    whole: bool = False
    above: bool = False
    note: str = ""

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.high is None:
            text = f"{kind} of at least {self.low}"
        elif self.above:
            text = f"{kind} above {self.low} and up to {self.high}"
        else:
            text = f"{kind} from {self.low} to {self.high}"
        return f"{text} ({self.note})" if self.note else text

    def parse(self, value: Any) -> int | float:
        """`value` as a plain int (whole numbers) or float.

        Raises:
            ValueError: it is of another type (True and False are not numbers here), not finite or outside.
        """
        # The numbers of numpy count as well.
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            raise ValueError(str(self))
        # Written so that nan, which compares false with everything, falls out too.
        number: Any = value
        inside = self.low < number if self.above else self.low <= number
        if not inside or (self.high is not None and not number <= self.high):
            raise ValueError(str(self))
        return int(number) if self.whole else float(number)


RANGES = {
    "temperature": Range(0, 1000, note="0 is greedy"),
    "top_k": Range(0, whole=True, note="0 is off"),
    "top_p": Range(0, 1, above=True, note="1 is off"),
    "min_p": Range(0, 1, note="0 is off"),
    "repetition_penalty": Range(0.001, 1000, note="1 is off"),
    "presence_penalty": Range(-2, 2, note="0 is off"),
    "frequency_penalty": Range(-2, 2, note="0 is off"),
    "seed": Range(0, 2**64 - 1, whole=True),
    "max_tokens": Range(1, whole=True),
}

OPTION_RANGES = {**RANGES, "thinking_budget": Range(0, whole=True, note="0 answers at once")}
"""Of everything that can be asked for; what is not in `RANGES` has nothing to do with choosing tokens."""

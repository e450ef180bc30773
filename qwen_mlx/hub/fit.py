"""Will a model fit into the memory of this machine? Plain numbers in, a verdict and advice out.

The estimate is the weights as they are stored, keys and values of the wanted context, the states of recurrent layers,
and about a gigabyte for everything else. It is added to what is in use already and compared with all memory; from 75 %
on a Mac begins to swap its other programs out, from 85 % on it may freeze. A GPU has a limit of its own besides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["fits", "tight", "too big"]
TIGHT, TOO_BIG = 0.75, 0.85  # of all memory, what is in use included
OVERHEAD = 1_000_000_000  # bytes: activations, the tokenizer, Python and MLX
_NEAR_LIMIT = 0.9  # of what the GPU may hold
# A group of 64 keys or values carries a scale and a bias of 16 bits each: half a bit for each of them.
_GROUP_BITS = 0.5
_BITS = (8.0, 6.0, 5.0, 4.0)
_SHORTEST = 2048


@dataclass(frozen=True)
class Machine:
    """Memory in bytes: all of it, what is free, and what the GPU may hold (None without such a limit)."""

    total: int
    available: int
    gpu_limit: int | None = None


@dataclass(frozen=True)
class Numbers:
    """What counts of a model.

    Attributes:
        parameters: number of weights.
        weight_bytes: as they are stored.
        cache_bytes: bytes of the cache of one text of so many tokens at 16 bits, states included.
        state_bytes: of these, the states that are there however short the text.
        context: the longest text in tokens.
    """

    parameters: int
    weight_bytes: int
    cache_bytes: Callable[[int], int]
    state_bytes: int
    context: int

    @property
    def bits(self) -> float:
        return 8 * self.weight_bytes / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class Estimate:
    """The memory one text of `context` tokens needs, in bytes.

    Attributes:
        used: by everything else, now.
        ratio: of all memory that would be in use.
        to_free: bytes that would have to be freed for it to fit, 0 where it does.
        advice: what would make it fit, the smallest change first.
    """

    verdict: Verdict
    context: int
    kv_bits: float
    weights: int
    cache: int
    states: int
    overhead: int
    used: int
    total: int
    ratio: float
    to_free: int
    advice: tuple[str, ...] = ()

    @property
    def need(self) -> int:
        return self.weights + self.cache + self.states + self.overhead


def estimate(
    numbers: Numbers, machine: Machine, context: int, kv_bits: float = 16, *, kv_option: bool = False
) -> Estimate:
    """Whether a text of `context` tokens fits, and what would help.

    Args:
        kv_bits: of keys and values; less than 16 means they are quantized in groups of 64.
        kv_option: whether the advice may name `--kv-bits`.
    """
    found = _estimate(numbers, machine, context, kv_bits, numbers.weight_bytes)
    if found.verdict == "fits":
        return found
    return dataclasses.replace(found, advice=tuple(_advice(numbers, machine, found, kv_option)))


def _estimate(numbers: Numbers, machine: Machine, context: int, kv_bits: float, weights: int) -> Estimate:
    states = numbers.state_bytes
    cache = numbers.cache_bytes(context) - states
    if kv_bits < 16:
        cache = int(cache * (kv_bits + _GROUP_BITS) / 16)
    used = max(machine.total - machine.available, 0)
    need = weights + cache + states + OVERHEAD
    ratio = (used + need) / machine.total
    limit = machine.gpu_limit
    verdict: Verdict = "fits"
    if ratio >= TOO_BIG or (limit and need >= limit):
        verdict = "too big"
    elif ratio >= TIGHT or (limit and need >= _NEAR_LIMIT * limit):
        verdict = "tight"
    over = int(used + need - TIGHT * machine.total)
    to_free = 0 if verdict == "fits" else max(over, 0)
    return Estimate(verdict, context, kv_bits, weights, cache, states, OVERHEAD, used, machine.total, ratio, to_free)


def _advice(numbers: Numbers, machine: Machine, found: Estimate, kv_option: bool) -> list[str]:
    """Single changes that are enough; each was tried."""

    def fits(context: int = found.context, kv_bits: float = found.kv_bits, weights: int = found.weights) -> bool:
        return _estimate(numbers, machine, context, kv_bits, weights).verdict == "fits"

    advice = []
    for bits in (8.0, 4.0):
        if kv_option and bits < found.kv_bits and fits(kv_bits=bits):
            advice.append(f"keys and values in {bits:g} bits (--kv-bits {bits:g})")
            break
    if context := _longest(found.context, lambda tokens: fits(context=tokens)):
        advice.append(f"a context of {context:,} tokens")
    for bits in _BITS:
        if bits < numbers.bits - 0.6 and fits(weights=int(numbers.parameters * (bits + _GROUP_BITS) / 8)):
            advice.append(f"the weights in {bits:g} bits instead of {numbers.bits:.1f}")
            break
    if found.to_free and found.to_free < found.used and _fits_alone(numbers, machine, found):
        advice.append(f"{found.to_free / 1e9:.1f} GB less in use by other programs")
    return advice


def _fits_alone(numbers: Numbers, machine: Machine, found: Estimate) -> bool:
    """Whether it would fit if `to_free` bytes of what others use were free."""
    freed = Machine(machine.total, machine.available + found.to_free, machine.gpu_limit)
    return _estimate(numbers, freed, found.context, found.kv_bits, found.weights).verdict != "too big"


def _longest(context: int, fits: Callable[[int], bool]) -> int | None:
    """The longest shorter context that fits: halves, down to 2,048 tokens."""
    while (context := context // 2) >= _SHORTEST:
        if fits(context):
            return context
    return None

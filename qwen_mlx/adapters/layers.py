"""Linear layers with adapters: what the frozen layer gives, and float32 changes of it added up.

Every adapter stands for a change of the weights: `s B A` for LoRA, `m V / |V| - W` with `V = W + s B A` for DoRA.
Changes of several adapters are weighted and added. With nothing to add a layer gives what its base gives, untouched.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.adapters.matrices import ExpertRows, Rows, rows_of
from qwen_mlx.adapters.sites import Site
from qwen_mlx.models.moe import ExpertLinear
from qwen_mlx.models.projections import FusedLinear

_TINY = 1e-30


class Mix:
    """Which adapters count how much; one for all layers of a decoder.

    Attributes:
        weights: by the name of the adapter, none of them 0.
        keys: of the random numbers of dropout, one per site; None takes them from `mx.random.state`.
    """

    def __init__(self) -> None:
        self.weights: dict[str, float] = {}
        self.keys: mx.array | None = None


class LowRank(nn.Module):
    """A and B of one site in float32, and for DoRA the lengths of the rows.

    `lora_a` (rank, columns), `lora_b` (rows, rank), `magnitude` (rows,), each with a first axis for experts, as PEFT
    has them.

    Args:
        base: the module that computes the site.
        number: of the site among all of its decoder, for its random numbers.
    """

    def __init__(self, site: Site, base: Any, rank: int, scale: float, dropout: float, dora: bool, number: int) -> None:
        super().__init__()
        self.scale, self.dropout, self.number = scale, dropout, number
        self._ground = _Ground(base, site)
        lead = (site.experts,) if site.experts else ()
        self.lora_a = mx.zeros((*lead, rank, site.columns))
        self.lora_b = mx.zeros((*lead, site.rows, rank))
        if dora:
            self.magnitude = mx.sqrt(self._ground.squares())
            mx.eval(self.magnitude)

    @property
    def dora(self) -> bool:
        return "magnitude" in self

    @property
    def members(self) -> tuple[str, ...]:
        return self._ground.members

    def initialise(self, key: mx.array) -> None:
        """A uniform within 1 / sqrt(columns), as PEFT draws it; B zero, so that nothing is changed yet."""
        bound = self.lora_a.shape[-1] ** -0.5
        self.lora_a = mx.random.uniform(-bound, bound, self.lora_a.shape, key=key)
        self.lora_b = mx.zeros(self.lora_b.shape)

    def biases(self) -> list[mx.array | None]:
        """What the base adds, by member."""
        return self._ground.biases()

    def factor(self) -> mx.array:
        """`m / |V|`, (rows,) or (experts, rows); the length is a constant to the gradient, as in the paper.

        V is never made: with `V = W + s B A`, row by row,
        `|V|^2 = |W|^2 + 2 s sum(B * (A W^T)^T) + s^2 sum((B A A^T) * B)`.
        """
        a, b = mx.stop_gradient(self.lora_a), mx.stop_gradient(self.lora_b)
        mixed = (b * self._ground.times(a).swapaxes(-1, -2)).sum(axis=-1)
        own = ((b @ (a @ a.swapaxes(-1, -2))) * b).sum(axis=-1)
        squares = self._ground.squares() + 2 * self.scale * mixed + self.scale**2 * own
        return self.magnitude / mx.stop_gradient(mx.sqrt(mx.maximum(squares, _TINY)))

    def dropped(self, x: mx.array, keys: mx.array | None) -> mx.array:
        """Some inputs set to zero, the others scaled up, while training."""
        if not self.training or self.dropout == 0:
            return x
        keep = 1 - self.dropout
        key = None if keys is None else keys[self.number]
        return x * mx.random.bernoulli(keep, x.shape, key=key) * (1 / keep)


class _Ground:
    """The frozen rows under one adapter; no module, so that they are nobody's parameters twice."""

    def __init__(self, base: Any, site: Site) -> None:
        self.members = site.members
        self._experts = ExpertRows(base) if isinstance(base, ExpertLinear) else None
        self._rows: tuple[Rows, ...] = () if self._experts else rows_of(base, site.members)
        self._squares: mx.array | None = None

    def times(self, x: mx.array) -> mx.array:
        if self._experts is not None:
            return self._experts.times(x)
        return _joined([rows.times(x) for rows in self._rows])

    def squares(self) -> mx.array:
        if self._squares is None:
            own = self._experts
            self._squares = own.squares() if own is not None else _joined([rows.squares() for rows in self._rows])
            mx.eval(self._squares)
        return self._squares

    def biases(self) -> list[mx.array | None]:
        return [rows.bias for rows in self._rows]


def _joined(arrays: list[mx.array]) -> mx.array:
    return arrays[0] if len(arrays) == 1 else mx.concatenate(arrays, axis=-1)


class Adapted(nn.Module):
    """A frozen layer and its adapters.

    Attributes:
        base: the layer as it was.
        adapters: by the name of the adapter, and of the site.
    """

    def __init__(self, base: Any, mix: Mix) -> None:
        super().__init__()
        self.base = base
        self.adapters: dict[str, dict[str, LowRank]] = {}
        self._mix = mix
        self._memo = _Memo()

    def active(self) -> Iterator[tuple[str, list[LowRank], float]]:
        """Name, parts and weight of every adapter that counts here."""
        for name, weight in self._mix.weights.items():
            if parts := self.adapters.get(name):
                yield name, list(parts.values()), weight

    def made(self, name: str, arrays: Iterable[mx.array], make: Callable[[], mx.array]) -> mx.array:
        """What `make` makes of these arrays; while nothing is trained it is made once."""
        return make() if self.training else self._memo.get(name, tuple(arrays), make)


class _Memo:
    """Arrays made of others, as long as those are the same objects."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[tuple[mx.array, ...], mx.array]] = {}

    def get(self, name: str, arrays: tuple[mx.array, ...], make: Callable[[], mx.array]) -> mx.array:
        held = self._held.get(name)
        if held is not None and len(held[0]) == len(arrays) and all(a is b for a, b in zip(held[0], arrays)):
            return held[1]
        made = make()
        try:
            mx.eval(made)  # so that any thread may use it
        except (ValueError, RuntimeError):  # inside `mx.compile`, where there are no numbers yet
            return made
        self._held[name] = arrays, made
        return made


class AdaptedLinear(Adapted):
    """Adapters of a linear layer of its own."""

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., columns) -> (..., rows)."""
        return _changed(self, x, [self.base(x)], [""])[0]


class AdaptedFused(Adapted):
    """Adapters of a stacked projection, one per site; all A of one adapter are one product."""

    @property
    def members(self) -> dict[str, int]:
        return self.base.members

    def __call__(self, x: mx.array) -> list[mx.array]:
        """x (..., columns) -> one array (..., rows) per member."""
        return _changed(self, x, self.base(x), list(self.base.members))


def _changed(layer: Adapted, x: mx.array, outputs: list[mx.array], members: list[str]) -> list[mx.array]:
    """The outputs of the base, by member, with the changes of all active adapters."""
    active = list(layer.active())
    if not active:
        return outputs
    wide = x.astype(mx.float32)
    totals: dict[int, mx.array] = {}
    for name, parts, weight in active:
        for part, hidden in zip(parts, _hidden(layer, name, parts, wide)):
            places = [members.index(member) for member in part.members or ("",)]
            change = hidden @ part.lora_b.T
            for place, own in zip(places, _by_member(layer, name, part, change, [outputs[i] for i in places])):
                own = own if weight == 1 else weight * own
                totals[place] = totals[place] + own if place in totals else own
    return [(y.astype(mx.float32) + totals[i]).astype(y.dtype) if i in totals else y for i, y in enumerate(outputs)]


def _hidden(layer: Adapted, name: str, parts: Sequence[LowRank], x: mx.array) -> list[mx.array]:
    """`s A x` of every part, from one product; the parts of one adapter share what is dropped."""
    x = parts[0].dropped(x, layer._mix.keys)
    if len(parts) == 1:
        return [parts[0].scale * (x @ parts[0].lora_a.T)]
    every = [part.lora_a for part in parts]
    stacked = layer.made(f"{name}.a", every, lambda: mx.concatenate(every))
    ends = list(itertools.accumulate(a.shape[0] for a in every))
    pieces = mx.split(x @ stacked.T, ends[:-1], axis=-1)
    return [part.scale * piece for part, piece in zip(parts, pieces)]


def _by_member(
    layer: Adapted, name: str, part: LowRank, change: mx.array, outputs: list[mx.array]
) -> Iterator[mx.array]:
    """What one part adds to each member: `s B A x`; for DoRA `f (W x + s B A x) - W x` with `f = m / |V|`."""
    ends = list(itertools.accumulate(y.shape[-1] for y in outputs))
    changes = mx.split(change, ends[:-1], axis=-1) if len(outputs) > 1 else [change]
    if not part.dora:
        yield from changes
        return
    factor = _factor(layer, name, part)
    factors = mx.split(factor, ends[:-1]) if len(outputs) > 1 else [factor]
    for own, f, y, bias in zip(changes, factors, outputs, part.biases()):
        y = y.astype(mx.float32)
        if bias is not None:
            y = y - bias.astype(mx.float32)
        yield f * own + (f - 1) * y


def _factor(layer: Adapted, name: str, part: LowRank) -> mx.array:
    arrays = (part.lora_a, part.lora_b, part.magnitude)
    return layer.made(f"{name}.{part.number}.factor", arrays, part.factor)


class AdaptedExperts(Adapted):
    """Adapters of the matrices of all experts."""

    def __call__(self, x: mx.array, expert: mx.array, sorted_indices: bool = False) -> mx.array:
        """x (..., 1, columns), expert int (...) or broadcast to it -> (..., 1, rows)."""
        y = self.base(x, expert, sorted_indices)
        active = list(self.active())
        if not active:
            return y
        wide, total = x.astype(mx.float32), y.astype(mx.float32)
        for name, parts, weight in active:
            (part,) = parts

            def times(left: mx.array, right: mx.array) -> mx.array:
                right = right.swapaxes(-1, -2)
                return mx.gather_mm(left, right, rhs_indices=expert, sorted_indices=sorted_indices)

            hidden = part.scale * times(part.dropped(wide, self._mix.keys), part.lora_a)
            change = times(hidden, part.lora_b)
            if part.dora:
                factor = _factor(self, name, part)[expert][..., None, :]
                change = factor * change + (factor - 1) * y.astype(mx.float32)
            total = total + (change if weight == 1 else weight * change)
        return total.astype(y.dtype)


def wrap(base: Any, mix: Mix) -> Adapted:
    """The layer that takes the place of `base`."""
    if isinstance(base, ExpertLinear):
        return AdaptedExperts(base, mix)
    return AdaptedFused(base, mix) if isinstance(base, FusedLinear) else AdaptedLinear(base, mix)

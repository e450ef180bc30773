"""An adapter as a file has it, before any decoder: the arrays of its sites, and everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx

from qwen_mlx.adapters.config import AdapterConfig
from qwen_mlx.adapters.sites import Site
from qwen_mlx.errors import CheckpointError

_LISTED = 5


@dataclass(frozen=True)
class Part:
    """What a file says of one site, in float32, rows in the order in which they run.

    Attributes:
        a: (rank, columns); b: (rows, rank); magnitude: (rows,) for DoRA. Each with a first axis for experts.
        scale: what `B A` is multiplied with.
    """

    a: mx.array
    b: mx.array
    magnitude: mx.array | None
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[-2]


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter that was read and checked against a model.

    Attributes:
        folder: where it was.
        base: the model that it says it belongs to, or None.
        parts: by the name of the site, in the order of the layers.
        matrices: that replace "embed_tokens" and "lm_head" (vocab, dims); the same object where one is both.
    """

    folder: Path
    config: AdapterConfig
    parts: Mapping[str, Part]
    matrices: Mapping[str, mx.array]
    base: str | None = None


@dataclass
class Arrays:
    """The tensors of an adapter file while they are taken; remembers everything that is wrong."""

    path: Path
    tensors: dict[str, mx.array]
    base: str | None = None
    problems: list[str] = field(default_factory=list)

    def take(self, key: str, shape: tuple[int | None, ...]) -> mx.array | None:
        """A tensor of floats with these axes (None: any) as float32; None, noted, when it is missing or wrong."""
        array = self.tensors.pop(key, None)
        if array is None:
            self.problems.append(f"{key} is missing")
            return None
        fits = len(array.shape) == len(shape) and all(s in (None, n) for s, n in zip(shape, array.shape))
        if not fits or 0 in array.shape or not mx.issubdtype(array.dtype, mx.floating):
            kind = str(array.dtype).removeprefix("mlx.core.")
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            self.problems.append(f"{key} is {kind} {tuple(array.shape)}, expected floats ({wanted})")
            return None
        wide = array.astype(mx.float32)
        if not mx.isfinite(wide).all().item():
            self.problems.append(f"{key} holds NaN or infinity")
            return None
        return wide

    def finish(self) -> None:
        """Raise one error for everything that was missing, wrong or left over."""
        left = [f"{key} is not part of this model" for key in sorted(self.tensors)]
        problems = self.problems + left
        if not problems:
            return
        shown = "; ".join(problems[:_LISTED])
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        of = f" It says that it belongs to {self.base!r:.100}." if self.base else ""
        raise CheckpointError(
            f"{self.path} does not fit this model: {shown}{more}",
            hint=f"Perhaps it is the adapter of another model.{of}",
        )


def joined(first: Part, second: Part) -> Part:
    """Two adapters of neighbouring rows, those of gate and up, as one.

    Where both have the same A it is kept once. Else A is one above the other and B block-diagonal, which is the same
    change with twice the rank.
    """
    a1, a2, b1, b2, scale = first.a, second.a, first.b, second.b, first.scale
    if second.scale != scale:
        b1, b2, scale = b1 * first.scale, b2 * second.scale, 1.0
    magnitude = None
    if first.magnitude is not None and second.magnitude is not None:
        magnitude = mx.concatenate([first.magnitude, second.magnitude], axis=-1)
    if a1.shape == a2.shape and mx.array_equal(a1, a2):
        return Part(a1, mx.concatenate([b1, b2], axis=-2), magnitude, scale)
    upper = mx.concatenate([b1, mx.zeros((*b1.shape[:-1], b2.shape[-1]))], axis=-1)
    lower = mx.concatenate([mx.zeros((*b2.shape[:-1], b1.shape[-1])), b2], axis=-1)
    return Part(mx.concatenate([a1, a2], axis=-2), mx.concatenate([upper, lower], axis=-2), magnitude, scale)


def nothing(site: Site, rows: int, scale: float) -> Part:
    """An adapter of rank 1 that changes nothing, for one half of a pair of which the other half is adapted."""
    lead = (site.experts,) if site.experts else ()
    return Part(mx.zeros((*lead, 1, site.columns)), mx.zeros((*lead, rows, 1)), None, scale)


def in_order(site: Site, part: Part, back: bool = False) -> Part:
    """Rows as stored -> as they run, or `back`."""
    order = site.stored_order()
    if order is None:
        return part
    rows = mx.array(order)
    if back:
        rows = mx.argsort(rows)
    magnitude = None if part.magnitude is None else part.magnitude[rows]
    return Part(part.a, part.b[rows], magnitude, part.scale)

"""What an adapter is made like: method, rank, scale, and which parts of the decoder it changes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qwen_mlx.adapters.patterns import first_match
from qwen_mlx.errors import UsageError

Method = Literal["lora", "dora"]
ALL_LINEAR = "all-linear"
SAVEABLE = ("embed_tokens", "lm_head")
_MOST_RANK = 1 << 16


@dataclass(frozen=True)
class AdapterConfig:
    """How an adapter is made.

    LoRA (Hu et al., 2021, arXiv:2106.09685): `y = W x + s B (A x)` with `s = alpha / rank`. rsLoRA (Kalajdzievski,
    2023, arXiv:2312.03732): `s = alpha / sqrt(rank)`. DoRA (Liu et al., 2024, arXiv:2402.09353): the rows of
    `V = W + s B A` are brought to learnt lengths, `m V / |V|`.

    Attributes:
        method: "lora" or "dora".
        rank: rows of A.
        alpha: of the scale.
        dropout: probability with which an input of A is dropped while training.
        rslora: whether the scale is that of rsLoRA.
        targets: roles (`sites.ROLES`), or "all-linear": everything but routers, embedding and head.
        layers: numbers of the layers that are adapted; None is all.
        rank_pattern, alpha_pattern: other values for some parts, as PEFT has them: the end of a module's name
            ("q_proj", "layers.0.mlp.down_proj"), or a simple regular expression for it.
        modules_to_save: "embed_tokens" and "lm_head", which are trained as a whole. In a model with tied embeddings
            the two are one matrix, which either name means.

    Raises:
        UsageError: a value that cannot be meant.
    """

    method: Method = "lora"
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    rslora: bool = False
    targets: tuple[str, ...] = (ALL_LINEAR,)
    layers: tuple[int, ...] | None = None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        def own(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in ("targets", "modules_to_save"):
            value: Any = getattr(self, name)
            own(name, (value,) if isinstance(value, str) else tuple(value))
        own("layers", None if self.layers is None else tuple(self.layers))
        own("rank_pattern", dict(self.rank_pattern))
        own("alpha_pattern", dict(self.alpha_pattern))
        if self.method not in ("lora", "dora"):
            raise UsageError(f"there is no adapter method {self.method!r}", expected="lora or dora")
        check_rank("rank", self.rank)
        check_alpha("alpha", self.alpha)
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise UsageError("dropout is a probability", expected="0 or more, below 1", found=repr(self.dropout))
        if not self.targets and not self.modules_to_save:
            raise UsageError("an adapter without targets changes nothing", expected=f"roles, or {ALL_LINEAR!r}")
        for name, value in self.rank_pattern.items():
            check_rank(f"rank_pattern {name!r}", value)
        for name, number in self.alpha_pattern.items():
            check_alpha(f"alpha_pattern {name!r}", number)
        for name in self.modules_to_save:
            if name not in SAVEABLE:
                raise UsageError(f"{name!r} cannot be trained as a whole", expected=" or ".join(SAVEABLE))
        # A pattern that cannot be used is told now, not when the first name meets it.
        self.rank_of("")
        self.alpha_of("")

    def rank_of(self, name: str) -> int:
        """The rank of the part with this name, as PEFT names it."""
        found = first_match(self.rank_pattern, name)
        return self.rank if found is None else self.rank_pattern[found]

    def alpha_of(self, name: str) -> float:
        found = first_match(self.alpha_pattern, name)
        return float(self.alpha if found is None else self.alpha_pattern[found])

    def scale_of(self, name: str) -> float:
        """What `B A x` is multiplied with."""
        return scale(self.alpha_of(name), self.rank_of(name), self.rslora)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdapterConfig:
        """What `as_dict` gave. Raises `UsageError` for unknown names and values that cannot be meant."""
        known = {one.name for one in dataclasses.fields(cls)}
        if unknown := [name for name in values if name not in known]:
            raise UsageError(f"an adapter has no {unknown[0]!r}", expected=", ".join(sorted(known)))
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        try:
            return cls(**plain)
        except (TypeError, ValueError) as problem:
            raise UsageError(f"this is no configuration of an adapter: {problem}") from None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def scale(alpha: float, rank: int, rslora: bool) -> float:
    """The factor of LoRA or rsLoRA."""
    return alpha / math.sqrt(rank) if rslora else alpha / rank


def check_rank(what: str, value: Any) -> None:
    """Raises `UsageError` for what is no rank."""
    if type(value) is not int or not 1 <= value <= _MOST_RANK:
        raise UsageError(f"{what} is no rank", expected=f"a whole number from 1 to {_MOST_RANK}", found=repr(value))


def check_alpha(what: str, value: Any) -> None:
    """Raises `UsageError` for what is no alpha."""
    if not _is_number(value) or not 0 < abs(value) < 1e6:
        raise UsageError(f"{what} is no alpha", expected="a number that is not 0", found=repr(value)[:60])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

"""How large the models of the table are, from their names alone: estimates, for choosing before anything is fetched.

A name says how many weights a model has ("8b", "30b-a3b") and how they are stored ("4bit"). What the cache of a text
takes is not in it: it is guessed from above. The lines below lie on or above the published dense models (Qwen3-0.6B:
28 layers of 8 heads of 128, 115 kB a token; 4B: 147 kB; 32B: 262 kB; Qwen1.5, whose heads share no keys, 7B: 524 kB),
and well above mixtures of experts and models with recurrent layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qwen_mlx.hub.catalogue import Model
from qwen_mlx.hub.fit import Numbers

# Tables of packed weights carry a scale and a bias of 16 bits for each group of 64.
_BITS = {"3bit": 3.5, "4bit": 4.5, "5bit": 5.5, "6bit": 6.5, "8bit": 8.5, "bf16": 16.0, "fp16": 16.0, "fp8": 8.0}
_SIZE = re.compile(r"(?:^|[:-])(\d+(?:\.\d+)?)b(?:-|$)")
# The only one whose name says how many weights are active, but not how many there are (config.json of the model).
_TOTALS = {"qwen1.5:moe-a2.7b": 14_300_000_000}
_CACHE = (130_000, 4_600)  # bytes a token at 16 bits: of any model, and for each billion weights
_CACHE_UNGROUPED = (110_000, 75_000)
_CONTEXT = 32_768


@dataclass(frozen=True)
class Listed:
    """One variant of a model of the table."""

    name: str
    repository: str
    parameters: int
    bits: float
    default: bool

    @property
    def size(self) -> int:
        """Bytes of its weights as stored."""
        return round(self.parameters * self.bits / 8)

    def numbers(self) -> Numbers:
        """For `hub.fit.estimate`."""
        base, slope = _CACHE_UNGROUPED if self.name.startswith("qwen1.5:") else _CACHE
        per_token = round(base + slope * self.parameters / 1e9)
        return Numbers(self.parameters, self.size, lambda tokens: per_token * tokens, 0, _CONTEXT)


def parameters_of(name: str) -> int | None:
    """Number of weights that a short name such as "qwen3:30b-a3b" speaks of; None where it says nothing."""
    if name in _TOTALS:
        return _TOTALS[name]
    found = _SIZE.search(name.partition(":")[2] and ":" + name.partition(":")[2])
    return round(float(found[1]) * 1e9) if found else None


def listed(model: Model) -> list[Listed]:
    """The variants of a model, the one that is meant when none is named first; those of unknown size are left out."""
    parameters = parameters_of(model.name)
    if parameters is None:
        return []
    names = sorted(model.variants, key=lambda variant: (variant != model.default, _BITS.get(variant, 0.0)))
    return [
        Listed(
            model.name if variant == model.default else f"{model.name}-{variant}",
            *(model.variants[variant], parameters, _BITS[variant], variant == model.default),
        )
        for variant in names
        if variant in _BITS
    ]

"""The lines of the screen of models: what is here, then what could be had."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from textual.content import Content

from qwen_mlx.events import KnownModel, ModelEntry
from tui.clock import Clock
from tui.wording import ago, pad, size

_MARKS = {"fits": "●", "tight": "◐", "too big": "○"}
_WIDTHS = (10, 9, 12, 7)  # bits, size, whether it fits, when it was used
_NARROW = 64  # cells below which bits and the last use are left out


def matching(models: Sequence[ModelEntry], words: Sequence[str]) -> list[ModelEntry]:
    """Those whose name has every word."""
    return [model for model in models if all(word in model.name.lower() for word in words)]


def matching_known(known: Sequence[KnownModel], words: Sequence[str], here: Iterable[str]) -> list[KnownModel]:
    """Models that could be had: those that fit first, the newest family first; variants for who writes something.

    `here` are names of models that are on this machine already.
    """
    present = {name.lower() for name in here}
    found = [
        model
        for model in known
        if model.repository.lower() not in present
        and (model.default or words)
        and all(word in f"{model.name} {model.repository}".lower() for word in words)
    ]
    families = {model.name.partition(":")[0]: place for place, model in enumerate(known)}
    fit = list(_MARKS)
    return sorted(found, key=lambda model: (fit.index(model.fits), -families[model.name.partition(":")[0]]))


def row(model: ModelEntry, loaded: str | None, default: str | None, now: float, clock: Clock, width: int) -> Content:
    """`▌ name   4.5 bits   1.2 GB   ● fits   3h`; a star marks the model the app begins with."""
    facts = (
        f"{model.bits:.1f} bits" if model.bits else "",
        size(model.size),
        _verdict(model.fits) if model.fits and not model.problem else (model.problem or ""),
        ago(model.used, now, clock) if model.used else "",
    )
    mark = "▌" if model.name == loaded else " "
    name = f"{model.name} ★" if model.name == default else model.name
    return _row(mark, name, facts, "$error" if model.problem else "$secondary", width, strong=model.name == loaded)


def known_row(model: KnownModel, width: int) -> Content:
    """`↓ qwen3:8b   4.5 bits   4.6 GB   ● fits`."""
    facts = (f"{model.bits:g} bits", f"~{size(model.size)}", _verdict(model.fits), "")
    return _row("↓", model.name, facts, "$secondary", width)


def _verdict(fits: str) -> str:
    return f"{_MARKS.get(fits, '')} {fits}"


def _row(mark: str, name: str, facts: Sequence[str], style: str, width: int, strong: bool = False) -> Content:
    columns = range(len(_WIDTHS)) if width >= _NARROW else (1, 2)
    shown = [(facts[column], _WIDTHS[column]) for column in columns]
    tail = "".join(f" {fact:>{room}}" for fact, room in shown)
    title = pad(name, max(8, width - cell_len(tail) - 2))
    return Content.assemble((mark, "$primary"), " ", (title, "bold" if strong else ""), (tail, style))

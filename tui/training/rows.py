"""The lines of the list of runs. Pure functions."""

from __future__ import annotations

from rich.cells import cell_len
from textual.content import Content

from qwen_mlx.events import RunEntry
from tui.clock import Clock
from tui.training.plot import number
from tui.wording import ago, pad

MARKS = {"new": "○", "running": "◉", "stopped": "◐", "finished": "●", "failed": "✗"}
METHOD_WORDS = {"lora": "LoRA", "rslora": "rsLoRA", "dora": "DoRA", "qlora": "QLoRA", "full": "full"}
# Heading, cells, the narrowest list that shows it, and whether it stands at the right of its cells.
_COLUMNS = (
    ("model", 18, 96, False),
    ("method", 7, 70, False),
    ("steps", 13, 56, True),
    ("train", 7, 84, True),
    ("valid", 7, 0, True),
    ("state", 10, 40, False),
    ("when", 6, 110, True),
)
_TONES = {"running": "$primary", "failed": "$error", "finished": "$success"}


def heading(width: int) -> Content:
    """The line above the list."""
    return Content.styled(_line("", "run", [column[0] for column in _COLUMNS], width), "$secondary")


def row(entry: RunEntry, marked: bool, now: float, width: int, clock: Clock) -> Content:
    """`✓ poems   Qwen3-0.6B  LoRA  120/500  1.234  1.301  ● finished  3h`."""
    steps = f"{entry.step:,}/{entry.total:,}" if entry.total else f"{entry.step:,}" if entry.step else ""
    facts = (
        entry.model,
        METHOD_WORDS.get(entry.method, entry.method),
        steps,
        _loss(entry.train_loss),
        _loss(entry.valid_loss),
        f"{MARKS[entry.state]} {entry.state}",
        ago(entry.changed, now, clock) if entry.changed else "",
    )
    text = _line("✓" if marked else " ", entry.name, facts, width)
    return Content(text).stylize(_TONES.get(entry.state, ""), 0) if entry.state in _TONES else Content(text)


def _line(mark: str, name: str, facts: tuple[str, ...] | list[str], width: int) -> str:
    shown = [
        fact.rjust(room) if right else pad(fact, room)
        for fact, (_, room, least, right) in zip(facts, _COLUMNS)
        if width >= least
    ]
    tail = "".join(f"  {fact}" for fact in shown)
    return f"{mark or ' '} {pad(name, max(8, width - cell_len(tail) - 2))}{tail}"


def _loss(value: float | None) -> str:
    return number(value) if value is not None else "-"

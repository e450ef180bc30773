"""Two or more runs beside each other: what they were told differently, and how well they did. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen_mlx.events import Eval, RunRecord, Step
from tui.training.forecast import span
from tui.training.plot import number

_SAME_ANYWAY = ("out", "preset")


def table_of(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Rows of a name and a word per run: results first, then every setting in which the runs differ."""
    rows = [
        ("best valid loss", [_best(record) for record in records]),
        ("last train loss", [_number(record.entry.train_loss) for record in records]),
        ("steps", [f"{record.entry.step:,} of {record.entry.total:,}" for record in records]),
        ("time", [_seconds(record) for record in records]),
    ]
    flat = [_flat(record.config) for record in records]
    keys = list(dict.fromkeys(key for values in flat for key in values))
    for key in keys:
        words = [_word(values.get(key)) for values in flat]
        if key not in _SAME_ANYWAY and len(set(words)) > 1:
            rows.append((key, words))
    return rows


def judged_alike(records: Sequence[RunRecord]) -> bool:
    """Whether all runs were judged by the same data, so that their losses can be compared."""
    data = [record.config.get("data", {}) for record in records]
    # A file decides alone; a share depends on what it is taken from.
    judges = {str(own.get("valid")) if isinstance(own.get("valid"), str) else str(own) for own in data}
    return len(judges) == 1


def best_of(records: Sequence[RunRecord]) -> int | None:
    """The place of the run with the lowest loss on its evaluation set; None where that cannot be said."""
    losses = [record.entry.best_loss for record in records]
    known = [loss for loss in losses if loss is not None]
    if len(known) < len(losses) or not judged_alike(records):
        return None
    return losses.index(min(known))


def train_points(record: RunRecord) -> list[tuple[float, float]]:
    return [(event.step, event.loss) for event in record.events if isinstance(event, Step) and not event.skipped]


def valid_points(record: RunRecord) -> list[tuple[float, float]]:
    return [(event.step, event.loss) for event in record.events if isinstance(event, Eval)]


def _best(record: RunRecord) -> str:
    entry = record.entry
    return "-" if entry.best_loss is None else f"{number(entry.best_loss)} at {entry.best_step:,}"


def _seconds(record: RunRecord) -> str:
    last = next((event for event in reversed(record.events) if isinstance(event, Step)), None)
    return span(last.seconds) if last is not None else "-"


def _number(value: float | None) -> str:
    return number(value) if value is not None else "-"


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def _word(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)

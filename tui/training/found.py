"""What was found in the data of a run, in words. Pure functions."""

from __future__ import annotations

from qwen_mlx.events import DataPrepared
from tui.training.forecast import Line

_WARNINGS = 4


def found_lines(train: DataPrepared | None, valid: DataPrepared | None) -> list[Line]:
    """Counts first, then what a person should look at."""
    if train is None:
        return []
    share = train.supervised / train.tokens if train.tokens else 0.0
    rows = f"{train.examples:,} examples" + (f" of {train.rows:,} rows" if train.rows != train.examples else "")
    judged = f", {valid.examples:,} to judge by" if valid is not None else ", none to judge by"
    found = [
        Line(f"{rows}, {train.format}{judged}"),
        Line(
            f"{train.tokens:,} tokens, {train.supervised:,.0f} learnt ({share:.0%}), the longest has {train.longest:,}"
        ),
    ]
    counts = [
        f"{count:,} {what}"
        for count, what in ((train.truncated, "cut"), (train.duplicates, "said twice"), (train.left_out, "left out"))
        if count
    ]
    if counts:
        found.append(Line(", ".join(counts), "tight"))
    warnings = list(dict.fromkeys((*train.warnings, *(valid.warnings if valid is not None else ()))))
    found += [Line(f"· {text}", "tight") for text in warnings[:_WARNINGS]]
    if len(warnings) > _WARNINGS:
        found.append(Line(f"· and {len(warnings) - _WARNINGS} more", "tight"))
    return found

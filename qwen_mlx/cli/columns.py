"""Rows as aligned columns: cut to the terminal's width where a person reads them, whole where a program does."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence

from qwen_mlx.cli.terminal import clean

_GAP = "  "
_WIDE = 1 << 16
_LEAST = 12  # characters of the first column


def columns() -> int:
    """How many characters a line may have."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Lines of a table whose first row is its head.

    Args:
        right: numbers of the columns that are aligned at their right side.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[number]) for row in cells) for number in range(len(cells[0]))]
    others = sum(widths[1:]) + len(_GAP) * (len(widths) - 1)
    widths[0] = max(min(widths[0], columns() - others), _LEAST)
    for row in cells:
        shown = [_shorten(row[0], widths[0]), *row[1:]]
        fields = [
            text.rjust(width) if number in right else text.ljust(width)
            for number, (text, width) in enumerate(zip(shown, widths))
        ]
        yield _GAP.join(fields).rstrip()


def _shorten(text: str, width: int) -> str:
    """`text` with its middle left out: the ends of a model's name say most."""
    if len(text) <= width:
        return text
    head = (width - 1) // 3
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"

"""Numbers of speed and memory as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_mlx.evaluation.suite import Comparison, Row, rows

_HEAD = (
    ("model", "<"),
    ("weights", "<"),
    ("context", ">"),
    ("prefill", ">"),
    ("mlx-lm", ">"),
    ("ratio", ">"),
    ("decode", ">"),
    ("mlx-lm", ">"),
    ("ratio", ">"),
    ("memory", ">"),
    ("mlx-lm", ">"),
    ("ratio", ">"),
)


def speed(tokens_per_second: float) -> str:
    """Three digits, however small: 1234, 56.7, 0.0123; nothing for 0."""
    if not tokens_per_second:
        return ""
    if tokens_per_second >= 100:
        return f"{tokens_per_second:.0f}"
    digits = 1 if tokens_per_second >= 10 else 2
    return f"{tokens_per_second:.{digits}f}" if tokens_per_second >= 1 else f"{tokens_per_second:.3g}"


def size(count: int) -> str:
    """Bytes in MB, or GB from 1 on."""
    if not count:
        return ""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def ratio(value: float | None) -> str:
    """With two digits, so that what is below 1 is seen to be."""
    if value is None:
        return ""
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def plain(head: Sequence[tuple[str, str]], lines: Sequence[Sequence[str]]) -> str:
    """Columns under their names, as wide as their longest entry; "<" and ">" say to which side."""
    table = [[name for name, _ in head], *lines]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, (_, side), width in zip(line, head, widths)).rstrip()
        for line in table
    )


def markdown(head: Sequence[tuple[str, str]], lines: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    rule = ["---" if side == "<" else "---:" for _, side in head]
    return "\n".join("| " + " | ".join(line) + " |" for line in ([name for name, _ in head], rule, *lines))


def of_comparisons(comparisons: Sequence[Comparison], in_markdown: bool = False) -> str:
    """A row for every model, form of weights and context, and the remarks below."""
    lines = [_line(row) for comparison in comparisons for row in rows(comparison)]
    table = (markdown if in_markdown else plain)(_HEAD, lines)
    remarks = [f"{c.family} {c.shape}: {remark}." for c in comparisons for remark in c.remarks]
    return "\n".join([table, *([""] if remarks else []), *(f"- {remark}" for remark in remarks)])


def _line(row: Row) -> list[str]:
    peer = speed(row.peer_prefill)
    if peer and row.peer_read < row.context:
        peer += f" ({row.peer_read} read)"
    return [
        f"{row.family} {row.shape}",
        row.form,
        str(row.context),
        speed(row.prefill),
        peer,
        ratio(row.prefill_ratio),
        speed(row.decode),
        speed(row.peer_decode),
        ratio(row.decode_ratio),
        size(row.memory),
        size(row.peer_memory),
        ratio(row.memory_ratio),
    ]

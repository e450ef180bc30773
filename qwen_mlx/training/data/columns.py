"""Rows of Parquet and Arrow files. pyarrow reads them, and is imported only for that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from qwen_mlx.errors import DataError

_ROWS = 256  # that are turned into Python objects at a time


def parquet_rows(path: Path, label: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows, from 1. Empty cells, and fields of a record that are empty, are absent.

    Raises:
        DataError: the file is damaged, or pyarrow is missing.
    """
    pyarrow = _library(label, "Parquet")
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield from _numbered(batch.to_pylist() for batch in file.iter_batches(batch_size=_ROWS))
    except (pyarrow.ArrowException, UnicodeDecodeError) as problem:
        raise _damaged(label, "Parquet", problem) from None


def arrow_rows(path: Path, label: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same for the files that `datasets` writes: Arrow's stream format, or its file format."""
    pyarrow = _library(label, "Arrow")
    from pyarrow import ipc

    try:
        with pyarrow.memory_map(str(path)) as source:
            if source.read(6) == b"ARROW1":
                reader = ipc.open_file(source)
                batches: Iterable[Any] = (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                source.seek(0)
                batches = ipc.open_stream(source)
            yield from _numbered(
                batch.slice(start, _ROWS).to_pylist() for batch in batches for start in range(0, batch.num_rows, _ROWS)
            )
    except (pyarrow.ArrowException, UnicodeDecodeError) as problem:
        raise _damaged(label, "Arrow", problem) from None


def _library(label: str, kind: str) -> ModuleType:
    try:
        import pyarrow
    except ImportError:
        raise DataError(
            f"{label}: {kind} files need the library pyarrow, which is not installed",
            hint="Install it with `pip install 'qwen-mlx[train]'`, or convert the file to JSONL.",
        ) from None
    return pyarrow


def _numbered(batches: Iterable[list[dict[str, Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for batch in batches:
        for row in batch:
            number += 1
            yield number, _without_empty(row)


def _without_empty(value: Any) -> Any:
    """Every record of a column has all fields that any of them has; those without a value were never written."""
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item is not None}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


def _damaged(label: str, kind: str, problem: Exception) -> DataError:
    return DataError(f"{label} cannot be read as {kind}", found=" ".join(str(problem).split())[:200])

"""Rows of JSON, JSON Lines and CSV files, read one by one and with suspicion; Parquet and Arrow are in `columns.py`.

Nothing is understood here: a row is a dictionary and the place it came from. What is wrong with a file is one
`DataError` that names the file and the line, or the row where lines mean nothing.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from qwen_mlx.errors import DataError, NotFound
from qwen_mlx.training.data.columns import arrow_rows, parquet_rows

KINDS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
COMPRESSED = ".gz"
MAX_LINE = 1 << 26
"""Bytes of one row; the longest book has a tenth of it."""
MAX_ARRAY = 1 << 31
"""Bytes of a file that is one JSON array, which must be read whole."""

_BOM = b"\xef\xbb\xbf"
_PER_LINE = "one JSON object per line, or one JSON array of objects"


@dataclass(frozen=True)
class DataFile:
    """A file of rows; `label` is how messages and sources name it, `kind` one of `KINDS`."""

    path: Path
    label: str
    kind: str

    @property
    def compressed(self) -> bool:
        return self.path.suffix.lower() == COMPRESSED


@dataclass(frozen=True)
class RawRow:
    """One row as the file has it.

    Attributes:
        place: for messages, such as "data/train.jsonl:12", or "train.parquet row 12".
        source: for examples: the same with the file's bare name.
    """

    place: str
    source: str
    values: dict[str, Any]


def data_file(path: Path, label: str | None = None) -> DataFile:
    """Raises `DataError` for an ending that no reader knows."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == COMPRESSED:
        suffixes.pop()
    kind = KINDS.get(suffixes[-1] if suffixes else "")
    if kind is None:
        raise DataError(
            f"{path} is of no known kind", expected=f"a name that ends in {', '.join(KINDS)}, with or without .gz"
        )
    if kind in ("parquet", "arrow") and path.suffix.lower() == COMPRESSED:
        raise DataError(f"{path}: Parquet and Arrow files are not read through gzip", hint="Unpack it first.")
    return DataFile(path, label or str(path), kind)


def read_rows(files: Iterable[DataFile]) -> Iterator[RawRow]:
    """All rows of files, in order.

    Raises:
        DataError: a file that is damaged, not UTF-8, of another format than its name says, or has no row at all.
        NotFound: a file that is not there.
    """
    for file in files:
        empty = True
        for place, values in _rows(file):
            empty = False
            yield RawRow(f"{file.label}{place}", f"{file.path.name}{place}", values)
        if empty:
            raise DataError(f"{file.label} has no rows", hint="Is it the right file?")


def _rows(file: DataFile) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        if file.kind == "parquet":
            numbered = parquet_rows(file.path, file.label)
        elif file.kind == "arrow":
            numbered = arrow_rows(file.path, file.label)
        else:
            with _opened(file) as stream:
                yield from _json(file, stream) if file.kind == "json" else _csv(file, stream)
            return
        for number, values in numbered:
            yield f" row {number}", values
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"there is no file {file.label}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise DataError(f"{file.label} is damaged", expected="gzip data", found=str(problem)) from None
    except OSError as problem:
        raise DataError(f"{file.label} cannot be read", found=problem.strerror or str(problem)) from None


def _opened(file: DataFile) -> IO[bytes]:
    stream = gzip.open(file.path, "rb") if file.compressed else file.path.open("rb")  # noqa: SIM115
    return cast("IO[bytes]", stream)


# -------------------------------------------------------------------------------------------------------- lines


def _lines(file: DataFile, stream: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends; a byte order mark is left out."""
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) > MAX_LINE:
            raise DataError(
                f"{file.label}:{number}: the line is too long", expected=f"at most {MAX_LINE:,} bytes for one row"
            )
        yield number, _decoded(line, f"{file.label}:{number}")


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise DataError(
            f"{place}: this is not UTF-8 text",
            found=f"the byte 0x{data[problem.start]:02x} at position {problem.start + 1} of the line",
            hint="Save the file as UTF-8.",
        ) from None


# --------------------------------------------------------------------------------------------------------- JSON


class _RefusedError(ValueError):
    """Fine for Python's parser, not for us."""


def parse_json(text: str, place: str, what: str = "") -> Any:
    """A JSON value; `what` names the part of a row it is.

    Raises:
        DataError: not JSON, a key twice, NaN or Infinity, nested too deeply.
    """
    subject = f"{place}: {what} is" if what else f"{place}: this is"
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise DataError(f"{place}: lists or objects are nested too deeply") from None
    except json.JSONDecodeError as problem:
        line = f"line {problem.lineno}, " if "\n" in text.strip() else ""
        found = f"{problem.msg} at {line}column {problem.colno}: {_excerpt(text, problem.pos)}"
        raise DataError(f"{subject} no JSON", expected=None if what else _PER_LINE, found=found) from None
    except _RefusedError as problem:
        raise DataError(f"{subject} no proper JSON", found=str(problem)) from None
    except ValueError:  # Python's limit on the digits of an integer
        raise DataError(f"{subject} no proper JSON", found="a number with thousands of digits") from None


def _excerpt(text: str, position: int) -> str:
    piece = text[max(0, position - 20) : position + 20].strip()
    return repr(piece) if piece else "the end"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RefusedError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _no_constant(name: str) -> Any:
    raise _RefusedError(f"{name}, which JSON has no word for")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _RefusedError(f"the number {digits[:30]}, which is too large")
    return value


def _json(file: DataFile, stream: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """JSON Lines, or one array, whichever it is: many `.json` files hold lines."""
    begun = False
    for number, text in _lines(file, stream):
        if not text.strip():
            continue
        place = f":{number}"
        if not begun and text.lstrip().startswith("["):
            yield from _array(file, text, number, stream)
            return
        begun = True
        yield place, _object(parse_json(text, file.label + place), file.label + place)


def _array(file: DataFile, first: str, number: int, stream: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    rest = stream.read(MAX_ARRAY + 1)
    if len(rest) > MAX_ARRAY:
        raise DataError(
            f"{file.label} is too large for one JSON array",
            expected=f"at most {MAX_ARRAY:,} bytes",
            hint="Write one JSON object per line (JSONL) instead.",
        )
    try:
        text = first + rest.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = number + 1 + rest.count(b"\n", 0, problem.start)
        raise DataError(
            f"{file.label}:{line}: this is not UTF-8 text",
            found=f"the byte 0x{rest[problem.start]:02x}",
            hint="Save the file as UTF-8.",
        ) from None
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise DataError(f"{file.label}: lists or objects are nested too deeply") from None
    except json.JSONDecodeError as problem:
        place = f"{file.label}:{number + problem.lineno - 1}"
        found = f"{problem.msg} at column {problem.colno}: {_excerpt(text, problem.pos)}"
        raise DataError(f"{place}: this is no JSON", expected=_PER_LINE, found=found) from None
    except ValueError as problem:
        found = str(problem) if isinstance(problem, _RefusedError) else "a number with thousands of digits"
        raise DataError(f"{file.label} is no proper JSON", found=found) from None
    for row, value in enumerate(values, 1):
        place = f" row {row}"
        yield place, _object(value, file.label + place)


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null", bool: "true or false"}.get(type(value), "a number")
        raise DataError(f"{place}: a row must be a JSON object", found=kind)
    return value


# ---------------------------------------------------------------------------------------------------------- CSV


def _csv(file: DataFile, stream: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows under a line of column names; empty cells are absent. A row is named by the line it begins in."""
    csv.field_size_limit(MAX_LINE)
    texts = (text for _, text in _lines(file, stream))
    reader = csv.reader(texts, delimiter="\t" if file.kind == "tsv" else ",", strict=True)
    names: list[str] | None = None
    end = 0
    try:
        for cells in reader:
            begin, end = end + 1, reader.line_num
            if not cells:
                continue
            place = f":{begin}"
            if names is None:
                names = [name.strip() for name in cells]
                if repeated := {name for name in names if names.count(name) > 1}:
                    raise DataError(f"{file.label}{place}: two columns are named {sorted(repeated)[0]!r}")
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"{file.label}{place}: the row does not fit the line of column names",
                    expected=f"{len(names)} cells ({', '.join(names)})",
                    found=str(len(cells)),
                    hint='Cells that hold commas, quotes or line breaks must stand in "quotes".',
                )
            yield place, {name: cell for name, cell in zip(names, cells) if cell != ""}
    except csv.Error as problem:
        raise DataError(f"{file.label}:{end + 1}: this is no proper CSV", found=str(problem)) from None

"""Files to learn from, as one types their path: what could follow, and what was used before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
_LISTED = 200  # entries of a folder that are looked at


def candidates(text: str, recent: Sequence[str] = (), limit: int = 8) -> list[str]:
    """Paths that begin with what is typed: folders end in "/", files are those that may hold rows.

    With nothing typed, what was used before comes first. Reads one folder; call it from a thread.
    """
    typed = text.strip()
    found = [path for path in recent if typed in path] if typed else list(recent)
    head, tail = os.path.split(typed)
    shown = f"{head.rstrip('/')}/" if head and head != "/" else head
    try:
        with os.scandir(Path(head or ".").expanduser()) as entries:
            names = sorted(_shown(entry) for _, entry in zip(range(_LISTED), entries) if _wanted(entry, tail))
    except OSError:
        names = []
    found += [shown + name for name in names]
    return list(dict.fromkeys(path for path in found if path != typed))[:limit]


def _wanted(entry: os.DirEntry[str], begin: str) -> bool:
    name = entry.name
    if not name.lower().startswith(begin.lower()) or (name.startswith(".") and not begin.startswith(".")):
        return False
    return _is_folder(entry) or name.lower().removesuffix(".gz").endswith(ENDINGS)


def _shown(entry: os.DirEntry[str]) -> str:
    return entry.name + ("/" if _is_folder(entry) else "")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False

"""What can go wrong with the store's file, in words for a person."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from qwen_mlx.errors import HistoryError


def explain(error: sqlite3.Error | OSError, path: Path) -> HistoryError:
    """The `HistoryError` for an error of SQLite or of the file system: what happened and what to do."""
    text = str(error).lower()
    if "malformed" in text or "not a database" in text or "file is encrypted" in text:
        return HistoryError(
            f"the conversation store {path} is damaged",
            found=str(error),
            hint="Nothing was deleted. Move the file away to start with an empty store; "
            f"`sqlite3 {path} .recover` may save what is in it.",
        )
    if "readonly" in text or "read-only" in text or "permission denied" in text:
        return HistoryError(
            f"the conversation store {path} cannot be written",
            found=str(error),
            hint="Make the file and its folder writable, or set QWEN_MLX_HOME to another folder.",
        )
    if "locked" in text or "busy" in text:
        return HistoryError(
            f"the conversation store {path} is in use by another program",
            hint="Close it and try again.",
        )
    if "full" in text or "no space" in text:
        return HistoryError(f"there is no space left for {path}", hint="Free some disk space and try again.")
    return HistoryError(
        f"the conversation store {path} cannot be used",
        found=str(error),
        hint="Check the path, or set QWEN_MLX_HOME to another folder.",
    )

"""Conversations of other programs come into the store: ChatGPT, Open WebUI, oterm, and our own export.

A conversation that was imported before is left alone, so the same file, or a newer one with more in it, can be
imported again. Each conversation is written whole or not at all; what was imported before a fault stays.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from qwen_mlx.chat import foreign, foreign_store
from qwen_mlx.chat.foreign import ForeignConversation
from qwen_mlx.chat.history import History
from qwen_mlx.chat.json_stream import JsonError, elements
from qwen_mlx.errors import NotFound, QwenError, UsageError
from qwen_mlx.events import CancelToken, ChatsImported, Event, Progress

MAX_CONVERSATION = 64_000_000  # bytes of JSON
MAX_FILE = 16_000_000_000  # bytes, unpacked
_IN_ARCHIVE = re.compile(r"(?:[^/]+/)?conversations(?:-\d+)?\.json")
_PROGRAMS = {"chatgpt": "ChatGPT", "open-webui": "Open WebUI", "oterm": "oterm", "qwen-mlx": "qwen-mlx"}
_EXPECTED = "ChatGPT's conversations.json or its .zip, Open WebUI's export, oterm's store.db, or our own JSON export"


def iter_import(
    history: History, path: Path, cancel: CancelToken | None = None, *, dry_run: bool = False
) -> Iterator[Event]:
    """Import every conversation of a file.

    Args:
        dry_run: only count.

    Yields:
        `Progress` in bytes or conversations, at last `ChatsImported`.

    Raises:
        NotFound: there is no such file.
        UsageError: it is of no known format, or damaged. What stood before the damage is imported.
        HistoryError: the store cannot be written.
        Cancelled: what was imported by then stays.
    """
    path = Path(path).expanduser()
    known = history.origins()
    count = {"imported": 0, "known": 0, "empty": 0, "messages": 0}
    programs: set[str] = set()
    try:
        for found, progress in _conversations(path):
            if cancel is not None:
                cancel.raise_if_cancelled()
            if found is None:
                count["empty"] += 1
            elif found.origin in known:
                count["known"] += 1
                programs.add(found.origin.partition(":")[0])
            else:
                if not dry_run:
                    history.adopt(found)
                known.add(found.origin)
                count["imported"] += 1
                count["messages"] += len(found.messages)
                programs.add(found.origin.partition(":")[0])
            yield progress
    except (JsonError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, QwenError):
            raise
        done = f"{count['imported']} of its conversations are imported." if count["imported"] else None
        raise UsageError(f"{path} cannot be imported: {error}", expected=_EXPECTED, hint=done) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    if not programs:
        raise UsageError(f"{path} has no conversation in it", expected=_EXPECTED)
    yield ChatsImported(str(path), ", ".join(sorted(_PROGRAMS[program] for program in programs)), **count)


def _conversations(path: Path) -> Iterator[tuple[ForeignConversation | None, Progress]]:
    if path.is_dir():
        raise UsageError(f"{path} is a folder", expected=_EXPECTED)
    if not path.exists():
        raise NotFound(f"there is no file {path}", expected=_EXPECTED)
    with open(path, "rb") as file:
        head = file.read(16)
        file.seek(0)
        if head == foreign_store.MAGIC:
            for found, done, total in foreign_store.conversations(path):
                yield found, Progress("import", done, total, "conversations")
        elif head.startswith(b"PK\x03\x04"):
            yield from _archive(file)
        else:
            yield from _json(file, path.stat().st_size)


def _archive(file: BinaryIO) -> Iterator[tuple[ForeignConversation | None, Progress]]:
    """The file of conversations inside an archive as ChatGPT sends it; nothing is unpacked to the disk."""
    with zipfile.ZipFile(file) as archive:
        members = sorted(
            (entry for entry in archive.infolist() if _IN_ARCHIVE.fullmatch(entry.filename)),
            key=lambda entry: entry.filename,
        )
        if not members:
            raise ValueError("there is no conversations.json in it")
        for member in members:
            with archive.open(member) as inner:
                yield from _json(cast(BinaryIO, inner), member.file_size)


def _json(file: BinaryIO, size: int) -> Iterator[tuple[ForeignConversation | None, Progress]]:
    for entry, read in elements(file, MAX_CONVERSATION):
        if read > MAX_FILE:
            raise ValueError(f"it has more than {MAX_FILE // 1_000_000_000} GB")
        yield foreign.read(entry), Progress("import", min(read, size), size, "bytes")

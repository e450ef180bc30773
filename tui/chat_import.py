"""Conversations of other programs, read in a thread of their own while the app goes on."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from qwen_mlx.chat.history import History
from qwen_mlx.chat.import_chats import iter_import
from qwen_mlx.errors import Cancelled
from qwen_mlx.events import CancelToken, ChatsImported, Progress


class ChatImport:
    """At most one at a time.

    Attributes:
        progress: how far it is; None when none runs.
    """

    def __init__(self, history: History) -> None:
        self.progress: Progress | None = None
        self._history = history
        self._cancel = CancelToken()

    @property
    def running(self) -> bool:
        return self.progress is not None

    def stop(self) -> None:
        """What is imported by then stays."""
        self._cancel.cancel()

    async def run(self, path: Path) -> ChatsImported | None:
        """Import a file; None when it was stopped. Raises `QwenError`."""
        self._cancel = CancelToken()
        self.progress = Progress("import", 0, None, "bytes")
        try:
            return await asyncio.to_thread(self._run, path)
        except Cancelled:
            return None
        finally:
            self.progress = None

    def _run(self, path: Path) -> ChatsImported | None:
        for event in iter_import(self._history, path, self._cancel):
            if isinstance(event, Progress):
                self.progress = event
            elif isinstance(event, ChatsImported):
                return event
        return None


def path_of(text: str) -> Path:
    """A path as a person writes it, or drags it into the terminal: in quotes, or with backslashes before spaces."""
    text = text.strip()
    if Path(text).expanduser().exists():
        return Path(text).expanduser()
    try:
        words = shlex.split(text)
    except ValueError:
        words = [text]
    return Path(words[0] if len(words) == 1 else text).expanduser()


def message_of(event: ChatsImported) -> str:
    """How it ended, as a sentence."""
    if not event.imported:
        return f"{event.program}: all {event.known:,} conversations were here already."
    plural = "" if event.imported == 1 else "s"
    known = f"; {event.known:,} were here already" if event.known else ""
    return f"{event.program}: {event.imported:,} conversation{plural} imported{known}."

"""What was typed before: one JSON string per line in a private file, the newest last."""

from __future__ import annotations

import json
import os
from pathlib import Path

from qwen_mlx.paths import atomic_write

KEPT = 1000


class PromptFile:
    """The file behind the up key. It is a convenience: a file that cannot be read or written is no error."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> list[str]:
        """The last `KEPT` prompts, oldest first. Damaged lines are left out; a file grown long is cut."""
        try:
            lines = self.path.read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
        prompts = [text for line in lines if (text := _decode(line))]
        if len(lines) > 2 * KEPT:
            self._rewrite(prompts[-KEPT:])
        return prompts[-KEPT:]

    def add(self, text: str) -> None:
        """Append one prompt. Two apps may do so at the same time: a short line is written in one piece."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with open(file, "ab") as stream:
                stream.write(json.dumps(text).encode() + b"\n")
        except OSError:
            return

    def _rewrite(self, prompts: list[str]) -> None:
        try:
            with atomic_write(self.path, private=True) as file:
                file.writelines(json.dumps(text) + "\n" for text in prompts)
        except OSError:
            return


def _decode(line: str) -> str:
    try:
        text = json.loads(line)
    except ValueError:
        return ""
    return text if isinstance(text, str) else ""


class PromptHistory:
    """Walks through earlier prompts; the draft that was begun is at the end of the walk."""

    def __init__(self, prompts: list[str] | None = None) -> None:
        self._prompts = list(prompts or ())
        self._place: int | None = None
        self._draft = ""

    def add(self, text: str) -> None:
        """A prompt was sent. The same one twice in a row is kept once."""
        if not self._prompts or self._prompts[-1] != text:
            self._prompts.append(text)
        self._place = None

    def load(self, prompts: list[str]) -> None:
        """Put what a file held before what was typed since."""
        self._prompts[:0] = prompts

    def older(self, current: str) -> str | None:
        """The prompt before the one shown; None at the oldest. `current` is kept as the draft when the walk begins."""
        if self._place is None:
            self._draft, place = current, len(self._prompts)
        else:
            place = self._place
        if place == 0:
            return None
        self._place = place - 1
        return self._prompts[self._place]

    def newer(self) -> str | None:
        """The prompt after the one shown, at last the draft; None when no walk is under way."""
        if self._place is None:
            return None
        self._place += 1
        if self._place < len(self._prompts):
            return self._prompts[self._place]
        self._place = None
        return self._draft

    def leave(self) -> None:
        """The text was edited: it is a new draft from now on."""
        self._place = None

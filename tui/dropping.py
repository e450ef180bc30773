"""Files that are dropped on the terminal: it pastes their paths, each program in its own way."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LONGEST = 20_000
_MOST = 50


def dropped_files(text: str) -> list[Path]:
    """The files that a pasted text names, if it is nothing but absolute paths of files that exist; else none.

    Understands quotes, backslashes before spaces, `file://` addresses, and one path per line.
    """
    text = text.strip()
    if not text or len(text) > _LONGEST or not re.match(r"""['"]?(?:/|~|file:///|\\ )""", text):
        return []
    for words in (text.splitlines(), _shell_words(text)):
        paths = [_path(word.strip()) for word in words if word.strip()]
        if 0 < len(paths) <= _MOST and all(path is not None and _is_file(path) for path in paths):
            return [path for path in paths if path is not None]
    return []


def _shell_words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _path(word: str) -> Path | None:
    if word.startswith("file://"):
        word = unquote(urlsplit(word).path)
    elif len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        word = word[1:-1]
    return Path(word).expanduser() if word.startswith(("/", "~")) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False

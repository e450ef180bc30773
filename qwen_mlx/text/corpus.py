"""A text to measure with, cut into windows of tokens of one length."""

from __future__ import annotations

import stat
from pathlib import Path

from qwen_mlx.errors import NotFound, QwenError, UsageError
from qwen_mlx.text.tokenizer import Tokenizer

_MAX_TEXT = 100_000_000  # bytes


def read_text(path: Path) -> str:
    """A UTF-8 text file.

    Raises:
        NotFound, QwenError: there is none, or it cannot be read as text.
    """
    try:
        about = path.stat()
        if stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode):
            raise UsageError(f"{path} is a device", expected="a text file")
        if about.st_size > _MAX_TEXT:
            raise UsageError(f"{path} is too large to measure with", expected=f"at most {_MAX_TEXT:,} bytes")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except UnicodeDecodeError:
        raise QwenError(f"{path} is no text", expected="a file in UTF-8") from None
    except OSError as problem:
        raise QwenError(f"{path} cannot be read", found=problem.strerror) from None


def windows(tokenizer: Tokenizer, text: str, length: int, limit: int | None = None) -> list[list[int]]:
    """The tokens of `text` in windows of `length`; the last one may be shorter, but has two tokens or more.

    Args:
        limit: of the tokens in all.

    Raises:
        UsageError: the text is too short to predict anything.
    """
    ids = tokenizer.encode(text)[:limit]
    cut = [ids[start : start + length] for start in range(0, len(ids), length)]
    cut = [window for window in cut if len(window) > 1]
    if not cut:
        raise UsageError("the text is too short", expected="two tokens or more", found=f"{len(ids)}")
    return cut

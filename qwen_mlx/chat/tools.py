"""The tools a model may call: a calculator, a clock, and reading text files below a folder that a person named.

`Toolbox.run` never raises for what a model asks: a result says what was wrong, and the model may try again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from qwen_mlx.chat.calculator import CalculatorError, calculate

MAX_FILE = 10_000_000  # bytes; a larger one is not opened at all
MAX_TEXT = 40_000  # characters of a file that one call returns, some 10,000 tokens
_LISTED = 50  # names of a folder


def _described(name: str, text: str, required: tuple[str, ...] = (), **parameters: tuple[str, str]) -> dict[str, Any]:
    properties = {key: {"type": kind, "description": what} for key, (kind, what) in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}


CALCULATOR = _described(
    "calculator",
    "Computes an arithmetic expression exactly. Use it for every calculation with more than one digit.",
    ("expression",),
    expression=("string", "For example (17 + 4) * 3.5, 2^10, sqrt(2), 15!"),
)
CLOCK = _described(
    "clock",
    "Tells the date and the time of now.",
    timezone=("string", "A name such as Europe/Berlin; without it the person's own"),
)
READ_FILE = _described(
    "read_file",
    "Reads a text file of the person's folder, or lists a folder in it. The person may refuse.",
    ("path",),
    path=("string", "Relative to the folder; . is the folder itself"),
    first_line=("integer", "The line to begin with, from 1; for long files"),
)


@dataclass(frozen=True)
class Result:
    """What a call gave; `ok` is False when `text` says what was wrong."""

    text: str
    ok: bool = True


class _RefusedError(Exception):
    """What a model asked for cannot be done; the text says why."""


class Toolbox:
    """The tools of one conversation.

    Args:
        folder: what files may be read from; None leaves that tool out.
        now: the time, with its time zone.
    """

    def __init__(self, folder: Path | None = None, now: Callable[[], datetime] | None = None) -> None:
        self.folder = folder
        self._now = now or (lambda: datetime.now().astimezone())

    @property
    def described(self) -> tuple[Mapping[str, Any], ...]:
        """OpenAI-style descriptions, as chat templates take them."""
        return (CALCULATOR, CLOCK) if self.folder is None else (CALCULATOR, CLOCK, READ_FILE)

    def asks_first(self, name: str) -> bool:
        """Whether a person has to allow a call of this tool."""
        return name == "read_file" and self.folder is not None

    def run(self, name: str, arguments: Mapping[str, Any]) -> Result:
        """Do what a model asks. May take as long as the disk does."""
        tools = {"calculator": self._calculator, "clock": self._clock, "read_file": self._read_file}
        known = [tool["function"]["name"] for tool in self.described]
        if name not in known:
            return Result(f"There is no tool {name[:60]!r}; there are {', '.join(known)}.", False)
        try:
            return Result(tools[name](arguments))
        except _RefusedError as reason:
            return Result(f"Error: {reason}.", False)

    def _calculator(self, arguments: Mapping[str, Any]) -> str:
        expression = arguments.get("expression")
        if isinstance(expression, (int, float)) and not isinstance(expression, bool):
            expression = str(expression)
        if not isinstance(expression, str):
            raise _RefusedError("calculator needs an expression, such as 2 + 2")
        try:
            return calculate(expression)
        except CalculatorError as reason:
            raise _RefusedError(str(reason)) from None

    def _clock(self, arguments: Mapping[str, Any]) -> str:
        now, zone = self._now(), arguments.get("timezone")
        if isinstance(zone, str) and zone.strip():
            try:
                now = now.astimezone(ZoneInfo(zone.strip()))
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise _RefusedError(f"there is no time zone {zone[:60]!r}; one is Europe/Berlin") from None
        offset = now.strftime("%z")
        named = f"{now.tzname()} (UTC{offset[:3]}:{offset[3:]})" if offset else ""
        return f"{now:%A, %Y-%m-%d %H:%M:%S} {named}".rstrip()

    def _read_file(self, arguments: Mapping[str, Any]) -> str:
        path, first = arguments.get("path"), arguments.get("first_line", 1)
        if not isinstance(path, str) or not path.strip():
            raise _RefusedError("read_file needs a path")
        if isinstance(first, bool) or not isinstance(first, int) or first < 1:
            first = 1
        assert self.folder is not None
        return _text_below(self.folder, path.strip(), first)


def _text_below(folder: Path, path: str, first: int) -> str:
    """Lines of a file below `folder`, or the names in a folder.

    Links are followed only as far as they stay below: the resolved path is walked from the folder down, and no part
    of it may be a link by then, so that one that is changed meanwhile leads nowhere.
    """
    try:
        root = folder.expanduser().resolve(strict=True)
        wanted = Path(path).expanduser()
        real = (wanted if wanted.is_absolute() else root / wanted).resolve(strict=True)
    except FileNotFoundError:
        raise _RefusedError(f"there is no file {path!r}") from None
    except (OSError, ValueError, RuntimeError):
        raise _RefusedError(f"{path!r} cannot be reached") from None
    if real != root and root not in real.parents:
        raise _RefusedError(f"{path!r} is outside of the folder that the person allowed")
    try:
        handle = _open_below(root, real)
    except OSError as error:
        raise _RefusedError(f"{path!r} cannot be opened ({error.strerror or error})") from None
    try:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            return _names(handle)
        if not stat.S_ISREG(found.st_mode):
            raise _RefusedError(f"{path!r} is no file")
        if found.st_size > MAX_FILE:
            raise _RefusedError(f"{path!r} has {found.st_size:,} bytes, and at most {MAX_FILE:,} are read")
        with open(handle, "rb", closefd=False) as file:
            data = file.read(MAX_FILE)
    except OSError as error:
        raise _RefusedError(f"{path!r} cannot be read ({error.strerror or error})") from None
    finally:
        os.close(handle)
    return _lines(path, data, first)


def _open_below(root: Path, real: Path) -> int:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(root, flags | os.O_DIRECTORY)
    for part in real.relative_to(root).parts:
        try:
            inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=handle)
        finally:
            os.close(handle)
        handle = inner
    return handle


def _names(handle: int) -> str:
    with os.scandir(handle) as entries:
        names = sorted(entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "") for entry in entries)
    more = f"\n... and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return "\n".join(names[:_LISTED]) + more if names else "The folder is empty."


def _lines(path: str, data: bytes, first: int) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _RefusedError(f"{path!r} is not text in UTF-8") from None
    if "\0" in text:
        raise _RefusedError(f"{path!r} is not text")
    lines = text.splitlines(keepends=True)
    if not lines:
        return "The file is empty."
    if first > len(lines):
        raise _RefusedError(f"{path!r} has {len(lines):,} lines")
    shown = "".join(lines[first - 1 :])
    if len(shown) <= MAX_TEXT:
        return shown
    cut = shown[:MAX_TEXT]
    last = first + max(cut.count("\n"), 1) - 1
    return f"{cut}\n[Cut here: line {last:,} of {len(lines):,}. Go on with first_line.]"

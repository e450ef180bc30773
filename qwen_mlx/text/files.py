"""Small text files of a model folder, read with suspicion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from qwen_mlx.errors import QwenError

MAX_JSON_BYTES = 200_000_000  # the largest tokenizer.json of the family has 20 million
_ADVICE = "The file may be damaged: get the model again."

Value = TypeVar("Value")


def read_text(path: Path, error: type[QwenError], *, max_bytes: int = MAX_JSON_BYTES) -> str:
    """The whole file as text; a byte order mark is left out. Raises `error` naming the file."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise error(
                f"{path} is too large", expected=f"at most {max_bytes:,} bytes", found=f"{size:,} bytes", hint=_ADVICE
            )
        data = path.read_bytes()
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from None
    if data.startswith(b"version https://git-lfs"):
        raise error(
            f"{path} is a Git LFS pointer, not the file itself",
            hint="Run `git lfs pull` there, or get the model again.",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text (byte {problem.start})", hint=_ADVICE) from None


def read_object(path: Path, error: type[QwenError], *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in a file. Raises `error` naming the file."""
    text = read_text(path, error, max_bytes=max_bytes)
    try:
        value = json.loads(text)
    except RecursionError:
        raise error(f"{path} is nested too deeply", hint=_ADVICE) from None
    except ValueError as problem:  # also a number of thousands of digits
        raise error(f"{path} is not JSON: {problem}", hint=_ADVICE) from None
    return typed(value, dict, str(path), error)


def read_object_if_there(path: Path, error: type[QwenError]) -> dict[str, Any]:
    """As `read_object`; an absent file is an empty object."""
    return read_object(path, error) if path.is_file() else {}


def typed(value: Any, kind: type[Value], where: str, error: type[QwenError]) -> Value:
    """`value` if it is a `kind` (true and false are no numbers), else `error` that says where it stands."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {dict: "an object", list: "a list", str: "a string", int: "a whole number", type(None): "null"}
        raise error(
            f"{where} is of the wrong kind",
            expected=names.get(kind, kind.__name__),
            found=names.get(type(value), type(value).__name__),
            hint=_ADVICE,
        )
    return value


def token_text(value: Any, where: str, error: type[QwenError]) -> str | None:
    """A special token in a tokenizer's settings: its text, or an object with it as `content`, or null."""
    if value is None:
        return None
    if isinstance(value, dict):
        value = value.get("content")
    return typed(value, str, where, error)

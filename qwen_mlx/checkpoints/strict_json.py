"""JSON from outside, read so that it has exactly one meaning.

Two readers that disagree about a file are a hole: repeated keys, NaN and numbers beyond float64 are refused,
so that MLX, transformers and we see the same values.
"""

from __future__ import annotations

import json
import math
from typing import Any

from qwen_mlx.checkpoints.foreign import HEAD, quote, refuse_foreign
from qwen_mlx.errors import CheckpointError

_ADVICE = "The file is damaged; download it again."


class _RefusedError(ValueError):
    """Valid for Python's parser, not for us."""


def parse_object(data: bytes, where: str, wanted: str = "a JSON object", hint: str = _ADVICE) -> dict[str, Any]:
    """Parse one JSON object.

    Args:
        data: UTF-8 text; a byte order mark is ignored.
        where: names the file in messages.
        wanted: what the text should have been, for messages.

    Raises:
        CheckpointError: not UTF-8, not JSON, not an object, a key twice, NaN or Infinity, nested too deeply.
    """

    def error(found: str) -> CheckpointError:
        return CheckpointError(f"{where} cannot be read", expected=wanted, found=found, hint=hint)

    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite_float)
    except UnicodeDecodeError as problem:
        refuse_foreign(where, wanted, data[:HEAD])
        raise error(f"bytes that are not UTF-8 at offset {problem.start}") from None
    except RecursionError:
        raise error("lists or objects nested too deeply") from None
    except MemoryError:
        raise error("more values than fit in memory") from None
    except json.JSONDecodeError as problem:
        if not data.lstrip().startswith((b"{", b"[")):
            refuse_foreign(where, wanted, data[:HEAD])
        place = f"line {problem.lineno}, column {problem.colno}"
        raise error(f"invalid JSON at {place} ({problem.msg})") from None
    except _RefusedError as problem:
        raise error(str(problem)) from None
    except ValueError:  # Python's limit on the digits of an integer
        raise error("a number with thousands of digits") from None
    if not isinstance(value, dict):
        raise error(f"{_kind(value)} at the top")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RefusedError(f"the key {quote(key)} twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise _RefusedError(f"{name}, which is not a JSON number")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _RefusedError(f"the number {quote(digits, 30)}, which is too large")
    return value


def _kind(value: Any) -> str:
    """The JSON name of a value's type, with an article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "a number"

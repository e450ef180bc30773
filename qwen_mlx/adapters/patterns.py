"""Regular expressions out of adapter files, which come from anywhere: only those that are certain to end soon."""

from __future__ import annotations

import functools
import importlib
import re
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from qwen_mlx.errors import UsageError

# The parser of regular expressions: `re._parser`, and before Python 3.11 `sre_parse`.
parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

_LONGEST = 400  # characters
_CHOICES = 4  # n places where there is a choice take up to (length of a name)^n steps
_REPEATING = ("max_repeat", "min_repeat", "possessive_repeat")
_CHARACTERS = (["literal"], ["not_literal"], ["any"], ["in"])


def first_match(patterns: Iterable[str], name: str) -> str | None:
    """The first pattern that fits the end of a name, from the beginning of one of its parts on: PEFT's rule.

    Raises:
        UsageError: a pattern that is not valid, or could take very long.
    """
    for pattern in patterns:
        if _ending(pattern).match(name):
            return pattern
    return None


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern fits the whole of a name. Raises as `first_match`."""
    return _compiled(pattern, "{}").fullmatch(name) is not None


def _ending(pattern: str) -> re.Pattern[str]:
    return _compiled(pattern, r"(.*\.)?({})$")


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str, frame: str) -> re.Pattern[str]:
    def error(found: str) -> UsageError:
        what = f"the pattern {str(pattern)[:60]!r} is not usable"
        return UsageError(what, expected="the end of a module's name, or a simple regular expression", found=found)

    if not isinstance(pattern, str):
        raise error(f"a {type(pattern).__name__}")
    if len(pattern) > _LONGEST:
        raise error(f"{len(pattern)} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            choices = _choices(parser.parse(pattern))
            compiled = re.compile(frame.format(pattern))
    except (re.error, OverflowError, RecursionError) as problem:
        raise error(str(problem)) from None
    except _TooHardError as problem:
        raise error(str(problem)) from None
    if choices > _CHOICES:
        raise error(f"{choices} repetitions and alternatives")
    return compiled


def _choices(tree: Any) -> int:
    """At how many places a matcher may have to try more than one way.

    Raises:
        _TooHardError: something else than one character is repeated, or a group is referred to.
    """
    total = 0
    for operator, argument in tree:
        name = str(operator).lower()
        if name.startswith(("groupref", "assert")):
            raise _TooHardError("a reference back, or a look around")
        if name in _REPEATING:
            _, most, body = argument
            if int(most) > 1 and [str(one).lower() for one, _ in body] not in _CHARACTERS:
                raise _TooHardError("a repetition of more than one character")
            total += 1 + _choices(body)
            continue
        total += name == "branch"
        total += sum(_choices(part) for part in _parts(argument))
    return total


class _TooHardError(ValueError):
    """A pattern that might take very long."""


def _parts(argument: Any) -> Iterable[Any]:
    """The patterns inside the argument of an operator."""
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for one in argument:
            yield from _parts(one)

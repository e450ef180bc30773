"""Jinja's filters and tests as a chat template may use them: the same results, inside a `Budget`.

Filters for web pages (`urlize`, `striptags`, `wordwrap`, ...) are left out: no chat template needs them and their
cost cannot be foreseen.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import pass_environment, pass_eval_context
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.tests import TESTS

from qwen_mlx.text.limits import Budget, LimitReached, searched

_ORDINARY = (
    "abs attr capitalize d default dictsort e escape first forceescape groupby items last length count lower map max"
    " min reject rejectattr reverse safe select selectattr sort string truncate unique upper"
).split()
# These never look inside the values they pass on, so a long conversation costs them nothing.
_SHALLOW_FILTERS = frozenset(
    (
        "abs attr batch count d default first items last length list map reject rejectattr reverse select selectattr"
        " slice"
    ).split()
)
_SHALLOW_TESTS = frozenset(
    (
        "boolean callable defined escaped false filter float integer iterable mapping none number sameas sequence"
        " string test true undefined"
    ).split()
)
_MAX_DIGITS = 1000
_MAX_WORDS_TEXT = 1_000_000  # characters; for filters that make a string of every word
_MAX_JSON_INDENT = 100


def bounded(function: Callable[..., Any], budget: Callable[[], Budget], *, deep: bool) -> Callable[..., Any]:
    """`function` that ticks, weighs its arguments if it is `deep`, and charges what it makes."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        current = budget()
        current.tick()
        if deep:
            current.weigh(*args, *kwargs.values())
        return current.collected(function(*args, **kwargs))

    return run


def bounded_filters(budget: Callable[[], Budget]) -> dict[str, Callable[..., Any]]:
    """All filters, by name; `budget()` is the budget of the rendering that calls."""
    functions: dict[str, Callable[..., Any]] = {name: FILTERS[name] for name in _ORDINARY}
    functions |= _sized_filters(budget)
    functions["tojson"] = _tojson(budget)
    return {name: bounded(function, budget, deep=name not in _SHALLOW_FILTERS) for name, function in functions.items()}


def bounded_tests(budget: Callable[[], Budget]) -> dict[str, Callable[..., Any]]:
    """All tests (`is defined`, `is in`, ...), by name."""
    functions: dict[str, Any] = dict(TESTS)
    return {name: bounded(function, budget, deep=name not in _SHALLOW_TESTS) for name, function in functions.items()}


def _sized_filters(budget: Callable[[], Budget]) -> dict[str, Callable[..., Any]]:
    """Filters whose result may be much larger than their arguments: its size is checked first."""

    def batch(value: Any, linecount: int, fill_with: Any = None) -> Any:
        budget().items(linecount)
        return FILTERS["batch"](value, linecount, fill_with)

    def center(value: str, width: int = 80) -> str:
        budget().text(width)
        return FILTERS["center"](value, width)

    def floating(value: Any, default: float = 0.0) -> float:
        _check_digits(value)
        return FILTERS["float"](value, default)

    def formatted(value: str, *args: Any, **kwargs: Any) -> str:
        budget().percent(str(value), kwargs or args)
        return FILTERS["format"](value, *args, **kwargs)

    def indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        step = len(width) if isinstance(width, str) else max(width, 0)
        budget().text(len(s) + budget().lines(s) * step)
        return FILTERS["indent"](s, width, first, blank)

    def integer(value: Any, default: int = 0, base: int = 10) -> int:
        _check_digits(value)
        return FILTERS["int"](value, default, base)

    @pass_eval_context
    def join(eval_ctx: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
        if not hasattr(value, "__len__"):
            value = budget().collected(iter(value))
        if attribute is not None:
            value = budget().collected(map(make_attrgetter(eval_ctx.environment, attribute), value))
        budget().joined(str(d), value)
        return FILTERS["join"](eval_ctx, value, d)

    def listed(value: Any) -> list[Any]:
        if hasattr(value, "__len__"):
            budget().items(len(value))
        return list(value)

    @pass_eval_context
    def replace(eval_ctx: Any, s: str, old: str, new: str, count: int | None = None) -> str:
        budget().replaced(str(s), str(old), str(new), count)
        return FILTERS["replace"](eval_ctx, s, old, new, count)

    def rounded(value: float, precision: int = 0, method: Any = "common") -> float:
        if abs(precision) > 300:
            raise LimitReached("rounds to hundreds of digits")
        return FILTERS["round"](value, precision, method)

    @pass_eval_context
    def sliced(eval_ctx: Any, value: Any, slices: int, fill_with: Any = None) -> Any:
        budget().items(slices)
        return FILTERS["slice"](eval_ctx, value, slices, fill_with)

    @pass_environment
    def summed(environment: Any, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
        get = make_attrgetter(environment, attribute) if attribute is not None else None
        for value in iterable:
            value = get(value) if get else value
            budget().operands("+", start, value)
            start = start + value
            budget().charge(start)
        return start

    def title(s: str) -> str:
        _check_words(s)
        return FILTERS["title"](s)

    def trim(value: str, chars: str | None = None) -> str:
        searched(budget(), str(value), chars)
        return FILTERS["trim"](value, chars)

    def wordcount(s: str) -> int:
        _check_words(s)
        return FILTERS["wordcount"](s)

    return {
        "batch": batch,
        "center": center,
        "float": floating,
        "format": formatted,
        "indent": indent,
        "int": integer,
        "join": join,
        "list": listed,
        "replace": replace,
        "round": rounded,
        "slice": sliced,
        "sum": summed,
        "title": title,
        "trim": trim,
        "wordcount": wordcount,
    }


def _check_digits(value: Any) -> None:
    if isinstance(value, str) and len(value) > _MAX_DIGITS:
        raise LimitReached(f"reads a number of more than {_MAX_DIGITS:,} digits")


def _check_words(value: Any) -> None:
    if isinstance(value, str) and len(value) > _MAX_WORDS_TEXT:
        raise LimitReached(f"takes apart the words of more than {_MAX_WORDS_TEXT:,} characters")


def _tojson(budget: Callable[[], Budget]) -> Callable[..., str]:
    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as transformers writes it for templates: nothing escaped for HTML, keys in their order."""
        if isinstance(indent, bool) or not isinstance(indent, int):
            step = len(indent) if isinstance(indent, str) else 0
        else:
            step = indent
        if step > _MAX_JSON_INDENT or (separators is not None and sum(map(len, separators)) > _MAX_JSON_INDENT):
            raise LimitReached("writes JSON with enormous gaps")
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        pieces = []
        length = 0
        for piece in encoder.iterencode(value):
            length += len(piece)
            budget().text(length)
            budget().tick()
            pieces.append(piece)
        return "".join(pieces)

    return tojson


def plain(value: Any) -> Any:
    """`value` rebuilt from plain JSON types, so that a template meets no object with methods of its own.

    What is no JSON (an image, an array) becomes a text that names its type: templates only ask whether it is there.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    # Subclasses (enumerations, numbers of numpy) may carry methods: back to the plain type.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return f"<{type(value).__name__}>"

"""How much an untrusted chat template may use: time, steps, nesting, memory, output.

A template is code from a stranger that runs in our process, in a thread that nothing can kill. So every step it takes
asks a `Budget` first: each turn of a loop, each call, each operator. A single step in C cannot be interrupted; its
size is therefore checked *before* it runs, so that no step takes longer than a fraction of a second.
"""

from __future__ import annotations

import re
import sys
import time
from typing import Any

MAX_TEXT = 16_000_000
"""Characters of one string. A million tokens are about four million characters."""
MAX_ITEMS = 1_000_000
"""Elements of one list a template makes."""
MAX_NODES = 500_000
"""Values inside a nested value that is printed, compared or hashed, counted as often as they are met."""
MAX_ALLOCATED = 512 * 1024 * 1024
"""Bytes of all strings and lists a template makes, freed ones included."""
MAX_NESTED_CALLS = 60
"""Macros, recursive loops and blocks that are open at once."""
MAX_INTEGER_BITS = 128
"""Of a number that takes part in a calculation; no conversation needs more."""
MAX_FORMAT = 100_000
"""Characters of a format string, and the largest width in one is a tenth of it."""

_NOTHING: dict[str, str] = {}
CONTAINERS = (
    dict,
    list,
    tuple,
    set,
    frozenset,
    type(_NOTHING.keys()),
    type(_NOTHING.values()),
    type(_NOTHING.items()),
)
_PERCENT = re.compile(r"%(?:\([^)]{0,100}\))?([-#0 +*.\d]*)")
_LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
_NUMBER = re.compile(r"\d+")


class LimitReached(Exception):
    """A template asked for more than it may have. The text completes "the chat template ..."."""


class Budget:
    """What one rendering may still use. Belongs to one thread.

    Args:
        seconds: wall-clock time until every further step raises `LimitReached`.
    """

    __slots__ = ("_allocated", "_deadline", "_depth", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._depth = 0
        self._allocated = 0

    def tick(self) -> None:
        """One step. Raises `LimitReached` once the time is over, and again at every step after that."""
        if time.monotonic() > self._deadline:
            raise LimitReached(f"takes longer than {self.seconds:g} seconds")

    def enter(self) -> None:
        """A call begins; `leave` must follow."""
        self._depth += 1
        if self._depth > MAX_NESTED_CALLS:
            raise LimitReached(f"nests more than {MAX_NESTED_CALLS} calls")

    def leave(self) -> None:
        self._depth -= 1

    def charge(self, value: Any) -> None:
        """`value` was just made: count its memory."""
        if isinstance(value, str):
            self.text(len(value))
            self._allocated += sys.getsizeof(value)
        elif isinstance(value, (list, tuple)):
            self.items(len(value))
            # A split makes many short strings; 60 bytes is what each of them costs at least.
            self._allocated += len(value) * (60 if value and isinstance(value[0], str) else 8)
        if self._allocated > MAX_ALLOCATED:
            raise LimitReached(f"uses more than {MAX_ALLOCATED >> 20} MiB of memory")

    def text(self, length: int) -> None:
        """A string of `length` characters is about to be made."""
        if length > MAX_TEXT:
            raise LimitReached(f"makes a text longer than {MAX_TEXT:,} characters")

    def items(self, length: int) -> None:
        """A list of `length` elements is about to be made."""
        if length > MAX_ITEMS:
            raise LimitReached(f"makes a list longer than {MAX_ITEMS:,} elements")

    def integer(self, bits: int) -> None:
        """A number of `bits` bits is about to be used or made."""
        if bits > MAX_INTEGER_BITS:
            raise LimitReached("computes with an enormous number")

    def weigh(self, *values: Any) -> int:
        """Characters plus nodes inside `values`, counted with repetition; strings on the top level are free.

        A list that holds itself twice, forty times over, is small in memory and endless to print; this notices.
        Raises `LimitReached` above `MAX_NODES` nodes or `MAX_TEXT` characters.
        """
        stack: list[Any] = [value for value in values if isinstance(value, CONTAINERS)]
        if not stack:
            return sum(len(value) for value in values if isinstance(value, str))
        nodes = characters = 0
        while stack:
            value = stack.pop()
            nodes += 1
            if isinstance(value, str):
                characters += len(value)
            elif isinstance(value, dict):
                stack.extend(value.keys())
                stack.extend(value.values())
            elif isinstance(value, CONTAINERS):
                stack.extend(value)
            if nodes + len(stack) > MAX_NODES or characters > MAX_TEXT:
                raise LimitReached("works on a value that is too large")
        return nodes + characters + sum(len(value) for value in values if isinstance(value, str))

    def collected(self, value: Any) -> Any:
        """`value`, with an iterator drawn into a list, step by step, so that iterators never pile up."""
        if hasattr(value, "__next__"):
            items = []
            for item in value:
                self.tick()
                items.append(item)
                self.items(len(items))
            value = items
        self.charge(value)
        return value

    # ------------------------------------------------------------------------------------------ single steps

    def operands(self, operator: str, left: Any, right: Any) -> None:
        """Check `left operator right` before it is computed."""
        self.tick()
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            self._numbers(operator, left, right)
        elif operator == "*" and (isinstance(left, int) or isinstance(right, int)):
            count, sequence = (left, right) if isinstance(left, int) else (right, left)
            length = max(count, 0) * len(sequence) if hasattr(sequence, "__len__") else 0
            self.text(length) if isinstance(sequence, str) else self.items(length)
        elif operator == "%" and isinstance(left, str):
            self.percent(left, right)
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.text(len(left) + len(right))
        elif operator == "+" and isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
            self.items(len(left) + len(right))
        else:
            self.weigh(left, right)

    def _numbers(self, operator: str, left: float, right: float) -> None:
        if not (isinstance(left, int) and isinstance(right, int)):
            return
        self.integer(left.bit_length())
        self.integer(right.bit_length())
        if operator == "*":
            self.integer(left.bit_length() + right.bit_length())
        elif operator == "**" and right > 0 and abs(left) > 1:
            self.integer(left.bit_length() * right)

    def percent(self, text: str, argument: Any) -> None:
        """Check `text % argument` before it is computed."""
        if len(text) > MAX_FORMAT:
            raise LimitReached(f"formats with a text longer than {MAX_FORMAT:,} characters")
        fields = _PERCENT.findall(text)
        for field in fields:
            if "*" in field:
                raise LimitReached("formats with a width from its arguments")
            self.width(field)
        # Each field shows at most the whole argument, one number, or as many characters as it is wide.
        widest = self.weigh(argument) + MAX_FORMAT // 10
        self.text(len(text) + len(fields) * widest)

    def width(self, specification: str) -> None:
        """Check the numbers in a format specification."""
        for number in _NUMBER.findall(specification):
            if len(number) > 6 or int(number) > MAX_FORMAT // 10:
                raise LimitReached("formats a value to an enormous width")

    def joined(self, separator: Any, values: Any) -> None:
        """Check `separator.join(values)` before it is computed."""
        weight = self.weigh(values)
        length = len(values) if hasattr(values, "__len__") else 0
        self.text(weight + length * (len(separator) if isinstance(separator, str) else 0))

    def replaced(self, text: Any, old: Any, new: Any, count: Any = -1) -> None:
        """Check `text.replace(old, new, count)` before it is computed."""
        if isinstance(text, str) and isinstance(old, str) and isinstance(new, str):
            found = text.count(old)
            if isinstance(count, int) and count >= 0:
                found = min(found, count)
            self.text(len(text) + found * max(len(new) - len(old), 0))

    def lines(self, text: Any) -> int:
        """An upper bound of the lines of `text`, checked."""
        if not isinstance(text, str):
            return 0
        count = 1 + sum(map(text.count, _LINE_BREAKS))
        self.items(count)
        return count


def method(budget: Budget, owner: Any, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Check a call of a built-in method of a string or container before it runs."""
    budget.weigh(*arguments, *named.values())
    if isinstance(owner, str):
        _string_method(budget, owner, name, [*arguments, *named.values()])
    elif isinstance(owner, (list, tuple)):
        budget.weigh(owner)  # index and count compare every element


def _string_method(budget: Budget, text: str, name: str, arguments: list[Any]) -> None:
    first = arguments[0] if arguments else None
    if name == "join":
        budget.joined(text, first)
    elif name == "replace":
        budget.replaced(text, *arguments[:3])
    elif name in ("center", "ljust", "rjust", "zfill"):
        budget.text(first if isinstance(first, int) else 0)
    elif name == "splitlines":
        budget.lines(text)
    elif name in ("split", "rsplit"):
        parts = text.count(first) if isinstance(first, str) and first else sum(map(text.count, _SPACES))
        limit = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], int) else -1
        budget.items(parts if limit < 0 else min(parts, limit))
    if name in ("strip", "lstrip", "rstrip", "rsplit", "rfind", "rindex", "rpartition"):
        # These search with the plain method, which may cost the product of both lengths.
        searched(budget, text, first)


def searched(budget: Budget, text: str, needle: Any) -> None:
    """Check a search that may cost `len(text) * len(needle)` steps."""
    if isinstance(needle, str) and len(needle) > 64 and len(text) * len(needle) > 100_000_000:
        raise LimitReached("searches for a very long text")

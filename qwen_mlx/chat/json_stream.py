"""The elements of a large JSON array, one after the other, without the whole text in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

_CHUNK = 1 << 18
_DEEPEST = 200  # levels; what people export has a dozen
_MARK = re.compile(rb'["{}\[\],]')
_IN_STRING = re.compile(rb'["\\]')
_OPEN, _CLOSE = b"{[", b"}]"


class JsonError(ValueError):
    """The text is no JSON, or not of the kind that is read here."""


def elements(file: BinaryIO, longest: int) -> Iterator[tuple[Any, int]]:
    """The elements of the array in `file`, or the one object that it is, each with how many bytes were read by then.

    Args:
        longest: bytes that one element may have.

    Raises:
        JsonError: it is neither, is cut off, nested too deeply, or an element is too long. Elements before the fault
            have been given out by then.
    """
    scanner = _Scanner(longest)
    read = 0
    while chunk := file.read(_CHUNK):
        read += len(chunk)
        for text in scanner.feed(chunk):
            yield _value(text), read
    for text in scanner.end():
        yield _value(text), read


def _value(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise JsonError(f"an entry of it is no JSON ({str(error)[:60]})") from None


class _Scanner:
    """Cuts a text at the commas of its outermost array; looks at quotes, brackets and commas only."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._text = bytearray()
        self._place = 0  # up to where it has been looked at
        self._depth = 0
        self._in_string = False
        self._began = False
        self._array = False
        self._ended = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        self._text += chunk
        if not self._began and not self._begin():
            return
        yield from self._scan()
        if len(self._text) > self._longest:
            raise JsonError(f"one of its entries is longer than {self._longest // 1_000_000} MB")

    def end(self) -> Iterator[bytes]:
        if not self._began:
            raise JsonError("it is empty")
        if not self._ended:
            raise JsonError("it ends in the middle")
        if self._text[self._place :].strip():
            raise JsonError("something follows its end")
        return iter(())

    def _begin(self) -> bool:
        """Look at the first character; False while there is none."""
        head = bytes(self._text[:3]).removeprefix(b"\xef\xbb\xbf")
        skipped = len(self._text[:3]) - len(head)
        rest = self._text[skipped:].lstrip()
        if not rest:
            return False
        if bytes(rest[:1]) not in (b"[", b"{"):
            raise JsonError("it is no JSON array or object")
        self._began, self._array = True, rest[:1] == b"["
        self._text = bytearray(rest)
        self._place = 0
        if self._array:
            del self._text[:1]
            self._depth = 1
        return True

    def _scan(self) -> Iterator[bytes]:
        start = 0  # of the element that is being looked at
        text, place = self._text, self._place
        while not self._ended:
            if self._in_string:
                found = _IN_STRING.search(text, place)
                if found is None:
                    place = len(text)
                    break
                if found[0] == b"\\":
                    if found.end() >= len(text):
                        place = found.start()  # what is escaped comes with the next piece
                        break
                    place = found.end() + 1
                else:
                    self._in_string = False
                    place = found.end()
                continue
            found = _MARK.search(text, place)
            if found is None:
                place = len(text)
                break
            place, mark = found.end(), bytes(found[0])
            if mark == b'"':
                self._in_string = True
            elif mark in _OPEN:
                self._depth += 1
                if self._depth > _DEEPEST:
                    raise JsonError("it is nested too deeply")
            elif mark in _CLOSE:
                self._depth -= 1
                if self._depth == 0:
                    if self._array != (mark == b"]"):
                        raise JsonError("its brackets do not match")
                    self._ended = True
                    last = bytes(text[start : found.start() if self._array else found.end()])
                    start = place
                    if last.strip():
                        yield last
            elif self._array and self._depth == 1:
                yield bytes(text[start : found.start()])
                start = place
        del text[:start]
        self._place = place - start

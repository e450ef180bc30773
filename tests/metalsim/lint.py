"""What the Metal compiler refuses and clang, compiling C++, does not: found by reading the text."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FORBIDDEN_WORDS = {
    "double": "there is no type double in Metal",
    "new": "there is no operator new in Metal",
    "delete": "there is no operator delete in Metal",
    "virtual": "there are no virtual functions in Metal",
    "dynamic_cast": "there is no dynamic_cast in Metal",
    "typeid": "there is no typeid in Metal",
    "try": "there are no exceptions in Metal",
    "throw": "there are no exceptions in Metal",
    "goto": "there is no goto in Metal",
    "thread_local": "there are no thread_local variables in Metal",
}
_SPACES = {"device", "threadgroup", "constant", "thread"}
_QUALIFIERS = r"(?:(?:const|volatile|device|threadgroup|constant|thread)\s+)*"
_SCALARS = (
    "bool|char|uchar|short|ushort|int|uint|long|ulong|half|float|bfloat|size_t|"
    "u?int(?:8|16|32|64)_t|bfloat16_t|float16_t|complex64_t"
)


def lint(header: str, source: str) -> list[str]:
    """One line for each thing that Metal forbids, saying where and why."""
    types = _type_names(header, source)
    return [
        f"{part} line {text.count(chr(10), 0, at) + 1}: {why}"
        for part, text in (("header", _without_comments(header)), ("source", _without_comments(source)))
        for at, why in sorted(_problems(part, text, types))
    ]


def _without_comments(text: str) -> str:
    """The same lines, with comments and the contents of strings gone."""
    text = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)
    text = re.sub(r"//[^\n]*", "", text)
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)


def _type_names(header: str, source: str) -> str:
    """A pattern for the types the kernel may use: Metal's, template parameters, its own."""
    text = _without_comments(header + "\n" + source)
    own = set(re.findall(r"\b(?:typename|class|struct)\s+(\w+)", text))
    own |= set(re.findall(r"\busing\s+(\w+)\s*=", text)) | {"T", "U"}
    return rf"(?:(?:{_SCALARS})[234]?|{'|'.join(sorted(map(re.escape, own)))})"


def _problems(part: str, text: str, types: str) -> Iterator[tuple[int, str]]:
    for word, why in _FORBIDDEN_WORDS.items():
        yield from ((m.start(), why) for m in re.finditer(rf"\b{word}\b", text))
    for m in re.finditer(r"\[\s*[&=]?\s*\]\s*\(", text):
        yield m.start(), "lambda expressions are not allowed"
    pointer = rf"(?:^|[;{{}}(,])\s*({_QUALIFIERS}){types}\s*((?:const\s+)?)[*&]\s*(?:const\s+)?\w+\s*(?=[=;,)\[])"
    for m in re.finditer(pointer, text):
        if not _SPACES & set(m.group(1).split()):
            declarator = m.group().strip(" ;{}(,\n")
            yield m.start(1), f"pointer or reference without an address space: `{declarator}`"
    variable = rf"(?:^|[;{{}}])\s*threadgroup\s+{types}\s+(\w+)\s*((?:\[[^\]]*\]\s*)*)([;=,])"
    for m in re.finditer(variable, text):
        if part == "header":
            yield m.start(1), f"threadgroup variables belong in the kernel, not in a function: `{m.group(1)}`"
        if m.group(3) == "=":
            yield m.start(1), f"threadgroup variables cannot be initialised: `{m.group(1)}`"
    if part == "source":
        for m in re.finditer(r"\bstatic\s+(?!constexpr\b|const\b|constant\b)", text):
            yield m.start(), "static variables are not allowed in functions"

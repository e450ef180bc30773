"""From Metal to the C++ that clang compiles.

Metal is C++ with a few things more. Most of them are macros or types of `include/metal_stdlib`; what is left is
rewritten here, in text that has been through the preprocessor. No rewriting changes the number of lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_WORD = r"[A-Za-z_]\w*"
_VECTOR = r"(?:bool|char|uchar|short|ushort|int|uint|long|ulong|half|float|bfloat)[234]"
_TYPE = re.compile(rf"\s*(?:(?:const|volatile|typename|struct)\s+)*(?:::)?{_WORD}(?:\s*::\s*(?:template\s+)?{_WORD})*")
_SECTION = 'static __attribute__((section("sim_threadgroup"), aligned(16))) '


def rewrite(text: str, constants: Mapping[str | int, object] | None = None) -> str:
    """C++ for preprocessed Metal text; `constants` are values of function constants, by name or index."""
    text = _function_constants(text, constants or {})
    text = re.sub(r"\[\[\s*threadgroup\s*\(\s*\w+\s*\)\s*\]\]", "", text)  # of parameters; the word is a macro
    text = _vector_constructors(text)
    text = _threadgroup_variables(text)
    text = _struct_copies(text)
    return _array_parameters(text)


def _function_constants(text: str, constants: Mapping[str | int, object]) -> str:
    """`constant bool causal [[function_constant(3)]];` becomes a constant with the value given for it, else 0."""

    def defined(m: re.Match[str]) -> str:
        value = constants.get(m[2], constants.get(int(m[3]), 0))
        return f"static const {m[1]} {m[2]} = {str(value).lower() if isinstance(value, bool) else value};"

    pattern = rf"\bconstant\s+({_WORD})\s+({_WORD})\s*\[\[\s*function_constant\((\d+)\)\s*\]\]\s*;"
    return re.sub(pattern, defined, text)


def _threadgroup_variables(text: str) -> str:
    """`threadgroup T x[n];` becomes bytes in a section of their own, `x` a reference to them, known to the runtime.

    It is no static `T`, as clang has no constructors for objects in an address space, not even trivial ones.
    """
    pieces, done = [], 0
    for start, name_at, end in _declarations(text):
        kind = text[start:name_at].replace("threadgroup", "", 1).strip()
        pieces.append(text[done:start])
        for declarator in _split(text[name_at:end]):
            m = re.match(rf"\s*({_WORD})(.*)", declarator, flags=re.S)
            assert m, declarator
            name, dimensions = m[1], m[2].rstrip()
            pieces.append(
                f"{_SECTION}threadgroup unsigned char __sim_bytes_{name}[sizeof({kind}{dimensions})]; "
                f"threadgroup {kind} (&{name}){dimensions} = *(threadgroup {kind} (*){dimensions})__sim_bytes_{name}; "
                f"SIM_DECLARE({name});"
            )
        done = end + 1
    return "".join(pieces) + text[done:]


def _declarations(text: str) -> Iterator[tuple[int, int, int]]:
    """Of each statement that declares threadgroup variables: its beginning, the end of the type, its `;`."""
    for m in re.finditer(r"\bthreadgroup\b", text):
        if not _begins_statement(text[max(0, m.start() - 400) : m.start()]):
            continue
        name_at = _after_type(text, m.end())
        if name_at is None or not re.match(rf"\s*(?:const\s+)?{_WORD}\s*[\[;=,]", text[name_at : name_at + 200]):
            continue
        yield m.start(), name_at, text.index(";", name_at)


def _begins_statement(before: str) -> bool:
    before = re.sub(r"(\n#[^\n]*)+\s*$", "", before).rstrip()
    before = re.sub(r"(\balignas\s*\(\s*\w+\s*\)|\bconst)\s*$", "", before).rstrip()
    return not before or before[-1] in ";{}"


def _after_type(text: str, at: int) -> int | None:
    """The position after a type name with its template arguments; None if there is no type."""
    m = _TYPE.match(text, at)
    if not m:
        return None
    at = m.end()
    rest = re.match(r"\s*<", text[at:])
    if not rest:
        return at
    close = _closing(text, at + rest.end() - 1)
    return None if close is None else close + 1


def _closing(text: str, at: int) -> int | None:
    """Where the `<` at `at` is closed, within the statement."""
    depth = 0
    for i in range(at, len(text)):
        if text[i] == "<":
            depth += 1
        elif text[i] == ">":
            depth -= 1
            if depth == 0:
                return i
        elif text[i] in ";{":
            return None
    return None


def _split(declarators: str) -> Iterator[str]:
    """At commas that are in no bracket."""
    depth, begin = 0, 0
    for i, c in enumerate(declarators):
        depth += (c in "([{<") - (c in ")]}>")
        if c == "," and depth == 0:
            yield declarators[begin:i]
            begin = i + 1
    yield declarators[begin:]


def _struct_copies(text: str) -> str:
    """`*(device S*)p = *(threadgroup S*)q;` becomes a call: C++ structs have no copy between address spaces."""
    space = rf"((?:const\s+)?(?:device|threadgroup|constant)\s+{_WORD}\s*\*)"
    cast = rf"\*\s*\(\s*\({space}\)\s*(\((?:[^()]|\([^()]*\))*\))\s*\)"
    return re.sub(rf"{cast}\s*=\s*{cast}\s*;", r"__sim_copy((\1)\2, (\3)\4);", text)


def _array_parameters(text: str) -> str:
    """`constant const T x[n]` among parameters becomes a pointer, as clang refuses the address space there."""
    parameter = (
        rf"\b(constant|device|threadgroup)\s+((?:const\s+)?{_WORD}(?:\s+const)?)\s+({_WORD})\s*\[\w*\]\s*(?=[,)])"
    )
    return re.sub(parameter, r"\1 \2* \3", text)


def _vector_constructors(text: str) -> str:
    """`float4(...)`, `vec<T, 4>(...)` and the like of their aliases become `__sim_vector<float4>(...)`."""
    vector = rf"(?:metal::)?(?:vec\s*<[^;]*>|{_VECTOR})"
    names = set(re.findall(rf"\busing\s+({_WORD})\s*=\s*{vector}\s*;", text))
    names |= set(re.findall(rf"\btypedef\s+{vector}\s+({_WORD})\s*;", text))
    names_pattern = "|".join([_VECTOR, *sorted(map(re.escape, names))])
    text = re.sub(
        rf"(?<![\w:<])(?<!operator )(?<!struct )(?:metal::)?({names_pattern})\s*\((?!\s*\))", r"__sim_vector<\1>(", text
    )
    pieces, done = [], 0
    for m in re.finditer(r"\b(?:metal::)?vec\s*<", text):
        close = _closing(text, m.end() - 1) if m.start() >= done else None
        if close is None or not re.match(r"\s*\(", text[close + 1 : close + 100]):
            continue
        if text[: m.start()].rstrip().endswith("operator"):
            continue
        pieces += [text[done : m.start()], "__sim_vector<", text[m.start() : close + 1], ">"]
        done = close + 1
    return "".join(pieces) + text[done:]

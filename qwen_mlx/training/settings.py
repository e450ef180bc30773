"""Frozen dataclasses <-> TOML: strict keys, checked types, and errors that name the line.

A *table* is what a TOML file holds: section -> key -> value. Tables are laid one over the other (defaults of a preset,
a file, changes from the command line) before anything is checked, and each value remembers where it came from.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from qwen_mlx.errors import NotFound, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = dict[str, Any]
Origins = dict[tuple[str, ...], str]
"""Path of a key -> where it was written, such as `run.toml:12`."""
T = TypeVar("T")


def read_table(path: Path) -> tuple[Table, Origins]:
    """A TOML file and the line of each of its keys.

    Raises:
        NotFound: there is no such file.
        UsageError: it is not TOML, or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"there is no file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError, ValueError) as problem:
        raise UsageError(f"{str(path)!r} cannot be read", found=str(problem)) from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(f"{path} is not TOML", found=str(problem)) from None
    return table, _lines_of(text, path.name)


def _lines_of(text: str, name: str) -> Origins:
    """Where keys stand, as far as one can tell without a parser: `[section]` lines and `key =` lines."""
    found: Origins = {}
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("[") and "]" in line:
            section = _dotted(line.strip("[]").split("]")[0])
            found.setdefault(section, f"{name}:{number}")
        elif "=" in line and not line.startswith("#"):
            found.setdefault((*section, *_dotted(line.partition("=")[0])), f"{name}:{number}")
    return found


def _dotted(words: str) -> tuple[str, ...]:
    return tuple(word.strip().strip("\"'") for word in words.split("."))


def read_change(text: str) -> tuple[tuple[str, ...], Any]:
    """`optim.lr=1e-4` -> the path of the key and its value, which is TOML, or else a plain string.

    Raises:
        UsageError: there is no `=`, or no key.
    """
    key, sign, value = text.partition("=")
    path = _dotted(key)
    if not sign or not all(path):
        raise UsageError(f"--set {text!r} cannot be read", expected="section.key=value, such as optim.lr=1e-4")
    try:
        return path, tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return path, value.strip()


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Table:
    """Both tables as one; what stands in `above` wins, section by section and key by key."""
    merged = dict(below)
    for key, value in above.items():
        held = merged.get(key)
        merged[key] = laid_over(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return merged


def changed(table: Mapping[str, Any], path: Sequence[str], value: Any) -> Table:
    """`table` with one value set."""
    for key in reversed(path):
        value = {key: value}
    return laid_over(table, value)


def read_section(kind: type[T], table: Any, path: tuple[str, ...] = (), origins: Mapping | None = None) -> T:
    """An instance of the dataclass `kind` from a table; what is not in it keeps its default.

    Args:
        path: where the table stands, for messages.
        origins: where its keys were written.

    Raises:
        UsageError: a key that does not exist, is missing, or has a value of the wrong type.
    """
    origins = origins or {}
    if not isinstance(table, Mapping):
        raise UsageError(_at(path, origins, f"'{'.'.join(path)}' is not a section"), expected=f"[{'.'.join(path)}]")
    assert dataclasses.is_dataclass(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            where = f" of [{'.'.join(path)}]" if path else ""
            raise UsageError(
                _at((*path, key), origins, f"there is no key '{key}'{where}"),
                hint=f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(fields)}.",
            )
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        own = (*path, name)
        if name in table:
            values[name] = _convert(table[name], hints[name], own, origins)
        elif dataclasses.is_dataclass(hints[name]):
            values[name] = read_section(hints[name], {}, own, origins)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(_at(path, origins, f"'{'.'.join(own)}' is missing"))
    return typing.cast(T, kind(**values))


def _convert(value: Any, kind: Any, path: tuple[str, ...], origins: Mapping) -> Any:
    if dataclasses.is_dataclass(kind):
        return read_section(typing.cast(type, kind), value, path, origins)
    options = typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)
    for option in options:
        found, result = _fits(value, option)
        if found:
            return result
    expected = " or ".join(_in_words(option) for option in options if option is not type(None))
    shown = json.dumps(value, ensure_ascii=False, default=str)
    raise UsageError(
        _at(path, origins, f"'{'.'.join(path)}' cannot be used"),
        expected=expected,
        found=shown,
        hint=_nearest(value, options),
    )


def _nearest(value: Any, options: Sequence[Any]) -> str | None:
    words = [word for option in options if typing.get_origin(option) is Literal for word in typing.get_args(option)]
    near = difflib.get_close_matches(str(value), [str(word) for word in words], n=1)
    return f"Did you mean {near[0]!r}?" if near else None


def _fits(value: Any, kind: Any) -> tuple[bool, Any]:
    """Whether a TOML value is of a type, and the value as Python wants it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True, value
    if kind is type(None):
        return value is None, None
    if kind is bool or isinstance(value, bool):
        return isinstance(value, bool) and kind is bool, value
    if kind is int:
        return isinstance(value, int), value
    if kind is float:
        fine = isinstance(value, (int, float)) and math.isfinite(value)
        return fine, float(value) if fine else value
    if kind is str:
        return isinstance(value, str), value
    if origin is Literal:
        return value in arguments, value
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        each = [_fits(one, own) for one, own in zip(value, kinds)]
        return len(kinds) == len(value) and all(fine for fine, _ in each), tuple(one for _, one in each)
    if origin in (dict, Mapping) or (origin is not None and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            return False, value
        pairs = {str(key): _fits(one, arguments[1]) for key, one in value.items()}
        return all(fine for fine, _ in pairs.values()), {key: one for key, (_, one) in pairs.items()}
    return False, value


def _in_words(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return ", ".join(json.dumps(word) for word in arguments)
    if origin is tuple:
        return f"a list of {_in_words(arguments[0])}"
    if origin is not None:
        return f"a table of {_in_words(arguments[1])}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}.get(kind, str(kind))


def _at(path: tuple[str, ...], origins: Mapping, text: str) -> str:
    """`run.toml:12: text`; for a key nobody knows the place of, that of its section."""
    for length in range(len(path), 0, -1):
        if place := origins.get(path[:length]):
            return f"{place}: {text}"
    return text


def as_table(value: Any) -> Table:
    """A dataclass as a table, which `read_section` turns back; keys that are None are left out."""
    assert dataclasses.is_dataclass(value)
    table: Table = {}
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        if own is not None:
            table[field.name] = as_table(own) if dataclasses.is_dataclass(own) else own
    return table


def to_toml(table: Mapping[str, Any]) -> str:
    """TOML of a table of plain values and of sections of them, plain values first."""
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{key}]", *(f"{_key(name)} = {_value(own)}" for name, own in value.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _key(name: str) -> str:
    plain = name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    return name if plain else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        text = repr(value)
        return text if any(c in text for c in ".en") else text + ".0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(key))} = {_value(own)}" for key, own in value.items()) + "}"
    return "[" + ", ".join(_value(own) for own in value) + "]"

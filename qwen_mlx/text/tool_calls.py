"""Tool calls in an answer: found, read, and taken out of the text.

Two formats: JSON in `<tool_call>` (Hermes style: Qwen2.5, Qwen3), and XML in it (Qwen3-Coder, Qwen3.5), where a
value has no type of its own: the schema of the tool gives it one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION = re.compile(r"\s*<function=([^<>\n]+)>")
_PARAMETER = re.compile(r"\s*<parameter=([^<>\n]+)>")
_END_FUNCTION = re.compile(r"\s*</function>")
# A value may itself hold "</parameter>"; the one that ends it is followed by the next tag.
_END_PARAMETER = re.compile(r"</parameter>(?=\s*(?:<parameter=|</function>))")
_SPACE = re.compile(r"\s*")
_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_DECODER = json.JSONDecoder()


class _MalformedError(ValueError):
    """This is no tool call; the text says why."""


def split_tool_calls(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> tuple[str, list[dict[str, Any]], list[str]]:
    """Take the tool calls out of an answer.

    Args:
        text: the answer, without thinking.
        tools: the OpenAI-style descriptions the model was given; their schemas give XML arguments their types.

    Returns:
        content: the rest of the text, without blank space at its ends if there was a call; else `text` as it is.
        calls: `{"type": "function", "function": {"name": ..., "arguments": {...}}}`, the form chat templates read.
        errors: why something that looks like a call is none; it stays in the content.
    """
    schemas = _schemas(tools)
    rest: list[str] = []
    calls: list[dict[str, Any]] = []
    errors: list[str] = []
    position = 0
    while (start := text.find(OPEN, position)) >= 0:
        rest.append(text[position:start])
        try:
            name, arguments, position = _call(text, start + len(OPEN), schemas)
        except _MalformedError as problem:
            errors.append(f"tool call {len(calls) + len(errors) + 1} was not understood: {problem}")
            position = start + len(OPEN)
            rest.append(OPEN)
            continue
        calls.append({"type": "function", "function": {"name": name, "arguments": arguments}})
    rest.append(text[position:])
    content = "".join(rest)
    return (content.strip() if calls else content), calls, errors


def _call(text: str, start: int, schemas: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any], int]:
    """The call whose inside begins at `start`: its name, arguments, and where the text goes on."""
    match = _FUNCTION.match(text, start)
    if match:
        name = match[1].strip()
        arguments, end = _xml_arguments(text, match.end(), schemas.get(name, {}))
    else:
        name, arguments, end = _json_call(text, start)
    end = _after_space(text, end)
    if text.startswith(CLOSE, end):
        return name, arguments, end + len(CLOSE)
    if end == len(text):  # the model stopped right after the call
        return name, arguments, end
    raise _MalformedError(f"{CLOSE} does not follow")


def _json_call(text: str, start: int) -> tuple[str, dict[str, Any], int]:
    try:
        value, end = _DECODER.raw_decode(text, _after_space(text, start))
    except RecursionError:
        raise _MalformedError("its JSON is nested too deeply") from None
    except ValueError as problem:
        raise _MalformedError(f"it is not JSON ({problem})") from None
    if not isinstance(value, dict):
        raise _MalformedError("it is not a JSON object")
    name, arguments = value.get("name"), value.get("arguments")
    if not isinstance(name, str) or not name:
        raise _MalformedError("it has no name")
    if isinstance(arguments, str):  # some models write the arguments as JSON in a string
        arguments = _parsed(arguments, arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise _MalformedError("its arguments are not a JSON object")
    return name, arguments, end


def _xml_arguments(text: str, position: int, properties: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    arguments: dict[str, Any] = {}
    while match := _PARAMETER.match(text, position):
        end = _END_PARAMETER.search(text, match.end())
        if end is None:
            raise _MalformedError(f"parameter {match[1]!r} does not end")
        name = match[1].strip()
        value = text[match.end() : end.start()]
        # One newline after the opening and one before the closing tag belong to the format.
        value = value.removeprefix("\n").removesuffix("\n")
        arguments[name] = _valued(value, properties.get(name))
        position = end.end()
    closing = _END_FUNCTION.match(text, position)
    if closing is None:
        raise _MalformedError("</function> does not follow")
    return arguments, closing.end()


def _schemas(tools: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Function name -> schemas of its parameters."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        function = tool.get("function", tool)
        if not isinstance(function, Mapping):
            continue
        parameters = function.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        if isinstance(function.get("name"), str) and isinstance(properties, Mapping):
            found[function["name"]] = properties
    return found


def _valued(value: str, schema: Any) -> Any:
    """A value written as text, in the first type of its schema that it can be; else the text itself."""
    kinds = _kinds(schema)
    if not kinds:
        return value
    stripped = value.strip()
    if "null" in kinds and stripped in ("null", "None"):
        return None
    if "boolean" in kinds and stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    parsed = _parsed(stripped, value)
    if "integer" in kinds and _is_integer(parsed):
        return int(parsed)
    if "number" in kinds and isinstance(parsed, (int, float)) and not isinstance(parsed, bool):
        return parsed
    if ("array" in kinds and isinstance(parsed, list)) or ("object" in kinds and isinstance(parsed, dict)):
        return parsed
    return value


def _kinds(schema: Any) -> set[str]:
    """The JSON types a schema allows; empty when it does not say."""
    if not isinstance(schema, Mapping):
        return set()
    named = schema.get("type")
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    kinds = {name for name in names if isinstance(name, str)}
    for key in ("anyOf", "oneOf", "allOf"):
        choices = schema.get(key)
        for choice in choices if isinstance(choices, list) else ():
            kinds |= _kinds(choice)
    choices = schema.get("enum")
    if not kinds and isinstance(choices, list):
        kinds = {_NAMES[type(choice)] for choice in choices if type(choice) in _NAMES}
    return kinds


def _is_integer(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _parsed(text: str, otherwise: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return otherwise

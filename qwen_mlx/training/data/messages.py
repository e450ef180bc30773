"""A list of messages from a row, checked and brought into the form that chat templates read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_mlx.errors import DataError
from qwen_mlx.training.data.contents import Conversation, Remarks
from qwen_mlx.training.data.rows import parse_json

ROLES = ("system", "user", "assistant", "tool")
ROLES_OF_SHAREGPT = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_REASONING = ("reasoning_content", "reasoning", "thinking")
# Keys of chat services that say nothing a template would write.
_KNOWN = frozenset(("role", "content", "tool_calls", "function_call", "weight", "loss", *_REASONING))
_HARMLESS = frozenset(("name", "id", "tool_call_id", "refusal", "annotations", "audio"))


def conversation(
    value: Any, place: str, remarks: Remarks, *, tools: Any = None, what: str = "messages", learnt_from: int = 0
) -> Conversation:
    """A conversation with at least one answer.

    Args:
        value: a list of messages, or JSON text of one.
        tools: a list of descriptions, or JSON text of one, or None.
        what: the key it stands under.
        learnt_from: number of the message from which on answers are learnt.

    Raises:
        DataError: a message that cannot be meant; the text says which.
    """
    value = json_value(value, place, what)
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else kind(value)
        raise DataError(f"{place}: {what!r} must be a list of messages", found=found)
    messages, weights = [], []
    for number, entry in enumerate(value):
        where = f"{place}, message {number + 1}"
        if not isinstance(entry, Mapping):
            raise DataError(
                f"{where}: this is no message", expected="an object with role and content", found=kind(entry)
            )
        message = _message(entry, where, remarks)
        messages.append(message)
        weights.append(_weight(entry, message["role"], where) if number >= learnt_from else 0.0)
        if message["role"] == "assistant" and _is_empty(message) and weights[-1]:
            raise DataError(f"{where}: the answer is empty", expected="content, or tool calls")
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise DataError(f"{place}: there is nothing to learn", expected="a message of the assistant")
    if roles[0] == "assistant":
        raise DataError(
            f"{place}, message 1: the conversation begins with an answer", expected="a user or system first"
        )
    return Conversation(tuple(messages), tuple(weights), read_tools(tools, place))


def _message(entry: Mapping[str, Any], where: str, remarks: Remarks) -> dict[str, Any]:
    role = entry.get("role")
    if role not in ROLES or not isinstance(role, str):
        found = "none" if "role" not in entry else repr(role)[:60]
        raise DataError(f"{where}: unknown role", expected=", ".join(ROLES), found=found)
    for key in entry:
        if key not in _KNOWN and key not in _HARMLESS and entry[key] is not None:
            remarks.add(f"the key {str(key)[:40]!r} of messages is not read")
    calls = _tool_calls(entry, where)
    if calls and role != "assistant":
        raise DataError(f"{where}: only the assistant can call tools", found=f"'tool_calls' of {role!r}")
    content = entry.get("content")
    if content is None and (role == "assistant" and (calls or "content" in entry)):
        content = ""
    message: dict[str, Any] = {"role": role, "content": text_of(content, f"{where}: 'content'")}
    reasoning = next((entry[key] for key in _REASONING if entry.get(key) is not None), None)
    if reasoning is not None:
        reasoning = text_of(reasoning, f"{where}: the reasoning")
        if reasoning and role != "assistant":
            raise DataError(f"{where}: only the assistant reasons", found=f"reasoning of {role!r}")
        if reasoning.strip():
            message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


def _is_empty(message: Mapping[str, Any]) -> bool:
    return not message["content"].strip() and not message.get("tool_calls")


def _weight(entry: Mapping[str, Any], role: str, where: str) -> float:
    """`weight`, a number from 0, or `loss`, which may also be true or false; 1 for an answer that has neither."""
    given = [key for key in ("weight", "loss") if entry.get(key) is not None]
    if not given:
        return float(role == "assistant")
    if len(given) == 2:
        raise DataError(f"{where}: both 'weight' and 'loss'", expected="one of them")
    value = entry[given[0]]
    value = float(value) if isinstance(value, bool) else value
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise DataError(f"{where}: {given[0]!r} cannot be used", expected="a number from 0", found=repr(value)[:60])
    if value and role != "assistant":
        raise DataError(f"{where}: only what the model writes can be learnt", found=f"{given[0]!r} of {role!r}")
    return float(value)


# -------------------------------------------------------------------------------------------------------- tools


def _tool_calls(entry: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    calls = entry.get("tool_calls")
    if calls is None and entry.get("function_call") is not None:
        calls = [entry["function_call"]]
    if calls is None:
        return []
    calls = json_value(calls, where, "tool_calls")
    if not isinstance(calls, list):
        raise DataError(f"{where}: 'tool_calls' must be a list", found=kind(calls))
    return [_tool_call(call, f"{where}, tool call {number}") for number, call in enumerate(calls, 1)]


def _tool_call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise DataError(f"{where}: this is no call", expected="a function with name and arguments", found=kind(call))
    arguments = function.get("arguments")
    if isinstance(arguments, str):  # as chat services write them
        arguments = parse_json(arguments, where, "'arguments'") if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise DataError(f"{where}: 'arguments' must be an object", found=kind(arguments))
    return {"type": "function", "function": {"name": function["name"], "arguments": dict(arguments)}}


def read_tools(value: Any, place: str) -> tuple[dict[str, Any], ...]:
    """Descriptions of functions. Raises `DataError`."""
    if value is None or value == "":
        return ()
    value = json_value(value, place, "tools")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(f"{place}: 'tools' must be a list", found=kind(value))
    for number, tool in enumerate(value, 1):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise DataError(
                f"{place}: tool {number} is no description of a function",
                expected="an object with a name",
                found=kind(tool),
            )
    return tuple(dict(tool) for tool in value)


# ------------------------------------------------------------------------------------------------------- values


def json_value(value: Any, place: str, what: str) -> Any:
    """`value`, or what it says where it is text, as in the cells of a table."""
    return parse_json(value, place, f"{what!r}") if isinstance(value, str) else value


def text_of(value: Any, what: str) -> str:
    """A text, which may be given as a list of parts. Raises `DataError` naming `what`."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return "".join(_part(part, what) for part in value)
    raise DataError(f"{what} must be a text", found=kind(value))


def _part(part: Any, what: str) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str) or part.get("type", "text") != "text":
        found = repr(part.get("type"))[:40] if isinstance(part, Mapping) else kind(part)
        raise DataError(f"{what}: only text can be learnt from", expected="parts of the type 'text'", found=found)
    return text


def kind(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "a text", dict: "an object", list: "a list", int: "a number", float: "a number", bytes: "bytes"}
    name = names.get(type(value), type(value).__name__)
    return f"{name} ({value!r})" if isinstance(value, (int, float)) else name

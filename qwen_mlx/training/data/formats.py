"""Rows -> contents: which of the known formats rows are written in, and what each of them says.

| format            | keys of a row                                                              |
|-------------------|----------------------------------------------------------------------------|
| messages          | `messages`: a list of `role` and `content`; `tools`                         |
| sharegpt          | `conversations`: a list of `from` and `value`; `system`, `tools`            |
| prompt-completion | `prompt`, `completion`: texts, or lists of messages; `tools`               |
| alpaca            | `instruction`, `output`; `input`, `system`, `history`                      |
| text              | `text`                                                                     |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qwen_mlx.errors import DataError
from qwen_mlx.training.data.config import FormatName
from qwen_mlx.training.data.contents import Content, Conversation, PlainText, Remarks
from qwen_mlx.training.data.messages import ROLES_OF_SHAREGPT, conversation, json_value, kind, text_of
from qwen_mlx.training.data.rows import RawRow

FORMATS: tuple[FormatName, ...] = ("messages", "sharegpt", "prompt-completion", "alpaca", "text")
"""In the order in which they are taken when rows fit several."""
_LISTS = ("conversations", "conversation")
_KEYS: dict[FormatName, frozenset[str]] = {
    "messages": frozenset({"messages", "tools", *_LISTS}),
    "sharegpt": frozenset({*_LISTS, "system", "tools"}),
    "prompt-completion": frozenset({"prompt", "completion", "tools"}),
    "alpaca": frozenset({"instruction", "input", "output", "system", "history"}),
    "text": frozenset({"text"}),
}
_WANTED = "; ".join(("messages", "conversations", "prompt and completion", "instruction and output", "or text"))


class FormatFinder:
    """Which formats fit all rows seen so far."""

    def __init__(self) -> None:
        self._fitting: tuple[FormatName, ...] = FORMATS
        self._first = ""

    @property
    def best(self) -> FormatName:
        """The first of the formats that fit; ask only after a row was added."""
        return self._fitting[0]

    def fits(self, name: FormatName) -> bool:
        return name in self._fitting

    def add(self, row: RawRow) -> None:
        """Raises `DataError` for a row that fits no format, or none that all rows before it fit."""
        own = _fitting(row.values)
        if not own:
            keys = ", ".join(repr(key) for key in list(row.values)[:8]) or "nothing"
            hint = None
            if "chosen" in row.values or "rejected" in row.values:
                hint = "Preference pairs cannot be learnt from here."
            raise DataError(f"{row.place}: this row is in no known format", expected=_WANTED, found=keys, hint=hint)
        both = tuple(name for name in self._fitting if name in own)
        if not both:
            raise DataError(
                f"{row.place}: this row is in another format than those before it",
                expected=f"{self.best}, as in {self._first}",
                found=own[0],
                hint="Put rows of each format into a file of their own.",
            )
        self._fitting = both
        self._first = self._first or row.place


def _fitting(values: Mapping[str, Any]) -> tuple[FormatName, ...]:
    there = {key for key, value in values.items() if value is not None}
    spoken = _turn_list(values)
    fits = {
        "messages": "messages" in there or spoken == "messages",
        "sharegpt": spoken == "sharegpt",
        "prompt-completion": {"prompt", "completion"} <= there,
        "alpaca": {"instruction", "output"} <= there,
        "text": "text" in there,
    }
    return tuple(name for name in FORMATS if fits[name])


def _turn_list(values: Mapping[str, Any]) -> FormatName | None:
    """What the items of `conversations` look like."""
    for key in _LISTS:
        if (turns := values.get(key)) is not None:
            turns = json_value(turns, "", key) if isinstance(turns, str) and turns.lstrip().startswith("[") else turns
            first = turns[0] if isinstance(turns, list) and turns else None
            return "messages" if isinstance(first, Mapping) and "role" in first else "sharegpt"
    return None


def read_content(row: RawRow, name: FormatName, remarks: Remarks) -> Content:
    """What a row says.

    Args:
        remarks: told of keys that are not read.

    Raises:
        DataError: the row is not as its format wants it; the message names its place.
    """
    missing = name not in _fitting(row.values)
    if missing:
        keys = ", ".join(repr(key) for key in list(row.values)[:8]) or "nothing"
        raise DataError(f"{row.place}: this row is not in the format {name}", expected=_needs(name), found=keys)
    for key in row.values:
        if key not in _KEYS[name] and row.values[key] is not None:
            remarks.add(f"the column {str(key)[:40]!r} is not read")
    return _READERS[name](row.values, row.place, remarks)


def _needs(name: FormatName) -> str:
    return {
        "messages": "'messages'",
        "sharegpt": "'conversations' of 'from' and 'value'",
        "prompt-completion": "'prompt' and 'completion'",
        "alpaca": "'instruction' and 'output'",
        "text": "'text'",
    }[name]


# ------------------------------------------------------------------------------------------------ one per format


def _messages(values: Mapping[str, Any], place: str, remarks: Remarks) -> Conversation:
    key = next(key for key in ("messages", *_LISTS) if values.get(key) is not None)
    return conversation(values[key], place, remarks, tools=values.get("tools"), what=key)


def _sharegpt(values: Mapping[str, Any], place: str, remarks: Remarks) -> Conversation:
    key = next(key for key in _LISTS if values.get(key) is not None)
    turns = json_value(values[key], place, key)
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{place}: {key!r} must be a list of turns", found=kind(turns))
    messages = [_turn(turn, f"{place}, turn {number}", remarks) for number, turn in enumerate(turns, 1)]
    if values.get("system") is not None:
        messages.insert(0, {"role": "system", "content": text_of(values["system"], f"{place}: 'system'")})
    return conversation(messages, place, remarks, tools=values.get("tools"), what=key)


def _turn(turn: Any, place: str, remarks: Remarks) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise DataError(f"{place}: this is no turn", expected="an object with 'from' and 'value'", found=kind(turn))
    speaker = turn.get("from")
    role = ROLES_OF_SHAREGPT.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise DataError(f"{place}: unknown 'from'", expected=", ".join(ROLES_OF_SHAREGPT), found=repr(speaker)[:60])
    message = {key: item for key, item in turn.items() if key not in ("from", "value")}
    message["role"] = role
    if speaker != "function_call":
        return message | {"content": turn.get("value")}
    calls = json_value(turn.get("value"), place, "the function call")
    return message | {"content": None, "tool_calls": calls if isinstance(calls, list) else [calls]}


def _prompt_completion(values: Mapping[str, Any], place: str, remarks: Remarks) -> Content:
    prompt, completion = values["prompt"], values["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion.strip():
            raise DataError(f"{place}: 'completion' is empty", expected="a text to learn")
        if values.get("tools"):
            raise DataError(f"{place}: 'tools' need 'prompt' and 'completion' that are lists of messages")
        return PlainText(completion, prompt)
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    for key, value in (("prompt", prompt), ("completion", completion)):
        if not isinstance(value, list):
            raise DataError(
                f"{place}: {key!r} cannot be read", expected="a text or a list of messages", found=kind(value)
            )
    whole = conversation(
        [*prompt, *completion], place, remarks, tools=values.get("tools"), what="prompt", learnt_from=len(prompt)
    )
    if all(message["role"] != "assistant" for message in whole.messages[len(prompt) :]):
        raise DataError(f"{place}: 'completion' has no message of the assistant")
    return whole


def _alpaca(values: Mapping[str, Any], place: str, remarks: Remarks) -> Conversation:
    messages = []
    if values.get("system"):
        messages.append({"role": "system", "content": text_of(values["system"], f"{place}: 'system'")})
    history = values.get("history")
    for number, pair in enumerate([] if history is None else json_value(history, place, "history"), 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"{place}: pair {number} of 'history' is none", expected="[question, answer]")
        for role, text in zip(("user", "assistant"), pair):
            messages.append({"role": role, "content": text_of(text, f"{place}: pair {number} of 'history'")})
    question = text_of(values["instruction"], f"{place}: 'instruction'")
    if values.get("input"):
        question += "\n" + text_of(values["input"], f"{place}: 'input'")
    messages.append({"role": "user", "content": question})
    messages.append({"role": "assistant", "content": text_of(values["output"], f"{place}: 'output'")})
    return conversation(messages, place, remarks, what="row")


def _text(values: Mapping[str, Any], place: str, remarks: Remarks) -> PlainText:
    text = text_of(values["text"], f"{place}: 'text'")
    if not text.strip():
        raise DataError(f"{place}: 'text' is empty")
    return PlainText(text)


_READERS: dict[FormatName, Callable[[Mapping[str, Any], str, Remarks], Content]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "prompt-completion": _prompt_completion,
    "alpaca": _alpaca,
    "text": _text,
}

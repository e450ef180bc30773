"""What a row says, whichever format it is written in."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Conversation:
    """Messages of a chat.

    Attributes:
        messages: dictionaries as chat templates read them, with `role` and `content`, and perhaps `reasoning_content`
            and `tool_calls`, whose arguments are objects.
        weights: how much each message counts; 0 for all that are not the assistant's.
        tools: descriptions of functions, as chat templates read them.
    """

    messages: tuple[dict[str, Any], ...]
    weights: tuple[float, ...]
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class PlainText:
    """Text without turns: `completion` is learnt after `prompt`, which is not. A document has no prompt."""

    completion: str
    prompt: str | None = None


Content = Conversation | PlainText


@dataclass
class Remarks:
    """What was seen in rows that is no error; counts by what it is."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def exact_digest(content: Content) -> bytes:
    """16 bytes, equal for equal contents."""
    return hashlib.blake2b(_written(content), digest_size=16).digest()


def normalised_digest(content: Content) -> bytes:
    """16 bytes, equal for contents that differ in case, width and blank space only (NFKC, lower case, one space)."""
    text = _written(content, normalised=True)
    return hashlib.blake2b(text, digest_size=16).digest()


def normalise(text: str) -> str:
    """NFKC, lower case, and each run of blank space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def _written(content: Content, *, normalised: bool = False) -> bytes:
    if isinstance(content, PlainText):
        value: Any = ["text", content.prompt, content.completion]
    else:
        value = ["chat", content.messages, content.tools, None if normalised else content.weights]
    if normalised:
        value = _normalised(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _normalised(value: Any) -> Any:
    if isinstance(value, str):
        return normalise(value)
    if isinstance(value, dict):
        return {key: _normalised(item) for key, item in value.items()}
    return [_normalised(item) for item in value] if isinstance(value, (list, tuple)) else value

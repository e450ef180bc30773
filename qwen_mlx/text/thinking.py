"""Thinking apart from the answer: `<think>reasoning</think>answer`, whole or as it streams in.

It knows text only: tokens become text in `tokenizer.Detokenizer`, which never cuts a character.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qwen_mlx.events import Message

OPEN, CLOSE = "<think>", "</think>"
_NEWLINES = "\r\n"
_SWITCH = re.compile(r"(?<![\w/])/(no_)?think(?![\w/])")


@dataclass(frozen=True)
class Segment:
    """A piece of a reply, never empty, never part of a marker."""

    kind: Literal["reasoning", "answer"]
    text: str


class ThinkingParser:
    """Splits a streamed reply. The same text gives the same result, however it is cut into pieces.

    A block counts only at the beginning of the reply; `<think>` further down is text like any other. Blank lines
    around the reasoning and before the answer are left out. A block that is never closed is all reasoning.

    Args:
        opened: the prompt ended with `<think>`: the reply begins inside the block, and only `</think>` will come.
        begun: the prompt ended with some of the reasoning besides, so that blank lines are part of it.
    """

    def __init__(self, opened: bool = False, begun: bool = False) -> None:
        self._opened = opened
        self._state: Literal["start", "reasoning", "closed", "answer"] = "start"
        self._held = ""  # text that may be part of a marker, or blank lines that may have to go
        self._has_reasoning = begun

    @property
    def in_reasoning(self) -> bool:
        """Whether the next token belongs to the thinking, as far as is known."""
        return self._state == "reasoning" or (self._state == "start" and self._opened)

    def feed(self, text: str) -> list[Segment]:
        """The reply goes on with `text`; returns what is certain now."""
        if self._state == "answer":
            return [Segment("answer", text)] if text else []
        self._held += text
        segments: list[Segment] = []
        # Each step takes a marker or text from what is held, and says whether the next state may take more.
        while self._step(segments):
            pass
        return segments

    def finish(self) -> list[Segment]:
        """The reply is over; returns what was held back."""
        held, self._held = self._held, ""
        if self.in_reasoning:
            rest = held.rstrip(_NEWLINES)
            return self._reasoning(rest if self._has_reasoning else rest.lstrip(_NEWLINES))
        if self._state == "closed":
            held = held.lstrip(_NEWLINES)
        self._state = "answer"
        return [Segment("answer", held)] if held else []

    def _step(self, segments: list[Segment]) -> bool:
        if self._state == "start":
            return self._start()
        if self._state == "reasoning":
            return self._inside(segments)
        if self._state == "closed":
            self._held = self._held.lstrip(_NEWLINES)
            if not self._held:
                return False
            self._state = "answer"
        if self._held:
            segments.append(Segment("answer", self._held))
            self._held = ""
        return False

    def _start(self) -> bool:
        """Wait until it is clear whether the reply begins with `<think>`."""
        begin = self._held.lstrip()
        if begin.startswith(OPEN):
            self._held = begin[len(OPEN) :]
            self._state = "reasoning"
        elif OPEN.startswith(begin):  # also when nothing but space has come
            return False
        else:
            self._state = "reasoning" if self._opened else "answer"
        return True

    def _inside(self, segments: list[Segment]) -> bool:
        """Give out reasoning, but no part of `</think>` and no newlines unless more reasoning follows them."""
        text, closed, after = self._held.partition(CLOSE)
        kept = 0 if closed else _partial(text, CLOSE)
        certain = text[: len(text) - kept].rstrip(_NEWLINES) if not closed else text.rstrip(_NEWLINES)
        if not self._has_reasoning:
            # Space alone is no reasoning: wait for the first word.
            certain = certain if certain.strip() else ""
        segments += self._reasoning(certain if self._has_reasoning else certain.lstrip(_NEWLINES))
        if closed:
            self._held = after
            self._state = "closed"
            return True
        self._held = text[len(certain) :]
        return False

    def _reasoning(self, text: str) -> list[Segment]:
        if not text or not (self._has_reasoning or text.strip()):
            return []
        self._has_reasoning = True
        return [Segment("reasoning", text)]


def _partial(text: str, marker: str) -> int:
    """How many of the last characters of `text` may be the beginning of `marker`."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if marker.startswith(text[-length:]):
            return length
    return 0


def split(text: str, opened: bool = False) -> tuple[str | None, str]:
    """Reasoning and answer of a whole reply; None when there is no reasoning."""
    parser = ThinkingParser(opened)
    segments = [*parser.feed(text), *parser.finish()]
    reasoning = "".join(segment.text for segment in segments if segment.kind == "reasoning")
    answer = "".join(segment.text for segment in segments if segment.kind == "answer")
    return reasoning or None, answer


def soft_switch(messages: Sequence[Mapping[str, Any] | Message]) -> bool | None:
    """What the last `/think` (True) or `/no_think` (False) of the user or system says; None if there is none.

    Qwen3 was trained to follow the latest of them.
    """
    for message in reversed(messages):
        value = message.for_template() if isinstance(message, Message) else message
        if value.get("role") not in ("user", "system"):
            continue
        content = value.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        texts = (part.get("text") for part in parts if isinstance(part, Mapping))
        found = _SWITCH.findall("\n".join(text for text in texts if isinstance(text, str)))
        if found:
            return found[-1] == ""
    return None

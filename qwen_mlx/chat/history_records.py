"""What the conversation store hands out: plain frozen records, made from rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from qwen_mlx.chat import attachments, steps
from qwen_mlx.chat.attachments import Attachment, with_attachments
from qwen_mlx.chat.steps import Step
from qwen_mlx.events import Message, Role

Status = Literal["streaming", "done", "stopped", "failed"]
TitledBy = Literal["line", "model", "person"]

CONVERSATION_COLUMNS = (
    "id, title, model, system, params_json, pinned, archived, created, updated, leaf_id, titled_by, "
    "(SELECT group_concat(name, char(10)) FROM "
    "   (SELECT t.name FROM tag t WHERE t.conversation_id = conversation.id ORDER BY t.name))"
)
MESSAGE_COLUMNS = (
    "m.id, m.conversation_id, m.parent_id, m.role, m.content, m.reasoning, m.reasoning_seconds, "
    "m.reasoning_tokens, m.model, m.stats_json, m.status, m.error, m.created, m.attachments_json, m.steps_json, "
    "(SELECT count(*) FROM message s WHERE s.conversation_id = m.conversation_id "
    "   AND s.parent_id IS m.parent_id AND s.id <= m.id), "
    "(SELECT count(*) FROM message s WHERE s.conversation_id = m.conversation_id "
    "   AND s.parent_id IS m.parent_id)"
)


@dataclass(frozen=True)
class Conversation:
    """One line of the conversation list. Times are seconds since 1970.

    Attributes:
        titled_by: "line" is the first line of the first message, which a "model" may better; a "person" has the last
            word.
        tags: in alphabetical order.
    """

    id: int
    title: str
    model: str | None
    system: str | None
    params: Mapping[str, Any]
    pinned: bool
    archived: bool
    created: float
    updated: float
    leaf_id: int | None
    titled_by: TitledBy = "person"
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredMessage:
    """One message as it is on disk.

    Attributes:
        status: "streaming" while its reply runs; "stopped" and "failed" keep the text that had arrived.
        stats: the fields of `ReplyStats`, empty for a message that no model wrote.
        error: why it failed, in words for a person.
        attachments: text files that go along with it.
        steps: rounds of tool calls that came before `content` and `reasoning`.
        position, siblings: this is number `position` (from 1) of `siblings` answers to the same message.
    """

    id: int
    conversation_id: int
    parent_id: int | None
    role: Role
    content: str
    reasoning: str | None
    reasoning_seconds: float | None
    reasoning_tokens: int | None
    model: str | None
    stats: Mapping[str, Any]
    status: Status
    error: str | None
    created: float
    attachments: tuple[Attachment, ...] = ()
    steps: tuple[Step, ...] = ()
    position: int = 1
    siblings: int = 1

    def as_messages(self) -> list[Message]:
        """What a chat template needs of it: its attachments in the text, its tool calls and their results before.

        An answer that has said nothing yet is no message.
        """
        if self.role != "assistant":
            return [Message(self.role, with_attachments(self.content, self.attachments), self.reasoning)]
        said = [Message(self.role, self.content, self.reasoning)] if self.content or self.reasoning else []
        return [*steps.as_messages(self.steps), *said]


@dataclass(frozen=True)
class SearchHit:
    """A finished message that contains what was looked for, and a piece of it around the place."""

    conversation_id: int
    message_id: int
    title: str
    role: Role
    snippet: str
    created: float


def conversation_from(row: tuple[Any, ...]) -> Conversation:
    """From the columns `CONVERSATION_COLUMNS`."""
    identity, title, model, system, params, pinned, archived, created, updated, leaf, titled_by, tags = row
    frozen = MappingProxyType(_json(params))
    return Conversation(
        *(identity, title, model, system, frozen, bool(pinned), bool(archived), created, updated, leaf),
        titled_by=titled_by if titled_by in get_args(TitledBy) else "person",
        tags=tuple(sorted(tags.split("\n"), key=str.casefold)) if tags else (),
    )


def message_from(row: tuple[Any, ...]) -> StoredMessage:
    """From the columns `MESSAGE_COLUMNS`."""
    values = list(row)
    values[9] = MappingProxyType(_json(row[9]))
    values[13] = attachments.from_json(_value(row[13]))
    values[14] = steps.from_json(_value(row[14]))
    return StoredMessage(*values)


def _json(text: str | None) -> dict[str, Any]:
    """A JSON object; anything else, from a file edited by hand, counts as empty."""
    value = _value(text)
    return value if isinstance(value, dict) else {}


def _value(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def snippet(content: str, words: list[str], before: int = 32, length: int = 120) -> str:
    """A piece of `content` around the first word found, on one line."""
    lower = content.lower()
    places = [place for word in words if (place := lower.find(word.lower())) >= 0]
    start = max(0, min(places, default=0) - before)
    piece = " ".join(content[start : start + length].split())
    return ("…" if start else "") + piece + ("…" if start + length < len(content) else "")

"""How a conversation of another program is written into the store."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen_mlx.chat.foreign import ForeignConversation

KEY = "origin"  # among the parameters of a conversation: where it came from
ORIGINS = "SELECT params_json FROM conversation WHERE deleted IS NULL AND params_json LIKE '%\"origin\"%'"


def origins(rows: list[tuple[Any, ...]]) -> set[str]:
    """The origins in the rows of `ORIGINS`."""
    found = set()
    for (text,) in rows:
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get(KEY), str):
            found.add(value[KEY])
    return found


def adopt(db: sqlite3.Connection, conversation: ForeignConversation, now: float) -> int:
    """Write a conversation and all its messages; the caller holds a transaction. Returns its id."""
    times = [message.created for message in conversation.messages if message.created is not None]
    created = conversation.created or min(times, default=now)
    updated = conversation.updated or max(times, default=created)
    row = db.execute(
        "INSERT INTO conversation (title, model, system, params_json, created, updated) VALUES (?, ?, ?, ?, ?, ?)",
        (
            *(_text(conversation.title), _text(conversation.model), _text(conversation.system)),
            *(json.dumps({KEY: conversation.origin}), created, updated),
        ),
    )
    identity = row.lastrowid
    ids: dict[str, int | None] = {}
    for message in conversation.messages:
        parent = ids[message.parent] if message.parent is not None else None
        ids[message.key] = db.execute(
            "INSERT INTO message (conversation_id, parent_id, role, content, reasoning, reasoning_seconds, model, "
            "status, created) VALUES (?, ?, ?, ?, ?, ?, ?, 'done', ?)",
            (
                *(identity, parent, message.role, _text(message.content), _text(message.reasoning)),
                *(message.reasoning_seconds, _text(message.model), message.created or created),
            ),
        ).lastrowid
    leaf = ids.get(conversation.shown or "")
    db.execute("UPDATE conversation SET leaf_id = ? WHERE id = ?", (leaf, identity))
    assert identity is not None
    return identity


def _text(value: str | None) -> str | None:
    """Half a surrogate pair cannot be stored as UTF-8: it becomes a question mark."""
    return None if value is None else value.encode("utf-8", "replace").decode("utf-8")

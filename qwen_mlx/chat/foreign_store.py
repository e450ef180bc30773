"""oterm's store, a SQLite file: read as it is, never written, and not trusted.

Its tables `chat` (id, name, model, system, …) and `message` (id, chat_id, author, text, …) are the same in all its
versions as far as they are read here; authors were "me" and "ollama" before 0.12, "user" and "assistant" since.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from qwen_mlx.chat.foreign import (
    MAX_MESSAGES,
    MAX_TEXT,
    ForeignConversation,
    ForeignMessage,
    Role,
    conversation,
    line,
    text,
)

MAGIC = b"SQLite format 3\0"
_ROLES: dict[str, Role] = {"me": "user", "user": "user", "ollama": "assistant", "assistant": "assistant"}
_NEEDED = {"chat": {"id", "name", "model", "system"}, "message": {"id", "chat_id", "author", "text"}}


def conversations(path: Path) -> Iterator[tuple[ForeignConversation | None, int, int]]:
    """Every conversation of the store, with how many were read by then, of how many; None for one without messages.

    Raises:
        ValueError: it is another program's database, or a damaged one.
    """
    with contextlib.closing(_open(path)) as db:
        try:
            _check(db)
            chats = db.execute("SELECT id, name, model, system FROM chat ORDER BY id").fetchall()
            for number, (identity, name, model, system) in enumerate(chats, 1):
                yield _read(db, identity, name, model, system), number, len(chats)
        except sqlite3.Error as error:
            raise ValueError(f"the database cannot be read ({error})") from None


def _open(path: Path) -> sqlite3.Connection:
    # As a URI, so that it can be opened for reading only: another program may be using it.
    try:
        db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=5.0)
    except sqlite3.Error as error:
        raise ValueError(f"the database cannot be opened ({error})") from None
    with contextlib.suppress(sqlite3.Error):
        db.execute("PRAGMA trusted_schema = OFF")
    db.text_factory = lambda data: data.decode("utf-8", "replace")
    return db


def _check(db: sqlite3.Connection) -> None:
    # Tables only: a view could do anything.
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, needed in _NEEDED.items():
        columns = {row[1] for row in db.execute(f'PRAGMA table_info("{table}")')} if table in tables else set()
        if not needed <= columns:
            raise ValueError("it is not the store of oterm")


def _read(
    db: sqlite3.Connection, identity: object, name: object, model: object, system: object
) -> ForeignConversation | None:
    rows = db.execute(
        "SELECT author, substr(text, 1, ?) FROM message WHERE chat_id = ? ORDER BY id LIMIT ?",
        (MAX_TEXT, identity, MAX_MESSAGES + 1),
    ).fetchall()
    if len(rows) > MAX_MESSAGES:
        raise ValueError(f"a conversation has more than {MAX_MESSAGES:,} messages")
    messages: list[ForeignMessage] = []
    for author, said in rows:
        role = _ROLES.get(author) if isinstance(author, str) else None
        content = text(said)
        if role is not None and content:
            parent = messages[-1].key if messages else None
            messages.append(ForeignMessage(str(len(messages)), parent, role, content))
    if not messages:
        return None
    # Ids begin at 1 in every store, so what was said first belongs to what it is known by.
    found = conversation("oterm", None, f"{identity}", messages)
    return replace(
        found,
        title=line(name) or line(messages[0].content)[:60],
        shown=messages[-1].key,
        model=line(model) or None,
        system=text(system) or None,
    )

"""Conversations on disk: one SQLite file, a tree of messages per conversation, full-text search.

A message knows its parent; regenerating an answer or editing a question makes a sibling, and
`Conversation.leaf_id` names the end of the branch that is shown. A reply is written when it starts,
checkpointed while it grows and finished at its end, so a crash loses at most what came after the last
checkpoint.

The store knows nothing of models or screens. Every method may be called from any thread, and blocks for as
long as the disk does: an event loop calls it through an executor.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from qwen_mlx.chat import attachments as files
from qwen_mlx.chat import history_adoption, history_owner, history_schema, history_tags
from qwen_mlx.chat import steps as rounds
from qwen_mlx.chat.attachments import Attachment
from qwen_mlx.chat.history_errors import explain
from qwen_mlx.chat.history_records import (
    CONVERSATION_COLUMNS,
    MESSAGE_COLUMNS,
    Conversation,
    SearchHit,
    Status,
    StoredMessage,
    TitledBy,
    conversation_from,
    message_from,
    snippet,
)
from qwen_mlx.chat.steps import Step
from qwen_mlx.errors import HistoryError, NotFound
from qwen_mlx.events import ReplyStats, Role

if TYPE_CHECKING:
    from qwen_mlx.chat.foreign import ForeignConversation

__all__ = ["Conversation", "History", "SearchHit", "Status", "StoredMessage"]

_LEAF = -1  # as a parent: whatever ends the shown branch
_STEPS = "steps_json = coalesce(?, steps_json)"


class History:
    """The conversation store in the file `path`, which is made if it is missing, readable by its owner only.

    Raises:
        HistoryError: the file is damaged, read-only, newer than this program, or another program's. It is
            never changed or removed in that case.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.RLock()
        self._owner: history_owner.Owner | None = None
        self._closed = False
        with self._explained():
            self._db = history_schema.open_database(self.path)
            self._full_text = history_schema.has_search(self._db)

    def close(self) -> None:
        """Give the file free; replies that still stream become "stopped". May be called twice."""
        with self._lock:
            if self._closed:
                return
            try:
                if self._owner is not None:
                    with self._transaction() as db:
                        _stop_rows(db, self._owner.token)
            finally:
                self._closed = True
                if self._owner is not None:
                    self._owner.close()
                self._db.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ conversations

    def conversations(self, limit: int = 100, offset: int = 0, *, archived: bool = False) -> list[Conversation]:
        """Pinned ones first, then the most recently used. Deleted ones are left out."""
        query = (
            f"SELECT {CONVERSATION_COLUMNS} FROM conversation WHERE deleted IS NULL AND archived = ? "
            "ORDER BY pinned DESC, updated DESC, id DESC LIMIT ? OFFSET ?"
        )
        return [conversation_from(row) for row in self._rows(query, (int(archived), limit, offset))]

    def conversation(self, conversation_id: int) -> Conversation:
        """One that is not deleted. Raises `NotFound`."""
        query = f"SELECT {CONVERSATION_COLUMNS} FROM conversation WHERE id = ? AND deleted IS NULL"
        rows = self._rows(query, (conversation_id,))
        if not rows:
            raise _no_conversation(conversation_id)
        return conversation_from(rows[0])

    def new_conversation(
        self,
        title: str = "",
        *,
        model: str | None = None,
        system: str | None = None,
        params: Mapping[str, Any] | None = None,
        titled_by: TitledBy = "person",
        now: float | None = None,
    ) -> Conversation:
        """Make an empty conversation. `params` must be JSON."""
        now = time.time() if now is None else now
        with self._transaction() as db:
            row = db.execute(
                "INSERT INTO conversation (title, model, system, params_json, titled_by, created, updated) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (_text(title), model, system, json.dumps(dict(params or {})), titled_by, now, now),
            )
            return self.conversation(cast(int, row.lastrowid))

    def rename(self, conversation_id: int, title: str) -> None:
        """A title that a person gives: nobody else changes it from then on."""
        self._change(conversation_id, "title = ?, titled_by = 'person'", _text(title))

    def entitle(self, conversation_id: int, title: str, titled_by: TitledBy = "model") -> bool:
        """A title that nobody asked for; False when a person, or a model, has given one meanwhile."""
        with self._transaction() as db:
            query = (
                "UPDATE conversation SET title = ?, titled_by = ? "
                "WHERE id = ? AND deleted IS NULL AND (titled_by = 'line' OR title = '')"
            )
            return db.execute(query, (_text(title), titled_by, conversation_id)).rowcount > 0

    def tag(self, conversation_id: int, name: str) -> bool:
        """Give a conversation a tag, see `history_tags.tag_name`; False when it has it already."""
        with self._transaction() as db:
            self.conversation(conversation_id)
            query = "INSERT OR IGNORE INTO tag (conversation_id, name) VALUES (?, ?)"
            return db.execute(query, (conversation_id, self._spelled(history_tags.tag_name(name)))).rowcount > 0

    def untag(self, conversation_id: int, name: str) -> bool:
        """Take a tag away; False when it was not there."""
        with self._transaction() as db:
            query = "DELETE FROM tag WHERE conversation_id = ? AND name = ?"
            return db.execute(query, (conversation_id, history_tags.tag_name(name))).rowcount > 0

    def tags(self) -> list[tuple[str, int]]:
        """Every tag, and how many conversations have it; deleted ones do not count."""
        query = (
            "SELECT min(t.name), count(*) FROM tag t JOIN conversation c ON c.id = t.conversation_id "
            "WHERE c.deleted IS NULL GROUP BY t.name ORDER BY t.name"
        )
        return [(name, count) for name, count in self._rows(query)]

    def rename_tag(self, before: str, after: str) -> int:
        """Another name for a tag, everywhere; one that is there already takes it in. Returns how many had it."""
        with self._transaction() as db:
            return history_tags.rename(db, history_tags.tag_name(before), _text(history_tags.tag_name(after)))

    def delete_tag(self, name: str) -> int:
        """Take a tag away everywhere; returns how many conversations had it."""
        with self._transaction() as db:
            return db.execute("DELETE FROM tag WHERE name = ?", (history_tags.tag_name(name),)).rowcount

    def _spelled(self, name: str) -> str:
        """As a tag of this name is spelled already: `Work` and `work` are one."""
        rows = self._rows("SELECT name FROM tag WHERE name = ? LIMIT 1", (name,))
        return rows[0][0] if rows else _text(name)

    def pin(self, conversation_id: int, pinned: bool = True) -> None:
        self._change(conversation_id, "pinned = ?", int(pinned))

    def archive(self, conversation_id: int, archived: bool = True) -> None:
        self._change(conversation_id, "archived = ?", int(archived))

    def configure(self, conversation_id: int, *, system: str | None, params: Mapping[str, Any]) -> None:
        """Set the system message and the parameters of a conversation."""
        self._change(conversation_id, "system = ?, params_json = ?", system, json.dumps(dict(params)))

    def set_param(self, conversation_id: int, name: str, value: Any) -> None:
        """Set one parameter of a conversation, and leave the others; None takes it away."""
        with self._transaction():
            params = dict(self.conversation(conversation_id).params)
            params[name] = value
            kept = {key: entry for key, entry in params.items() if entry is not None}
            query = "UPDATE conversation SET params_json = ? WHERE id = ?"
            self._db.execute(query, (json.dumps(kept), conversation_id))

    def delete(self, conversation_id: int) -> None:
        """Hide a conversation; `undelete` brings it back until `purge` removes it for good."""
        self._change(conversation_id, "deleted = ?", time.time())

    def undelete(self, conversation_id: int) -> None:
        self._change(conversation_id, "deleted = NULL", hidden=True)

    def purge(self, older_than: float = 86400.0) -> int:
        """Remove for good what was deleted more than `older_than` seconds ago; returns how many."""
        with self._transaction() as db:
            limit = time.time() - older_than
            return db.execute("DELETE FROM conversation WHERE deleted <= ?", (limit,)).rowcount

    def _change(self, conversation_id: int, change: str, *values: object, hidden: bool = False) -> None:
        alive = "" if hidden else " AND deleted IS NULL"
        with self._transaction() as db:
            query = f"UPDATE conversation SET {change} WHERE id = ?{alive}"
            if db.execute(query, (*values, conversation_id)).rowcount == 0:
                raise _no_conversation(conversation_id)

    def origins(self) -> set[str]:
        """What conversations of other programs are known by (`ForeignConversation.origin`), deleted ones left out."""
        return history_adoption.origins(self._rows(history_adoption.ORIGINS))

    def adopt(self, conversation: ForeignConversation) -> int:
        """Take in a conversation of another program, whole or not at all; returns its id."""
        with self._transaction() as db:
            return history_adoption.adopt(db, conversation, time.time())

    # ----------------------------------------------------------------------------------------------- messages

    def messages(self, conversation_id: int) -> list[StoredMessage]:
        """The shown branch, oldest message first."""
        self.conversation(conversation_id)
        return self._branch("SELECT leaf_id FROM conversation WHERE id = ?", conversation_id)

    def all_messages(self, conversation_id: int) -> list[StoredMessage]:
        """Those of every branch, in the order in which they were made: a parent before its children."""
        self.conversation(conversation_id)
        query = f"SELECT {MESSAGE_COLUMNS} FROM message m WHERE m.conversation_id = ? ORDER BY m.id"
        return [message_from(row) for row in self._rows(query, (conversation_id,))]

    def branch_shown(self, message_id: int) -> list[StoredMessage]:
        """The shown branch of the conversation that `message_id` belongs to."""
        return self.messages(self.message(message_id).conversation_id)

    def branch(self, message_id: int) -> list[StoredMessage]:
        """From the first message of the conversation down to `message_id`."""
        return self._branch("SELECT ?", message_id)

    def _branch(self, leaf: str, value: int) -> list[StoredMessage]:
        query = f"""WITH RECURSIVE branch(id, depth) AS (
            SELECT ({leaf}), 0
            UNION ALL
            SELECT m.parent_id, depth + 1 FROM message m JOIN branch b ON m.id = b.id
            WHERE m.parent_id IS NOT NULL)
            SELECT {MESSAGE_COLUMNS} FROM message m JOIN branch b ON m.id = b.id ORDER BY b.depth DESC"""
        return [message_from(row) for row in self._rows(query, (value,))]

    def message(self, message_id: int) -> StoredMessage:
        """Raises `NotFound`."""
        rows = self._rows(f"SELECT {MESSAGE_COLUMNS} FROM message m WHERE m.id = ?", (message_id,))
        if not rows:
            raise NotFound(f"there is no message {message_id} in {self.path}")
        return message_from(rows[0])

    def siblings(self, message_id: int) -> list[int]:
        """The ids of all answers to the same message, `message_id` among them, oldest first."""
        query = (
            "SELECT s.id FROM message s JOIN message m ON m.id = ? "
            "WHERE s.conversation_id = m.conversation_id AND s.parent_id IS m.parent_id ORDER BY s.id"
        )
        return [row[0] for row in self._rows(query, (message_id,))]

    def show_branch(self, message_id: int) -> None:
        """Show the branch through `message_id`, down to its newest end."""
        newest = """WITH RECURSIVE below(id) AS (
            SELECT ? UNION ALL SELECT m.id FROM message m JOIN below b ON m.parent_id = b.id)
            SELECT max(id) FROM below"""
        with self._transaction() as db:
            conversation_id = self.message(message_id).conversation_id
            leaf = db.execute(newest, (message_id,)).fetchone()[0]
            db.execute("UPDATE conversation SET leaf_id = ? WHERE id = ?", (leaf, conversation_id))

    def add_message(
        self,
        conversation_id: int,
        role: Role,
        content: str = "",
        *,
        parent_id: int | None = _LEAF,
        reasoning: str | None = None,
        model: str | None = None,
        status: Status = "done",
        attachments: Sequence[Attachment] = (),
        now: float | None = None,
    ) -> StoredMessage:
        """Add a message below `parent_id` (default: below the shown branch) and show the branch it ends.

        A reply starts as `status="streaming"` and belongs to this `History` until it is finished.

        Raises:
            NotFound: no such conversation, or the parent is not one of its messages.
        """
        if role not in get_args(Role) or status not in get_args(Status):
            raise HistoryError(f"a message cannot have role {role!r} and status {status!r}")
        now = time.time() if now is None else now
        with self._transaction() as db:
            conversation = self.conversation(conversation_id)
            if parent_id == _LEAF:
                parent_id = conversation.leaf_id
            if parent_id is not None and self.message(parent_id).conversation_id != conversation_id:
                raise NotFound(f"message {parent_id} is not in conversation {conversation_id}")
            owner = self._own() if status == "streaming" else None
            row = db.execute(
                "INSERT INTO message (conversation_id, parent_id, role, content, reasoning, model, status, "
                "owner, created, attachments_json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    conversation_id,
                    parent_id,
                    role,
                    _text(content),
                    _optional(reasoning),
                    model,
                    status,
                    owner,
                    now,
                    json.dumps(files.to_json(attachments)) if attachments else None,
                ),
            )
            db.execute(
                "UPDATE conversation SET leaf_id = ?, updated = ? WHERE id = ?",
                (row.lastrowid, now, conversation_id),
            )
            return self.message(cast(int, row.lastrowid))

    def update_message(
        self,
        message_id: int,
        *,
        content: str,
        reasoning: str | None = None,
        reasoning_seconds: float | None = None,
        reasoning_tokens: int | None = None,
        steps: Sequence[Step] | None = None,
    ) -> None:
        """Checkpoint a reply that still streams: all of its text so far. `steps` of None stay as they are.

        Raises:
            NotFound: it does not stream (any more), or does not exist.
        """
        self._write(
            message_id,
            f"content = ?, reasoning = ?, reasoning_seconds = ?, reasoning_tokens = ?, {_STEPS}",
            (_text(content), _optional(reasoning), reasoning_seconds, reasoning_tokens, _steps(steps)),
            only="AND status = 'streaming'",
        )

    def reopen_message(self, message_id: int) -> StoredMessage:
        """A reply that has ended streams again, from where it is, and belongs to this `History`.

        Raises:
            NotFound: there is no such message.
            HistoryError: it streams already, here or in another window.
        """
        with self._transaction() as db:
            if self.message(message_id).status == "streaming":
                raise HistoryError("this answer is being written already", hint="Wait for its end, or stop it.")
            query = "UPDATE message SET status = 'streaming', owner = ?, error = NULL WHERE id = ?"
            db.execute(query, (self._own(), message_id))
            return self.message(message_id)

    def finish_message(
        self,
        message_id: int,
        *,
        content: str,
        reasoning: str | None = None,
        reasoning_seconds: float | None = None,
        reasoning_tokens: int | None = None,
        status: Status = "done",
        stats: ReplyStats | Mapping[str, Any] | None = None,
        error: str | None = None,
        steps: Sequence[Step] | None = None,
    ) -> None:
        """Write the last state of a reply; `steps` of None stay as they are. Raises `NotFound`."""
        numbers = asdict(stats) if isinstance(stats, ReplyStats) else dict(stats or {})
        self._write(
            message_id,
            "content = ?, reasoning = ?, reasoning_seconds = ?, reasoning_tokens = ?, status = ?, "
            f"stats_json = ?, error = ?, owner = NULL, {_STEPS}",
            (
                *(_text(content), _optional(reasoning), reasoning_seconds, reasoning_tokens),
                *(status, json.dumps(numbers) if numbers else None, _optional(error), _steps(steps)),
            ),
        )

    def _write(self, message_id: int, change: str, values: tuple[object, ...], only: str = "") -> None:
        with self._transaction() as db:
            query = f"UPDATE message SET {change} WHERE id = ? {only}"
            if db.execute(query, (*values, message_id)).rowcount == 0:
                raise NotFound(f"there is no such message {message_id} to write in {self.path}")

    def recover(self) -> int:
        """Mark replies that a crash left "streaming" as "stopped"; returns how many.

        Rows of another app that is still running on the same file, and of this one, are left alone.
        """
        recovered = 0
        query = "SELECT DISTINCT owner FROM message WHERE status = 'streaming'"
        with self._transaction() as db:
            tokens = {row[0] for row in db.execute(query)} | set(history_owner.known_owners(self.path))
            for token in tokens:
                if token is None or history_owner.is_dead(self.path, token):
                    recovered += _stop_rows(db, token)
        return recovered

    def _own(self) -> str:
        if self._owner is None:
            self._owner = history_owner.Owner(self.path)
        return self._owner.token

    # ------------------------------------------------------------------------------------------------- search

    def search(self, query: str, limit: int = 50) -> list[SearchHit]:
        """Messages that contain every word of `query`, newest first; `tag:NAME` keeps to conversations with that tag.

        Words are found anywhere, also inside other words. With the full-text index upper and lower case are
        the same; words of one or two characters are looked for without it, ASCII letters in either case.
        """
        words, tags = history_tags.split_query(query)
        if not words or limit <= 0:
            return []
        indexed = [word for word in words if len(word) >= 3] if self._full_text else []
        tagged, values = history_tags.conditions(tags, "c.id")
        conditions = ["c.deleted IS NULL", "m.status <> 'streaming'", *tagged]
        if indexed:
            conditions.append("m.id IN (SELECT rowid FROM message_fts WHERE message_fts MATCH ?)")
            values.append(" AND ".join('"' + word.replace('"', '""') + '"' for word in indexed))
        for word in words:
            if word not in indexed:
                conditions.append("m.content LIKE ? ESCAPE '\\'")
                values.append(_pattern(word))
        rows = self._rows(
            "SELECT m.conversation_id, m.id, c.title, m.role, m.content, m.created FROM message m "
            f"JOIN conversation c ON c.id = m.conversation_id WHERE {' AND '.join(conditions)} "
            "ORDER BY m.id DESC LIMIT ?",
            (*values, limit),
        )
        return [
            SearchHit(conversation_id, message_id, title, role, snippet(content, words), created)
            for conversation_id, message_id, title, role, content, created in rows
        ]

    def search_titles(self, query: str, limit: int = 10) -> list[Conversation]:
        """Conversations whose title contains every word of `query`, the most recently used first.

        `tag:NAME` keeps to those with that tag, and may be all of the query.
        """
        words, tags = history_tags.split_query(query)
        if not (words or tags) or limit <= 0:
            return []
        tagged, values = history_tags.conditions(tags, "conversation.id")
        conditions = " AND ".join(["deleted IS NULL", *tagged] + ["title LIKE ? ESCAPE '\\'"] * len(words))
        rows = self._rows(
            f"SELECT {CONVERSATION_COLUMNS} FROM conversation WHERE {conditions} ORDER BY updated DESC LIMIT ?",
            (*values, *map(_pattern, words), limit),
        )
        return [conversation_from(row) for row in rows]

    # ------------------------------------------------------------------------------------------------- inside

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._explained():
            return self._db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; other threads wait."""
        with self._lock, self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        if self._closed:
            raise HistoryError(f"the conversation store {self.path} is closed already")
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise explain(error, self.path) from error


def _stop_rows(db: sqlite3.Connection, owner: str | None) -> int:
    query = "UPDATE message SET status = 'stopped', owner = NULL WHERE status = 'streaming' AND owner IS ?"
    return db.execute(query, (owner,)).rowcount


def _pattern(word: str) -> str:
    """What LIKE finds anywhere, the word taken literally."""
    return "%" + "".join("\\" + c if c in "%_\\" else c for c in word) + "%"


def _text(text: str) -> str:
    """Half a surrogate pair cannot be stored as UTF-8: it becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _steps(steps: Sequence[Step] | None) -> str | None:
    return json.dumps(rounds.to_json(steps)) if steps is not None else None


def _optional(text: str | None) -> str | None:
    return None if text is None else _text(text)


def _no_conversation(conversation_id: int) -> NotFound:
    return NotFound(f"there is no conversation {conversation_id}", hint="It may have been deleted.")

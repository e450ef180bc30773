"""The tables of the conversation store, how its file is opened, and how an older file becomes a newer one.

`user_version` counts the migrations a file has seen. A migration is never edited once released: a new one is
appended. Everything happens inside one transaction, so a killed migration leaves the old file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from qwen_mlx.errors import HistoryError

APPLICATION_ID = 0x51574D58  # "QWMX", so that a file of another program is recognised
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # AUTOINCREMENT: an id is never used twice, so a second app never meets another row under a known id.
        # parent_id < id makes a cycle impossible, whatever a hand-edited file says.
        """CREATE TABLE conversation (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            title TEXT NOT NULL DEFAULT '',
            model TEXT,
            system TEXT,
            params_json TEXT NOT NULL DEFAULT '{}',
            pinned INTEGER NOT NULL DEFAULT 0,
            archived INTEGER NOT NULL DEFAULT 0,
            deleted REAL,
            created REAL NOT NULL,
            updated REAL NOT NULL,
            leaf_id INTEGER REFERENCES message(id) ON DELETE SET NULL
        )""",
        """CREATE TABLE message (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            conversation_id INTEGER NOT NULL REFERENCES conversation(id) ON DELETE CASCADE,
            parent_id INTEGER REFERENCES message(id) ON DELETE CASCADE
                CHECK (parent_id IS NULL OR parent_id < id),
            role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
            content TEXT NOT NULL DEFAULT '',
            reasoning TEXT,
            reasoning_seconds REAL,
            reasoning_tokens INTEGER,
            model TEXT,
            stats_json TEXT,
            status TEXT NOT NULL CHECK (status IN ('streaming', 'done', 'stopped', 'failed')),
            error TEXT,
            owner TEXT,
            created REAL NOT NULL
        )""",
        "CREATE INDEX message_tree ON message (conversation_id, parent_id)",
        "CREATE INDEX message_parent ON message (parent_id)",
        "CREATE INDEX message_streaming ON message (owner) WHERE status = 'streaming'",
        "CREATE INDEX conversation_order ON conversation (pinned DESC, updated DESC) WHERE deleted IS NULL",
    ),
    (
        "ALTER TABLE message ADD COLUMN attachments_json TEXT",
        "ALTER TABLE message ADD COLUMN steps_json TEXT",
        # Of older conversations nobody knows who named them: as a person's, their titles stay.
        "ALTER TABLE conversation ADD COLUMN titled_by TEXT NOT NULL DEFAULT 'person'",
        """CREATE TABLE tag (
            conversation_id INTEGER NOT NULL REFERENCES conversation(id) ON DELETE CASCADE,
            name TEXT NOT NULL COLLATE NOCASE,
            PRIMARY KEY (conversation_id, name)
        ) WITHOUT ROWID""",
        "CREATE INDEX tag_name ON tag (name)",
    ),
)
SCHEMA_VERSION = len(MIGRATIONS)
BUSY_SECONDS = 5.0

# A row is indexed once it is finished: a checkpoint each second would index the same text again and again.
# Trigrams find Chinese, which has no spaces between words; the default tokenizer does not.
_SEARCH_TABLE = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS message_fts USING fts5("
    "content, content='message', content_rowid='id', tokenize='trigram')"
)
_INDEX_NEW = "INSERT INTO message_fts(rowid, content) VALUES (new.id, new.content);"
_INDEX_OLD = "INSERT INTO message_fts(message_fts, rowid, content) VALUES ('delete', old.id, old.content);"
_SEARCH_TRIGGERS = {
    "message_fts_insert": f"AFTER INSERT ON message WHEN new.status <> 'streaming' BEGIN {_INDEX_NEW} END",
    "message_fts_delete": f"AFTER DELETE ON message WHEN old.status <> 'streaming' BEGIN {_INDEX_OLD} END",
    # SQLite fires the triggers of one update in no promised order, so each kind of update has exactly one.
    "message_fts_finish": "AFTER UPDATE OF content, status ON message "
    f"WHEN old.status = 'streaming' AND new.status <> 'streaming' BEGIN {_INDEX_NEW} END",
    "message_fts_reopen": "AFTER UPDATE OF content, status ON message "
    f"WHEN old.status <> 'streaming' AND new.status = 'streaming' BEGIN {_INDEX_OLD} END",
    "message_fts_change": "AFTER UPDATE OF content, status ON message "
    "WHEN old.status <> 'streaming' AND new.status <> 'streaming' AND old.content IS NOT new.content "
    f"BEGIN {_INDEX_OLD} {_INDEX_NEW} END",
}


def open_database(path: Path) -> sqlite3.Connection:
    """Open the store, make or migrate it, and see that it can be written.

    The connection is in autocommit mode and may be used by one thread at a time.

    Raises:
        HistoryError: the file was made by a newer program, or belongs to another one.
        sqlite3.Error, OSError: it is damaged, read-only or not reachable.
    """
    _create_private(path)
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA foreign_keys = ON")
        migrate(db, str(path))
        _use_wal(db)
        db.execute("PRAGMA synchronous = NORMAL")
        # A read-only file is noticed here and not when the first answer is already there.
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("COMMIT")
        ensure_search(db)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except BaseException:
        db.close()
        raise
    return db


def _create_private(path: Path) -> None:
    """Make `path` readable by its owner only; SQLite gives its side files the same rights."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite does not wait when two apps do it at once, so we do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Bring an open database up to `SCHEMA_VERSION`.

    Raises:
        HistoryError: the file was made by a newer program, or belongs to another one.
    """
    _refuse_foreign(connection, name)
    if _version(connection) == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another app, perhaps a newer one, may have migrated while we waited for the lock.
        _refuse_foreign(connection, name)
        for statements in MIGRATIONS[_version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _refuse_foreign(connection: sqlite3.Connection, name: str) -> None:
    # One statement, so that it sees one moment while another app makes the file.
    version, application, tables = connection.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
        "FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if version > SCHEMA_VERSION:
        raise HistoryError(
            f"the conversation store {name} was made by a newer qwen-mlx",
            expected=f"schema {SCHEMA_VERSION} or older",
            found=f"schema {version}",
            hint="Upgrade qwen-mlx, or set QWEN_MLX_HOME to another folder.",
        )
    if application not in (0, APPLICATION_ID) or (version == 0 and tables):
        raise HistoryError(
            f"{name} is a database of another program",
            hint="Nothing was changed. Move it away, or set QWEN_MLX_HOME to another folder.",
        )


def has_search(connection: sqlite3.Connection) -> bool:
    """Whether the full-text index is there and kept up to date."""
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'message_fts_%'"
    return int(connection.execute(query).fetchone()[0]) == len(_SEARCH_TRIGGERS)


def ensure_search(connection: sqlite3.Connection) -> None:
    """Create or repair the full-text index, where this SQLite can make one.

    Without one the triggers are dropped, since they would make every write fail; the index is filled again
    the first time a Python that has it opens the file.
    """
    present = {
        row[0]
        for row in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'message_fts_%'"
        )
    }
    available = has_trigram(connection)
    if present == (set(_SEARCH_TRIGGERS) if available else set()):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for trigger in present:
            connection.execute(f'DROP TRIGGER IF EXISTS "{trigger}"')
        if available:
            connection.execute(_SEARCH_TABLE)
            connection.execute("INSERT INTO message_fts(message_fts) VALUES ('delete-all')")
            connection.execute(
                "INSERT INTO message_fts(rowid, content) SELECT id, content FROM message WHERE status <> 'streaming'"
            )
            for trigger, body in _SEARCH_TRIGGERS.items():
                connection.execute(f"CREATE TRIGGER IF NOT EXISTS {trigger} {body}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def has_trigram(connection: sqlite3.Connection) -> bool:
    """Whether this SQLite can make a trigram index (it needs FTS5 and SQLite 3.34)."""
    try:
        connection.execute("CREATE VIRTUAL TABLE temp.trigram_probe USING fts5(x, tokenize='trigram')")
        connection.execute("DROP TABLE temp.trigram_probe")
    except sqlite3.OperationalError:
        return False
    return True

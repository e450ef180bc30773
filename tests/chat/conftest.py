"""A store in a temporary folder."""

import contextlib
import sqlite3

import pytest

from qwen_mlx.chat.history import History


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "history.db"


@pytest.fixture
def history(path):
    with History(path) as store:
        yield store


@pytest.fixture
def integrity(path):
    """What SQLite finds wrong with the file; `[("ok",)], []` is nothing."""

    def check():
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("INSERT INTO message_fts(message_fts, rank) VALUES ('integrity-check', 0)")
            pages = db.execute("PRAGMA integrity_check").fetchall()
            return pages, db.execute("PRAGMA foreign_key_check").fetchall()

    return check

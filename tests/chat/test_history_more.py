"""Tags, titles, attachments and tool calls in the store, and a file of the version that had none of them."""

import contextlib
import sqlite3

import pytest

from qwen_mlx.chat import history_schema
from qwen_mlx.chat.attachments import Attachment
from qwen_mlx.chat.history import History
from qwen_mlx.chat.history_tags import tag_name
from qwen_mlx.chat.steps import Call, Step
from qwen_mlx.errors import NotFound, UsageError
from qwen_mlx.events import Message

FILES = (Attachment("notes.md", "one\n"),)
STEP = Step("Let me see.", "hm", (Call("calculator", {"expression": "1+1"}, "2", "done"),))


def test_an_older_file_is_migrated_and_nothing_is_lost(path):
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in history_schema.MIGRATIONS[0]:
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {history_schema.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO conversation (id, title, created, updated, leaf_id) VALUES (7, 'kept', 1, 2, NULL)")
        for number, role in ((1, "user"), (2, "assistant")):
            db.execute(
                "INSERT INTO message (id, conversation_id, parent_id, role, content, status, created) "
                "VALUES (?, 7, ?, ?, ?, 'done', 1)",
                (number, number - 1 or None, role, f"text {number}"),
            )
        db.execute("UPDATE conversation SET leaf_id = 2")
        db.commit()
    with History(path) as history:
        found = history.conversation(7)
        assert (found.title, found.titled_by, found.tags) == ("kept", "person", ())
        assert [(m.content, m.attachments, m.steps) for m in history.messages(7)] == [
            ("text 1", (), ()),
            ("text 2", (), ()),
        ]
        assert not history.entitle(7, "other"), "nobody knows who named it, so it stays"
        assert history.tag(7, "old") and [hit.message_id for hit in history.search("text tag:old")] == [2, 1]
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (history_schema.SCHEMA_VERSION,)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_migration_that_is_killed_leaves_the_old_file(path, monkeypatch):
    path.parent.mkdir()
    monkeypatch.setattr(history_schema, "MIGRATIONS", history_schema.MIGRATIONS[:1])
    monkeypatch.setattr(history_schema, "SCHEMA_VERSION", 1)
    with contextlib.closing(history_schema.open_database(path)):
        pass
    monkeypatch.undo()
    broken = (history_schema.MIGRATIONS[0], (*history_schema.MIGRATIONS[1], "SELECT no_such_function()"))
    monkeypatch.setattr(history_schema, "MIGRATIONS", broken)
    with pytest.raises(sqlite3.OperationalError):
        history_schema.open_database(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert "steps_json" not in {row[1] for row in db.execute("PRAGMA table_info(message)")}


def test_files_and_rounds_are_kept_with_their_message(history):
    conversation = history.new_conversation("x")
    question = history.add_message(conversation.id, "user", "What is it?", attachments=FILES)
    assert question.attachments == FILES
    answer = history.add_message(conversation.id, "assistant", status="streaming")
    history.update_message(answer.id, content="", steps=[STEP])
    history.update_message(answer.id, content="Tw")
    assert history.message(answer.id).steps == (STEP,), "a checkpoint without them leaves them"
    history.finish_message(answer.id, content="Two.")
    kept = history.message(answer.id)
    assert kept.steps == (STEP,) and kept.content == "Two."
    assert [m.role for m in kept.as_messages()] == ["assistant", "tool", "assistant"]
    assert history.messages(conversation.id)[0].as_messages() == [
        Message("user", '<file name="notes.md">\none\n</file>\n\nWhat is it?')
    ]
    assert [hit.message_id for hit in history.search("What is")] == [question.id]


def test_an_answer_that_was_killed_between_its_rounds_keeps_them(history):
    conversation = history.new_conversation("x")
    answer = history.add_message(conversation.id, "assistant", status="streaming")
    waiting = Step("", None, (Call("read_file", {"path": "x"}),))
    history.update_message(answer.id, content="", steps=[STEP, waiting])
    history._owner.close()
    assert history.recover() == 1
    kept = history.message(answer.id)
    assert kept.status == "stopped" and kept.steps == (STEP, waiting)
    assert [m.role for m in kept.as_messages()] == ["assistant", "tool"] * 2


def test_damaged_json_counts_as_nothing(history, path):
    conversation = history.new_conversation("x")
    message = history.add_message(conversation.id, "user", "x", attachments=FILES)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE message SET attachments_json = '{', steps_json = '[1, {}]'")
        db.commit()
    assert history.message(message.id).attachments == ()
    assert history.message(message.id).steps == (Step("", None, ()),)


def test_titles(history):
    first = history.new_conversation("the first line", titled_by="line")
    assert history.entitle(first.id, "A better one")
    assert history.conversation(first.id).title == "A better one"
    assert history.conversation(first.id).titled_by == "model"
    assert not history.entitle(first.id, "Another"), "one is enough"
    named = history.new_conversation("the first line", titled_by="line")
    history.rename(named.id, "Mine")
    assert not history.entitle(named.id, "Theirs") and history.conversation(named.id).title == "Mine"
    history.delete(named.id)
    assert not history.entitle(named.id, "Theirs")
    assert history.new_conversation("x").titled_by == "person"


def test_tags_are_given_taken_and_found(history):
    ids = [history.new_conversation(title).id for title in ("alpha", "beta", "gamma")]
    for identity in ids:
        history.add_message(identity, "user", "common words")
    assert history.tag(ids[0], "#Work") and history.tag(ids[1], "work") and history.tag(ids[1], "two words")
    assert not history.tag(ids[0], "WORK"), "it has it"
    assert history.conversation(ids[1]).tags == ("two-words", "Work"), "spelled as it was first"
    assert history.tags() == [("two-words", 1), ("Work", 2)]
    assert [c.title for c in history.search_titles("tag:work")] == ["beta", "alpha"]
    assert [c.title for c in history.search_titles("tag:wo alp")] == ["alpha"], "its beginning is enough"
    assert [c.title for c in history.search_titles("tag:")] == ["beta", "alpha"], "any tag"
    assert history.search_titles("tag:%") == [] == history.search_titles("tag:nothing")
    assert {hit.conversation_id for hit in history.search("common tag:work")} == set(ids[:2])
    assert [hit.conversation_id for hit in history.search("co tag:work tag:two")] == [ids[1]]
    assert history.search("tag:work") == []
    assert history.untag(ids[0], "work") and not history.untag(ids[0], "work")
    history.delete(ids[1])
    assert history.tags() == []
    with pytest.raises(NotFound):
        history.tag(99, "x")


def test_tags_are_renamed_and_deleted_everywhere(history):
    ids = [history.new_conversation(title).id for title in "abc"]
    for identity in ids:
        history.tag(identity, "old")
    history.tag(ids[0], "new")
    assert history.rename_tag("old", "NEW") == 3
    assert history.tags() == [("new", 3)] or history.tags() == [("NEW", 3)]
    assert history.rename_tag("new", "New") == 3 and history.tags() == [("New", 3)]
    assert history.rename_tag("none", "x") == 0
    assert history.delete_tag("NEW") == 3 and history.tags() == []
    assert history.conversation(ids[0]).tags == ()


def test_tags_go_with_their_conversation(history, path):
    conversation = history.new_conversation("x")
    history.tag(conversation.id, "gone")
    history.delete(conversation.id)
    assert history.purge(-1) == 1
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM tag").fetchone() == (0,)


@pytest.mark.parametrize(("text", "name"), [(" #a b ", "a-b"), ("tag:x", "x"), ("春天", "春天"), ("a\nb\x1b", "a-b")])
def test_names_of_tags(text, name):
    assert tag_name(text) == name


@pytest.mark.parametrize(("text", "reason"), [("  # ", "needs a name"), ("x" * 41, "too long")])
def test_what_is_no_tag(text, reason):
    with pytest.raises(UsageError, match=reason):
        tag_name(text)

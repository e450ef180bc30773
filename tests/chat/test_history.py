"""The conversation store: conversations, the tree of messages, the search."""

import contextlib
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_mlx.chat import history_schema
from qwen_mlx.chat.history import History
from qwen_mlx.errors import HistoryError, NotFound
from qwen_mlx.events import Message, ReplyStats

# ------------------------------------------------------ conversations


def test_conversations_are_ordered_paged_and_complete(history):
    made = [
        history.new_conversation(f"number {n}", model="demo", system="Be brief", params={"top_k": n}, now=n)
        for n in range(5)
    ]
    history.pin(made[1].id)
    history.archive(made[3].id)
    assert [c.title for c in history.conversations()] == ["number 1", "number 4", "number 2", "number 0"]
    assert [c.title for c in history.conversations(limit=2, offset=1)] == ["number 4", "number 2"]
    assert [c.title for c in history.conversations(archived=True)] == ["number 3"]
    again = history.conversation(made[2].id)
    assert (again.model, again.system, dict(again.params)) == ("demo", "Be brief", {"top_k": 2})
    assert (again.created, again.updated, again.leaf_id) == (2, 2, None)


def test_records_cannot_be_changed(history):
    conversation = history.new_conversation("x", params={"a": 1})
    with pytest.raises(AttributeError):
        conversation.title = "y"
    with pytest.raises(TypeError):
        conversation.params["a"] = 2


def test_a_message_moves_its_conversation_to_the_front(history):
    old, new = history.new_conversation("old", now=1), history.new_conversation("new", now=2)
    history.add_message(old.id, "user", "again", now=3)
    assert [c.id for c in history.conversations()] == [old.id, new.id]


def test_rename_and_configure(history):
    conversation = history.new_conversation("first")
    history.rename(conversation.id, "第二 🙂")
    history.configure(conversation.id, system="Speak French", params={"temperature": 0})
    again = history.conversation(conversation.id)
    assert (again.title, again.system, dict(again.params)) == ("第二 🙂", "Speak French", {"temperature": 0})


def test_delete_undelete_purge(history, path, integrity):
    keep, gone = history.new_conversation("keep"), history.new_conversation("gone")
    history.add_message(gone.id, "user", "the secret word")
    history.delete(gone.id)
    assert [c.id for c in history.conversations()] == [keep.id]
    assert history.search("secret") == []
    for call in (history.conversation, history.messages, history.delete):
        with pytest.raises(NotFound):
            call(gone.id)
    assert history.purge() == 0, "a fresh deletion can still be undone"
    history.undelete(gone.id)
    assert [m.content for m in history.messages(gone.id)] == ["the secret word"]
    history.delete(gone.id)
    assert history.purge(older_than=0) == 1
    with pytest.raises(NotFound):
        history.undelete(gone.id)
    assert integrity() == ([("ok",)], [])


def test_unknown_ids_are_not_found(history):
    for call in (
        lambda: history.messages(9),
        lambda: history.rename(9, "x"),
        lambda: history.add_message(9, "user", "x"),
        lambda: history.message(9),
        lambda: history.update_message(9, content="x"),
        lambda: history.finish_message(9, content="x"),
        lambda: history.show_branch(9),
    ):
        with pytest.raises(NotFound):
            call()


# ------------------------------------------------------ messages


def test_a_reply_from_start_to_end(history):
    conversation = history.new_conversation()
    history.add_message(conversation.id, "user", "What is 27 + 48?", now=5)
    reply = history.add_message(conversation.id, "assistant", status="streaming", model="demo", now=6)
    assert reply.status == "streaming"
    history.update_message(reply.id, content="", reasoning="20 + 40", reasoning_seconds=0.5, reasoning_tokens=3)
    assert history.messages(conversation.id)[-1].reasoning == "20 + 40"
    stats = ReplyStats(prompt_tokens=20, completion_tokens=9, decode_seconds=2.0)
    history.finish_message(
        reply.id,
        content="75",
        reasoning="20 + 40 + 15",
        reasoning_seconds=1.5,
        reasoning_tokens=7,
        stats=stats,
    )
    question, answer = history.messages(conversation.id)
    assert (question.role, question.created, question.parent_id) == ("user", 5, None)
    assert (answer.parent_id, answer.model, answer.status, answer.error) == (
        question.id,
        "demo",
        "done",
        None,
    )
    assert (answer.reasoning_seconds, answer.reasoning_tokens) == (1.5, 7)
    assert ReplyStats(**answer.stats) == stats
    assert answer.as_messages() == [Message("assistant", "75", "20 + 40 + 15")]


def test_a_finished_reply_takes_no_late_checkpoint(history):
    conversation = history.new_conversation()
    reply = history.add_message(conversation.id, "assistant", status="streaming")
    history.finish_message(reply.id, content="whole", status="failed", error="out of memory")
    with pytest.raises(NotFound):
        history.update_message(reply.id, content="wh")
    stored = history.message(reply.id)
    assert (stored.content, stored.status, stored.error) == ("whole", "failed", "out of memory")


def test_branches(history):
    conversation = history.new_conversation()
    question = history.add_message(conversation.id, "user", "q")
    first = history.add_message(conversation.id, "assistant", "a1")
    follow = history.add_message(conversation.id, "user", "q2")
    second = history.add_message(conversation.id, "assistant", "a2", parent_id=question.id)
    assert [m.content for m in history.messages(conversation.id)] == ["q", "a2"]
    assert history.siblings(first.id) == [first.id, second.id] == history.siblings(second.id)
    shown = history.messages(conversation.id)[1]
    assert (shown.position, shown.siblings) == (2, 2)
    history.show_branch(first.id)
    assert [m.id for m in history.messages(conversation.id)] == [question.id, first.id, follow.id]
    assert [m.id for m in history.branch(second.id)] == [question.id, second.id]
    other = history.new_conversation()
    with pytest.raises(NotFound):
        history.add_message(other.id, "user", "x", parent_id=question.id)
    root = history.add_message(conversation.id, "user", "edited q", parent_id=None)
    assert [m.id for m in history.messages(conversation.id)] == [root.id]
    assert (root.position, root.siblings) == (2, 2)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parents=st.lists(st.integers(-1, 30), min_size=1, max_size=30))
def test_any_tree_shows_the_path_to_its_leaf(history, parents):
    conversation = history.new_conversation()
    made = []
    for number, parent in enumerate(parents):
        below = made[parent].id if 0 <= parent < len(made) else None
        made.append(history.add_message(conversation.id, "user", str(number), parent_id=below))
    parent_of = {message.id: message.parent_id for message in made}
    for message in made:
        history.show_branch(message.id)
        shown = [m.id for m in history.messages(conversation.id)]
        assert message.id in shown
        assert [parent_of[i] for i in shown] == [None, *shown[:-1]]
        assert shown[-1] not in parent_of.values()


def test_bad_roles_and_states_are_refused(history):
    conversation = history.new_conversation()
    with pytest.raises(HistoryError):
        history.add_message(conversation.id, "robot", "x")
    reply = history.add_message(conversation.id, "assistant", status="streaming")
    with pytest.raises(HistoryError):
        history.finish_message(reply.id, content="x", status="perhaps")
    assert history.message(reply.id).status == "streaming", "the refused write left nothing behind"


@pytest.mark.parametrize("text", ["", "nul \0 inside", "🙂" * 1000, "lone \ud800 half", "x" * 2_000_000, "a'b\"c--"])
def test_any_text_can_be_stored(history, text):
    conversation = history.new_conversation(text[:50])
    message = history.add_message(conversation.id, "user", text)
    assert history.message(message.id).content == text.replace("\ud800", "?")


def test_a_hand_edited_file_with_bad_json_is_read(history, path):
    conversation = history.new_conversation(params={"a": 1})
    message = history.add_message(conversation.id, "user", "x")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE conversation SET params_json = '{broken'")
        db.execute("UPDATE message SET stats_json = '[1]'")
        db.commit()
    assert dict(history.conversation(conversation.id).params) == {}
    assert dict(history.message(message.id).stats) == {}


# ------------------------------------------------------ search


@pytest.fixture(params=["trigram", "without index"])
def searchable(request, path, monkeypatch):
    if request.param == "without index":
        monkeypatch.setattr(history_schema, "has_trigram", lambda connection: False)
    with History(path) as store:
        yield store


def test_search_finds_words_in_any_script(searchable):
    conversation = searchable.new_conversation("models")
    texts = [
        "通义千问是大语言模型",
        "Which command quantizes a model?",
        "100% of a_b\\c",
        'say "quantize" twice',
    ]
    ids = [searchable.add_message(conversation.id, "user", text).id for text in texts]

    def found(query):
        return [hit.message_id for hit in searchable.search(query)]

    assert found("大语言") == [ids[0]]
    assert found("千问") == [ids[0]]
    assert found("quantize") == [ids[3], ids[1]], "newest first"
    assert found("model quantize") == [ids[1]]
    assert found("QUANTIZE") == [ids[3], ids[1]]
    assert found("0%") == [ids[2]]
    assert found("_b") == [ids[2]]
    assert found("a_b\\c") == [ids[2]]
    assert found('"quantize"') == [ids[3]]
    for nothing in ("", "   ", "axb", "NOT quantize", "zzz OR quantize", "\0", "zzz"):
        assert found(nothing) == []
    hit = searchable.search("千问")[0]
    assert (hit.conversation_id, hit.title, hit.role) == (conversation.id, "models", "user")
    assert "千问" in hit.snippet


def test_search_follows_changes_and_has_a_limit(searchable, path):
    conversation = searchable.new_conversation()
    reply = searchable.add_message(conversation.id, "assistant", status="streaming")
    searchable.update_message(reply.id, content="half a pineapple")
    assert searchable.search("pineapple") == []
    searchable.finish_message(reply.id, content="a whole pineapple")
    assert [hit.message_id for hit in searchable.search("pineapple")] == [reply.id]
    searchable.finish_message(reply.id, content="a banana")
    assert searchable.search("pineapple") == []
    assert len(searchable.search("banana")) == 1
    for _ in range(5):
        searchable.add_message(conversation.id, "user", "banana")
    assert len(searchable.search("banana", limit=3)) == 3
    assert searchable.search("banana", limit=0) == []


def test_snippet_is_around_the_word(history):
    conversation = history.new_conversation()
    history.add_message(conversation.id, "user", "begin " * 100 + "needle\n\nhere" + " end" * 100)
    snippet = history.search("needle")[0].snippet
    assert "needle here" in snippet
    assert snippet.startswith("…") and snippet.endswith("…")
    assert len(snippet) < 140


def test_the_index_is_filled_again_when_a_python_that_has_it_returns(path, monkeypatch, integrity):
    with History(path) as store:
        conversation = store.new_conversation()
        store.add_message(conversation.id, "user", "written with the index")
    with monkeypatch.context() as patch:
        patch.setattr(history_schema, "has_trigram", lambda connection: False)
        with History(path) as store:
            store.add_message(conversation.id, "user", "written without the index")
            assert len(store.search("written")) == 2
    with History(path) as store:
        assert len(store.search("written")) == 2
    assert integrity() == ([("ok",)], [])

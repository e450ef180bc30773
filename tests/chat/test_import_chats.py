"""Conversations of other programs: their formats, what is kept, and what a hostile file cannot do."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_mlx.chat import export, foreign
from qwen_mlx.chat.foreign import read
from qwen_mlx.chat.history import History
from qwen_mlx.chat.import_chats import iter_import
from qwen_mlx.chat.json_stream import JsonError, elements
from qwen_mlx.errors import Cancelled, NotFound, UsageError
from qwen_mlx.events import CancelToken, ChatsImported, Progress


def node(key, parent, children, role=None, *parts, kind="text", **message):
    if role is None:
        return {"id": key, "parent": parent, "children": children, "message": None}
    content = {"content_type": kind, "parts": list(parts)} | message.pop("content", {})
    body = {"id": key, "author": {"role": role, "name": None, "metadata": {}}, "content": content, "metadata": {}}
    return {"id": key, "parent": parent, "children": children, "message": body | message}


CHATGPT = {
    "title": "  A\nplan ",
    "create_time": 1_700_000_000.5,
    "update_time": 1_700_000_900.0,
    "conversation_id": "c-1",
    "current_node": "a2b",
    "mapping": {
        "root": node("root", None, ["s"]),
        "s": node("s", "root", ["h"], "system", ""),
        "h": node("h", "s", ["u"], "user", "about me", metadata={"is_visually_hidden_from_conversation": True}),
        "u": node("u", "h", ["t", "a2"], "user", "Hello", create_time=1_700_000_001.0),
        "t": node(
            "t", "u", ["a1"], "assistant", kind="thoughts", content={"thoughts": [{"summary": "S", "content": "C"}]}
        ),
        "a1": node("a1", "t", ["call"], "assistant", "First.", metadata={"model_slug": "gpt-x"}),
        "call": node("call", "a1", ["tool"], "assistant", "search()", recipient="browser"),
        "tool": node("tool", "call", ["a1b"], "tool", "found"),
        "a1b": node("a1b", "tool", [], "assistant", "And more."),
        "a2": node("a2", "u", ["u2"], "assistant", "Second."),
        "u2": node(
            "u2", "a2", ["a2b"], "user", "Look", {"content_type": "image_asset_pointer"}, kind="multimodal_text"
        ),
        "a2b": node("a2b", "u2", [], "assistant", kind="code", content={"language": "python", "text": "x = 1"}),
    },
}
WEBUI = {
    "id": "w-1",
    "title": "Web",
    "created_at": 1_700_000_000,
    "updated_at": 1_700_000_100,
    "chat": {
        "models": ["qwen3:8b"],
        "params": {"system": "Be brief."},
        "timestamp": 1_700_000_000_123,
        "history": {
            "currentId": "3",
            "messages": {
                "1": {"id": "1", "parentId": None, "childrenIds": ["2", "3"], "role": "user", "content": "Why?"},
                "2": {
                    "id": "2",
                    "parentId": "1",
                    "childrenIds": [],
                    "role": "assistant",
                    "content": "No.",
                    "model": "a",
                },
                "3": {
                    "id": "3",
                    "parentId": "1",
                    "childrenIds": [],
                    "role": "assistant",
                    "model": "qwen3:8b",
                    "content": '<details type="reasoning" done="true" duration="7">\n<summary>Thought for 7 seconds'
                    "</summary>\n> a &lt; b\n> \n> so\n</details>\nBecause <b>.",
                },
            },
        },
    },
}


def write(path: Path, value) -> Path:
    path.write_text(json.dumps(value), "utf-8")
    return path


def run(history, path, **options) -> ChatsImported:
    *progress, last = list(iter_import(history, path, **options))
    assert all(isinstance(event, Progress) for event in progress) and isinstance(last, ChatsImported)
    return last


@pytest.fixture
def history(tmp_path):
    with History(tmp_path / "history.db") as store:
        yield store


def tree(history, conversation_id=1):
    """(role, content, content of the parent) of every message."""
    found = history.all_messages(conversation_id)
    by_id = {message.id: message for message in found}
    return [(m.role, m.content, by_id[m.parent_id].content if m.parent_id else None) for m in found]


# ---------------------------------------------------------------------------------------------------- the formats


def test_chatgpt_with_its_branches(history, tmp_path):
    last = run(history, write(tmp_path / "conversations.json", [CHATGPT]))
    assert last == ChatsImported(str(tmp_path / "conversations.json"), "ChatGPT", 1, 0, 0, 5)
    (conversation,) = history.conversations()
    assert (conversation.title, conversation.model, conversation.created) == ("A plan", "gpt-x", 1_700_000_000.5)
    assert conversation.updated == 1_700_000_900.0
    assert tree(history) == [
        ("user", "Hello", None),
        ("assistant", "First.\n\nAnd more.", "Hello"),
        ("assistant", "Second.", "Hello"),
        ("user", "Look", "Second."),
        ("assistant", "```python\nx = 1\n```", "Look"),
    ]
    assert [message.content for message in history.messages(1)] == ["Hello", "Second.", "Look", "```python\nx = 1\n```"]
    thought = history.all_messages(1)[1]
    assert (thought.reasoning, thought.model, thought.status) == ("**S**\n\nC", "gpt-x", "done")
    assert history.search("Second")[0].conversation_id == 1


@pytest.mark.parametrize("name", ["conversations.json", "folder/conversations-000.json"])
def test_the_archive_as_it_is_sent(history, tmp_path, name):
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("chat.html", "<html>")
        archive.writestr(name, json.dumps([CHATGPT]))
    assert run(history, path).imported == 1


def test_open_webui_with_thinking(history, tmp_path):
    assert run(history, write(tmp_path / "chats.json", [WEBUI])).program == "Open WebUI"
    (conversation,) = history.conversations()
    assert (conversation.title, conversation.system, conversation.model) == ("Web", "Be brief.", "qwen3:8b")
    assert tree(history) == [
        ("user", "Why?", None),
        ("assistant", "No.", "Why?"),
        ("assistant", "Because <b>.", "Why?"),
    ]
    shown = history.messages(1)[-1]
    assert (shown.reasoning, shown.reasoning_seconds) == ("a < b\n\nso", 7.0)


def test_open_webui_before_it_had_branches(history, tmp_path):
    chat = {"title": "Old", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert run(history, write(tmp_path / "c.json", [{"chat": chat, "id": "1"}, chat])).imported == 2
    assert tree(history) == [("user", "a", None), ("assistant", "b", "a")]


@pytest.mark.parametrize("names", [("me", "ollama"), ("user", "assistant")])
def test_oterm(history, tmp_path, names):
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE chat (id INTEGER PRIMARY KEY, name TEXT, model TEXT NOT NULL, system TEXT, tools TEXT)"
        )
        db.execute(
            "CREATE TABLE message (id INTEGER PRIMARY KEY, chat_id INTEGER, author TEXT, text TEXT, images TEXT)"
        )
        db.execute("INSERT INTO chat VALUES (1, 'One', 'qwen3:8b', 'Be kind.', '[]'), (2, 'Empty', 'x', NULL, '[]')")
        rows = [(1, names[0], "Hello"), (1, names[1], "Hi"), (1, "tool", "x"), (1, names[0], "Bye")]
        db.executemany("INSERT INTO message (chat_id, author, text) VALUES (?, ?, ?)", rows)
    db.close()
    before = path.read_bytes()
    last = run(history, path)
    assert (last.program, last.imported, last.empty) == ("oterm", 1, 1)
    assert tree(history) == [("user", "Hello", None), ("assistant", "Hi", "Hello"), ("user", "Bye", "Hi")]
    assert (history.conversation(1).system, history.conversation(1).model) == ("Be kind.", "qwen3:8b")
    assert path.read_bytes() == before
    assert run(history, path).known == 1


def test_our_own_export(history, tmp_path):
    conversation = history.new_conversation("Mine", model="qwen-demo", system="Be brief.", now=1_700_000_000)
    question = history.add_message(conversation.id, "user", "q", now=1_700_000_001)
    history.add_message(conversation.id, "assistant", "one", reasoning="r", parent_id=question.id, now=1_700_000_002)
    history.add_message(conversation.id, "assistant", "two", parent_id=question.id, now=1_700_000_003)
    path = export.write(history, conversation.id, "json", tmp_path)
    with History(tmp_path / "other.db") as other:
        assert run(other, path).imported == 1
        assert tree(other) == tree(history)
        found, original = other.conversation(1), history.conversation(conversation.id)
        assert (found.title, found.system, found.created) == (original.title, original.system, original.created)
        assert other.messages(1)[-1].content == "two" and other.all_messages(1)[1].reasoning == "r"
        assert run(other, path).known == 1
    assert foreign.OURS == export.FORMAT


def test_importing_twice_does_not_double(history, tmp_path):
    path = write(tmp_path / "c.json", [CHATGPT, WEBUI, CHATGPT])
    assert (run(history, path).imported, run(history, path).imported) == (2, 0)
    last = run(history, write(path, [CHATGPT, {**WEBUI, "id": "w-2"}]))
    assert (last.imported, last.known) == (1, 1)
    assert len(history.conversations()) == 3
    history.delete(history.conversations()[0].id)
    assert run(history, path).imported == 1, "who deleted it and imports it again wants it back"


def test_a_trial_writes_nothing(history, tmp_path):
    assert run(history, write(tmp_path / "c.json", [CHATGPT]), dry_run=True).imported == 1
    assert history.conversations() == [] and history.origins() == set()


# ---------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"  ", "empty"),
        (b"hello", "no JSON array or object"),
        (b"[1, 2", "ends in the middle"),
        (b'[{"a": ', "ends in the middle"),
        (b"[[}", "ends in the middle"),
        (b"[[}]", "no JSON"),
        (b"[1}", "do not match"),
        (b"[] x", "follows its end"),
        (b"[" * 1000, "nested too deeply"),
        (b"[1, nonsense]", "no JSON"),
        (b"[{}, 3, null, []]", "no conversation in it"),
        (b"PK\x03\x04 no archive", "cannot be imported"),
        (b"SQLite format 3\0 no database", "cannot be imported"),
    ],
)
def test_a_file_that_is_something_else(history, tmp_path, data, what):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UsageError, match=what) as error:
        run(history, tmp_path / "x")
    assert "ChatGPT" in str(error.value)


def test_a_file_that_is_not_there(history, tmp_path):
    with pytest.raises(NotFound):
        run(history, tmp_path / "nothing.json")
    with pytest.raises(UsageError, match="is a folder"):
        run(history, tmp_path)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("../../conversations.json", "[]")
        archive.writestr("x.json", "[]")
    with pytest.raises(UsageError, match=r"no conversations\.json"):
        run(history, tmp_path / "z.zip")


def test_what_stood_before_the_damage_stays(history, tmp_path):
    (tmp_path / "c.json").write_text(f"[{json.dumps(CHATGPT)}, {{")
    with pytest.raises(UsageError, match="1 of its conversations are imported"):
        run(history, tmp_path / "c.json")
    assert len(history.conversations()) == 1


def test_another_programs_database(history, tmp_path):
    with sqlite3.connect(tmp_path / "d.db") as db:
        db.execute("CREATE TABLE chat (id INTEGER)")
        db.execute("CREATE VIEW message AS SELECT 1 AS id, 1 AS chat_id, 'me' AS author, 'x' AS text")
    db.close()
    with pytest.raises(UsageError, match="not the store of oterm"):
        run(history, tmp_path / "d.db")


def test_it_can_be_stopped(history, tmp_path):
    cancel = CancelToken()
    steps = iter_import(history, write(tmp_path / "c.json", [CHATGPT, WEBUI]), cancel)
    next(steps)
    cancel.cancel()
    with pytest.raises(Cancelled):
        next(steps)
    assert len(history.conversations()) == 1


def test_circles_and_loose_ends_of_a_tree():
    mapping = {
        "a": node("a", None, ["b", "a", "gone", 3], "user", "A"),
        "b": node("b", "a", ["a", "b"], "assistant", "B"),
        "x": node("x", "y", ["y"], "user", "in a circle"),
        "y": node("y", "x", ["x"], "assistant", "in a circle"),
        "c": node("c", "nowhere", [], "user", "C"),
        "d": node("d", "b", [], "user", "not listed by its parent"),
    }
    found = read({"mapping": mapping, "current_node": ["no"]})
    assert [(m.key, m.parent) for m in found.messages] == [("a", None), ("b", "a"), ("d", "b"), ("c", None)]
    assert found.shown == "c"


def test_limits():
    assert foreign.text("x" * 5_000_000) == "x" * foreign.MAX_TEXT
    assert foreign.line("a\n b" + "c" * 1000) == "a b" + "c" * 297
    with pytest.raises(ValueError, match="50,001 messages"):
        read({"mapping": {str(i): {} for i in range(50_001)}})
    with pytest.raises(JsonError, match="longer than 1 MB"):
        list(elements(io.BytesIO(b'["' + b"x" * 2_000_000), 1_000_000))


def test_a_long_chain_needs_no_recursion():
    messages = {str(i): node(str(i), str(i - 1) if i else None, [str(i + 1)], "user", f"m{i}") for i in range(20_000)}
    found = read({"mapping": messages, "current_node": "19999"})
    assert len(found.messages) == 20_000 and found.shown == "19999"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_700_000_000, 1.7e9),
        (1_700_000_000_000, 1.7e9),
        (1.7e18, 1.7e9),
        ("2023-11-14T22:13:20+00:00", 1.7e9),
        ("2023-11-14T22:13:20Z", 1.7e9),
        *((bad, None) for bad in (None, True, "soon", -1, 0, float("nan"), float("inf"), 10**400, [], {})),
    ],
)
def test_times(value, seconds):
    assert foreign.moment(value) == seconds


# ------------------------------------------------------------------------------------------------- any input at all

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
WORDS = ("mapping", "message", "author", "role", "content", "content_type", "parts", "parent", "children", "metadata")
WORDS += ("chat", "history", "messages", "parentId", "childrenIds", "currentId", "id", "title", "timestamp", "thoughts")
entries = st.recursive(
    values | st.sampled_from(["user", "assistant", "text", "a", "b", None]),
    lambda inner: st.dictionaries(st.sampled_from([*WORDS, "a", "b"]), inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=40,
)


@settings(max_examples=150, deadline=None)
@given(entries)
def test_no_entry_breaks_the_reader(entry):
    found = read(entry)
    if found is not None:
        keys: set[str] = set()
        for message in found.messages:
            assert message.parent is None or message.parent in keys, "a parent comes before its children"
            assert message.key not in keys and message.role in ("user", "assistant")
            assert message.content or message.reasoning
            keys.add(message.key)
        assert found.shown in keys


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_tree_is_kept_as_it_is(tmp_path_factory, data):
    """Random trees of questions and answers: the same messages below the same parents, and the same branch shown."""
    count = data.draw(st.integers(1, 12))
    parents = [None] + [data.draw(st.integers(0, i - 1)) for i in range(1, count)]
    depth = [0] * count
    for i in range(1, count):
        depth[i] = depth[parents[i]] + 1
    shown = data.draw(st.integers(0, count - 1))
    mapping = {}
    for i in range(count):
        children = [str(child) for child in range(count) if parents[child] == i]
        role = "assistant" if depth[i] % 2 else "user"
        mapping[str(i)] = node(str(i), None if parents[i] is None else str(parents[i]), children, role, f"text {i}")
    entry = {"id": "x", "title": "t", "mapping": mapping, "current_node": str(shown)}
    folder = tmp_path_factory.mktemp("tree")
    with History(folder / "h.db") as history:
        run(history, write(folder / "c.json", [entry]))
        expected = {(f"text {i}", None if parents[i] is None else f"text {parents[i]}") for i in range(count)}
        assert {(content, parent) for _, content, parent in tree(history)} == expected
        branch, at = [], shown
        while at is not None:
            branch.append(f"text {at}")
            at = parents[at]
        assert [message.content for message in history.messages(1)] == branch[::-1]


@given(st.lists(values, max_size=6), st.integers(1, 40))
def test_pieces_of_json_make_no_difference(entries, size):
    class Slow(io.BytesIO):
        def read(self, _count=-1):
            return super().read(size)

    text = json.dumps(entries, allow_nan=False) if _finite(entries) else json.dumps(entries)
    assert [repr(value) for value, _ in elements(Slow(text.encode()), 10**6)] == [repr(v) for v in json.loads(text)]


def _finite(value) -> bool:
    return "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet='[]{}",:\\ a1', max_size=60).map(str.encode))
def test_no_bytes_break_the_stream(data):
    try:
        found = [value for value, _ in elements(io.BytesIO(data), 10**6)]
    except JsonError:
        return
    assert isinstance(found, list)

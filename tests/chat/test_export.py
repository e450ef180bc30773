"""Conversations as files."""

import json

import pytest

from qwen_mlx.chat import export
from qwen_mlx.chat.attachments import Attachment
from qwen_mlx.chat.history import History
from qwen_mlx.chat.steps import Call, Step
from qwen_mlx.errors import HistoryError, NotFound


@pytest.fixture
def history(tmp_path):
    with History(tmp_path / "history.db") as history:
        conversation = history.new_conversation("27 + 48: easy?", model="qwen3:8b", system="Be brief.", now=1.7e9)
        question = history.add_message(conversation.id, "user", "What is 27 + 48?", now=1.7e9)
        for text in ("74", "75"):
            answer = history.add_message(
                conversation.id, "assistant", parent_id=question.id, model="qwen3:8b", status="streaming", now=1.7e9
            )
            history.finish_message(answer.id, content=text, reasoning="20 + 40 ...", reasoning_seconds=1.25)
        yield history


def test_markdown_is_the_branch_shown(history, tmp_path):
    path = export.write(history, 1, "md", tmp_path)
    text = path.read_text("utf-8")
    assert path.name == "27-48-easy.md"
    assert text.startswith("# 27 + 48: easy?\n")
    assert "## System\n\nBe brief.\n" in text
    assert "## You\n\nWhat is 27 + 48?\n" in text
    assert "<details><summary>Thought for 1.2 s</summary>\n\n20 + 40 ...\n\n</details>\n\n75\n" in text
    assert "74" not in text


def test_json_is_everything(history, tmp_path):
    value = json.loads(export.write(history, 1, "json", tmp_path).read_text("utf-8"))
    assert value["format"] == export.FORMAT and value["system"] == "Be brief."
    assert [(m["id"], m["parent"], m["content"]) for m in value["messages"]] == [
        (1, None, "What is 27 + 48?"),
        (2, 1, "74"),
        (3, 1, "75"),
    ]
    assert value["shown"] == 3
    assert value["created"] == "2023-11-14T22:13:20+00:00"


def test_an_existing_file_is_never_replaced(history, tmp_path):
    first = export.write(history, 1, "md", tmp_path)
    first.write_text("mine")
    second = export.write(history, 1, "md", tmp_path)
    assert second.name == "27-48-easy-2.md"
    assert first.read_text() == "mine"


def test_what_cannot_be_written(history, tmp_path):
    with pytest.raises(NotFound):
        export.write(history, 99, "md", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="cannot be written"):
        export.write(history, 1, "md", tmp_path / "file")


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("春天的诗", "春天的诗"),
        ("a/b\\c:d", "a-b-c-d"),
        ("...", "conversation"),
        ("", "conversation"),
        ("x" * 200, "x" * 60),
        ("-rf", "rf"),
    ],
)
def test_names_of_files(title, name):
    assert export.file_name(title) == name


def test_titles_are_found(history):
    assert [c.title for c in history.search_titles("EASY 27")] == ["27 + 48: easy?"]
    assert history.search_titles("100%") == [] and history.search_titles("  ") == []
    history.delete(1)
    assert history.search_titles("easy") == []


def test_files_tools_and_tags_are_exported(history, tmp_path):
    files = [Attachment("a<b>.md", "```\ncode\n```\n")]
    question = history.add_message(1, "user", "And this?", attachments=files)
    answer = history.add_message(1, "assistant", status="streaming")
    step = Step("Let me see.", None, (Call("calculator", {"expression": "1+1"}, "2", "done"), Call("clock")))
    history.finish_message(answer.id, content="Two.", steps=[step])
    history.tag(1, "sums")
    text = export.write(history, 1, "md", tmp_path).read_text("utf-8")
    assert "qwen3:8b · #sums*" in text
    assert "<details><summary>File a&lt;b&gt;.md</summary>\n\n````\n```\ncode\n```\n````\n\n</details>" in text
    assert '<summary>Tool calculator</summary>\n\n```\n{"expression": "1+1"}\n```\n\n```\n2\n```' in text
    assert "Let me see." in text and "(not run)" in text
    value = json.loads(export.write(history, 1, "json", tmp_path).read_text("utf-8"))
    assert value["tags"] == ["sums"]
    kept = {message["id"]: message for message in value["messages"]}
    assert kept[question.id]["attachments"] == [{"name": "a<b>.md", "text": "```\ncode\n```\n"}]
    assert kept[answer.id]["steps"][0]["calls"][0]["result"] == "2"
    assert "steps" not in kept[1] and "attachments" not in kept[1]

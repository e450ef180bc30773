"""`/import FILE`: conversations of other programs appear in the list."""

import json
from pathlib import Path

import pytest

from qwen_mlx.events import ChatsImported
from tests.chat.test_import_chats import CHATGPT, WEBUI
from tui.chat_import import message_of, path_of


@pytest.mark.parametrize("written", ["{}", "'{}'", '"{}"', "escaped"])
async def test_an_import_appears_in_the_list(stage, tmp_path, written):
    path = tmp_path / "my chats.json"
    path.write_text(json.dumps([CHATGPT, WEBUI]))
    text = str(path).replace(" ", "\\ ") if written == "escaped" else written.format(path)
    async with stage() as s:
        await s.send(f"/import {text}")
        await s.until(lambda: any("2 conversations imported." in toast for toast in s.toasts))
        await s.until(lambda: "A plan" in s.frame() and "Web" in s.frame())
        await s.send(f"/import {text}")
        await s.until(lambda: any("all 2 conversations were here already" in toast for toast in s.toasts))
        await s.chat.open(s.history.search("Because")[0].conversation_id)
        await s.until(lambda: "Because <b>." in s.frame() and "2/2" in s.frame() and "Thought for 7.0 s" in s.frame())


async def test_an_import_that_fails_says_why(stage, tmp_path):
    (tmp_path / "x.json").write_text("hello")
    async with stage() as s:
        await s.send(f"/import {tmp_path / 'x.json'}")
        await s.until(lambda: any("cannot be imported: it is no JSON" in toast for toast in s.toasts))
        await s.send("/import /nothing/there.json")
        await s.until(lambda: any("There is no file /nothing/there.json" in toast for toast in s.toasts))


async def test_the_palette_begins_the_command(stage):
    async with stage() as s:
        await next(c for c in s.app.get_system_commands(s.chat) if c.title == "Import conversations").callback()
        await s.until(lambda: s.prompt.text == "/import ")


def test_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of(" ~/a b.json ") == tmp_path / "a b.json"
    assert path_of("it's.json") == Path("it's.json")
    assert path_of("'a b' c") == Path("'a b' c")


@pytest.mark.parametrize(
    ("imported", "known", "text"),
    [
        (1, 0, "ChatGPT: 1 conversation imported."),
        (2000, 3, "ChatGPT: 2,000 conversations imported; 3 were here already."),
        (0, 3, "ChatGPT: all 3 conversations were here already."),
    ],
)
def test_the_end_in_words(imported, known, text):
    assert message_of(ChatsImported("f", "ChatGPT", imported, known, 0, 9)) == text

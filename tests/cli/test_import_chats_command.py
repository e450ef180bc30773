"""`qwen-mlx import-chats`: from a file of another program to the store."""

from __future__ import annotations

import json

from qwen_mlx import paths
from qwen_mlx.chat.history import History
from qwen_mlx.cli.main import main
from tests.chat.test_import_chats import CHATGPT, WEBUI


def test_it_imports_and_says_so(tmp_path, capsys):
    (tmp_path / "c.json").write_text(json.dumps([CHATGPT, WEBUI, {}]))
    assert main(["import-chats", str(tmp_path / "c.json"), "--dry-run"]) == 0
    assert "2 conversations would be imported, 8 messages" in capsys.readouterr().err
    assert main(["import-chats", str(tmp_path / "c.json")]) == 0
    said = capsys.readouterr()
    assert said.out == "" and "ChatGPT, Open WebUI: 2 conversations imported, 8 messages" in said.err
    assert "1 entry without a message" in said.err
    with History(paths.history_file()) as history:
        assert len(history.conversations()) == 2
    assert main(["import-chats", str(tmp_path / "c.json"), "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["imported"], last["known"]) == (0, 2)


def test_what_cannot_be_imported(tmp_path, capsys):
    assert main(["import-chats", str(tmp_path / "none.json")]) == 3
    (tmp_path / "x.txt").write_text("hello")
    assert main(["import-chats", str(tmp_path / "x.txt")]) == 2
    assert main(["import-chats", ""]) == 2
    errors = capsys.readouterr().err
    assert "there is no file" in errors and "no JSON array or object" in errors and "Traceback" not in errors

"""One message from one line or several, and lines remembered from one run to the next."""

from __future__ import annotations

import io
import os
import stat

import pytest

from qwen_mlx import paths
from qwen_mlx.cli.line_input import read_message, readline_input
from qwen_mlx.cli.terminal import Terminal


def message(*lines):
    """The message, and the prompts that were shown for its lines."""
    left, prompts = list(lines), []

    def read(prompt):
        prompts.append(prompt)
        if not left:
            raise EOFError
        return left.pop(0)

    text = read_message(read)
    assert left == []
    return text, prompts


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["hello"], "hello"),
        ([""], ""),
        (["one\\", "two\\", "three"], "one\ntwo\nthree"),
        (["one\\", ""], "one\n"),
        (['"""one', "", '  two"""'], "one\n\n  two"),
        (['"""', "one", '"""'], "one"),
        (['"""one"""'], "one"),
        (['say """x""" twice'], 'say """x""" twice'),
        (['"""', "C:\\", '"""  '], "C:\\"),
    ],
)
def test_lines_of_a_message(lines, text):
    assert message(*lines) == (text, ["> "] + [". "] * (len(lines) - 1))


def test_ctrl_d_inside_a_message_drops_it():
    with pytest.raises(EOFError):
        message('"""one')


@pytest.fixture
def readline():
    """Python's readline with an empty history, as it is at the start of a program."""
    module = pytest.importorskip("readline")
    module.clear_history()
    yield module
    module.clear_history()


def test_lines_are_remembered_privately(readline):
    out = Terminal(io.StringIO())
    with readline_input(out):
        readline.add_history("first")
        readline.add_history("zweite Zeile: 你好")
    file = paths.data_home() / "lines"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    readline.clear_history()
    with readline_input(out):
        assert readline.get_current_history_length() == 2
        assert readline.get_history_item(2) == "zweite Zeile: 你好"


def test_damaged_or_unwritable_memory_does_not_stop_a_chat(readline, monkeypatch, tmp_path):
    file = paths.data_home() / "lines"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xff\xfe")
    with readline_input(Terminal(io.StringIO())):
        readline.add_history("x")
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("QWEN_MLX_HOME", os.fspath(blocked / "below"))
    with readline_input(Terminal(io.StringIO())) as read:
        assert callable(read)

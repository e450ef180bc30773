"""What may be written to a terminal, and when a line is erased."""

from __future__ import annotations

import io

import pytest

from qwen_mlx.cli.reply_writer import describe_progress, format_bytes
from qwen_mlx.cli.terminal import StatusLine, Terminal, clean
from qwen_mlx.events import Progress
from tests.cli.conftest import FakeTerminal


def test_clean_keeps_text_and_drops_what_steers_a_terminal():
    assert clean("a\tb\n你好 é 👍") == "a\tb\n你好 é 👍"
    assert clean("\x1b[31mred\x1b[0m \x07\x00\x7f\x9b2J\r") == "[31mred[0m 2J"


def test_end_line_begins_a_line_only_when_one_is_open():
    stream = io.StringIO()
    terminal = Terminal(stream)
    for text in ("a", "b", "c\n", "d\ne"):
        terminal.write(text)
        terminal.end_line()
        terminal.end_line()
    assert stream.getvalue() == "a\nb\nc\nd\ne\n"


def test_a_status_line_is_erased_and_not_written_too_often():
    stream = FakeTerminal()
    status = StatusLine(Terminal(stream), interval=3600)
    status.clear()
    assert stream.getvalue() == ""
    status.show("loading\x1b[2J")
    status.show("loading more")
    status.clear()
    status.clear()
    assert stream.getvalue() == "\r\x1b[Kloading[2J\r\x1b[K"


def test_there_is_no_status_line_in_a_file(monkeypatch):
    stream = io.StringIO()
    StatusLine(Terminal(stream)).show("loading")
    assert stream.getvalue() == ""
    monkeypatch.setenv("TERM", "dumb")
    stream = FakeTerminal()
    StatusLine(Terminal(stream)).show("loading")
    assert stream.getvalue() == ""


def test_a_prompt_is_bold_only_in_colour(monkeypatch):
    assert "\x1b[1m> \x01\x1b[0m" in Terminal(FakeTerminal()).bold("> ").replace("\x02", "")
    assert Terminal(io.StringIO()).bold("> ") == "> "
    monkeypatch.setenv("NO_COLOR", "1")
    assert Terminal(FakeTerminal()).bold("> ") == "> "


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Progress("loading", 1, 4, "tensors", "a.safetensors"), "loading: 25 % a.safetensors"),
        (Progress("loading", 7, None, "tensors"), "loading: 7 tensors"),
    ],
)
def test_progress(event, text):
    assert describe_progress(event) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (17_179_869_184, "17.2 GB"), (3e12, "3.0 TB")]
)
def test_bytes(count, text):
    assert format_bytes(count) == text

"""Every test of the command line runs with an environment and folders of its own."""

from __future__ import annotations

import io
import os

import pytest


@pytest.fixture(autouse=True)
def own_environment(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("QWEN_MLX_", "HF_")) or name in ("NO_COLOR", "COLUMNS", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("QWEN_MLX_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("QWEN_MLX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TERM", "xterm-256color")


class FakeTerminal(io.StringIO):
    """A text stream that says it is a terminal."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


class Piped(io.TextIOWrapper):
    """Standard input from a pipe, which is not a file with a number."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(io.BytesIO(data), encoding="ascii")


@pytest.fixture
def stdin(monkeypatch):
    """Sets what standard input is: bytes from a pipe, or a terminal where nobody types."""

    def set_stdin(data: bytes | None) -> None:
        monkeypatch.setattr("sys.stdin", FakeTerminal() if data is None else Piped(data))

    set_stdin(b"")
    return set_stdin


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard output and error terminals, and returns both; to be called in the test itself."""

    def open_terminal() -> tuple[FakeTerminal, FakeTerminal]:
        out, err = FakeTerminal(), FakeTerminal()
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        return out, err

    return open_terminal

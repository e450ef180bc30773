"""`qwen-mlx` alone: it starts the app with a runtime and the history, or says why it cannot."""

from __future__ import annotations

import pytest

from qwen_mlx.cli.main import main
from qwen_mlx.runtime.shelf import LocalShelf
from qwen_mlx.runtime.workshop import LocalWorkshop
from tests.cli.fake_runtime import FakeRuntime


@pytest.fixture
def started(monkeypatch):
    """What the app was started with."""
    calls = []

    def run(runtime, history=None, *, shelf, workshop, **options):
        assert isinstance(shelf, LocalShelf) and isinstance(workshop, LocalWorkshop)
        calls.append({"runtime": runtime, **options})
        return 0

    monkeypatch.setattr("tui.app.run", run)
    return calls


@pytest.mark.parametrize(
    ("words", "model"),
    [([], None), (["tui"], None), (["tui", "-m", "org/one"], "org/one"), (["--model", "org/one"], "org/one")],
)
def test_starts_the_app(words, model, started, terminal, stdin):
    stdin(None)
    terminal()
    runtime = FakeRuntime()
    assert main(words, new_runtime=runtime) == 0
    nothing = {"rope_scaling": None, "kv_bits": None, "theme": None, "text": None}
    assert started == [{"runtime": runtime, "model": model, **nothing, "mouse": True}]


def test_how_it_looks(started, terminal, stdin):
    stdin(None)
    terminal()
    assert main(["--theme", "qwen-light", "--no-mouse", "--text"], new_runtime=FakeRuntime()) == 0
    assert (started[0]["theme"], started[0]["mouse"], started[0]["text"]) == ("qwen-light", False, True)


@pytest.mark.parametrize("words", [["tui", "--kv-bits", "8"], ["--kv-bits", "8"]])
def test_a_smaller_cache(words, started, terminal, stdin):
    stdin(None)
    terminal()
    assert main(words, new_runtime=FakeRuntime()) == 0
    assert started[0]["kv_bits"] == "8"


@pytest.mark.parametrize("words", [["tui", "--rope-scaling", "yarn:4"], ["--rope-scaling", "YARN:4.0"]])
def test_longer_texts(words, started, terminal, stdin):
    stdin(None)
    terminal()
    assert main(words, new_runtime=FakeRuntime()) == 0
    assert started[0]["rope_scaling"] == "yarn:4"


def test_the_default_model_is_a_variable(started, terminal, stdin, monkeypatch):
    monkeypatch.setenv("QWEN_MLX_MODEL", "org/mine")
    stdin(None)
    terminal()
    assert main([], new_runtime=FakeRuntime()) == 0
    assert started[0]["model"] == "org/mine"


def test_without_a_terminal_it_says_what_to_do(started, stdin, capsys):
    stdin(b"hello")
    assert main([], new_runtime=FakeRuntime()) == 2
    assert "qwen-mlx chat" in capsys.readouterr().err
    assert started == []

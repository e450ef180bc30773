"""A conversation with an adapter, through the runtime that owns the model."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from qwen_mlx.adapters import AdapterConfig, attach, save_adapter
from qwen_mlx.checkpoints.load import load
from qwen_mlx.cli.main import main
from qwen_mlx.paths import demo_model
from tests.adapters.tools import shake


def answer(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO())
        code = main(
            ["chat", "hello", "--model", "demo", "--temperature", "0", "--no-think", "--max-tokens", "8", *options]
        )
    out = capsys.readouterr()
    return code, out.out, out.err


def test_an_adapter_changes_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decoder = load(demo_model()).decoder
    attach(decoder, AdapterConfig(rank=2))
    save_adapter(decoder, tmp_path / "nothing")
    shake(decoder, size=0.5)
    save_adapter(decoder, tmp_path / "much")
    plain = answer(capsys)
    assert plain[0] == 0 and plain[1].strip(), plain[2]
    assert answer(capsys, "--adapter", str(tmp_path / "nothing"))[:2] == plain[:2]
    assert answer(capsys, "--adapter", str(tmp_path / "much"))[1] != plain[1]


def test_one_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, "--adapter", str(tmp_path / "none"))
    assert code == 3 and not out and "there is no folder" in err and "Traceback" not in err

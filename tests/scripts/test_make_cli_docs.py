"""docs/cli.md says what --help says."""

from __future__ import annotations

import re
from pathlib import Path

from qwen_mlx import errors
from qwen_mlx.cli.main import COMMANDS
from scripts.make_cli_docs import PAGE, page

ROOT = PAGE.parents[1]


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == page(), "run scripts/make_cli_docs.py"


def test_it_has_every_command_and_exit_code():
    text = page()
    for name in COMMANDS:
        assert f"## qwen-mlx {name}\n" in text
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    for code in {value.exit_code for value in classes if issubclass(value, errors.QwenError)}:
        assert f"\n| {code} |" in text


def test_it_has_every_variable_of_ours():
    files = [file for folder in ("qwen_mlx", "tui") for file in (ROOT / folder).rglob("*.py")]
    files += [ROOT / "scripts" / name for name in ("lib.sh", "chat", "test")]
    used = {
        name for file in files for name in re.findall(r"QWEN_MLX_[A-Z]+(?:_[A-Z]+)*", Path(file).read_text("utf-8"))
    }
    assert used
    assert {name for name in used if f"`{name}`" not in page()} == set()

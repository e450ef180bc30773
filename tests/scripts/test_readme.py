"""What README.md promises is there: its links, its commands, and its Python."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_mlx import paths
from qwen_mlx.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("http"):
            file, _, heading = target.partition("#")
            there = page.parent / file if file else page
            assert there.exists(), target
            headings = re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.MULTILINE) if heading else []
            assert not heading or heading in [title.lower().replace(" ", "-") for title in headings], target


def test_commands_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`qwen-mlx ([a-z-]*[a-z])", text)) == set(COMMANDS) - {"tui"}
    for script in set(re.findall(r"\bscripts/[a-z_.]+[a-z]", text)):
        assert (ROOT / script).exists(), script


@pytest.mark.skipif(not (paths.demo_model() / "model.safetensors").is_file(), reason="the demo model is not built")
def test_the_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip()

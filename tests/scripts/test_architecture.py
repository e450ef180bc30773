"""docs/architecture.md says how long the files of the families are: a family is data, and stays short."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ROOT / "qwen_mlx" / "models" / "families"


def test_every_family_is_in_the_table_and_about_as_long_as_it_says():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = {name: int(lines) for name, lines in re.findall(r"\| `families/(\w+)\.py` \| (\d+) \|", page)}
    found = {
        file.stem: len(file.read_text(encoding="utf-8").splitlines())
        for file in FAMILIES.glob("*.py")
        if file.stem != "__init__"
    }
    assert table.keys() == found.keys()
    assert {name: lines for name, lines in found.items() if abs(lines - table[name]) > max(5, lines // 10)} == {}

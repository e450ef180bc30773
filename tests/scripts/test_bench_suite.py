"""scripts/bench: its options, and the page it writes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from qwen_mlx.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_suite", ROOT / "scripts" / "bench_suite.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_options(script: ModuleType) -> None:
    args, plan = script.parse(["--kinds", "moe,dense", "--contexts", "128,1,128", "--peer-dtypes", ""])
    assert args.kinds == ("moe", "dense") and args.sizes == ("tiny", "0.6b")
    assert plan.contexts == (1, 128) and plan.dtypes == () and plan.weights == ("auto", "quantized")


@pytest.mark.parametrize(
    "options",
    [["--kinds", "sparse"], ["--sizes", "huge"], ["--contexts", "1,x"], ["--contexts", "0"], ["--weights", "half"],
     ["--peer-dtypes", "int8"], ["--bits", "7"]],
)  # fmt: skip
def test_options_that_cannot_be_meant(script: ModuleType, options: list[str]) -> None:
    with pytest.raises(UsageError):
        script.parse(options)
    assert script.main(options) == 2


def test_the_table_replaces_what_is_between_the_marks(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n")
    script.write_page("new", page)
    script.write_page("newer", page)
    assert page.read_text() == f"before\n{script.BEGIN}\n\nnewer\n\n{script.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(UsageError):
        script.write_page("new", page)
    assert page.read_text() == "no marks"


def test_the_page_has_the_marks(script: ModuleType) -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    assert text.count(script.BEGIN) == text.count(script.END) == 1

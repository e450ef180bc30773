"""The benchmark of quantization, on a model small enough for a test; and with it, how much memory it takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts import bench_quantize as bench


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are compared with those of Linux")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """A model of 200 MB is quantized in less memory than it would take to hold it."""
    report = bench.measure(0.2, tmp_path, ["ours-mlx", "ours-best"])
    assert report["bytes"] > 190e6
    for run in ("ours-mlx", "ours-best"):
        assert report[run]["peak_mb"] < 200
    assert list(tmp_path.iterdir()) == [], "everything is deleted"

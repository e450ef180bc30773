"""The benchmark of quantization, on a model small enough for a test; and with it, how much memory it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are compared with those of Linux")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """A model of 200 MB is quantized in less memory than it would take to hold it."""
    # In a small process: the peak of a child begins with what its parent holds, and a test run holds a lot.
    work = f"bench.measure(0.2, Path({str(tmp_path)!r}), ['ours-mlx', 'ours-best'])"
    code = f"import json, sys\nfrom pathlib import Path\nfrom scripts import bench_quantize as bench\nresult = {work}\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(json.dumps(result))"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["bytes"] > 190e6
    for run in ("ours-mlx", "ours-best"):
        assert report[run]["peak_mb"] < 200
    assert list(tmp_path.iterdir()) == [], "everything is deleted"

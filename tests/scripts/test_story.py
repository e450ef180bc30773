"""The whole story in a real terminal, with the demo model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_mlx import paths

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
@pytest.mark.skipif(not (paths.demo_model() / "model.safetensors").is_file(), reason="the demo model is not built")
@pytest.mark.timeout(600)
def test_the_story_is_told_to_its_end():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "story.py"], capture_output=True, text=True, timeout=590)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:]
    assert "the end" in done.stdout

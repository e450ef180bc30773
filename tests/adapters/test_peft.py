"""PEFT loads what we write, and computes the same. Needs a Python with torch, transformers and peft:

QWEN_MLX_REFERENCE_PYTHON=reference/bin/python pytest -m reference tests/adapters
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qwen_mlx.adapters import AdapterConfig, attach, save_adapter
from qwen_mlx.checkpoints.load import load
from tests.adapters.recorded import Recorded
from tests.adapters.tools import shake
from tests.parity import ParityCase

PYTHON = os.environ.get("QWEN_MLX_REFERENCE_PYTHON", sys.executable)
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_training_fixtures" / "peft_logits.py"
CASES = [
    ("qwen2_base", AdapterConfig(rank=3, alpha=7, rank_pattern={"o_proj": 2}, alpha_pattern={"layers.1.*": 5})),
    ("qwen2_base", AdapterConfig("dora", 3, modules_to_save=("embed_tokens", "lm_head"))),
    ("qwen3_tied", AdapterConfig(rank=3, rslora=True, dropout=0.1, modules_to_save=("lm_head",))),
    ("qwen3_tied", AdapterConfig("dora", 2, targets=("q_proj", "down_proj"), layers=(0, 2), rslora=True)),
    ("qwen3_moe", AdapterConfig(rank=2, dropout=0.1)),
    ("qwen3_moe", AdapterConfig(rank=2, targets=("experts.gate_up_proj",), rslora=True)),
    ("qwen3_moe", AdapterConfig(rank=2, targets=("experts.down_proj", "q_proj"), layers=(1,))),
    ("qwen2_moe", AdapterConfig(rank=2, rank_pattern={"experts.down_proj": 3})),
    ("qwen3_next", AdapterConfig(rank=2, alpha=3)),
    ("qwen3_next", AdapterConfig("dora", 2, targets=("in_proj", "out_proj", "q_proj"))),
    ("qwen3_5_text", AdapterConfig(rank=2)),
    ("qwen3_5_moe_text", AdapterConfig(rank=2)),
]


NAMES = [f"{i}-{model}-{config.method}" for i, (model, config) in enumerate(CASES)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each case, logits of the base and of the adapter as we compute them, and the latter as PEFT does."""
    if subprocess.run([PYTHON, "-c", "import torch, peft, transformers"], capture_output=True).returncode:
        pytest.skip(f"{PYTHON} has no torch, transformers and peft")
    folder = tmp_path_factory.mktemp("peft")
    ids = Recorded("qwen3_lora").ids
    ours: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, (model, config) in zip(NAMES, CASES):
        decoder = load(ParityCase(model).build(folder / "model" / name)).decoder
        before = np.array(decoder(ids))
        attach(decoder, config)
        decoder.eval()
        shake(decoder)
        save_adapter(decoder, folder / name)
        ours[name] = before, np.array(decoder(ids))
    arguments = [text for name, (model, _) in zip(NAMES, CASES) for text in (model, str(folder / name))]
    ran = subprocess.run([PYTHON, str(SCRIPT), *arguments], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    complaints = [line for line in ran.stdout.splitlines() if "missing" in line or "unexpected" in line]
    assert not complaints
    return {name: (*ours[name], np.load(folder / name / "peft_logits.npy")) for name in NAMES}


@pytest.mark.reference
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_peft_computes_the_same(name: str, written: dict) -> None:
    before, ours, theirs = written[name]
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=5e-4)
    assert np.abs(ours - before).max() > 0.1

"""Models with random weights: of every family, and the same model for mlx-lm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from qwen_mlx import load
from qwen_mlx.errors import UsageError
from qwen_mlx.evaluation import random_model
from qwen_mlx.models import read_spec

import mlx.core as mx  # isort: skip
import numpy as np

SIZES = {"qwen3": 0.596, "qwen3_moe": 1.390, "qwen2_moe": 1.413, "qwen3_5": 0.752, "qwen3_next": 1.334}  # 10^9


@pytest.mark.parametrize("bits", [4, None])
@pytest.mark.parametrize("family", random_model.SHAPES)
def test_it_is_the_same_model_for_mlx_lm(family: str, bits: int | None, tmp_path: Path) -> None:
    folder = random_model.ensure(tmp_path, "tiny", bits, family=family)
    ids = mx.array([[3, 17, 900, 5, 5, 90, 41, 8]])
    ours = np.array(load(folder, weights="quantized").decoder(ids))
    assert 0.1 < ours.std() < 10 and np.isfinite(ours).all()
    if sys.version_info < (3, 11):
        pytest.skip("mlx-lm needs Python 3.11")
    utils = pytest.importorskip("mlx_lm.utils")
    peer, _ = utils.load_model(folder)
    peer.set_dtype(mx.float32)
    np.testing.assert_allclose(ours, np.array(peer(ids)), atol=2e-3)


@pytest.mark.parametrize("family", random_model.SHAPES)
def test_sizes(family: str) -> None:
    spec = read_spec(random_model.config(family, "0.6b", None))
    assert spec.parameters / 1e9 == pytest.approx(SIZES[family], abs=0.001)
    assert 0.4 < spec.active_parameters / 1e9 < 0.8


def test_made_once_and_anew_when_the_shape_has_changed(tmp_path: Path) -> None:
    said: list[str] = []
    folder = random_model.ensure(tmp_path, "tiny", 4, said.append)
    first = (folder / "model.safetensors").read_bytes()
    assert len(said) == 1
    random_model.ensure(tmp_path, "tiny", 4, said.append)
    assert len(said) == 1
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    random_model.ensure(tmp_path, "tiny", 4, said.append)
    assert len(said) == 3 and (folder / "model.safetensors").read_bytes() == first


@pytest.mark.parametrize(("family", "name"), [("qwen3", "0.7b"), ("qwen2", "tiny"), ("qwen3_moe", "32b")])
def test_no_such_shape(family: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        random_model.ensure(tmp_path, name, 4, family=family)
    assert list(tmp_path.iterdir()) == []

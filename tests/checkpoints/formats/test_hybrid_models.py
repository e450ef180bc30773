"""FP8 of the families with linear attention: their tensors change names and shapes on the way, as mlx-lm has them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qwen_mlx.checkpoints.formats.fp8 import E4M3, decode_rows
from qwen_mlx.checkpoints.load import load
from scripts.formats import samples
from tests.checkpoints.formats.helpers import run_import
from tests.parity import ParityCase

import mlx.core as mx  # isort: skip

BLOCK = (32, 32)
SETTINGS = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(BLOCK)}


def to_fp8(weight):
    """Codes and scales of the nearest float8 numbers; the last block of a row may be shorter."""
    high, wide = BLOCK
    grid = (-(-weight.shape[0] // high), -(-weight.shape[1] // wide))
    scales = np.empty(grid, np.float32)
    for i, j in np.ndindex(grid):
        scales[i, j] = np.abs(weight[i * high : (i + 1) * high, j * wide : (j + 1) * wide]).max() / 448 + 1e-9
    rows = np.repeat(scales, high, axis=0)[: weight.shape[0]]
    scaled = weight / np.repeat(rows, wide, axis=1)[:, : weight.shape[1]]
    codes = np.delete(np.arange(256), [127, 255])
    order = codes[np.argsort(E4M3[codes])]
    middles = (E4M3[order][1:] + E4M3[order][:-1]) / 2
    return order[np.searchsorted(middles, scaled)].astype(np.uint8), scales


@pytest.mark.parametrize("name", ["qwen3_next", "qwen3_5_wrapped", "qwen3_5_moe_text", "qwen2_moe"])
def test_fp8(name, tmp_path):
    case = ParityCase(name)
    stored: samples.Stored = {}
    plain: samples.Stored = {}
    packed = 0
    for key, array in case.weights().items():
        is_projection = array.ndim == 2 and key.endswith("_proj.weight")
        if is_projection:
            codes, scales = to_fp8(array)
            stored[key] = ("F8_E4M3", codes)
            stored[f"{key}_scale_inv"] = ("F32", scales)
            plain[key] = ("F32", decode_rows(codes, scales, 0, BLOCK))
            packed += 1
        else:
            stored[key] = plain[key] = ("F32", array)
    assert packed
    samples.Sample(case.config() | {"quantization_config": SETTINGS}, stored).write(tmp_path / "fp8")
    samples.Sample(case.config(), plain).write(tmp_path / "plain")
    run_import(tmp_path / "fp8", tmp_path / "floats", dtype="float32", dequantize=True)
    run_import(tmp_path / "fp8", tmp_path / "eight", dtype="float32")
    ids = mx.array(case.arrays["ids"][:1] if "ids" in case.arrays else [[1, 2, 3, 4]])
    expected, floats, eight = (
        np.array(load(tmp_path / folder, weights="expanded").decoder(ids)) for folder in ("plain", "floats", "eight")
    )
    np.testing.assert_allclose(floats, expected, atol=1e-4)
    assert np.abs(eight - expected).std() < 0.1 * expected.std()
    config = json.loads((tmp_path / "eight" / "config.json").read_text())
    assert "quantization" in config or all(array.shape[-1] % 32 for _, array in plain.values())


def test_how_fast_a_state_decays_is_kept_as_it_is(tmp_path):
    case = ParityCase("qwen3_next")
    stored: samples.Stored = {key: ("F32", array) for key, array in case.weights().items()}
    key = next(k for k, (_, array) in stored.items() if array.ndim == 2 and k.endswith("o_proj.weight"))
    codes, scales = to_fp8(stored[key][1])
    stored |= {key: ("F8_E4M3", codes), f"{key}_scale_inv": ("F32", scales)}
    samples.Sample(case.config() | {"quantization_config": SETTINGS}, stored).write(tmp_path / "fp8")
    run_import(tmp_path / "fp8", tmp_path / "new", dtype="bfloat16")
    written = mx.load(str(tmp_path / "new" / "model.safetensors"))
    decays = {k: a for k, a in written.items() if k.endswith("A_log")}
    assert decays and all(array.dtype == mx.float32 for array in decays.values())
    for k, array in decays.items():
        np.testing.assert_array_equal(np.array(array), case.weights()[k])
    assert written["model.norm.weight"].dtype == mx.bfloat16

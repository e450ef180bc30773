"""A model that is imported computes what the model it came from computes, unpacked by the program it came from.

`scripts/make_format_fixtures.py` recorded the logits; the weights are drawn again.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from scripts.formats import samples
from tests.checkpoints.formats.helpers import FIXTURES, logits, run_import, write_sample

# Formats that MLX holds without another rounding.
EXACT = [
    form
    for form in (*samples.HUB_FORMATS, *samples.GGUF_FORMATS)
    if form not in ("gptq_desc_act", "fp8", "Q6_K", "Q4_K_M")
]
REQUANTIZED = ["gptq_desc_act", "fp8", "Q6_K", "Q4_K_M"]
# Of the logits, whose standard deviation is 1.2 to 1.9. Eight bits change weights by 0.5 % of theirs.
REQUANTIZED_TOLERANCE = 0.15


@pytest.fixture(scope="module")
def reference():
    with np.load(FIXTURES / "logits.npz") as stored:
        return {name: stored[name] for name in stored}


@pytest.fixture(scope="module")
def checksums():
    return json.loads((FIXTURES / "samples.json").read_text())


def difference(tmp_path, reference, checksums, form, model, **options):
    assert samples.checksum(form, model) == checksums[f"{form}/{model}"], "numpy draws other numbers than the fixture's"
    plan = run_import(write_sample(tmp_path, form, model), tmp_path / "new", **options)
    return plan, float(np.abs(logits(tmp_path / "new") - reference[f"{form}/{model}"]).max())


@pytest.mark.parametrize("model", samples.CONFIGS)
@pytest.mark.parametrize("form", EXACT)
def test_in_float32_nothing_is_lost(form, model, tmp_path, reference, checksums):
    plan, off = difference(tmp_path, reference, checksums, form, model, dtype="float32")
    assert plan.exact
    assert off < 5e-5


@pytest.mark.parametrize("model", samples.CONFIGS)
@pytest.mark.parametrize("form", REQUANTIZED)
def test_what_mlx_cannot_hold_gets_eight_bits(form, model, tmp_path, reference, checksums):
    plan, off = difference(tmp_path, reference, checksums, form, model, dtype="float32")
    assert not plan.exact
    assert off < REQUANTIZED_TOLERANCE
    assert any("quantized anew" in note for note in plan.notes)
    shares = [share for share in plan.shares if share.fate == "requantized"]
    assert {share.becomes for share in shares} == {"8-bit g64 affine"}


@pytest.mark.parametrize("model", samples.CONFIGS)
@pytest.mark.parametrize("form", [*REQUANTIZED, "awq", "Q5_K"])
def test_unpacked_floats_are_the_same_numbers(form, model, tmp_path, reference, checksums):
    plan, off = difference(tmp_path, reference, checksums, form, model, dtype="float32", dequantize=True)
    assert {share.becomes for share in plan.shares} == {"floats"}
    assert off < 5e-5


@pytest.mark.parametrize("form", ["gptq", "ct_int4", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16"])
def test_these_are_exact_in_float16_too(form, tmp_path, reference, checksums):
    plan, off = difference(tmp_path, reference, checksums, form, "qwen3")
    assert plan.dtype == "float16"
    assert plan.exact
    assert off < 5e-5


@pytest.mark.parametrize("form", ["awq", "gptq_v2_asym", "ct_int4_asym", "Q4_K", "Q5_K"])
def test_of_these_float16_rounds_the_scales(form, tmp_path, reference, checksums):
    plan, off = difference(tmp_path, reference, checksums, form, "qwen3")
    assert plan.dtype == "float16" and not plan.exact
    assert any(share.fate == "scales rounded" for share in plan.shares)
    assert any("scales are rounded to float16" in note for note in plan.notes)
    assert 1e-5 < off < 0.06


def test_bfloat16_can_be_asked_for(tmp_path, reference, checksums):
    plan, off = difference(tmp_path, reference, checksums, "awq", "qwen3", dtype="bf16")
    assert plan.dtype == "bfloat16"
    assert off < 5e-2
    assert json.loads((tmp_path / "new" / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("form", ["awq", "Q4_K_M"])
def test_packed_weights_run_as_unpacked_ones(form, tmp_path):
    run_import(write_sample(tmp_path, form, "qwen3_moe"), tmp_path / "new", dtype="float32")
    np.testing.assert_allclose(logits(tmp_path / "new", "quantized"), logits(tmp_path / "new"), atol=1e-4)


@pytest.mark.parametrize("form", ["gptq", "fp8", "Q4_K_M"])
@pytest.mark.parametrize("model", samples.CONFIGS)
def test_mlx_lm_computes_the_same(form, model, tmp_path, reference):
    mlx_lm = pytest.importorskip("mlx_lm.utils")
    import mlx.core as mx

    run_import(write_sample(tmp_path, form, model), tmp_path / "new", dtype="float32")
    network, _ = mlx_lm.load_model(tmp_path / "new")
    found = np.array(network(mx.array([samples.PROMPT]))[0])
    np.testing.assert_allclose(found, logits(tmp_path / "new"), atol=2e-4)


def test_requantize_gives_every_matrix_the_format_that_is_asked_for(tmp_path, reference, checksums):
    plan, off = difference(tmp_path, reference, checksums, "Q8_0", "qwen3_moe", dtype="float32", requantize="6:32")
    packed = {share.becomes for share in plan.shares if share.fate == "requantized"}
    assert "6-bit g32 affine" in packed
    assert {form.split()[0] for form in packed} == {"6-bit", "8-bit"}  # the router is never below 8
    assert 1e-3 < off < 0.4
    assert plan.bits_after < plan.bits_before

"""The fixtures belong to the table of cases, and their weights can be drawn again."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from scripts.parity.cases import all_cases
from tests import parity
from tests.parity import ParityCase, parity_cases

CASES = {case.name: case for case in all_cases()}


def test_every_case_has_a_fixture_and_the_other_way_round():
    assert len(CASES) == len(all_cases())
    assert {case.name for case in parity_cases()} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_fixture_belongs_to_its_case(name):
    case, fixture = CASES[name], ParityCase(name)
    assert fixture.config() == case.config
    recipe = fixture.info["weights"]
    assert (recipe["seed"], recipe["small_rows"], tuple(recipe["extra"])) == (case.seed, case.small_rows, case.extra)
    assert fixture.arrays["input_ids"].shape == (1, case.length)
    assert sum(fixture.info["decode_pieces"]) == case.length
    same = np.array_equal(fixture.arrays["decode_logits"], fixture.arrays["logits"])
    assert same == case.decode_equals_full
    assert fixture.info["weakest_detection"][1] > 10 * fixture.tolerance


@pytest.mark.parametrize("name", CASES)
def test_weights_are_what_they_were(name):
    tensors = ParityCase(name).weights()
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in tensors.values())


def test_other_weights_are_noticed(tmp_path, monkeypatch):
    shutil.copytree(parity.FIXTURES / "qwen3_s1", tmp_path / "qwen3_s1")
    path = tmp_path / "qwen3_s1" / "reference.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    info["weights"]["seed"] += 1
    path.write_text(json.dumps(info), encoding="utf-8")
    monkeypatch.setattr(parity, "FIXTURES", tmp_path)
    with pytest.raises(ValueError, match="draws other weights"):
        ParityCase("qwen3_s1").weights()


@pytest.mark.reference
@pytest.mark.parametrize(
    "name", ["qwen1_long", "qwen2_dca", "qwen2_moe_swa", "qwen2_yarn_options", "qwen3_5_moe_wrapped"]
)
def test_numbers_can_be_computed_again(name):
    pytest.importorskip("torch").set_num_threads(1)
    pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    from scripts.make_parity_fixtures import changes
    from scripts.parity.recording import record

    assert changes(record(CASES[name]), parity.FIXTURES / name) == []

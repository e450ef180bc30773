"""A model that is loaded with another configuration than its file's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen_mlx import load
from qwen_mlx.checkpoints.save import hub_tensors
from qwen_mlx.errors import CheckpointError, ConfigError, UsageError
from tests.models import tiny
from tests.parity import ParityCase

import mlx.core as mx  # isort: skip
import numpy as np

IDS = mx.arange(1, 40)[None]
# Fixtures with a scaling, and how it is asked for by name.
SCALED = {
    "qwen2_yarn": "yarn:4",
    "qwen3_yarn": "yarn:4:16",
    "qwen3_moe_yarn": None,
    "qwen2_linear": "linear:4",
    "qwen2_dynamic": "dynamic:2",
}


def without_scaling(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_parameters")}


def logits_error(decoder: Any, case: ParityCase) -> float:
    found = np.array(decoder(mx.array(case.arrays["input_ids"])))
    return float(np.abs(found - case.arrays["logits"]).max())


@pytest.mark.parametrize("name", SCALED)
def test_a_scaling_by_name_computes_what_one_in_the_file_does(name: str, tmp_path: Path) -> None:
    case = ParityCase(name)
    config = without_scaling(case.config())
    rope = case.config()["rope_scaling"]
    words = SCALED[name] or f"{rope.get('rope_type', rope.get('type'))}:{rope['factor']:g}:16"
    folder = case.build(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(config))
    assert logits_error(load(folder).decoder, case) > 10 * case.tolerance
    assert logits_error(load(folder, rope_scaling=words).decoder, case) <= case.tolerance
    assert logits_error(load(folder, config={"rope_scaling": rope}).decoder, case) <= case.tolerance
    assert json.loads((folder / "config.json").read_text()) == config


def test_a_scaling_can_be_taken_away(tmp_path: Path) -> None:
    case = ParityCase("qwen3_yarn")
    folder = case.build(tmp_path / "m")
    plain = load(folder, config={"rope_scaling": None})
    none = load(folder, rope_scaling="none")
    ids = mx.array(case.arrays["input_ids"])
    assert mx.array_equal(none.decoder(ids), plain.decoder(ids))
    assert not mx.allclose(none.decoder(ids), load(folder).decoder(ids), atol=1e-3)


@pytest.mark.parametrize("spelling", ["config.json", "config_hf5.json"])
@pytest.mark.parametrize("name", ["qwen3_5_wrapped", "qwen3_5_moe_wrapped", "qwen3_5_text", "qwen3_next"])
def test_partial_and_wrapped_ropes_are_scaled_too(name: str, spelling: str, tmp_path: Path) -> None:
    """As Qwen3.5's cards write it: all of rope_parameters, with the scaling added."""
    case = ParityCase(name)
    folder = case.build(tmp_path / "m", spelling)
    config = case.config(spelling)
    text = config.get("text_config", config)
    added = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    if "rope_parameters" in text:
        change = {"rope_parameters": {**text["rope_parameters"], **added}}
    else:
        change = {"rope_scaling": added}
    ids = mx.array(case.arrays["input_ids"])
    by_name = load(folder, rope_scaling="yarn:4:16")
    assert mx.array_equal(by_name.decoder(ids), load(folder, config=change).decoder(ids))
    assert not mx.allclose(by_name.decoder(ids), load(folder).decoder(ids), atol=1e-3)
    assert by_name.spec.max_positions == max(64, load(folder).spec.max_positions)


def test_the_model_knows_the_changed_configuration(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path, tiny.QWEN3, hub_tensors(tiny.decoder(tiny.QWEN3)))
    model = load(folder, config={"max_position_embeddings": 512, "eos_token_id": 7}, rope_scaling="yarn:2")
    assert (model.config["max_position_embeddings"], model.config["eos_token_id"]) == (1024, 7)
    assert model.info().context == 1024
    assert load(folder).info().context == 256


def test_changes_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path, tiny.QWEN3, hub_tensors(tiny.decoder(tiny.QWEN3)))
    with pytest.raises(ConfigError, match="hidden_size"):
        load(folder, config={"hidden_size": "wide"})
    with pytest.raises(CheckpointError, match="do not belong together"):
        load(folder, config={"num_hidden_layers": 3})
    with pytest.raises(UsageError, match="yarn:4:32768"):
        load(folder, rope_scaling="yarn")
    for changes in ([("hidden_size", 3)], {3: 4}):
        with pytest.raises(UsageError, match="a mapping of its keys"):
            load(folder, config=changes)  # type: ignore[arg-type]

"""Losses and gradients are those of transformers: `scripts/make_training_fixtures/{sft,moe}.py` recorded them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_mlx import load
from qwen_mlx.models import Decoder
from qwen_mlx.training.ops import balance, load_balancing_loss, router_use, sft_loss
from scripts.parity.weights import fingerprint, hub_layout, random_weights
from tests.training.ops.rows import Arrays, gradients_of

import mlx.core as mx  # isort: skip
import mlx.utils

FIXTURES = Path(__file__).parents[2] / "fixtures" / "training"
# Of float32 sums in another order, relative to the largest value.
TOLERANCE = 1e-5


class Reference:
    """One fixture, and the model of it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.info: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(FIXTURES / f"{name}.npz") as stored:
            self.arrays = {key: stored[key] for key in stored}
        self._folder = folder

    def decoder(self) -> Decoder:
        info = self.info
        shapes = {name: tuple(shape) for name, shape in info["shapes"].items()}
        weights = random_weights(shapes, info["seed"], info["config"]["model_type"])
        assert math.isclose(fingerprint(weights), info["fingerprint"], rel_tol=1e-6)
        return self.loaded("weights", weights)

    def loaded(self, name: str, tensors: dict[str, np.ndarray]) -> Decoder:
        """A decoder with these parameters, which are named as transformers names them."""
        folder = self._folder / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.info["config"]), encoding="utf-8")
        tensors = hub_layout(tensors, self.info["config"], 0, (), False)
        mx.save_safetensors(str(folder / "model.safetensors"), {k: mx.array(v) for k, v in tensors.items()})
        return load(folder).decoder

    def batch(self, number: int, packed: bool = True) -> Arrays:
        """A micro-batch, all texts in one row, or one in each."""
        ids, attention, labels = (self.arrays[f"{number}.{name}"] for name in ("ids", "attention", "labels"))
        lengths = attention.sum(axis=1)
        made: dict[str, list[np.ndarray]] = {name: [] for name in ("ids", "targets", "weights", "positions", "starts")}
        begin = 0
        for row, length in enumerate(lengths):
            size = length if packed else ids.shape[1]
            following = np.append(labels[row, 1:size], -100)
            made["ids"].append(ids[row, :size])
            made["targets"].append(np.maximum(following, 0))
            made["weights"].append((following != -100).astype(np.float32))
            made["positions"].append(np.where(np.arange(size) < length, np.arange(size), 0))
            own = np.where(np.arange(size) < length, 0, np.arange(size))
            made["starts"].append(own + (begin if packed else 0))
            begin += size
        shape = (1, -1) if packed else (len(lengths), -1)
        joined = {name: np.concatenate(parts).reshape(shape) for name, parts in made.items()}
        return {name: mx.array(x if x.dtype == np.float32 else x.astype(np.int32)) for name, x in joined.items()}


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_loss_and_gradients_of_a_window(tmp_path: Path, packed: bool) -> None:
    """Two micro-batches, divided by the number of tokens learnt in both."""
    reference = Reference("sft", tmp_path)
    decoder = reference.decoder()
    gradients: dict[str, mx.array] = {}
    weight = 0.0
    for number, expected in enumerate(reference.info["losses"]):
        batch = reference.batch(number, packed)
        loss, own = gradients_of(decoder, lambda m, b=batch, k=number: sft_loss(m, b, checkpoint_every=k)[0])
        assert loss / reference.info["learnt"] == pytest.approx(expected, rel=TOLERANCE)
        weight += sft_loss(decoder, batch)[1].item()
        gradients = {name: gradients.get(name, 0) + g for name, g in own.items()}
    assert weight == reference.info["learnt"]
    tensors = {k.removeprefix("gradient."): v for k, v in reference.arrays.items() if k.startswith("gradient.")}
    expected_gradients = dict(mlx.utils.tree_flatten(reference.loaded("gradients", tensors).parameters()))
    assert gradients.keys() == expected_gradients.keys()
    for name, array in expected_gradients.items():
        found = np.array(gradients[name]) / weight
        np.testing.assert_allclose(found, np.array(array), atol=TOLERANCE * np.abs(np.array(array)).max(), rtol=0)


def test_router_loss_of_micro_batches(tmp_path: Path) -> None:
    """With the attention mask; its gradient in the routers, and the length of every other."""
    reference = Reference("moe", tmp_path)
    decoder = reference.decoder()
    coefficient = reference.info["config"]["router_aux_loss_coef"]
    for number, expected in enumerate(reference.info["micro_batches"]):
        batch = reference.batch(number, packed=number == 0)

        def mean(m: Decoder, batch: Arrays = batch) -> mx.array:
            total, weight, _ = sft_loss(m, batch, balance_coefficient=coefficient)
            return total / weight

        loss, gradients = gradients_of(decoder, mean)
        assert loss == pytest.approx(expected["loss"], rel=TOLERANCE)
        total, weight, metrics = sft_loss(decoder, batch)
        assert (total / weight).item() == pytest.approx(expected["token_loss"], rel=TOLERANCE)
        assert metrics["moe_loss"].item() == pytest.approx(expected["aux"], rel=TOLERANCE)
        for layer in range(2):
            gate = reference.arrays[f"{number}.gradient.model.layers.{layer}.mlp.gate.weight"]
            found = np.array(gradients[f"layers.{layer}.mlp.gate.weight"])
            np.testing.assert_allclose(found, gate, atol=TOLERANCE * np.abs(gate).max(), rtol=0)
            for ours, theirs in (
                ("mlp.experts.gate_up_proj.weight", "mlp.experts.gate_up_proj"),
                ("mlp.experts.down_proj.weight", "mlp.experts.down_proj"),
                ("self_attn.o_proj.weight", "self_attn.o_proj.weight"),
            ):
                length = reference.arrays[f"{number}.length.model.layers.{layer}.{theirs}"]
                found_length = mx.linalg.norm(gradients[f"layers.{layer}.{ours}"].reshape(-1)).item()
                assert found_length == pytest.approx(float(length), rel=TOLERANCE)


def test_router_loss_of_a_window(tmp_path: Path) -> None:
    """Selections of the whole window: the mean over micro-batches is the loss of all as one batch."""
    reference = Reference("moe", tmp_path)
    routers = [mx.array(reference.arrays[f"router.{layer}"]) for layer in range(2)]
    mask = mx.array(reference.arrays["mask"])
    experts, top_k = (reference.info["config"][key] for key in ("num_experts", "num_experts_per_tok"))
    whole = load_balancing_loss(routers, experts, top_k, mask)
    assert whole.item() == pytest.approx(reference.info["window"], rel=TOLERANCE)
    unmasked = load_balancing_loss(routers, experts, top_k)
    assert unmasked.item() == pytest.approx(reference.info["window_unmasked"], rel=TOLERANCE)
    border = reference.arrays["0.ids"].size
    uses = [router_use([r[own] for r in routers], top_k, mask[own]) for own in (slice(0, border), slice(border, None))]
    selections, tokens = uses[0].selections + uses[1].selections, uses[0].tokens + uses[1].tokens
    mean = sum(balance(use, selections, tokens) * use.tokens for use in uses) / tokens
    assert mean.item() == pytest.approx(reference.info["window"], rel=TOLERANCE)
    alone = sum(balance(use, use.selections, use.tokens) * use.tokens for use in uses) / tokens
    assert abs(alone.item() - mean.item()) > 1e-3


def test_a_running_window_is_that_of_all_batches_so_far(tmp_path: Path) -> None:
    reference = Reference("moe", tmp_path)
    decoder = reference.decoder()
    first, second = reference.batch(0), reference.batch(1)
    nothing = (mx.zeros((2, 6)), mx.zeros(()))
    _, _, metrics = sft_loss(decoder, first, window=nothing)
    assert metrics["moe_loss"].item() == pytest.approx(reference.info["micro_batches"][0]["aux"], rel=TOLERANCE)
    seen = (metrics["moe_selections"], metrics["moe_tokens"])
    _, _, later = sft_loss(decoder, second, window=seen)
    assert later["moe_tokens"].item() == reference.arrays["1.attention"].sum()
    assert later["moe_loss"].item() != pytest.approx(reference.info["micro_batches"][1]["aux"], rel=1e-3)
    assert later["moe_selections"].sum().item() == 2 * 2 * later["moe_tokens"].item()

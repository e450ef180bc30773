"""What PEFT computes with the same adapter: loss, every gradient, logits; and its files, read and written again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qwen_mlx.adapters import load_adapter, peft_write, registry, save_adapter, set_mix
from qwen_mlx.adapters.sites import ROUTER, sites
from qwen_mlx.adapters.stored import Part
from qwen_mlx.models import Decoder
from tests.adapters.recorded import CASES, Recorded

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import mlx.utils

WITH_GRADIENTS = [name for name in CASES if any(k.startswith("gradient/") for k in Recorded(name).arrays)]


def loss_of(decoder: Decoder, recorded: Recorded) -> mx.array:
    """Mean cross entropy of the tokens that are learnt, as transformers computes it."""
    labels = mx.array(recorded.arrays["labels"])[:, 1:]
    learnt = labels >= 0
    each = nn.losses.cross_entropy(decoder(recorded.ids)[:, :-1], mx.maximum(labels, 0))
    return (each * learnt).sum() / learnt.sum()


def in_peft(decoder: Decoder, gradients: dict[str, mx.array]) -> dict[str, mx.array]:
    """Gradients under PEFT's names and in its layout, which they share with the arrays."""
    own = registry.attached(decoder, "default")
    parts = {
        site: Part(
            gradients[f"{site}.lora_a"],
            gradients[f"{site}.lora_b"],
            gradients[f"{site}.magnitude"] if part.dora else None,
            part.scale,
        )
        for site, part in own.parts.items()
    }
    whole = {key.removesuffix(".weight"): value for key, value in gradients.items() if not key.startswith("layers")}
    return peft_write.write(decoder.spec, own.config, parts, whole)[1]


def gradients_of(decoder: Decoder, recorded: Recorded) -> tuple[float, dict[str, mx.array]]:
    loss, tree = nn.value_and_grad(decoder, lambda model: loss_of(model, recorded))(decoder)
    flat = dict(mlx.utils.tree_flatten(tree))
    found: dict[str, mx.array] = {}
    for name, site in sites(decoder.spec).items():
        for key in ("lora_a", "lora_b", "magnitude"):
            path = f"{site.module}.adapters.default.{site.leaf}.{key}"
            if path in flat:
                found[f"{name}.{key}"] = flat.pop(path)
    # Embedding and head of a tied model that are no longer one.
    split = {"embed_tokens.embedding.weight": "embed_tokens.weight", "embed_tokens.head.weight": "lm_head.weight"}
    return loss.item(), found | {split.get(path, path): gradient for path, gradient in flat.items()}


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str, tmp_path: Path) -> None:
    recorded = Recorded(name)
    decoder = recorded.loaded(tmp_path)
    for key in ("logits", "merged"):
        np.testing.assert_allclose(np.array(decoder(recorded.ids)), recorded.arrays[key], rtol=1e-4, atol=2e-4)
    set_mix(decoder, {})
    plain = recorded.decoder(tmp_path / "again")
    assert mx.array_equal(decoder(recorded.ids), plain(recorded.ids))
    assert not mx.allclose(plain(recorded.ids), mx.array(recorded.arrays["logits"]), atol=0.1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_loss_and_every_gradient(name: str, training: bool, tmp_path: Path) -> None:
    recorded = Recorded(name)
    decoder = recorded.loaded(tmp_path, train=True)
    decoder.train(training)
    loss, gradients = gradients_of(decoder, recorded)
    assert loss == pytest.approx(float(recorded.arrays["loss"]), rel=2e-6)
    expected = {k.removeprefix("gradient/"): a for k, a in recorded.arrays.items() if k.startswith("gradient/")}
    found = in_peft(decoder, gradients)
    assert found.keys() == expected.keys()
    errors = {
        key: float(np.abs(np.array(found[key]) - want).max() / np.abs(want).max()) for key, want in expected.items()
    }
    # The recurrence of linear attention is float32 in both, in another order.
    most = 5e-5 if "linear_attn" in str(errors) else 1e-5
    assert max(errors.values()) < most, {key: error for key, error in errors.items() if error >= most}


@pytest.mark.parametrize("name", CASES)
def test_saved_again_it_is_the_same(name: str, tmp_path: Path) -> None:
    """Tensors to the bit and the same meaning; where another layout was read, it is the one PEFT writes today."""
    recorded = Recorded(name)
    decoder = recorded.loaded(tmp_path)
    save_adapter(decoder, tmp_path / "saved")
    written = mx.load(str(tmp_path / "saved" / "adapter_model.safetensors"))
    stored = {k.removeprefix("file/"): a for k, a in recorded.arrays.items() if k.startswith("file/")}
    if name != "qwen3_moe_per_expert":
        assert written.keys() == stored.keys()
        for key, array in stored.items():
            np.testing.assert_array_equal(np.array(written[key]), array, err_msg=key)
    again = recorded.decoder(tmp_path / "again")
    load_adapter(again, tmp_path / "saved")
    assert mx.array_equal(again(recorded.ids), decoder(recorded.ids))
    values = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert values["peft_type"] == "LORA" and values["use_rslora"] == recorded.config["use_rslora"]


def test_router_is_read_and_never_trained(tmp_path: Path) -> None:
    decoder = Recorded("qwen3_moe_all").loaded(tmp_path, train=True)
    routers = [name for name, site in sites(decoder.spec).items() if ROUTER in site.roles]
    assert routers and all(name in registry.attached(decoder, "default").parts for name in routers)
    trained = [name for name, _ in mlx.utils.tree_flatten(decoder.trainable_parameters())]
    assert trained and not any(".mlp.gate." in name for name in trained)


def test_mix_of_two(tmp_path: Path) -> None:
    recorded = Recorded("mix")
    decoder = Recorded("qwen3_lora").decoder(tmp_path)
    for name in ("first", "second"):
        load_adapter(decoder, recorded.folder(tmp_path / name, f"{name}/"), name)
    weights = [float(w) for w in recorded.arrays["weights"]]
    set_mix(decoder, {"first": weights[0], "second": weights[1]})
    np.testing.assert_allclose(np.array(decoder(recorded.ids)), recorded.arrays["logits"], rtol=1e-4, atol=1e-4)

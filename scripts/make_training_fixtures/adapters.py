#!/usr/bin/env python3
"""Write tests/fixtures/training/adapters_*.npz: adapters that PEFT made, and what it computes with them.

    python3 -m venv reference
    reference/bin/pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 numpy
    reference/bin/python scripts/make_training_fixtures/adapters.py

One file per case, on a model of tests/fixtures/parity, whose weights are not stored but drawn again from their seed:
PEFT's `adapter_config.json` and tensors as it saves them (`file/...`), ids, the loss and the gradients of all trained
arrays under the names of the file (`gradient/...`), logits with the adapter and with the adapter merged.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from scripts.parity.weights import hub_layout, random_weights  # noqa: E402

MODELS = ROOT / "tests" / "fixtures" / "parity"
FOLDER = ROOT / "tests" / "fixtures" / "training"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
DENSE = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
LINEAR_ATTENTION = ["in_proj_qkvz", "in_proj_ba", "out_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
SHARED = [f"shared_expert.{name}.weight" for name in ("gate_proj", "up_proj", "down_proj")]


@dataclass(frozen=True)
class Case:
    """One adapter: of a model, made with these options of PEFT's `LoraConfig`."""

    name: str
    model: str
    options: dict[str, Any]
    gradients: bool = True
    seed: int = 0
    change: Callable[[Path], None] | None = field(default=None)


def one_layer_per_expert(folder: Path) -> None:
    """Rewrite a saved adapter as transformers 4 had it: every expert's gate, up and down with an adapter of their own.

    PEFT is asked afterwards to load what was written.
    """
    config = json.loads((folder / "adapter_config.json").read_text())
    model = json.loads((MODELS / "qwen3_moe" / "config.json").read_text())
    rng = np.random.default_rng(5)
    rank, hidden, inner = config["r"], model["hidden_size"], model["moe_intermediate_size"]
    tensors = {key: value for key, value in load_file(folder / "adapter_model.safetensors").items() if "attn" in key}
    for layer in range(model["num_hidden_layers"]):
        for expert in range(model["num_experts"]):
            for name, rows, columns in (
                ("gate_proj", inner, hidden),
                ("up_proj", inner, hidden),
                ("down_proj", hidden, inner),
            ):
                key = f"base_model.model.model.layers.{layer}.mlp.experts.{expert}.{name}"
                tensors[f"{key}.lora_A.weight"] = rng.normal(0, 0.3, (rank, columns)).astype(np.float32)
                tensors[f"{key}.lora_B.weight"] = rng.normal(0, 0.3, (rows, rank)).astype(np.float32)
    config |= {"target_modules": DENSE, "target_parameters": None, "rank_pattern": {}, "alpha_pattern": {}}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))


CASES = (
    Case(
        "qwen2_lora",
        "qwen2_base",
        {"target_modules": DENSE, "rank_pattern": {"o_proj": 3}, "alpha_pattern": {r"layers\.1\..*_proj": 7}},
    ),
    Case("qwen2_dora", "qwen2_base", {"target_modules": DENSE, "use_dora": True}),
    Case("qwen3_lora", "qwen3_tied", {"target_modules": DENSE}),
    Case("qwen3_rslora", "qwen3_tied", {"target_modules": DENSE, "use_rslora": True}, seed=1),
    Case("qwen3_dora", "qwen3_tied", {"target_modules": DENSE, "use_dora": True}),
    Case(
        "qwen3_dora_rslora",
        "qwen3_tied",
        {"target_modules": ["v_proj", "up_proj"], "use_dora": True, "use_rslora": True},
    ),
    Case(
        "qwen3_whole_tied",
        "qwen3_tied",
        {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    Case("qwen3_whole_embedding", "qwen3_tied", {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]}),
    Case("qwen3_whole_head", "qwen3_tied", {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]}),
    Case("qwen2_whole", "qwen2_base", {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}),
    Case("qwen3_moe_lora", "qwen3_moe", {"target_modules": ATTENTION, "target_parameters": EXPERTS}),
    Case("qwen3_moe_rslora", "qwen3_moe", {"target_modules": DENSE, "use_rslora": True}),
    Case("qwen3_moe_down", "qwen3_moe", {"target_modules": [], "target_parameters": EXPERTS[1:]}),
    Case("qwen3_moe_all", "qwen3_moe", {"target_modules": "all-linear"}, gradients=False),
    Case("qwen3_moe_per_expert", "qwen3_moe", {"target_modules": DENSE}, gradients=False, change=one_layer_per_expert),
    Case(
        "qwen3_next_lora",
        "qwen3_next",
        {"target_modules": ATTENTION + LINEAR_ATTENTION, "target_parameters": EXPERTS + SHARED},
    ),
    Case("qwen3_next_dora", "qwen3_next", {"target_modules": ATTENTION + LINEAR_ATTENTION, "use_dora": True}),
    Case("qwen3_5_lora", "qwen3_5_text", {"target_modules": "all-linear"}),
)


def load(model: str, folder: Path) -> Any:
    """The model of a parity case in transformers."""
    recipe = json.loads((MODELS / model / "reference.json").read_text())["weights"]
    spelled = MODELS / model / "config_hf5.json"
    config = json.loads((spelled if spelled.exists() else MODELS / model / "config.json").read_text())
    shapes = {name: tuple(shape) for name, shape in recipe["parameters"].items()}
    drawn = random_weights(shapes, recipe["seed"], recipe["model_type"], recipe["small_rows"])
    published = json.loads((MODELS / model / "config.json").read_text())
    tensors = hub_layout(drawn, published, recipe["seed"], (), recipe["fused_experts"])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").float().eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """ids (2, 11), and labels that begin later; the second text is shorter, padded behind."""
    ids = torch.randint(2, 96, (2, 11), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, :3] = -100
    labels[1, 8:] = -100
    return ids, labels


def record(case: Case, base: Path) -> dict[str, np.ndarray]:
    model = load(case.model, base)
    torch.manual_seed(case.seed)
    options = {"r": 2, "lora_alpha": 5, "init_lora_weights": False, "task_type": "CAUSAL_LM", **case.options}
    peft_model = get_peft_model(model, LoraConfig(**options)).train()
    with torch.no_grad():  # A as PEFT draws it, B and lengths so that the change is large
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
            elif "lora_magnitude" in name:
                parameter.mul_(1 + 0.3 * torch.rand(parameter.shape))
            elif "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    saved = base.parent / "adapter"
    peft_model.save_pretrained(saved)
    if case.change is not None:
        case.change(saved)
        peft_model = PeftModel.from_pretrained(load(case.model, base.parent / "again"), saved)
    ids, labels = inputs()
    arrays: dict[str, np.ndarray] = {"ids": ids.numpy().astype(np.int32), "labels": labels.numpy().astype(np.int32)}
    out = peft_model(input_ids=ids, labels=labels)
    arrays["loss"] = np.float32(out.loss.item())
    arrays["logits"] = out.logits.detach().numpy()
    if case.gradients:
        out.loss.backward()
        for name, parameter in peft_model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                key = name.replace(".modules_to_save.default", "").replace(
                    "lora_magnitude_vector.default.weight", "lora_magnitude_vector"
                )
                arrays[f"gradient/{key.replace('.default', '')}"] = parameter.grad.numpy()
    peft_model.eval()
    with torch.no_grad():
        merged = peft_model.merge_and_unload()
        arrays["merged"] = merged(input_ids=ids).logits.numpy()
    config = json.loads((saved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = f"qwen-mlx/{case.model}"  # not a folder of the machine that made this
    arrays["config"] = np.frombuffer(json.dumps(config).encode(), np.uint8)
    arrays["model"] = np.frombuffer(case.model.encode(), np.uint8)
    for key, array in load_file(saved / "adapter_model.safetensors").items():
        arrays[f"file/{key}"] = array
    return arrays


def record_mix(base: Path) -> dict[str, np.ndarray]:
    """Two adapters of different rank and targets, weighted and added."""
    model = load("qwen3_tied", base)
    torch.manual_seed(7)
    options = {"init_lora_weights": False, "task_type": "CAUSAL_LM"}
    peft_model = get_peft_model(model, LoraConfig(r=2, lora_alpha=5, target_modules=DENSE, **options), "first")
    peft_model.add_adapter("second", LoraConfig(r=3, lora_alpha=4, target_modules=DENSE, use_rslora=True, **options))
    weights = {"first": 0.7, "second": 0.5}
    peft_model.add_weighted_adapter(list(weights), list(weights.values()), "both", combination_type="cat")
    peft_model.set_adapter("both")
    ids, _ = inputs()
    arrays = {"ids": ids.numpy().astype(np.int32), "weights": np.array(list(weights.values()), np.float32)}
    with torch.no_grad():
        arrays["logits"] = peft_model.eval()(input_ids=ids).logits.numpy()
    peft_model.save_pretrained(base.parent / "mix")
    for name in weights:
        folder = base.parent / "mix" / name
        config = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": None}
        arrays[f"{name}/config"] = np.frombuffer(json.dumps(config).encode(), np.uint8)
        for key, array in load_file(folder / "adapter_model.safetensors").items():
            arrays[f"{name}/file/{key}"] = array
    return arrays


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    only = sys.argv[1:]
    FOLDER.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if only and case.name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            arrays = record(case, Path(folder) / "base")
        np.savez_compressed(FOLDER / f"adapters_{case.name}.npz", **arrays)
        off = np.abs(arrays["merged"] - arrays["logits"]).max()
        print(f"{case.name}: loss {float(arrays['loss']):.6f}, merged off by {off:.1e}")
    if not only or "mix" in only:
        with tempfile.TemporaryDirectory() as folder:
            np.savez_compressed(FOLDER / "adapters_mix.npz", **record_mix(Path(folder) / "base"))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Write tests/fixtures/training/moe.npz and moe.json: the router's loss transformers computes of a tiny Qwen3-MoE.

    python3 -m venv reference
    reference/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors numpy
    reference/bin/python scripts/make_training_fixtures/moe.py

Two micro-batches with padding. Of each: the loss of the tokens, the router's loss with the attention mask, both as one
with the coefficient, and the gradient of that in the routers and, as lengths, in everything else. Of the two as one:
`load_balancing_loss_func` over all their router logits, without the mask and with it.
Weights are not stored: they are drawn again from their seed (`scripts/parity/weights.py`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func  # noqa: E402

from scripts.make_training_fixtures.sft import micro_batch  # noqa: E402
from scripts.parity.weights import fingerprint, random_weights  # noqa: E402

FOLDER = ROOT / "tests" / "fixtures" / "training"
SEED = 11
CONFIG: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 61,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.05,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
# Of each micro-batch: length of every text, and how many tokens at its beginning are not learnt.
MICRO_BATCHES = (((16, 4), (9, 0)), ((13, 2), (7, 3), (3, 1)))


def main() -> None:
    torch.set_num_threads(1)
    config = transformers.AutoConfig.for_model(**CONFIG)
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.float32).eval()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    weights = random_weights(shapes, SEED, "qwen3_moe")
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, strict=False)
    random = np.random.default_rng(SEED)
    arrays: dict[str, np.ndarray] = {}
    results: list[dict[str, float]] = []
    routers, masks = [], []
    for number, texts in enumerate(MICRO_BATCHES):
        batch = micro_batch(texts, CONFIG["vocab_size"], random)
        arrays |= {f"{number}.{name}": array for name, array in batch.items()}
        ids, attention, labels = (torch.tensor(array).long() for array in batch.values())
        model.zero_grad()
        out = model(input_ids=ids, attention_mask=attention, labels=labels, output_router_logits=True)
        out.loss.backward()
        plain = model(input_ids=ids, attention_mask=attention, labels=labels, output_router_logits=False).loss
        results.append({"loss": out.loss.item(), "token_loss": plain.item(), "aux": out.aux_loss.item()})
        for name, p in model.named_parameters():
            key = f"{number}.gradient.{name}" if name.endswith("mlp.gate.weight") else f"{number}.length.{name}"
            arrays[key] = p.grad.numpy() if "gradient" in key else np.array(p.grad.norm().item(), np.float32)
        routers.append([r.detach() for r in out.router_logits])
        masks.append(attention.reshape(-1))
    together = tuple(torch.cat(layers) for layers in zip(*routers))
    for number, layer in enumerate(together):
        arrays[f"router.{number}"] = layer.numpy()
    mask = torch.cat(masks)
    arrays["mask"] = mask.numpy().astype(np.int32)
    experts, top_k = CONFIG["num_experts"], CONFIG["num_experts_per_tok"]
    info = {
        "config": CONFIG,
        "seed": SEED,
        "shapes": shapes,
        "fingerprint": fingerprint(weights),
        "micro_batches": results,
        "window": load_balancing_loss_func(together, experts, top_k, mask[None]).item(),
        "window_unmasked": load_balancing_loss_func(together, experts, top_k).item(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "moe.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(FOLDER / "moe.npz", **arrays)
    print(results, info["window"], info["window_unmasked"])


if __name__ == "__main__":
    main()

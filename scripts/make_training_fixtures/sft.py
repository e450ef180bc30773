#!/usr/bin/env python3
"""Write tests/fixtures/training/sft.npz and sft.json: the loss and the gradients transformers computes of a tiny Qwen3.

    python3 -m venv reference
    reference/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors numpy
    reference/bin/python scripts/make_training_fixtures/sft.py

A window of accumulation of two micro-batches, right-padded, with parts that are not learnt (label -100). The loss of
each is divided by the number of learnt tokens in the whole window (`num_items_in_batch`), and gradients are added up.
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

from scripts.parity.weights import fingerprint, random_weights  # noqa: E402

FOLDER = ROOT / "tests" / "fixtures" / "training"
SEED = 7
CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 61,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
# Of each micro-batch: length of every text, and how many tokens at its beginning are not learnt.
WINDOW = (((19, 6), (11, 3), (15, 0)), ((4, 1), (21, 20)))


def micro_batch(
    texts: tuple[tuple[int, int], ...], vocabulary: int, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """ids, attention and labels (texts, longest), as a trainer makes them."""
    size = len(texts), max(length for length, _ in texts)
    ids, attention, labels = np.zeros(size, np.int32), np.zeros(size, np.int32), np.full(size, -100, np.int32)
    for row, (length, prompt) in enumerate(texts):
        ids[row, :length] = random.integers(0, vocabulary, length)
        attention[row, :length] = 1
        labels[row, prompt:length] = ids[row, prompt:length]
    return {"ids": ids, "attention": attention, "labels": labels}


def main() -> None:
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**CONFIG))
    model = model.to(torch.float32).eval()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    weights = random_weights(shapes, SEED, "qwen3")
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, strict=False)
    random = np.random.default_rng(SEED)
    window = [micro_batch(texts, CONFIG["vocab_size"], random) for texts in WINDOW]
    learnt = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in window)
    arrays: dict[str, np.ndarray] = {}
    losses = []
    for number, batch in enumerate(window):
        arrays |= {f"{number}.{name}": array for name, array in batch.items()}
        ids, attention, labels = (torch.tensor(array).long() for array in batch.values())
        loss = model(
            input_ids=ids, attention_mask=attention, labels=labels, num_items_in_batch=torch.tensor(learnt)
        ).loss
        loss.backward()
        losses.append(loss.item())
    arrays |= {f"gradient.{name}": p.grad.numpy() for name, p in model.named_parameters()}
    info = {
        "config": CONFIG,
        "seed": SEED,
        "shapes": shapes,
        "fingerprint": fingerprint(weights),
        "learnt": learnt,
        "losses": losses,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "sft.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(FOLDER / "sft.npz", **arrays)
    print(f"{learnt} tokens, losses {losses}")


if __name__ == "__main__":
    main()

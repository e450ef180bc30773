"""Tiny models of every family as their makers publish them: one tensor per expert, norms and convolutions untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qwen_mlx.checkpoints.save import hub_tensors
from tests.models import tiny
from tests.text import tiny as tiny_text

import mlx.core as mx  # isort: skip

_DTYPES = {"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}
BF16 = {"torch_dtype": "bfloat16", "vocab_size": 448}
SPARSE = {"decoder_sparse_step": 1, "mlp_only_layers": []}
HALF = {"full_attention_interval": 2}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
# mlx-lm asks for keys that have defaults, and knows no `layer_types`.
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": tiny.QWEN2 | BF16,
    "qwen2_moe": tiny.QWEN2_MOE | BF16,
    "qwen3": tiny.QWEN3 | BF16,
    "qwen3_untied": tiny.QWEN3 | BF16 | {"tie_word_embeddings": False},
    "qwen3_moe": tiny.QWEN3_MOE | SPARSE | BF16,
    "qwen3_next": tiny.QWEN3_NEXT | SPARSE | HALF | BF16 | {"tie_word_embeddings": False},
    "qwen3_5": tiny.QWEN3_5 | HALF | BF16 | {"model_type": "qwen3_5", "rope_parameters": ROPE},
    "qwen3_5_moe": tiny.QWEN3_NEXT
    | HALF
    | BF16
    | {"model_type": "qwen3_5_moe", "rope_parameters": ROPE, "mlp_only_layers": []},
}


def save(folder: Path, config: dict[str, Any], shards: int = 1, dtype: str | None = None) -> Path:
    """Write the model of this config in the hub's layout, with a tokenizer."""
    kind = _DTYPES[dtype or config["torch_dtype"]]
    tensors = {name: array.astype(kind) for name, array in published(config).items()}
    tiny.save(folder, config, tensors)
    tiny_text.write_tokenizer_json(folder)
    if shards > 1:
        (folder / "model.safetensors").unlink()
        names = list(tensors)
        for i in range(shards):
            part = {name: tensors[name] for name in names[i::shards]}
            mx.save_safetensors(str(folder / f"model-{i + 1:05d}-of-{shards:05d}.safetensors"), part)
    return folder


def published(config: dict[str, Any]) -> dict[str, mx.array]:
    """float32 tensors by the names of the hub."""
    tensors: dict[str, mx.array] = {}
    zero_centred = config["model_type"].startswith(("qwen3_next", "qwen3_5"))
    for name, array in hub_tensors(tiny.decoder(config)).items():
        norm = "norm" in name and ".linear_attn." not in name
        if ".switch_mlp." in name:
            for e in range(array.shape[0]):
                tensors[name.replace("switch_mlp", f"experts.{e}")] = array[e]
        elif ".conv1d." in name:
            tensors[name] = array.moveaxis(2, 1)
        else:
            tensors[name] = array - 1 if zero_centred and norm else array
    if config["model_type"] == "qwen3_5_moe":
        _fuse_experts(tensors, config["num_hidden_layers"], config["num_experts"])
    return tensors


def _fuse_experts(tensors: dict[str, mx.array], layers: int, experts: int) -> None:
    """All experts of a layer in two tensors, gate above up, without ".weight"."""
    for i in range(layers):
        path = f"model.layers.{i}.mlp.experts"
        gate, up, down = (
            mx.stack([tensors.pop(f"{path}.{e}.{name}_proj.weight") for e in range(experts)])
            for name in ("gate", "up", "down")
        )
        tensors[f"{path}.gate_up_proj"], tensors[f"{path}.down_proj"] = mx.concatenate([gate, up], axis=1), down

"""Tiny random checkpoints for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwen_mlx.models import Decoder, read_spec  # first: it prepares the BLAS

import mlx.core as mx  # isort: skip
import mlx.utils

QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 97,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
QWEN2: dict[str, Any] = {k: v for k, v in QWEN3.items() if k != "head_dim"} | {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "tie_word_embeddings": False,
}
QWEN3_MOE: dict[str, Any] = QWEN3 | {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "norm_topk_prob": True,
    "mlp_only_layers": [1],
}
QWEN2_MOE: dict[str, Any] = QWEN2 | {
    "model_type": "qwen2_moe",
    "architectures": ["Qwen2MoeForCausalLM"],
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "shared_expert_intermediate_size": 64,
}
QWEN3_NEXT: dict[str, Any] = QWEN3_MOE | {
    "model_type": "qwen3_next",
    "architectures": ["Qwen3NextForCausalLM"],
    "shared_expert_intermediate_size": 64,
    "layer_types": ["linear_attention", "full_attention"],
    "partial_rotary_factor": 0.5,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
}
QWEN3_5: dict[str, Any] = {k: v for k, v in QWEN3_NEXT.items() if "expert" not in k and "norm_topk" not in k} | {
    "model_type": "qwen3_5_text",
    "architectures": ["Qwen3_5ForCausalLM"],
}
for _key in ("mlp_only_layers", "moe_intermediate_size"):
    del QWEN3_5[_key]


def decoder(config: dict[str, Any], seed: int = 0) -> Decoder:
    """A decoder of this config with random weights that make attention far from uniform."""
    model = Decoder(read_spec(config))
    key = mx.random.key(seed)
    parameters = []
    for name, array in mlx.utils.tree_flatten(model.parameters()):
        key, own = mx.random.split(key)
        if "norm" in name:
            value = mx.random.uniform(0.5, 1.5, array.shape, key=own)
        else:
            value = mx.random.normal(array.shape, key=own) * (0.5 if array.ndim == 1 else 1.5 / array.shape[-1] ** 0.5)
        parameters.append((name, value))
    model.update(mlx.utils.tree_unflatten(parameters))
    mx.eval(model.parameters())
    return model


def is_matrix(name: str, array: mx.array) -> bool:
    """Whether it can be packed: a matrix, or those of all experts."""
    return array.ndim >= 2 and "conv1d" not in name


def save(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, mx.array],
    quantize: Callable[[str], dict[str, Any] | None] | None = None,
) -> Path:
    """Write a checkpoint; `quantize` names the format of every matrix, or None to leave it alone."""
    folder.mkdir(parents=True, exist_ok=True)
    config, written = dict(config), {}
    table: dict[str, Any] = {}
    for name, array in tensors.items():
        module = name.removesuffix(".weight")
        form = quantize(module) if quantize and is_matrix(name, array) else None
        if form is None:
            written[name] = array
            continue
        table[module] = form
        parts = mx.quantize(array, form["group_size"], form["bits"], form.get("mode", "affine"))
        written.update(zip((f"{module}.weight", f"{module}.scales", f"{module}.biases"), parts))
    if table:
        config["quantization"] = {"group_size": 64, "bits": 4, **table}
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), written, metadata={"format": "mlx"})
    return folder

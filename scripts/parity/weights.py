"""Random weights that any machine can draw again from a seed, so that fixtures need not store them.

Every tensor has a generator of its own, seeded by the case and the tensor's name: adding a tensor changes no other.
The distributions are chosen so that a mistake shows in the logits. Norms are not one and biases not zero; queries
and keys are large enough for attention to be far from uniform; the state of linear attention decays slowly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Arrays = dict[str, np.ndarray]


def seed_of(name: str, seed: int) -> list[int]:
    """The seed of one tensor: the bytes of its name, spelled out."""
    letters = list(name.encode().ljust(8, b"\0"))
    return [seed, sum(letters), *letters]


def is_zero_centred(name: str, model_type: str) -> bool:
    """Whether a norm multiplies by 1 + weight: those of Qwen3-Next and Qwen3.5, but not their gated one."""
    hybrid = model_type.startswith(("qwen3_next", "qwen3_5"))
    return hybrid and "linear_attn.norm" not in name and ".visual." not in name


def kind_of(name: str, axes: int) -> str:
    """The role of a tensor, which decides its distribution."""
    owner = name.split(".")[-2] if "." in name else ""
    if name.endswith(("A_log", "dt_bias")):
        return name.rsplit(".", 1)[-1]
    if name.endswith(".bias"):
        return "bias"
    if owner == "conv1d":
        return "conv"
    if owner in ("q_norm", "k_norm"):
        return "head norm"
    if "norm" in owner or owner in ("ln_1", "ln_2", "ln_f"):
        return "norm"
    if owner == "wte" or ("embed" in owner and axes == 2):
        return "embedding"
    return "projection"


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int, model_type: str, small_rows: int = 0) -> Arrays:
    """Draw float32 arrays for the parameters of a model, named as transformers names them in memory.

    Args:
        shapes: by parameter name.
        model_type: of the text model.
        small_rows: how many rows of every linear-attention convolution to make tiny: those of queries and keys, so
            that the epsilon of their normalisation becomes visible.
    """
    arrays: Arrays = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(seed_of(name, seed))
        kind = kind_of(name, len(shape))
        values = rng.standard_normal(shape)  # always drawn first, whatever the role
        if kind in ("norm", "head norm"):
            low, high = (0.5, 1.5) if kind == "norm" else (0.8, 2.0)
            values = rng.uniform(low, high, shape)
            if is_zero_centred(name, model_type):
                values = values - 1.0
        elif kind == "A_log":
            values = np.log(rng.uniform(0.05, 1.5, shape))
        elif kind == "dt_bias":
            values = rng.uniform(-2.0, 1.0, shape)
        elif kind in ("bias", "embedding"):
            values = 0.5 * values
        elif kind == "conv":
            values = 0.6 * values
            values[:small_rows] *= 2e-3
        else:
            values = _gain(name) * values / math.sqrt(_fan_in(name, shape))
        arrays[name] = np.ascontiguousarray(values, dtype=np.float32)
    return arrays


def _gain(name: str) -> float:
    if "visual" in name:
        return 1.0
    if name.endswith(("q_proj.weight", "k_proj.weight", "c_attn.weight")):
        return 1.5
    return 2.0 if name.endswith(".gate.weight") or name == "lm_head.weight" else 1.0


def _fan_in(name: str, shape: tuple[int, ...]) -> int:
    if "visual" in name:
        return math.prod(shape[1:])
    return shape[-1] if len(shape) > 1 else 1


def hub_layout(arrays: Arrays, config: Mapping, seed: int, extra: tuple[str, ...], fused_experts: bool) -> Arrays:
    """Rename and split parameters into what a published checkpoint holds.

    Args:
        arrays: as `random_weights` names them.
        config: `config.json`.
        extra: tensors real checkpoints carry and a loader has to ignore: "mtp" (heads that predict further tokens),
            "lm_head" (a tied matrix stored twice), "inv_freq" (rope frequencies of old checkpoints).
        fused_experts: leave the experts of a layer in one tensor, as Qwen3.5 is published.
    """
    text = config.get("text_config", config)
    hidden = text["hidden_size"]
    tensors: Arrays = {}
    for name, array in arrays.items():
        if fused_experts or ".experts." not in name:
            tensors[name] = array
            continue
        path, kind = name.rsplit(".", 1)
        for expert, matrix in enumerate(array):
            if kind == "gate_up_proj":
                gate, up = np.split(matrix, 2)
                tensors[f"{path}.{expert}.gate_proj.weight"] = gate
                tensors[f"{path}.{expert}.up_proj.weight"] = up
            else:
                tensors[f"{path}.{expert}.{kind}.weight"] = matrix
    rng = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    if "mtp" in extra:
        tensors["mtp.fc.weight"] = noise(hidden, 2 * hidden)
        tensors["mtp.norm.weight"] = noise(hidden)
        tensors["mtp.layers.0.input_layernorm.weight"] = noise(hidden)
        tensors["mtp.layers.0.mlp.experts.0.up_proj.weight"] = noise(4, hidden)
    if "lm_head" in extra:
        tensors["lm_head.weight"] = arrays["model.embed_tokens.weight"].copy()
    if "inv_freq" in extra:
        pairs = hidden // text["num_attention_heads"] // 2
        for layer in range(text["num_hidden_layers"]):
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = noise(pairs)
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def fingerprint(arrays: Arrays) -> float:
    """One number that changes when any weight does; the same on every machine to about ten digits."""
    return float(
        sum(
            np.dot(arrays[name].ravel().astype(np.float64), np.linspace(1.0, 2.0, arrays[name].size))
            for name in sorted(arrays)
        )
    )

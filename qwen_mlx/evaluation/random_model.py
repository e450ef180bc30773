"""Checkpoints of a published shape with random weights: as fast and as large as the real one, and free to make."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qwen_mlx import device
from qwen_mlx.errors import UsageError
from qwen_mlx.paths import atomic_write


@dataclass(frozen=True)
class Shape:
    """Sizes of a dense Qwen3."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    tied: bool
    vocab: int = 151936
    head_dim: int = 128


SHAPES = {
    "tiny": Shape(128, 2, 4, 2, 256, True, vocab=1024, head_dim=64),
    "0.6b": Shape(1024, 28, 16, 8, 3072, True),
    "1.7b": Shape(2048, 28, 16, 8, 6144, True),
    "4b": Shape(2560, 36, 32, 8, 9728, True),
    "8b": Shape(4096, 36, 32, 8, 12288, False),
    "14b": Shape(5120, 40, 40, 8, 17408, False),
    "32b": Shape(5120, 64, 64, 8, 25600, False),
}


def config(shape: Shape, bits: int | None, group_size: int = 64) -> dict[str, object]:
    """The `config.json` of a model of this shape; `bits` None is bfloat16."""
    values: dict[str, object] = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "attention_bias": False,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "eos_token_id": 0,
    }
    if bits is not None:
        values["quantization"] = {"group_size": group_size, "bits": bits, "mode": "affine"}
    return values


def ensure(folder: Path, name: str, bits: int | None, say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder of a random model of this shape; made on first use.

    Args:
        name: a key of `SHAPES`.
        bits: 4, 8, ... or None for bfloat16.
        say: told when something slow starts.

    Raises:
        UsageError: no such shape.
    """
    shape = SHAPES.get(name)
    if shape is None:
        raise UsageError(f"no shape {name!r}", expected="one of " + ", ".join(SHAPES))
    target = folder / f"random-qwen3-{name}-{bits or 16}bit"
    if (target / "config.json").exists():
        return target
    say(f"making random weights of shape {name}, once, in {target}")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    _write_weights(target, shape, bits)
    with atomic_write(target / "config.json") as file:  # last: it says that the folder is complete
        json.dump(config(shape, bits), file, indent=1)
    return target


def _write_weights(target: Path, shape: Shape, bits: int | None, group_size: int = 64) -> None:
    device.prepare()
    import mlx.core as mx

    key = mx.random.key(0)
    tensors: dict[str, mx.array] = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        nonlocal key
        key, own = mx.random.split(key)
        weight = (mx.random.normal((rows, columns), key=own) / columns**0.5).astype(mx.bfloat16)
        if bits is None:
            tensors[f"{name}.weight"] = weight
        else:
            for part, array in zip(("weight", "scales", "biases"), mx.quantize(weight, group_size, bits)):
                tensors[f"{name}.{part}"] = array
        mx.eval([tensors[n] for n in tensors if n.startswith(f"{name}.")])

    def norm(name: str, size: int) -> None:
        tensors[f"{name}.weight"] = mx.ones((size,), dtype=mx.bfloat16)

    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    matrix("model.embed_tokens", shape.vocab, shape.hidden)
    if not shape.tied:
        matrix("lm_head", shape.vocab, shape.hidden)
    norm("model.norm", shape.hidden)
    for i in range(shape.layers):
        layer = f"model.layers.{i}"
        for name, rows, columns in (
            ("self_attn.q_proj", q, shape.hidden),
            ("self_attn.k_proj", kv, shape.hidden),
            ("self_attn.v_proj", kv, shape.hidden),
            ("self_attn.o_proj", shape.hidden, q),
            ("mlp.gate_proj", shape.intermediate, shape.hidden),
            ("mlp.up_proj", shape.intermediate, shape.hidden),
            ("mlp.down_proj", shape.hidden, shape.intermediate),
        ):
            matrix(f"{layer}.{name}", rows, columns)
        norm(f"{layer}.input_layernorm", shape.hidden)
        norm(f"{layer}.post_attention_layernorm", shape.hidden)
        norm(f"{layer}.self_attn.q_norm", shape.head_dim)
        norm(f"{layer}.self_attn.k_norm", shape.head_dim)
    mx.save_safetensors(str(target / "model.safetensors"), tensors, metadata={"format": "mlx"})

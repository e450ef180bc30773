"""The network of the demo model: the package's own decoder, its config, and its weights under their hub names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from qwen_mlx.models import Decoder, read_spec  # first: it loads a fast BLAS before mlx

import mlx.core as mx  # isort: skip
import mlx.nn as nn  # isort: skip
from mlx.utils import tree_flatten  # isort: skip

from qwen_mlx.checkpoints.save import hub_tensors  # isort: skip
from qwen_mlx.models.mlp import MLP  # isort: skip
from qwen_mlx.models.projections import FusedLinear  # isort: skip

from . import cpu_math  # isort: skip

CONTEXT = 512
"""What training covers, in tokens."""
GROUP_SIZE, BITS = 64, 8


def demo_config(vocabulary: int, end: int, pad: int) -> dict[str, Any]:
    """config.json with every key that published Qwen3 checkpoints have."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": pad,
        "eos_token_id": end,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 256,
        "initializer_range": 0.02,
        "intermediate_size": 512,
        "max_position_embeddings": CONTEXT,
        "max_window_layers": 5,
        "model_type": "qwen3",
        "num_attention_heads": 4,
        "num_hidden_layers": 5,
        "num_key_value_heads": 2,
        "pad_token_id": pad,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocabulary,
    }


def build(config: Mapping[str, Any], seed: int) -> Decoder:
    """A freshly initialised decoder whose stacked projections are taken apart.

    Muon needs each projection as a matrix of its own, and cutting one stacked result costs time in the backward pass.
    """
    mx.random.seed(seed)
    decoder = Decoder(read_spec(dict(config)))
    for _, module in decoder.named_modules():
        if isinstance(module, FusedLinear):
            width = module.parts[0].weight.shape[1]
            parts = [nn.Linear(width, rows, bias=False) for rows in module.members.values()]
            module.set_parts(parts, [[name] for name in module.members])
    deviation = float(config["initializer_range"])
    depth = 2 * int(config["num_hidden_layers"])
    for path, value in tree_flatten(decoder.parameters()):
        if value.ndim == 2:
            small = deviation / depth**0.5 if "o_proj" in path or "down_proj" in path else deviation
            decoder.load_weights([(path, mx.random.normal(value.shape, scale=small))], strict=False)
    mx.eval(decoder.parameters())
    return decoder


def take_weights(decoder: Decoder, source: Decoder) -> None:
    """Give a decoder of `build` the weights of a loaded one, stacked projections taken apart."""
    tensors = {name.removeprefix("model."): value.astype(mx.float32) for name, value in hub_tensors(source).items()}
    for name, module in decoder.named_modules():
        if isinstance(module, FusedLinear):
            parent = name.rsplit(".", 1)[0]
            for part, (member,) in zip(module.parts, module.grouping, strict=True):
                part.weight = tensors.pop(f"{parent}.{member}.weight")
    decoder.load_weights(list(tensors.items()), strict=False)
    mx.eval(decoder.parameters())


def quantized_weights(decoder: Decoder) -> dict[str, mx.array]:
    """Hub-named tensors as shipped: matrices in 8 bits, one scale and bias for 64 weights.

    Scales and norms stay in float32 (half a bit per weight more than in bfloat16), so that every program that loads
    the folder computes in float32 and gives the same answers.
    """
    tensors = {}
    for name, value in hub_tensors(decoder).items():
        if value.ndim == 2:
            stem = name.removesuffix(".weight")
            packed, scales, biases = mx.quantize(value, group_size=GROUP_SIZE, bits=BITS)
            tensors |= {name: packed, f"{stem}.scales": scales, f"{stem}.biases": biases}
        else:
            tensors[name] = value
    return dict(sorted(tensors.items()))


def _fast_mlp(self: MLP, x: mx.array) -> mx.array:
    gate, up = self.gate_up_proj(x)
    return self.down_proj(cpu_math.swiglu(gate, up))


def _fast_attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: object = None) -> mx.array:
    assert mask == "causal", "training batches are whole texts from position 0"
    return cpu_math.attention(q, k, v, scale)


@contextmanager
def fast_exponentials() -> Iterator[None]:
    """Swap the decoder's activation and softmax for equal but faster ones (see cpu_math) while training."""
    exact_mlp, exact_attention = MLP.__call__, mx.fast.scaled_dot_product_attention
    MLP.__call__ = _fast_mlp  # type: ignore[method-assign]
    mx.fast.scaled_dot_product_attention = _fast_attention  # type: ignore[assignment]
    try:
        yield
    finally:
        MLP.__call__ = exact_mlp  # type: ignore[method-assign]
        mx.fast.scaled_dot_product_attention = exact_attention

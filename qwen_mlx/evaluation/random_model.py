"""Checkpoints of a published shape with random weights: as fast and as large as the real one, and free to make."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qwen_mlx import device
from qwen_mlx.errors import UsageError
from qwen_mlx.paths import atomic_write

Config = Mapping[str, Any]
ROUTER_BITS = 8  # routers are kept finer than the rest wherever experts are quantized
_ROUTERS = ("mlp.gate", "mlp.shared_expert_gate")

_COMMON: dict[str, Any] = {
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "torch_dtype": "bfloat16",
    "eos_token_id": 0,
}


def _dense(hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": 151936,
        "tie_word_embeddings": tied,
    }


def _experts(count: int, chosen: int, size: int, shared: int | None, normalise: bool) -> dict[str, Any]:
    values = {
        "num_experts": count,
        "num_experts_per_tok": chosen,
        "moe_intermediate_size": size,
        "norm_topk_prob": normalise,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
    return values if shared is None else values | {"shared_expert_intermediate_size": shared}


def _linear(heads: int, dim: int) -> dict[str, Any]:
    """Gated DeltaNet in three layers of four."""
    return {
        "linear_num_key_heads": heads,
        "linear_num_value_heads": heads,
        "linear_key_head_dim": dim,
        "linear_value_head_dim": dim,
        "linear_conv_kernel_dim": 4,
        "full_attention_interval": 4,
    }


_QWEN3 = {"head_dim": 128, "rope_theta": 1000000.0, "attention_bias": False}
_QWEN2_MOE = {"rope_theta": 1000000.0}
_QWEN3_NEXT = {"head_dim": 256, "rope_theta": 10000000.0, "partial_rotary_factor": 0.25, "attention_bias": False}
_QWEN3_5 = {
    "head_dim": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25},
    "attention_bias": False,
}
_TINY = _dense(128, 2, 4, 2, 256, True) | {"vocab_size": 1024}
_TINY_EXPERTS = (8, 2, 128)

# family -> name of a shape -> config.json. Dense shapes are those of Qwen3; the 0.6b ones of the other families are
# no published models: as many layers and channels as the small dense one of the same generation, and experts of
# which a token uses about as many weights as there (qwen3_5 0.6b is Qwen3.5-0.8B itself). The names that are there
# for mlx-lm alone (`decoder_sparse_step` and such) are those it does not run without, and it takes no
# qwen2_moe with tied embeddings.
SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "qwen3": {
        "tiny": _TINY | _QWEN3 | {"head_dim": 64},
        "0.6b": _dense(1024, 28, 16, 8, 3072, True) | _QWEN3,
        "1.7b": _dense(2048, 28, 16, 8, 6144, True) | _QWEN3,
        "4b": _dense(2560, 36, 32, 8, 9728, True) | _QWEN3,
        "8b": _dense(4096, 36, 32, 8, 12288, False) | _QWEN3,
        "14b": _dense(5120, 40, 40, 8, 17408, False) | _QWEN3,
        "32b": _dense(5120, 64, 64, 8, 25600, False) | _QWEN3,
    },
    "qwen3_moe": {
        "tiny": _TINY | _QWEN3 | {"head_dim": 64} | _experts(*_TINY_EXPERTS, None, True),
        "0.6b": _dense(1024, 28, 16, 8, 3072, True) | _QWEN3 | _experts(32, 8, 384, None, True),
    },
    "qwen2_moe": {
        "tiny": _TINY | {"tie_word_embeddings": False} | _QWEN2_MOE | _experts(*_TINY_EXPERTS, 128, False),
        "0.6b": _dense(1024, 24, 16, 16, 2816, False) | _QWEN2_MOE | _experts(32, 4, 384, 1280, False),
    },
    "qwen3_5": {
        "tiny": _TINY | {"num_hidden_layers": 4} | _QWEN3_5 | {"head_dim": 64} | _linear(2, 64),
        "0.6b": _dense(1024, 24, 8, 2, 3584, True) | {"vocab_size": 248320} | _QWEN3_5 | _linear(16, 128),
    },
    "qwen3_next": {
        "tiny": _TINY
        | {"num_hidden_layers": 4}
        | _QWEN3_NEXT
        | {"head_dim": 64}
        | _linear(2, 64)
        | _experts(*_TINY_EXPERTS, 128, True),
        "0.6b": _dense(1024, 24, 8, 2, 3584, True) | _QWEN3_NEXT | _linear(16, 128) | _experts(32, 8, 384, 512, True),
    },
}
_ARCHITECTURES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_5": "Qwen3_5ForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
}


def config(family: str, name: str, bits: int | None, group_size: int = 64) -> dict[str, Any]:
    """The `config.json` of a model of this shape; `bits` None is bfloat16.

    Raises:
        UsageError: no such family or shape.
    """
    shapes = SHAPES.get(family)
    if shapes is None:
        raise UsageError(f"no family {family!r} with random weights", expected="one of " + ", ".join(SHAPES))
    if name not in shapes:
        raise UsageError(f"no shape {name!r} of {family}", expected="one of " + ", ".join(shapes))
    values = {"architectures": [_ARCHITECTURES[family]], "model_type": family} | _COMMON | shapes[name]
    if bits is not None:
        table: dict[str, Any] = {"group_size": group_size, "bits": bits, "mode": "affine"}
        for layer in range(values["num_hidden_layers"] if "num_experts" in values else 0):
            for router in _ROUTERS:
                table[f"model.layers.{layer}.{router}"] = {"group_size": group_size, "bits": ROUTER_BITS}
        values["quantization"] = table
    return values


def ensure(
    folder: Path, name: str, bits: int | None, say: Callable[[str], None] = lambda _: None, family: str = "qwen3"
) -> Path:
    """The folder of a random model of this shape; made on first use.

    Args:
        name: a key of `SHAPES[family]`.
        bits: 2, 3, 4, 5, 6, 8, or None for bfloat16.
        say: told when something slow starts.

    Raises:
        UsageError: no such family or shape.
    """
    values = config(family, name, bits)
    target = folder / f"random-{family}-{name}-{bits or 16}bit"
    if (target / "config.json").exists():
        if json.loads((target / "config.json").read_text(encoding="utf-8")) == values:
            return target
        say(f"{target} is of an older version")
    say(f"making random weights of {family} {name}, once, in {target}")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    _write_weights(target, values, bits)
    with atomic_write(target / "config.json") as file:  # last: it says that the folder is complete
        json.dump(values, file, indent=1)
    return target


def _write_weights(target: Path, values: Config, bits: int | None, group_size: int = 64) -> None:
    device.prepare()
    import mlx.core as mx

    from qwen_mlx.checkpoints.save import hub_tensors
    from qwen_mlx.models import Decoder, read_spec

    # Its own initial weights are never computed: they are replaced first.
    decoder = Decoder(read_spec({k: v for k, v in values.items() if k != "quantization"}))
    _Filler(bits, group_size).module(decoder, "")
    tensors = hub_tensors(decoder)
    mx.save_safetensors(str(target / "model.safetensors"), tensors, metadata={"format": "mlx"})


def fill_with_zeros(decoder: Any, bits: int | None) -> None:
    """Give `decoder` lazy zeros, typed as in a checkpoint of so many bits: what looks at shapes needs no more."""
    _Hollow(bits, 64).module(decoder, "")


class _Filler:
    """Gives every part of a decoder random weights that keep activations near one."""

    def __init__(self, bits: int | None, group_size: int) -> None:
        import numpy as np

        self._bits, self._group = bits, group_size
        self._random = np.random.default_rng(0)

    def module(self, module: Any, path: str) -> None:
        """Fill `module` and everything in it; `path` is its name in the decoder."""
        import mlx.core as mx
        import mlx.nn as nn

        from qwen_mlx.models.delta_net import DeltaNet
        from qwen_mlx.models.moe import ExpertLinear
        from qwen_mlx.models.projections import FusedLinear

        if isinstance(module, DeltaNet):
            channels, heads = module.spec.channels, module.spec.value_heads
            module.conv1d = self._floats(channels, module.spec.kernel, 0.5).astype(mx.bfloat16)
            module.A_log = self._floats(heads, 1, 1.0).flatten()
            module.dt_bias = self._floats(heads, 1, 1.0).flatten()
        for name, child in module.children().items():
            if isinstance(child, list):
                for i, item in enumerate(child):
                    self.module(item, f"{path}.{name}.{i}")
            elif isinstance(child, ExpertLinear):
                count, rows, columns = child.weight.shape
                flat = self._stored(count * rows, columns, self._bits)

                def folded(part: mx.array | None, count: int = count, rows: int = rows) -> mx.array | None:
                    return None if part is None else part.reshape(count, rows, -1)

                weight = folded(flat.weight)
                assert weight is not None
                child.set_weights(weight, folded(flat.scales), folded(flat.biases), flat.quantization)
            elif isinstance(child, FusedLinear):
                inner = child.parts[0]
                assert isinstance(inner, nn.Linear)
                child.set_parts([self._linear(inner, self._bits)], child.grouping)
            elif isinstance(child, nn.Linear):
                bits = ROUTER_BITS if self._bits is not None and f"mlp.{name}" in _ROUTERS else self._bits
                setattr(module, name, self._linear(child, bits))
            elif isinstance(child, nn.Embedding):
                rows, columns = child.weight.shape
                setattr(module, name, self._stored(rows, columns, self._bits).embedding())
            elif isinstance(child, nn.RMSNorm):
                child.weight = mx.ones(child.weight.shape, dtype=mx.bfloat16)
            else:
                self.module(child, f"{path}.{name}")

    def _linear(self, like: Any, bits: int | None) -> Any:
        import mlx.core as mx

        rows, columns = like.weight.shape
        layer = self._stored(rows, columns, bits).linear()
        if "bias" in like:
            layer.bias = self._floats(rows, 1, 0.1).flatten().astype(mx.bfloat16)
        return layer

    def _floats(self, rows: int, columns: int, deviation: float) -> Any:
        import mlx.core as mx
        import numpy as np

        return mx.array(self._random.standard_normal((rows, columns), dtype=np.float32) * np.float32(deviation))

    def _stored(self, rows: int, columns: int, bits: int | None) -> Any:
        """A matrix (rows, columns) whose product with a vector of deviation 1 has deviation 1."""
        import mlx.core as mx
        import numpy as np

        from qwen_mlx.checkpoints.stored import StoredMatrix
        from qwen_mlx.models.spec import QuantizationSpec

        if bits is None:
            weight = self._floats(rows, columns, columns**-0.5).astype(mx.bfloat16)
            mx.eval(weight)  # before the next one is drawn: the float32 of one at a time
            return StoredMatrix(weight)
        # Any bits are valid codes, evenly spread over 0 to 2^bits - 1.
        codes = mx.array(self._random.integers(0, 1 << 32, (rows, columns * bits // 32), dtype=np.uint32))
        step = (12 / columns) ** 0.5 / ((1 << bits) - 1)
        groups = (rows, columns // self._group)
        scales = mx.full(groups, step, dtype=mx.bfloat16)
        biases = mx.full(groups, -step * ((1 << bits) - 1) / 2, dtype=mx.bfloat16)
        mx.eval(codes, scales, biases)
        return StoredMatrix(codes, scales, biases, quantization=QuantizationSpec(bits, self._group))


class _Hollow(_Filler):
    def _floats(self, rows: int, columns: int, deviation: float) -> Any:
        import mlx.core as mx

        return mx.zeros((rows, columns))

    def _stored(self, rows: int, columns: int, bits: int | None) -> Any:
        import mlx.core as mx

        from qwen_mlx.checkpoints.stored import StoredMatrix
        from qwen_mlx.models.spec import QuantizationSpec

        if bits is None:
            return StoredMatrix(mx.zeros((rows, columns), mx.bfloat16))
        scales = mx.zeros((rows, columns // self._group), mx.bfloat16)
        codes = mx.zeros((rows, columns * bits // 32), mx.uint32)
        return StoredMatrix(codes, scales, scales, quantization=QuantizationSpec(bits, self._group))

"""Decoders with adapters whose numbers are all over the place."""

from __future__ import annotations

from qwen_mlx.adapters import AdapterConfig, adapter_arrays, attach, set_adapter_arrays
from qwen_mlx.checkpoints.stored import StoredMatrix
from qwen_mlx.models import Decoder
from qwen_mlx.models.moe import Experts
from qwen_mlx.models.projections import FusedLinear
from qwen_mlx.models.spec import QuantizationSpec
from tests.models import tiny

import mlx.core as mx  # isort: skip
import mlx.nn as nn

FAMILIES = {
    "qwen2": tiny.QWEN2,
    "qwen3": tiny.QWEN3,
    "qwen3_moe": tiny.QWEN3_MOE,
    "qwen2_moe": tiny.QWEN2_MOE,
    "qwen3_next": tiny.QWEN3_NEXT,
    "qwen3_5": tiny.QWEN3_5,
}
IDS = mx.array([[1, 5, 9, 20, 3, 7, 60], [2, 4, 8, 16, 32, 64, 96]])


def shake(decoder: Decoder, name: str = "default", size: float = 0.1, seed: int = 3) -> None:
    """Give B, lengths and whole matrices random values, so that the adapter changes much."""
    arrays = adapter_arrays(decoder, name)
    keys = mx.random.split(mx.random.key(seed), len(arrays))

    def shaken(key: str, array: mx.array, random: mx.array) -> mx.array:
        if key.endswith("lora_b"):
            return size * mx.random.normal(array.shape, key=random)
        return array * (1 + size * mx.random.normal(array.shape, key=random))

    set_adapter_arrays(decoder, {key: shaken(key, a, k) for (key, a), k in zip(arrays.items(), keys)}, name)


def adapted(config: AdapterConfig, family: str = "qwen3", form: QuantizationSpec | None = None) -> Decoder:
    decoder = tiny.decoder(FAMILIES[family]) if form is None else quantized(family, form)
    attach(decoder, config)
    shake(decoder)
    return decoder


def quantized(family: str, form: QuantizationSpec) -> Decoder:
    """The tiny decoder with all its matrices packed."""
    decoder = tiny.decoder(FAMILIES[family])
    for module in decoder.modules():
        if isinstance(module, FusedLinear):
            module.set_parts([_packed(part, form) for part in module.parts], module.grouping)
        elif isinstance(module, Experts):
            for matrices in (module.gate_up_proj, module.down_proj):
                weight, scales, *biases = mx.quantize(matrices.weight, form.group_size, form.bits, form.mode)
                matrices.set_weights(weight, scales, biases[0] if biases else None, form)
        elif isinstance(module, nn.Module):
            for name, child in module.children().items():
                if type(child) is nn.Linear and child.weight.shape[1] % form.group_size == 0:
                    setattr(module, name, _packed(child, form))
    mx.eval(decoder.parameters())
    return decoder


def _packed(layer: nn.Linear, form: QuantizationSpec) -> nn.Module:
    weight, scales, *biases = mx.quantize(layer.weight, form.group_size, form.bits, form.mode)
    return StoredMatrix(weight, scales, biases[0] if biases else None, layer.get("bias"), form).linear()


def unpacked(decoder: Decoder) -> Decoder:
    """A decoder with the same numbers as plain floats."""
    plain = Decoder(decoder.spec)
    tensors = {}
    from qwen_mlx.checkpoints.assemble import QuantizationTable, Tensors, assemble
    from qwen_mlx.checkpoints.save import hub_tensors

    tensors = Tensors(hub_tensors(decoder), QuantizationTable({}))
    for _ in assemble(plain, tensors, lambda matrix: matrix.expand(mx.float32)):
        pass
    return plain

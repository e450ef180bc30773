"""Parameters of a decoder -> tensors with the names of the hub."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.models import Decoder
from qwen_mlx.models.delta_net import DeltaNet
from qwen_mlx.models.moe import Experts
from qwen_mlx.models.projections import FusedLinear

_PARTS = ("weight", "scales", "biases", "bias")


def hub_tensors(decoder: Decoder, stacked: bool | None = None) -> dict[str, mx.array]:
    """Every parameter under the name a published checkpoint has for it; stacked projections are taken apart.

    Works for plain and for quantized weights; `load` of these tensors gives the same model. Families with DeltaNet
    come out as mlx-lm writes them: the convolution in MLX's layout, zero-centred norms with their one added, and all
    experts in one tensor, without which mlx-lm takes the norms for unfinished and adds another one.

    Args:
        stacked: whether the plain weights of all experts come as one tensor, as mlx-lm writes them; None leaves it to
            the family.
    """
    tensors: dict[str, mx.array] = {}
    _collect(decoder, "", tensors, decoder.spec.zero_centred_norms if stacked is None else stacked)
    return {name if name.startswith("lm_head.") else f"model.{name}": array for name, array in tensors.items()}


def _collect(module: Any, path: str, tensors: dict[str, mx.array], stacked: bool) -> None:
    if isinstance(module, FusedLinear):
        _take_apart(module, path.rpartition(".")[0], tensors)
        return
    if isinstance(module, DeltaNet):
        _take_delta_net(module, path, tensors)
    if isinstance(module, Experts):
        _take_experts_apart(module, path, tensors, stacked)
        return
    for part in _PARTS:
        array = module.get(part) if isinstance(module, nn.Module) else None
        if isinstance(array, mx.array):
            tensors[f"{path}.{part}"] = array
    children = module.children()
    if isinstance(module, DeltaNet):
        children.pop("in_proj")
    for name, child in children.items():
        for i, one in enumerate(child) if isinstance(child, list) else [(None, child)]:
            suffix = name if i is None else f"{name}.{i}"
            _collect(one, f"{path}.{suffix}" if path else suffix, tensors, stacked)


def _take_apart(fused: FusedLinear, path: str, tensors: dict[str, mx.array]) -> None:
    for part, group in zip(fused.parts, fused.grouping):
        start = 0
        for name in group:
            rows = fused.members[name]
            for key in _PARTS:
                array = part.get(key)
                if isinstance(array, mx.array):
                    tensors[f"{path}.{name}.{key}"] = array[start : start + rows]
            start += rows


def _take_experts_apart(experts: Experts, path: str, tensors: dict[str, mx.array], stacked: bool) -> None:
    """One tensor per expert for plain weights, as published; one for all, as in MLX's files, for packed ones.

    `stacked` asks for one for all in any case.
    """
    size = experts.gate_up_proj.weight.shape[1] // 2
    for key in _PARTS:
        gate_up, down = experts.gate_up_proj.get(key), experts.down_proj.get(key)
        if not isinstance(gate_up, mx.array) or not isinstance(down, mx.array):
            continue
        named = {"gate_proj": gate_up[:, :size], "up_proj": gate_up[:, size:], "down_proj": down}
        for name, array in named.items():
            if stacked or experts.gate_up_proj.quantization is not None:
                tensors[f"{path.rpartition('.')[0]}.switch_mlp.{name}.{key}"] = array
                continue
            for e in range(array.shape[0]):
                tensors[f"{path}.{e}.{name}.{key}"] = array[e]


def _take_delta_net(net: DeltaNet, path: str, tensors: dict[str, mx.array]) -> None:
    tensors[f"{path}.conv1d.weight"] = net.conv1d[..., None]
    tensors[f"{path}.A_log"], tensors[f"{path}.dt_bias"] = net.A_log, net.dt_bias
    inputs: dict[str, mx.array] = {}
    _take_apart(net.in_proj, path, inputs)
    if not net.spec.interleaved:
        tensors.update(inputs)
        return
    for whole, names, order in (
        ("in_proj_qkvz", ("in_proj_qkv", "in_proj_z"), net.spec.rows_of_qkvz()),
        ("in_proj_ba", ("in_proj_b", "in_proj_a"), net.spec.rows_of_ba()),
    ):
        back = mx.argsort(mx.array(order))
        for key in _PARTS:
            parts = [inputs[f"{path}.{name}.{key}"] for name in names if f"{path}.{name}.{key}" in inputs]
            if parts:
                tensors[f"{path}.{whole}.{key}"] = mx.concatenate(parts)[back]

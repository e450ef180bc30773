"""A model folder whose matrices another program quantized -> its tensors, one after the other.

Which module is quantized is told by the names of its tensors, how by `quantization_config`; shapes have to agree with
both. Everything that is not quantized is given as the floats it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from qwen_mlx.checkpoints.assemble import is_ignored
from qwen_mlx.checkpoints.foreign import quote
from qwen_mlx.checkpoints.formats import awq, compressed_tensors, fp8, gptq, hub_matrices
from qwen_mlx.checkpoints.formats.foreign_tensor import ForeignTensor, Rows
from qwen_mlx.checkpoints.safetensors import MLX_DTYPES, TensorInfo
from qwen_mlx.checkpoints.source import Source
from qwen_mlx.errors import CheckpointError, UnsupportedModel

_FLOATS = ("F32", "F16", "BF16")
_ADVICE = "Take the original model, or a version in AWQ, GPTQ, FP8, GGUF or MLX's format."

Matrix = Callable[[Source, str, Mapping[str, TensorInfo]], ForeignTensor]


def method_of(config: Mapping[str, Any]) -> str | None:
    """The program's name for how the weights of a `config.json` are quantized; None when they are not."""
    settings = config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    return None if method is None else str(method)


def read_tensors(source: Source, config: Mapping[str, Any]) -> tuple[str, list[ForeignTensor]]:
    """All tensors of a quantized model.

    Returns:
        What the format is called, such as "GPTQ 4-bit g128", and the tensors.

    Raises:
        UnsupportedModel: a format, or a form of one, that is not imported; the message names it.
        CheckpointError: tensors that contradict each other or the configuration.
    """
    title, suffixes, matrix = _reader(config)
    parts: dict[str, dict[str, TensorInfo]] = defaultdict(dict)
    plain: list[TensorInfo] = []
    for name, tensor in source.tensors.items():
        if is_ignored(name):
            continue
        module, _, suffix = name.rpartition(".")
        if suffix in suffixes:
            parts[module][suffix] = tensor
        else:
            plain.append(tensor)
    found: list[ForeignTensor] = []
    for tensor in plain:
        module, _, suffix = tensor.name.rpartition(".")
        if suffix == "weight" and module in parts:
            parts[module]["weight"] = tensor
        else:
            found.append(plain_tensor(source, tensor))
    found += [matrix(source, module, own) for module, own in parts.items()]
    return title, found


def _reader(config: Mapping[str, Any]) -> tuple[str, tuple[str, ...], Matrix]:
    """What the format is called, the last words of the names of its tensors, and what reads one matrix."""
    method = (method_of(config) or "").lower()
    settings = config["quantization_config"]
    if method == "awq":
        own = awq.read_settings(settings)
        return _title("AWQ", own.bits, own.group), awq.SUFFIXES, hub_matrices.awq_reader(own)
    if method == "gptq":
        gptq_own = gptq.read_settings(settings)
        return _title("GPTQ", gptq_own.bits, gptq_own.group), gptq.SUFFIXES, hub_matrices.gptq_reader(gptq_own)
    if method == "fp8":
        block = fp8.read_settings(settings)
        title = f"FP8 in blocks of {block.block[0]}x{block.block[1]}"
        return title, fp8.SUFFIXES, hub_matrices.fp8_reader(block)
    if method == "compressed-tensors":
        packed = compressed_tensors.read_settings(settings)
        title = _title("compressed-tensors", packed.bits, packed.group)
        return title, compressed_tensors.SUFFIXES, hub_matrices.compressed_reader(packed)
    raise UnsupportedModel(
        f"weights stored as {quote(method, 40)} cannot be imported",
        expected="awq, gptq, fp8 or compressed-tensors",
        hint=_ADVICE,
    )


def _title(name: str, bits: int, group: int) -> str:
    return f"{name} {bits}-bit " + (f"g{group}" if group > 0 else "by channel")


def plain_tensor(source: Source, tensor: TensorInfo) -> ForeignTensor:
    """A tensor that is floats already.

    Raises:
        CheckpointError: it is something else.
    """
    if tensor.dtype not in _FLOATS or not tensor.shape:
        raise CheckpointError(
            f"tensor {quote(tensor.name)} is nothing that this format has",
            expected=f"floats ({', '.join(_FLOATS)})",
            found=f"{tensor.dtype} {list(tensor.shape)}",
            hint="The file may be damaged, or made by a program that is not known here.",
        )

    def blocks(start: int, stop: int) -> Iterator[Rows]:
        if len(tensor.shape) == 1:
            yield np.asarray(source.rows(tensor.name).astype(mx.float32))[None]
            return
        for array in source.blocks(tensor.name, start, stop, flat=True):
            yield np.asarray(array.astype(mx.float32))

    dtype = str(MLX_DTYPES[tensor.dtype]).removeprefix("mlx.core.")
    return ForeignTensor(tensor.name, tensor.shape, dtype, tensor.nbytes, blocks)

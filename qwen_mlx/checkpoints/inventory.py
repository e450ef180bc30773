"""In which formats the tensors of a checkpoint are stored, seen from their headers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx

from qwen_mlx.checkpoints.assemble import QuantizationTable, module_name
from qwen_mlx.checkpoints.safetensors import MLX_DTYPES, TensorInfo
from qwen_mlx.checkpoints.stored import FormatError, read_quantization
from qwen_mlx.errors import CheckpointError
from qwen_mlx.models.spec import AttentionSpec, DeltaNetSpec, LayerSpec, MLPSpec, ModelSpec

_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True)
class Format:
    """Tensors that are stored alike.

    Attributes:
        name: "bfloat16" for plain floats, "4-bit g64 affine" for matrices packed in groups of 64.
        count: matrices with their scales, or plain tensors.
        nbytes: of all of them.
        bits, group_size, mode: of packed matrices, else None.
    """

    name: str
    count: int
    nbytes: int
    bits: int | None = None
    group_size: int | None = None
    mode: str | None = None


def find_formats(spec: ModelSpec, tensors: Mapping[str, TensorInfo], table: QuantizationTable) -> tuple[Format, ...]:
    """The formats of `tensors`, the one that takes most bytes first.

    Raises:
        CheckpointError: a packed matrix that fits neither the configuration nor any format.
    """
    own = {module_name(name, spec.tensor_names): tensor for name, tensor in tensors.items()}
    original = {module_name(name, spec.tensor_names): name for name in tensors}
    found: dict[str, Format] = {}

    def add(name: str, nbytes: int, bits: int | None = None, group: int | None = None, mode: str | None = None) -> None:
        before = found.get(name, Format(name, 0, 0, bits, group, mode))
        found[name] = Format(name, before.count + 1, before.nbytes + nbytes, bits, group, mode)

    for module in [name.removesuffix(".scales") for name in own if name.endswith(".scales")]:
        parts = {part: own.pop(f"{module}.{part}", None) for part in ("weight", "scales", "biases")}
        weight, scales, biases = (_outline(part) for part in parts.values())
        if weight is None or scales is None:
            raise _mismatch(f"{module}.weight is missing")
        try:
            rows = weight.shape[0] if weight.shape else 0
            q = read_quantization(rows, _columns(spec, module), weight, scales, biases, table.mode(module))
        except FormatError as error:
            raise _mismatch(f"{original[f'{module}.weight'].removesuffix('.weight')} has {error}") from None
        nbytes = sum(part.nbytes for part in parts.values() if part is not None)
        add(f"{q.bits}-bit g{q.group_size} {q.mode}", nbytes, q.bits, q.group_size, q.mode)
    for tensor in own.values():
        add(str(MLX_DTYPES[tensor.dtype]).removeprefix("mlx.core."), tensor.nbytes)
    return tuple(sorted(found.values(), key=lambda form: -form.nbytes))


@dataclass(frozen=True)
class _Outline:
    """Shape and type of a tensor, as an array would tell them."""

    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)


def _outline(tensor: TensorInfo | None) -> _Outline | None:
    """The outline of a matrix; the matrices of all experts are taken as one above the other."""
    if tensor is None:
        return None
    shape = tensor.shape
    if len(shape) > 2:
        shape = (math.prod(shape[:-1]), shape[-1])
    return _Outline(shape, MLX_DTYPES[tensor.dtype])


def _columns(spec: ModelSpec, module: str) -> int:
    """How many numbers a row of this matrix has."""
    kind = module.rpartition(".")[2]
    if kind not in ("o_proj", "out_proj", "down_proj"):
        return spec.hidden_size
    columns = None
    match = _LAYER.match(module)
    if match is not None and int(match[1]) < len(spec.layers):
        columns = _inner_size(spec.layers[int(match[1])], kind, ".shared_expert." in module)
    if columns is None:
        raise _mismatch(f"{module} is not part of this model")
    return columns


def _inner_size(layer: LayerSpec, kind: str, shared: bool) -> int | None:
    """Columns of a matrix that leads back to the hidden size."""
    mixer, mlp = layer.mixer, layer.mlp
    if kind == "o_proj":
        return mixer.heads * mixer.head_dim if isinstance(mixer, AttentionSpec) else None
    if kind == "out_proj":
        return mixer.value_heads * mixer.value_dim if isinstance(mixer, DeltaNetSpec) else None
    if isinstance(mlp, MLPSpec):
        return mlp.intermediate
    return mlp.shared_intermediate if shared else mlp.intermediate


def _mismatch(problem: str) -> CheckpointError:
    return CheckpointError(
        f"config.json and the weights do not belong together: {problem}",
        hint="Perhaps files of two models are mixed up in this folder; download the model again.",
    )

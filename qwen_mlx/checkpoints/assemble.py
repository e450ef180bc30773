"""Tensors of a checkpoint -> parameters of a decoder: names, shapes, stacking, and nothing left over."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.checkpoints.stored import FormatError, StoredMatrix, format_key, read_quantization, stack, stack_experts
from qwen_mlx.errors import CheckpointError
from qwen_mlx.models import Decoder
from qwen_mlx.models.moe import ExpertLinear, Experts
from qwen_mlx.models.projections import FusedLinear
from qwen_mlx.models.spec import ModelSpec

# Tensors that some checkpoints carry and no inference needs.
_IGNORED = re.compile(r"(^|\.)rotary_emb\.inv_freq$|(^|\.)attn\.masked_bias$|^mtp\.")
_PREFIXES = ("language_model.model.", "language_model.", "model.")  # longest first
_LISTED = 5

Prepare = Callable[[StoredMatrix], StoredMatrix]


def module_name(name: str) -> str:
    """The name of a tensor or module inside the decoder: without the prefixes of the hub."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


class QuantizationTable:
    """What `config.json` says of how matrices are packed; the shapes of the tensors have the last word."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        table = config.get("quantization")
        foreign = config.get("quantization_config")
        if table is None and isinstance(foreign, Mapping):
            if method := foreign.get("quant_method"):
                raise CheckpointError(
                    f"the weights are stored as {str(method)[:40]}",
                    expected="safetensors in float32, float16, bfloat16 or MLX's quantization",
                    hint="Importing other formats is not built in yet; use the original or an MLX version.",
                )
            table = foreign
        if table is not None and not isinstance(table, Mapping):
            raise CheckpointError(
                "config.json: 'quantization' is not usable", expected="an object", found=repr(table)[:60]
            )
        self._default: Mapping[str, Any] = table or {}
        self._overrides = {module_name(k): v for k, v in self._default.items() if isinstance(v, (Mapping, bool))}

    def mode(self, module: str) -> str | None:
        """The mode written for a module, or for all; None when the file does not say."""
        own = self._overrides.get(module)
        if isinstance(own, Mapping):
            return own.get("mode") or ("affine" if "bits" in own else None)
        mode = self._default.get("mode")
        return mode if isinstance(mode, str) else None


class Tensors:
    """The tensors of a checkpoint while they are taken one after the other; remembers everything that is wrong."""

    def __init__(self, tensors: Mapping[str, mx.array], table: QuantizationTable) -> None:
        self._tensors: dict[str, mx.array] = {}
        self._original: dict[str, str] = {}
        for name, array in tensors.items():
            if not _IGNORED.search(name):
                self._tensors[module_name(name)] = array
                self._original[module_name(name)] = name
        self._table = table
        self.problems: list[str] = []

    def vector(self, name: str, size: int) -> mx.array | None:
        """A tensor (size,) of floats; None, noted, when it is missing or wrong."""
        array = self._tensors.pop(name, None)
        if array is None:
            self.problems.append(f"{name} is missing")
        elif array.shape != (size,) or not mx.issubdtype(array.dtype, mx.floating):
            self.problems.append(f"{name} is {_kind(array)}, expected floats {(size,)}")
            array = None
        return array

    def matrix(self, module: str, rows: int, columns: int, bias: bool = False) -> StoredMatrix | None:
        """`module.weight` and its companions; None, noted, when it is missing or wrong."""
        weight = self._tensors.pop(f"{module}.weight", None)
        scales = self._tensors.pop(f"{module}.scales", None)
        biases = self._tensors.pop(f"{module}.biases", None)
        added = self.vector(f"{module}.bias", rows) if bias else None
        if weight is None:
            self.problems.append(f"{module}.weight is missing")
            return None
        if scales is None:
            if weight.shape != (rows, columns) or not mx.issubdtype(weight.dtype, mx.floating):
                self.problems.append(f"{module}.weight is {_kind(weight)}, expected floats {(rows, columns)}")
                return None
            return StoredMatrix(weight, bias=added)
        try:
            quantization = read_quantization(rows, columns, weight, scales, biases, self._table.mode(module))
        except FormatError as error:
            self.problems.append(f"{module} has {error}")
            return None
        return StoredMatrix(weight, scales, biases, added, quantization)

    def experts(self, path: str, name: str, count: int, rows: int, columns: int) -> StoredMatrix | None:
        """Matrices `name` ("gate_proj", ...) of all experts under `path` ("layers.0.mlp"), stacked; None, noted.

        Published checkpoints have one tensor per expert, or one for all (fused: without ".weight"); MLX's have one
        under "switch_mlp".
        """
        for module in (f"{path}.switch_mlp.{name}", f"{path}.experts.{name}"):
            if f"{module}.weight" not in self._tensors and module in self._tensors:
                self._tensors[f"{module}.weight"] = self._tensors.pop(module)
            if f"{module}.weight" in self._tensors:
                return self._stacked(module, count, rows, columns)
        found = [self.matrix(f"{path}.experts.{e}.{name}", rows, columns) for e in range(count)]
        matrices = [m for m in found if m is not None]
        if len(matrices) < count:
            return None
        if len({format_key(m) for m in matrices}) > 1:
            self.problems.append(f"{path}.experts have {name} in different formats")
            return None
        return stack_experts(matrices)

    def _stacked(self, module: str, count: int, rows: int, columns: int) -> StoredMatrix | None:
        """One tensor (experts, rows, columns) is checked as the matrix of all its rows, and folded again."""
        parts = [f"{module}.{part}" for part in ("weight", "scales", "biases")]
        for part in parts:
            array = self._tensors.get(part)
            if array is not None and array.ndim == 3 and array.shape[0] == count:
                self._tensors[part] = array.flatten(0, 1)
        flat = self.matrix(module, count * rows, columns)
        if flat is None:
            return None

        def fold(array: mx.array | None) -> mx.array | None:
            return None if array is None else array.reshape(count, rows, -1)

        weight = fold(flat.weight)
        assert weight is not None
        return StoredMatrix(weight, fold(flat.scales), fold(flat.biases), None, flat.quantization)

    def has(self, name: str) -> bool:
        """Whether a tensor of this name is left."""
        return name in self._tensors

    def drop(self, prefix: str) -> None:
        """Ignore, on purpose, what is left under `prefix`."""
        for name in [n for n in self._tensors if n.startswith(prefix)]:
            del self._tensors[name]

    def finish(self) -> None:
        """Raise one error for everything that was missing, wrong or left over."""
        left = [f"{self._original[name]} is not part of this model" for name in sorted(self._tensors)]
        problems = self.problems + left
        if problems:
            shown = "; ".join(problems[:_LISTED])
            more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
            raise CheckpointError(
                f"config.json and the weights do not belong together: {shown}{more}",
                hint="Perhaps files of two models are mixed up in this folder; download the model again.",
            )


def _kind(array: mx.array) -> str:
    return f"{str(array.dtype).removeprefix('mlx.core.')} {array.shape}"


def assemble(decoder: Decoder, tensors: Tensors, prepare: Prepare) -> Iterator[tuple[int, int]]:
    """Give `decoder` its weights, a layer at a time; yields (done, total) after each.

    Args:
        prepare: brings a matrix into the form in which it will run.
    """
    spec = decoder.spec
    total = len(decoder.layers) + 1
    matrix = tensors.matrix("embed_tokens", spec.vocab_size, spec.hidden_size)
    if matrix is not None:
        decoder.embed_tokens = prepare(matrix).embedding()
    if spec.tied:
        tensors.drop("lm_head.")
    else:
        matrix = tensors.matrix("lm_head", spec.vocab_size, spec.hidden_size)
        if matrix is not None:
            decoder.lm_head = prepare(matrix).linear()
    _fill_norm(decoder.norm, "norm", tensors, prepare)
    mx.eval([m.parameters() for m in (decoder.embed_tokens, decoder.norm)])
    if not spec.tied:
        mx.eval(decoder.lm_head.parameters())
    yield 1, total
    for i, layer in enumerate(decoder.layers):
        _fill(layer, f"layers.{i}", spec, tensors, prepare)
        if not tensors.problems:
            mx.eval(layer.parameters())
        yield i + 2, total
    tensors.finish()


def _fill(module: nn.Module, path: str, spec: ModelSpec, tensors: Tensors, prepare: Prepare) -> None:
    """Fill every part of a layer, whatever the layer is made of."""
    for name, child in list(module.children().items()):
        child_path = f"{path}.{name}"
        if isinstance(child, FusedLinear):
            _fill_fused(child, path, tensors, prepare)
        elif isinstance(child, Experts):
            _fill_experts(child, path, tensors, prepare)
        elif isinstance(child, nn.Linear):
            rows, columns = child.weight.shape
            matrix = tensors.matrix(child_path, rows, columns, bias="bias" in child)
            if matrix is not None:
                setattr(module, name, prepare(matrix).linear())
        elif isinstance(child, nn.RMSNorm):
            _fill_norm(child, child_path, tensors, prepare)
        elif isinstance(child, nn.Module):
            _fill(child, child_path, spec, tensors, prepare)


def _fill_norm(norm: nn.RMSNorm, path: str, tensors: Tensors, prepare: Prepare) -> None:
    vector = tensors.vector(f"{path}.weight", norm.weight.size)
    if vector is not None:
        norm.weight = prepare(StoredMatrix(vector)).weight


def _fill_fused(fused: FusedLinear, path: str, tensors: Tensors, prepare: Prepare) -> None:
    columns = fused.parts[0].weight.shape[1]
    bias = "bias" in fused.parts[0]
    stored = []
    for name, rows in fused.members.items():
        matrix = tensors.matrix(f"{path}.{name}", rows, columns, bias=bias)
        if matrix is not None:
            stored.append((name, prepare(matrix)))
    if len(stored) < len(fused.members):
        return  # noted already
    parts, grouping = [], []
    for _, run in itertools.groupby(stored, key=lambda item: format_key(item[1])):
        members = list(run)
        parts.append(stack([m for _, m in members]).linear())
        grouping.append([name for name, _ in members])
    fused.set_parts(parts, grouping)


def _fill_experts(experts: Experts, path: str, tensors: Tensors, prepare: Prepare) -> None:
    down, gate_up = experts.down_proj, experts.gate_up_proj
    count, hidden, size = down.weight.shape
    _set(down, tensors.experts(path, "down_proj", count, hidden, size), prepare)
    if tensors.has(f"{path}.experts.gate_up_proj") or tensors.has(f"{path}.experts.gate_up_proj.weight"):
        _set(gate_up, tensors.experts(path, "gate_up_proj", count, 2 * size, hidden), prepare)
        return
    gate = tensors.experts(path, "gate_proj", count, size, hidden)
    up = tensors.experts(path, "up_proj", count, size, hidden)
    if gate is None or up is None:
        return
    if format_key(gate) != format_key(up):
        tensors.problems.append(f"{path} has gate and up projections of experts in different formats")
        return
    _set(gate_up, stack([gate, up], axis=1), prepare)


def _set(layer: ExpertLinear, matrix: StoredMatrix | None, prepare: Prepare) -> None:
    if matrix is not None:
        m = prepare(matrix)
        layer.set_weights(m.weight, m.scales, m.biases, m.quantization)

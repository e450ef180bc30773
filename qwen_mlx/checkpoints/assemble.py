"""Tensors of a checkpoint -> parameters of a decoder: names, shapes, stacking, and nothing left over."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.checkpoints.stored import FormatError, StoredMatrix, format_key, read_quantization, stack, stack_experts
from qwen_mlx.errors import CheckpointError
from qwen_mlx.models import Decoder
from qwen_mlx.models.delta_net import DeltaNet
from qwen_mlx.models.moe import ExpertLinear, Experts
from qwen_mlx.models.norm import RMSNorm
from qwen_mlx.models.projections import FusedLinear

# Tensors that some checkpoints carry and no inference needs.
_IGNORED = re.compile(
    r"(^|\.)rotary_emb\.inv_freq$|(^|\.)attn\.masked_bias$|^(model\.|language_model\.)*(mtp|visual)\.|^vision_tower\."
)
_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.")  # longest first
_LISTED = 5

Prepare = Callable[[StoredMatrix], StoredMatrix]


def module_name(name: str, renames: Sequence[tuple[str, str]] = ()) -> str:
    """The name of a tensor or module inside the decoder: without the prefixes of the hub.

    Args:
        renames: `ModelSpec.tensor_names`.
    """
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    name = name[len(prefix) :]
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def is_ignored(name: str) -> bool:
    """Whether a tensor of this name plays no part in reading and writing text: vision, extra heads, buffers."""
    return _IGNORED.search(name) is not None


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
                    hint="`qwen-mlx import` turns AWQ, GPTQ, FP8 and compressed-tensors into a model that runs here.",
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

    def __init__(
        self,
        tensors: Mapping[str, mx.array],
        table: QuantizationTable,
        renames: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._tensors: dict[str, mx.array] = {}
        self._original: dict[str, str] = {}
        for name, array in tensors.items():
            if is_ignored(name):
                continue
            own = module_name(name, renames)
            self._tensors[own] = array
            self._original[own] = name
        self._table = table
        self.problems: list[str] = []
        self._noted: set[str] = set()  # parts of a tensor that is wrong as a whole

    def _missing(self, name: str) -> None:
        if name not in self._noted:
            self.problems.append(f"{name} is missing")

    def _named(self, module: str, part: str) -> str:
        """The name in the file."""
        return self._original.get(f"{module}.{part}") or self._original[module]

    def permute_rows(self, module: str, order: Sequence[int], into: Mapping[str, int]) -> None:
        """Replace `module` by several, each made of some of its rows: the first ones of `order`, and so on.

        Works for packed matrices too, as every row is packed on its own.
        """
        rows = mx.array(list(order))
        parts = ("weight", "scales", "biases", "bias")
        arrays = {part: self._tensors.pop(f"{module}.{part}", None) for part in parts}
        if arrays["weight"] is None:
            return  # stored apart already, or missing, which will be noted
        for part, array in arrays.items():
            if array is None:
                continue
            if array.shape[:1] != (len(order),):
                self.problems.append(f"{self._named(module, part)} is {_kind(array)}, expected {len(order)} rows")
                self._noted.update(f"{name}.{part}" for name in into for part in parts)
                return
            start = 0
            for name, count in into.items():
                self._tensors[f"{name}.{part}"] = array[rows[start : start + count]]
                self._original[f"{name}.{part}"] = self._named(module, part)
                start += count

    def array(self, name: str, *shapes: tuple[int, ...]) -> mx.array | None:
        """A tensor of floats in one of `shapes`; None, noted, when it is missing or wrong."""
        array = self._tensors.pop(name, None)
        if array is None:
            self._missing(name)
        elif array.shape not in shapes or not mx.issubdtype(array.dtype, mx.floating):
            found = f"{self._original[name]} is {_kind(array)}"
            self.problems.append(f"{found}, expected floats {' or '.join(map(str, shapes))}")
            array = None
        return array

    def vector(self, name: str, size: int) -> mx.array | None:
        """A tensor (size,) of floats; None, noted, when it is missing or wrong."""
        return self.array(name, (size,))

    def matrix(self, module: str, rows: int, columns: int, bias: bool = False) -> StoredMatrix | None:
        """`module.weight` and its companions; None, noted, when it is missing or wrong."""
        weight = self._tensors.pop(f"{module}.weight", None)
        scales = self._tensors.pop(f"{module}.scales", None)
        biases = self._tensors.pop(f"{module}.biases", None)
        added = self.vector(f"{module}.bias", rows) if bias else None
        if weight is None:
            self._missing(f"{module}.weight")
            return None
        if scales is None:
            if weight.shape != (rows, columns) or not mx.issubdtype(weight.dtype, mx.floating):
                found = f"{self._named(module, 'weight')} is {_kind(weight)}"
                self.problems.append(f"{found}, expected floats {(rows, columns)}")
                return None
            return StoredMatrix(weight, bias=added)
        try:
            quantization = read_quantization(rows, columns, weight, scales, biases, self._table.mode(module))
        except FormatError as error:
            self.problems.append(f"{self._named(module, 'weight').removesuffix('.weight')} has {error}")
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

    def any_shape(self, pattern: str, condition: Callable[[tuple[int, ...]], bool]) -> bool:
        """Whether the shape of some tensor whose name matches fulfils `condition`."""
        return any(re.search(pattern, name) and condition(a.shape) for name, a in self._tensors.items())

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
        if problems := self.problems + left:
            raise mismatch(problems)


def mismatch(problems: Sequence[str]) -> CheckpointError:
    """One error for everything in which weights and configuration disagree."""
    shown = "; ".join(problems[:_LISTED])
    more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    return CheckpointError(
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
    filler = _Filler(tensors, prepare, spec.zero_centred_norms and not _norms_are_shifted(tensors))
    matrix = tensors.matrix("embed_tokens", spec.vocab_size, spec.hidden_size)
    if matrix is not None:
        decoder.embed_tokens = prepare(matrix).embedding()
    if spec.tied:
        tensors.drop("lm_head.")
    else:
        matrix = tensors.matrix("lm_head", spec.vocab_size, spec.hidden_size)
        if matrix is not None:
            decoder.lm_head = prepare(matrix).linear()
    filler.norm(decoder.norm, "norm")
    mx.eval([m.parameters() for m in (decoder.embed_tokens, decoder.norm)])
    if not spec.tied:
        mx.eval(decoder.lm_head.parameters())
    yield 1, total
    for i, layer in enumerate(decoder.layers):
        filler.module(layer, f"layers.{i}")
        if not tensors.problems:
            mx.eval(layer.parameters())
        yield i + 2, total
    tensors.finish()


def _norms_are_shifted(tensors: Tensors) -> bool:
    """Whether another program has added the one to zero-centred norms already.

    mlx-lm does so when it turns the convolution (channels, 1, kernel) into MLX's layout (channels, kernel, 1).
    """
    return tensors.any_shape(r"\.conv1d\.weight$", lambda shape: len(shape) == 3 and shape[2] == 1)


@dataclass(frozen=True)
class _Filler:
    """Fills modules with tensors; which tensor goes where follows from the kind of module and its path.

    `add_one` brings zero-centred norms into the form in which they run.
    """

    tensors: Tensors
    prepare: Prepare
    add_one: bool

    def module(self, module: nn.Module, path: str) -> None:
        """Fill every part of a module, whatever it is made of."""
        if isinstance(module, DeltaNet):
            self._delta_net(module, path)
        for name, child in list(module.children().items()):
            child_path = f"{path}.{name}"
            if isinstance(child, FusedLinear):
                _fill_fused(child, path, self.tensors, self.prepare)
            elif isinstance(child, Experts):
                _fill_experts(child, path, self.tensors, self.prepare)
            elif isinstance(child, nn.Linear):
                rows, columns = child.weight.shape
                matrix = self.tensors.matrix(child_path, rows, columns, bias="bias" in child)
                if matrix is not None:
                    setattr(module, name, self.prepare(matrix).linear())
            elif isinstance(child, nn.RMSNorm):
                self.norm(child, child_path)
            elif isinstance(child, nn.Module):
                self.module(child, child_path)

    def norm(self, norm: nn.RMSNorm, path: str) -> None:
        vector = self.tensors.vector(f"{path}.weight", norm.weight.size)
        if vector is None:
            return
        if isinstance(norm, RMSNorm) and self.add_one:
            norm.weight = vector.astype(mx.float32) + 1
        elif isinstance(norm, RMSNorm):
            norm.weight = self.prepare(StoredMatrix(vector)).weight
        else:
            norm.weight = vector.astype(mx.float32)

    def _delta_net(self, net: DeltaNet, path: str) -> None:
        """The small tensors, in float32 where the recurrence needs it, and the rows in the order that runs."""
        s = net.spec
        channels = net.conv1d.shape[0]
        conv = self.tensors.array(f"{path}.conv1d.weight", (channels, 1, s.kernel), (channels, s.kernel, 1))
        if conv is not None:
            net.conv1d = self.prepare(StoredMatrix(conv.reshape(channels, s.kernel))).weight
        for name in ("A_log", "dt_bias"):
            vector = self.tensors.vector(f"{path}.{name}", s.value_heads)
            if vector is not None:
                setattr(net, name, vector.astype(mx.float32))
        if s.interleaved:
            members = net.in_proj.members
            big = {f"{path}.{name}": members[name] for name in ("in_proj_qkv", "in_proj_z")}
            small = {f"{path}.{name}": members[name] for name in ("in_proj_b", "in_proj_a")}
            self.tensors.permute_rows(f"{path}.in_proj_qkvz", s.rows_of_qkvz(), big)
            self.tensors.permute_rows(f"{path}.in_proj_ba", s.rows_of_ba(), small)


def _fill_fused(fused: FusedLinear, path: str, tensors: Tensors, prepare: Prepare) -> None:
    if "q_proj" in fused.members and tensors.has(f"{path}.qkv.weight"):  # stored as one
        rows_of = {f"{path}.{name}": rows for name, rows in fused.members.items()}
        tensors.permute_rows(f"{path}.qkv", range(sum(rows_of.values())), rows_of)
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

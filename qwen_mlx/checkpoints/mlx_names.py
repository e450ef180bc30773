"""The tensors of a converted checkpoint: how mlx-lm names and shapes them, and out of which stored ones each is made.

mlx-lm's files differ from the hub's: all experts of a layer are one tensor under `switch_mlp`; Qwen3-Next and Qwen3.5
have the convolution with its channels first, the norms with their one added, and (Qwen3.5) another prefix. What a model
needs follows from its spec, so a folder in which something is missing, wrong or left over is refused here, before
anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

from qwen_mlx.checkpoints.assemble import QuantizationTable, is_ignored, mismatch, module_name
from qwen_mlx.checkpoints.safetensors import MLX_DTYPES, TensorInfo
from qwen_mlx.checkpoints.save import hub_tensors
from qwen_mlx.checkpoints.stored import FormatError, read_quantization
from qwen_mlx.models import Decoder, ModelSpec
from qwen_mlx.models.spec import QuantizationSpec

import mlx.core as mx  # isort: skip

_EXPERTS = re.compile(r"(?P<path>.*\.mlp)\.switch_mlp\.(?P<name>\w+)$")
_SHIFTED = re.compile(r"(^norm|\.(input_layernorm|post_attention_layernorm|q_norm|k_norm))\.weight$")
# What mlx-lm knows under another name.
_MODEL_TYPES = {"qwen3_5_text": "qwen3_5", "qwen3_5_moe_text": "qwen3_5_moe"}
_PARTS = ("weight", "scales", "biases")


@dataclass(frozen=True)
class Piece:
    """Some rows of a stored matrix, all axes but the last taken for rows.

    Attributes:
        weight, scales, biases: names in the source; the last two None where they are not stored.
        start, stop: of the rows.
        quantization: None for plain floats.
    """

    weight: str
    start: int
    stop: int
    scales: str | None = None
    biases: str | None = None
    quantization: QuantizationSpec | None = None


@dataclass(frozen=True)
class Matrix:
    """A matrix that can be packed.

    Attributes:
        module: its name in the new files, without ".weight".
        own: its name inside the decoder.
        shape: (rows, columns), or (experts, rows, columns).
        pieces: where its rows come from, in order.
    """

    module: str
    own: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def quantization(self) -> QuantizationSpec | None:
        """How it is stored; the same for all its pieces."""
        return self.pieces[0].quantization


@dataclass(frozen=True)
class Vector:
    """A tensor that stays as it is but for its type, and what `change` says.

    Attributes:
        name, own: in the new files, and inside the decoder.
        source: name in the source.
        shape: in the new files.
        change: "add one" to the weights of a zero-centred norm; "channels first" for a convolution.
    """

    name: str
    own: str
    source: str
    shape: tuple[int, ...]
    change: Literal["", "add one", "channels first"] = ""


def mlx_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` as mlx-lm knows it: without a quantization, and under a model type it has."""
    values = {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")}
    kind = values.get("model_type")
    if isinstance(kind, str) and kind in _MODEL_TYPES:
        values["model_type"] = _MODEL_TYPES[kind]
    return values


def mlx_tensors(tensors: Mapping[str, TensorInfo], spec: ModelSpec, table: QuantizationTable) -> list[Matrix | Vector]:
    """Everything the new files hold, in the order of the layers.

    Args:
        tensors: of the source, by the names of its files.
        table: what its configuration says of packed matrices.

    Raises:
        CheckpointError: the tensors are not those of this model; lists the first of everything that is wrong.
    """
    finder = _Finder(tensors, spec, table)
    found = [found for own, shape in _expected(spec, finder.joined) for found in finder.find(own, shape)]
    finder.finish()
    return found


def _expected(spec: ModelSpec, joined: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names inside the decoder, and shapes. `joined`: q, k and v are stored as one (the first Qwen)."""
    for name, array in hub_tensors(Decoder(spec), stacked=True).items():
        own, shape = module_name(name), tuple(array.shape)
        if joined and ".self_attn." in own and any(f".{part}_proj." in own for part in "kv"):
            continue
        if joined and ".self_attn.q_proj." in own:
            own, shape = own.replace("q_proj", "qkv"), (3 * shape[0], *shape[1:])
        yield own, shape


class _Finder:
    """Finds what an expected tensor is made of, and remembers everything that is wrong."""

    def __init__(self, tensors: Mapping[str, TensorInfo], spec: ModelSpec, table: QuantizationTable) -> None:
        self._spec, self._table = spec, table
        self._infos = tensors
        self._left: dict[str, str] = {}  # name inside the decoder -> name in the source
        for name in tensors:
            if not is_ignored(name) and not (spec.tied and "lm_head" in name.split(".")):
                self._left[module_name(name, spec.tensor_names)] = name
        self.joined = any(own.endswith(".self_attn.qkv.weight") for own in self._left)
        convs = [tensors[name].shape for own, name in self._left.items() if own.endswith(".conv1d.weight")]
        # The same sign by which mlx-lm knows that the one has been added already.
        self._add_one = spec.zero_centred_norms and any(len(shape) == 3 and shape[2] != 1 for shape in convs)
        self._problems: list[str] = []

    def find(self, own: str, shape: tuple[int, ...]) -> Iterator[Matrix | Vector]:
        """The one tensor, or nothing when it is missing or wrong, which is noted."""
        if not own.endswith(".weight") or len(shape) < 2 or ".conv1d." in own:
            yield from self._vector(own, shape)
            return
        module = own.removesuffix(".weight")
        pieces = self._pieces(module, shape)
        if pieces is None:
            return
        if len({replace(p, weight="", start=0, stop=0, scales=None, biases=None) for p in pieces}) > 1:
            self._problems.append(f"{module} has experts in different formats")
            return
        yield Matrix(self._new_name(own, pieces[0].weight).removesuffix(".weight"), module, shape, tuple(pieces))

    def finish(self) -> None:
        """Raises `CheckpointError` for everything that was missing, wrong or is left over."""
        left = [f"{name} is not part of this model" for _, name in sorted(self._left.items())]
        if self._problems or left:
            raise mismatch(self._problems + left)

    def _new_name(self, own: str, source: str) -> str:
        if self._spec.tensor_names:
            return source  # the first Qwen keeps its names
        prefix = "language_model." if self._spec.family.startswith("qwen3_5") else ""
        return f"{prefix}{own}" if own.startswith("lm_head.") else f"{prefix}model.{own}"

    def _vector(self, own: str, shape: tuple[int, ...]) -> Iterator[Vector]:
        source = self._take(own)
        if source is None:
            return
        stored = self._infos[source].shape
        change: Literal["", "add one", "channels first"] = ""
        if own.endswith(".conv1d.weight") and stored == (shape[0], 1, shape[1]) and stored != shape:
            change, stored = "channels first", shape
        elif self._add_one and _SHIFTED.search(own):
            change = "add one"
        if self._is_float(source) and stored == shape:
            yield Vector(self._new_name(own, source), own, source, shape, change)
        else:
            self._wrong(source, f"floats {shape}")

    def _pieces(self, module: str, shape: tuple[int, ...]) -> list[Piece] | None:
        """The stored rows of one matrix, or of all experts'."""
        rows, columns = prod(shape[:-1]), shape[-1]
        match = _EXPERTS.fullmatch(module)
        if match is None:
            return self._whole(module, rows, columns)
        path, name = match["path"], match["name"]
        for alias in (f"{path}.experts.{name}", f"{path}.experts.gate_up_proj"):
            if alias in self._left:  # published without ".weight"
                self._left[f"{alias}.weight"] = self._left.pop(alias)
        if f"{module}.weight" in self._left:
            return self._whole(module, rows, columns)
        if f"{path}.experts.{name}.weight" in self._left:
            return self._whole(f"{path}.experts.{name}", rows, columns)
        if name in ("gate_proj", "up_proj") and f"{path}.experts.gate_up_proj.weight" in self._left:
            return self._half(f"{path}.experts.gate_up_proj", name == "gate_proj", shape)
        found = [self._whole(f"{path}.experts.{e}.{name}", shape[1], columns) for e in range(shape[0])]
        return [piece for pieces in found if pieces for piece in pieces] if all(found) else None

    def _half(self, module: str, first: bool, shape: tuple[int, ...]) -> list[Piece] | None:
        """One half of the rows of every expert: gate and up are stored above each other, the gate first."""
        keep = {part: self._left.get(f"{module}.{part}") for part in _PARTS}
        whole = self._whole(module, 2 * shape[0] * shape[1], shape[-1])
        if whole is None:
            return None
        if first:  # the other half will be asked for next
            self._left.update({f"{module}.{part}": name for part, name in keep.items() if name is not None})
        half, start = shape[1], 0 if first else shape[1]
        return [
            replace(whole[0], start=2 * half * e + start, stop=2 * half * e + start + half) for e in range(shape[0])
        ]

    def _whole(self, module: str, rows: int, columns: int) -> list[Piece] | None:
        """All rows of a stored matrix; None, noted, when it is missing or wrong."""
        weight = self._take(f"{module}.weight")
        scales, biases = (self._left.pop(f"{module}.{part}", None) for part in ("scales", "biases"))
        if weight is None:
            return None
        if scales is None:
            stored = self._infos[weight].shape
            if self._is_float(weight) and len(stored) > 1 and (prod(stored[:-1]), stored[-1]) == (rows, columns):
                return [Piece(weight, 0, rows)]
            self._wrong(weight, f"floats {(rows, columns)}")
            return None
        parts = [None if name is None else _Flat.of(self._infos[name]) for name in (weight, scales, biases)]
        assert parts[0] is not None and parts[1] is not None
        try:
            form = read_quantization(rows, columns, parts[0], parts[1], parts[2], self._table.mode(module))
        except FormatError as error:
            self._problems.append(f"{weight.removesuffix('.weight')} has {error}")
            return None
        return [Piece(weight, 0, rows, scales, biases, form)]

    def _take(self, own: str) -> str | None:
        name = self._left.pop(own, None)
        if name is None:
            self._problems.append(f"{own} is missing")
        return name

    def _is_float(self, name: str) -> bool:
        return self._infos[name].dtype in ("F32", "F16", "BF16")

    def _wrong(self, name: str, expected: str) -> None:
        info = self._infos[name]
        self._problems.append(f"{name} is {info.dtype} {info.shape}, expected {expected}")


@dataclass(frozen=True)
class _Flat:
    """Shape and type of a stored tensor, all axes but the last taken for rows; see `stored.Outline`."""

    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @classmethod
    def of(cls, info: TensorInfo) -> _Flat:
        shape = info.shape if len(info.shape) < 3 else (prod(info.shape[:-1]), info.shape[-1])
        return cls(shape, MLX_DTYPES[info.dtype])

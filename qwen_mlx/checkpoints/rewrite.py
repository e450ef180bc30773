"""One model folder -> the plan of another: every matrix in the format it is to have, everything else in one type.

This is what `convert` and `quantize` have in common. A matrix is read some rows at a time, unpacked where it was
packed, brought into its new format and handed to the writer of `stream.py`.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qwen_mlx.checkpoints.assemble import QuantizationTable
from qwen_mlx.checkpoints.config import read_config
from qwen_mlx.checkpoints.folder import model_folder
from qwen_mlx.checkpoints.layout import Output
from qwen_mlx.checkpoints.mlx_names import Matrix, Piece, Vector, mlx_config, mlx_tensors
from qwen_mlx.checkpoints.publish import partial_folder
from qwen_mlx.checkpoints.quantizers.builtin import quantize
from qwen_mlx.checkpoints.quantizers.gptq import Guide, gptq
from qwen_mlx.checkpoints.quantizers.rounding import search
from qwen_mlx.checkpoints.quantizers.stored_types import NotFinite, finite
from qwen_mlx.checkpoints.recipes import MODES
from qwen_mlx.checkpoints.source import BLOCK, Source, Wanted
from qwen_mlx.checkpoints.stream import Blocks, Plan, Step, disk_need, side_files
from qwen_mlx.errors import CheckpointError, UsageError
from qwen_mlx.events import ConversionPlanned
from qwen_mlx.models import ModelSpec, read_spec
from qwen_mlx.models.spec import QuantizationSpec

import mlx.core as mx  # isort: skip

if TYPE_CHECKING:
    from qwen_mlx.checkpoints.calibrate import Hessians

Rounding = Literal["best", "mlx"]
# Names a person uses -> safetensors -> MLX.
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
SHORT = {"bf16": "bfloat16", "f16": "float16", "fp16": "float16", "f32": "float32", "fp32": "float32"}
_MLX = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
# What never loses precision: mlx-lm keeps it as it is, too.
_KEPT = (".A_log",)
# What a conversion takes at most, as measured: the program, a block in some forms, and what is read ahead.
_MEMORY = 200_000_000


@dataclass
class Original:
    """A model folder whose small files and headers were checked; holds files open.

    Attributes:
        items: the tensors of the new folder, as mlx-lm names them.
        dtype: safetensors name of the type of all floats, from the configuration or as the embeddings are stored.
    """

    folder: Path
    config: dict[str, Any]
    spec: ModelSpec
    source: Source
    items: list[Matrix | Vector]
    dtype: str

    @classmethod
    def open(cls, folder: str | Path, dtype: str | None = None) -> Original:
        """Read and check everything but the data.

        Args:
            dtype: a key of `DTYPES`; None is what the model says.

        Raises:
            NotFound, CheckpointError: as `load`.
            UsageError: there is no such type.
        """
        path = model_folder(Path(folder).expanduser().absolute())
        config = read_config(path)
        spec = read_spec(config)
        table = QuantizationTable(config)
        wanted = None if dtype is None else _dtype(dtype)
        source = Source(path)
        items = mlx_tensors(source.tensors, spec, table)
        return cls(path, config, spec, source, items, wanted or _own_dtype(config, source, items))

    @property
    def matrices(self) -> list[Matrix]:
        return [item for item in self.items if isinstance(item, Matrix)]

    @property
    def packed(self) -> list[Matrix]:
        """The matrices that are quantized already."""
        return [matrix for matrix in self.matrices if matrix.quantization is not None]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that are used."""
        names: set[str] = set()
        for item in self.items:
            if isinstance(item, Vector):
                names.add(item.source)
            else:
                names.update(n for p in item.pieces for n in (p.weight, p.scales, p.biases) if n is not None)
        return sum(self.source.tensors[name].nbytes for name in names)

    @property
    def rest(self) -> int:
        """Bytes, in the new folder, of what is no matrix."""
        return sum(_vector_output(item, self).nbytes for item in self.items if isinstance(item, Vector))

    def describe(self) -> str:
        """How the matrices are stored: "4-bit g64 affine, 8-bit g64 affine"."""
        kinds = Counter(form_name(matrix.quantization, self.dtype) for matrix in self.matrices)
        return ", ".join(kind for kind, _ in kinds.most_common())


def form_name(form: QuantizationSpec | None, dtype: str) -> str:
    """As `show` calls it."""
    if form is None:
        return next(name for name, own in DTYPES.items() if own == dtype)
    return f"{form.bits}-bit g{form.group_size} {form.mode}"


@dataclass
class Rewriting:
    """What is to become of an `Original`.

    Attributes:
        formats: by the new name of the matrix; None is plain floats.
        default: of the formats, what `config.json` names for all; None when nothing is packed.
        rounding: how codes are chosen where they are new.
        importance: by the name inside the decoder, (columns,), for the rounding "best".
        hessians: what GPTQ needs instead, of one layer at a time; None where it is not asked for.
        error, power: what rounding changed, squared and summed, and the same of the weights; filled while it runs.
    """

    original: Original
    formats: Mapping[str, QuantizationSpec | None]
    default: QuantizationSpec | None = None
    rounding: Rounding = "best"
    importance: Mapping[str, np.ndarray] = field(default_factory=dict)
    hessians: Hessians | None = None
    error: float = 0.0
    power: float = 0.0
    _then: dict[Piece, Wanted] = field(default_factory=dict)  # what is read after a piece
    _last: tuple[np.ndarray, Guide] | None = None  # matrices that read the same have the same Hessian

    @property
    def relative_error(self) -> float | None:
        """Root mean square of the changes, relative to that of the weights; None where it was not measured."""
        return (self.error / self.power) ** 0.5 if self.power else None

    def plan(self) -> Plan:
        """The steps, and the small files."""
        original = self.original
        steps = [
            self._matrix_step(item) if isinstance(item, Matrix) else self._vector_step(item) for item in original.items
        ]
        pieces = [piece for matrix in original.matrices for piece in matrix.pieces]
        for piece, after in itertools.pairwise(pieces):
            if after.quantization is None:
                self._then[piece] = Wanted(after.weight, after.start, after.stop, True)
        return Plan(steps, self._config(), side_files(original.folder), original.spec.parameters)

    def announce(self, plan: Plan, target: Path) -> ConversionPlanned:
        """The numbers a person wants to know first."""
        original = self.original
        nbytes = sum(output.nbytes for step in plan.steps for output in step.outputs)
        folder = target.absolute()
        while not folder.exists():
            folder = folder.parent
        left = partial_folder(target)
        free = shutil.disk_usage(folder).free
        if left.is_dir():
            free += sum(file.stat().st_size for file in left.iterdir() if file.is_file())
        packs = self.default is not None
        return ConversionPlanned(
            folder=str(target),
            source_bytes=original.nbytes,
            nbytes=nbytes,
            disk=disk_need(plan),
            free=free,
            memory=_MEMORY,
            parameters=original.spec.parameters,
            bits_before=8 * original.nbytes / original.spec.parameters,
            bits_after=8 * nbytes / original.spec.parameters,
            formats=dict(Counter(form_name(f, original.dtype) for f in self.formats.values()).most_common()),
            left_plain=tuple(name for name, f in self.formats.items() if packs and f is None),
        )

    def _config(self) -> dict[str, Any]:
        values = mlx_config(self.original.config)
        name = next(name for name, own in DTYPES.items() if own == self.original.dtype)
        for part in (values, values.get("text_config")):
            for key in ("torch_dtype", "dtype"):
                if isinstance(part, dict) and key in part:
                    part[key] = name
        if self.default is not None:
            table: dict[str, Any] = _entry(self.default)
            for module, form in self.formats.items():
                if form is not None and form != self.default:
                    table[module] = _entry(form)
            values["quantization"] = table
        return values

    # ------------------------------------------------------------------------------------------ steps

    def _vector_step(self, vector: Vector) -> Step:
        output = _vector_output(vector, self.original)

        def blocks() -> Blocks:
            array = self.original.source.rows(vector.source)
            if vector.change == "channels first":
                array = array.reshape(vector.shape)
            elif vector.change == "add one":
                array = array + 1  # in the stored type, as mlx-lm does
            array = array.astype(_MLX[output.dtype])
            self._check(array, vector.source)
            yield {vector.name: array}

        return Step((output,), blocks, vector.name)

    def _matrix_step(self, matrix: Matrix) -> Step:
        form, dtype = self.formats[matrix.module], self.original.dtype
        *lead, columns = matrix.shape
        weight = f"{matrix.module}.weight"
        if form is None:
            return Step((Output(weight, dtype, matrix.shape),), lambda: self._plain(matrix, weight), matrix.module)
        words, groups = columns * form.bits // 32, columns // form.group_size
        scales = "U8" if form.mode in MODES else dtype
        outputs = [Output(weight, "U32", (*lead, words)), Output(f"{matrix.module}.scales", scales, (*lead, groups))]
        if form.mode == "affine":
            outputs.append(Output(f"{matrix.module}.biases", dtype, (*lead, groups)))
        copied = matrix.quantization == form
        run = self._copied if copied else self._packed
        return Step(tuple(outputs), lambda: run(matrix, form), matrix.module)

    def _plain(self, matrix: Matrix, name: str) -> Blocks:
        for rows in self.floats(matrix):
            rows = rows.astype(_MLX[self.original.dtype])
            self._check(rows, matrix.module)
            yield {name: rows}

    def _copied(self, matrix: Matrix, form: QuantizationSpec) -> Blocks:
        """A packed matrix that stays as it is; its scales get the type of everything else."""
        source = self.original.source
        for piece in matrix.pieces:
            for part, name in (("weight", piece.weight), ("scales", piece.scales), ("biases", piece.biases)):
                for rows in source.blocks(name, piece.start, piece.stop, flat=True) if name else ():
                    if mx.issubdtype(rows.dtype, mx.floating):
                        rows = rows.astype(_MLX[self.original.dtype])
                        self._check(rows, f"{matrix.module}.{part}")
                    yield {f"{matrix.module}.{part}": rows}

    def _packed(self, matrix: Matrix, form: QuantizationSpec) -> Blocks:
        names = [f"{matrix.module}.{part}" for part in ("weight", "scales", "biases")]
        dtype = self.original.dtype
        if form.mode != "affine" or self.rounding == "mlx":
            for stored in self._stored(matrix):
                try:
                    for parts in quantize(stored, dtype, form):
                        yield dict(zip(names, parts))
                except NotFinite:
                    raise self._not_finite(matrix.module) from None
                del stored
            return
        importance = self.importance.get(matrix.own)
        hessian = None if self.hessians is None else self.hessians.of(matrix.own)
        guide = None if hessian is None else self._guide(hessian)
        for rows in self._as_exact_as_they_are(matrix):
            try:
                if guide is None:
                    packed = search(rows, form.bits, form.group_size, dtype, importance)
                else:
                    packed = gptq(rows, form.bits, form.group_size, dtype, guide)
            except NotFinite:
                raise self._not_finite(matrix.module) from None
            self.error += packed.error
            self.power += packed.power
            del rows
            yield dict(zip(names, (packed.weight, packed.scales, packed.biases)))

    def _guide(self, hessian: np.ndarray) -> Guide:
        if self._last is None or self._last[0] is not hessian:
            self._last = hessian, Guide.of(hessian)
        return self._last[1]

    def _as_exact_as_they_are(self, matrix: Matrix) -> Iterator[np.ndarray]:
        """Rows of a matrix as numpy sees what is stored, or unpacked in float32; see `Source.raw_blocks`."""
        source, dtype = self.original.source, self.original.dtype
        for piece in matrix.pieces:
            if piece.quantization is None and source.tensors[piece.weight].dtype == dtype:
                yield from source.raw_blocks(piece.weight, piece.start, piece.stop, True, self._then.get(piece))
                continue
            for rows in self._floats(piece, matrix):
                if dtype == "F16":  # the only type that ends where weights of another may still go on
                    self._check(rows.astype(mx.float16), matrix.module)
                yield _as_numpy(rows.astype(mx.float32))

    def _stored(self, matrix: Matrix) -> Iterator[np.ndarray]:
        """Rows of a matrix in the new type as numpy sees it, (rows, columns); see `Source.raw_blocks`."""
        source, dtype = self.original.source, self.original.dtype
        for piece in matrix.pieces:
            if piece.quantization is None and source.tensors[piece.weight].dtype == dtype:
                yield from source.raw_blocks(piece.weight, piece.start, piece.stop, True, self._then.get(piece))
            else:
                for rows in self._floats(piece, matrix):
                    yield _as_numpy(rows.astype(_MLX[dtype]))

    def floats(self, matrix: Matrix) -> Iterator[mx.array]:
        """Rows of a matrix as they are stored, or unpacked in float32."""
        for piece in matrix.pieces:
            yield from self._floats(piece, matrix)

    def _floats(self, piece: Piece, matrix: Matrix) -> Iterator[mx.array]:
        if piece.quantization is None:
            then = self._then.get(piece)
            return self.original.source.blocks(piece.weight, piece.start, piece.stop, True, then)
        return self._unpacked(piece, piece.quantization, matrix)

    def _unpacked(self, piece: Piece, form: QuantizationSpec, matrix: Matrix) -> Iterator[mx.array]:
        source = self.original.source
        step = max(1, BLOCK // (4 * matrix.shape[-1]))
        for start in range(piece.start, piece.stop, step):
            stop = min(start + step, piece.stop)
            weight, scales, biases = (
                None if name is None else source.rows(name, start, stop, flat=True)
                for name in (piece.weight, piece.scales, piece.biases)
            )
            assert weight is not None and scales is not None
            if biases is not None:  # affine: exact in float32, which the codes' own type is not
                scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
            rows = mx.dequantize(
                weight, scales, biases, group_size=form.group_size, bits=form.bits, mode=form.mode
            ).astype(mx.float32)
            mx.eval(rows)
            yield rows

    def _check(self, array: mx.array, what: str) -> None:
        """Raises `CheckpointError` where a number is none, or has become infinite in the new type."""
        if not finite(_as_numpy(array)):
            raise self._not_finite(what)

    def _not_finite(self, what: str) -> CheckpointError:
        name = next(name for name, own in DTYPES.items() if own == self.original.dtype)
        advice = " (float16 ends at 65504: try --dtype bfloat16)" if self.original.dtype == "F16" else ""
        return CheckpointError(
            f"{self.original.folder}: {what} holds NaN or infinite numbers in {name}{advice}",
            hint="Nothing was written. The weights are damaged; download the model again.",
        )


def _as_numpy(array: mx.array) -> np.ndarray:
    """The same numbers, not copied; bfloat16 as uint16."""
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array, copy=False)


def _entry(form: QuantizationSpec) -> dict[str, Any]:
    return {"group_size": form.group_size, "bits": form.bits, "mode": form.mode}


def _vector_output(vector: Vector, original: Original) -> Output:
    stored = original.source.tensors[vector.source].dtype
    return Output(vector.name, stored if vector.own.endswith(_KEPT) else original.dtype, vector.shape)


def _dtype(name: str) -> str:
    name = SHORT.get(name, name)
    if name not in DTYPES:
        raise UsageError(f"there is no type {name!r} of weights", expected=", ".join(DTYPES))
    return DTYPES[name]


def _own_dtype(config: Mapping[str, Any], source: Source, items: list[Matrix | Vector]) -> str:
    """The type a model says it is in, where mlx-lm looks for it; else that of its embeddings."""
    text = config.get("text_config")
    said = config.get("torch_dtype") or (text.get("dtype") if isinstance(text, Mapping) else None)
    if isinstance(said, str) and said in DTYPES:
        return DTYPES[said]
    embedding = next((item for item in items if isinstance(item, Matrix) and item.own == "embed_tokens"), None)
    piece = embedding.pieces[0] if embedding is not None else None
    for name in (piece.scales, piece.weight) if piece is not None else ():
        if name is not None and source.tensors[name].dtype in DTYPES.values():
            return source.tensors[name].dtype
    return "BF16"

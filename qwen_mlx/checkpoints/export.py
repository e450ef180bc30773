"""A model folder -> what other programs read: one GGUF file, or plain safetensors with the names of the hub."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from qwen_mlx.checkpoints.folder import model_name
from qwen_mlx.checkpoints.formats.conversion import NAMES, as_stored
from qwen_mlx.checkpoints.formats.gguf import names, tokenizer, writer
from qwen_mlx.checkpoints.formats.gguf.encode import GROUP, encode
from qwen_mlx.checkpoints.layout import Output
from qwen_mlx.checkpoints.mlx_names import Matrix, mlx_config
from qwen_mlx.checkpoints.publish import check_space, check_target
from qwen_mlx.checkpoints.rewrite import SHORT, Original, Rewriting
from qwen_mlx.checkpoints.stream import Blocks, Plan, Step, side_files, write_checkpoint
from qwen_mlx.errors import CheckpointError, NoSpace, QwenError, UnsupportedModel, UsageError
from qwen_mlx.events import CancelToken, Event, Exported, ExportModel, ExportPlanned, Progress
from qwen_mlx.paths import atomic_write

import mlx.core as mx  # isort: skip

# What a person says -> the type of matrices in GGUF, and its number for a file (llama.cpp's `llama_ftype`).
GGUF_FORMS = {"f16": ("F16", 1), "bf16": ("BF16", 32), "q8_0": ("Q8_0", 7)}
_ROUTERS = (".ffn_gate_inp.weight", ".ffn_gate_inp_shexp.weight")  # kept in full, as llama.cpp does
_FAMILIES = tuple(arch.model_type for arch in names.ARCHITECTURES.values())


def iter_export(job: ExportModel, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Export a model; memory does not grow with it.

    Yields:
        `ExportPlanned`, `Progress` in bytes, `Exported`.

    Raises:
        NotFound, CheckpointError: the model cannot be read; see `load`.
        UnsupportedModel: the format cannot say what this model computes.
        TokenizerError, TemplateError: a GGUF file needs a tokenizer, and that of the folder is missing or damaged.
        UsageError: a target or form that cannot be meant.
        NoSpace: the disk is too small, or became full.
        Cancelled: nothing is left of it.
    """
    dtype = SHORT.get(job.form, job.form)
    if job.target.lower().endswith(".gguf"):
        if job.form not in GGUF_FORMS:
            raise UsageError(f"GGUF files are not written as {job.form!r}", expected=", ".join(GGUF_FORMS))
        export = _export_gguf
    else:
        if dtype not in NAMES:
            raise UsageError(
                f"safetensors are not written as {job.form!r}",
                expected=", ".join(NAMES),
                hint="A target that ends in .gguf becomes a GGUF file." if job.form in GGUF_FORMS else None,
            )
        export = _export_safetensors
    original = Original.open(job.source)
    with original.source:
        if original.spec.family not in _FAMILIES:
            raise UnsupportedModel(
                f"models of the family {original.spec.family} are not exported",
                expected=", ".join(_FAMILIES),
                hint="`qwen-mlx convert --dequantize` writes them for MLX's programs.",
            )
        yield from export(job, original, cancel or CancelToken())


def _planned(job: ExportModel, original: Original, form: str, nbytes: int, notes: Sequence[str]) -> ExportPlanned:
    parameters = original.spec.parameters
    return ExportPlanned(
        source=str(original.folder),
        form=form,
        target=str(Path(job.target).expanduser().absolute()),
        parameters=parameters,
        source_bytes=original.nbytes,
        nbytes=nbytes,
        bits_before=8 * original.nbytes / parameters,
        bits_after=8 * nbytes / parameters,
        notes=tuple(notes),
    )


# ------------------------------------------------------------------------------------------------------- safetensors


def _export_safetensors(job: ExportModel, original: Original, cancel: CancelToken) -> Iterator[Event]:
    """Plain floats with the names of the hub: one tensor for every expert."""
    started = time.perf_counter()
    dtype = SHORT.get(job.form, job.form)
    target = check_target(Path(job.target), job.force, (original.folder,))
    steps = [
        _matrix_step(item, original, dtype)
        if isinstance(item, Matrix)
        else Step(
            (Output(item.name, NAMES[dtype], item.shape),), _vector_blocks(original, item.source, item.name, dtype)
        )
        for item in original.items
    ]
    config = {key: value for key, value in mlx_config(original.config).items() if key != "dtype"}
    plan = Plan(
        steps, config | {"torch_dtype": dtype}, side_files(original.folder), original.spec.parameters, {"format": "pt"}
    )
    nbytes = sum(output.nbytes for step in steps for output in step.outputs)
    planned = _planned(job, original, f"safetensors {dtype}", nbytes, ())
    yield planned
    if not job.dry_run:
        yield from write_checkpoint(plan, target, force=job.force, cancel=cancel, stage="export")
    yield Exported(planned, time.perf_counter() - started, not job.dry_run)


def _vector_blocks(original: Original, source: str, name: str, dtype: str) -> Callable[[], Blocks]:
    def blocks() -> Blocks:
        values = np.array(original.source.rows(source).astype(mx.float32))
        yield {name: as_stored(values, dtype, name)}

    return blocks


def _matrix_step(matrix: Matrix, original: Original, dtype: str) -> Step:
    kind = NAMES[dtype]
    if ".switch_mlp." not in matrix.module:
        whole = f"{matrix.module}.weight"

        def one() -> Blocks:
            for values in _floats(original, matrix):
                yield {whole: as_stored(values, dtype, whole)}

        return Step((Output(whole, kind, matrix.shape),), one, whole)
    count, rows, columns = matrix.shape
    path, _, part = matrix.module.partition(".switch_mlp.")
    each = [f"{path}.experts.{e}.{part}.weight" for e in range(count)]

    def experts() -> Blocks:
        row = 0
        for values in _floats(original, matrix):
            while len(values):
                room = rows - row % rows  # of the expert that row belongs to
                name, own = each[row // rows], values[:room]
                yield {name: as_stored(own, dtype, name)}
                values, row = values[room:], row + len(own)

    outputs = tuple(Output(name, kind, (rows, columns)) for name in each)
    return Step(outputs, experts, matrix.module)


def _floats(original: Original, matrix: Matrix) -> Iterator[np.ndarray]:
    """All rows of a matrix, float32 (rows, columns), some at a time."""
    for rows in Rewriting(original, {}).floats(matrix):
        yield np.asarray(rows.astype(mx.float32))


# -------------------------------------------------------------------------------------------------------------- GGUF


def _export_gguf(job: ExportModel, original: Original, cancel: CancelToken) -> Iterator[Event]:
    started = time.perf_counter()
    target = _gguf_target(job)
    kind, number = GGUF_FORMS[job.form]
    arch = names.exportable(original.config)
    metadata = {
        "general.architecture": arch.name,
        "general.type": "model",
        "general.name": model_name(original.folder),
        "general.file_type": number,
        "general.quantization_version": 2,
        **names.write_metadata(original.config, arch),
        **tokenizer.write_metadata(original.folder, original.spec.vocab_size, str(original.config["model_type"])),
    }
    outputs = [_gguf_output(original, index, kind) for index in range(len(original.items))]
    nbytes = sum(output.nbytes for output in outputs)
    notes = []
    if odd := [output.name for output in outputs if len(output.shape) > 1 and output.kind not in (kind, "F32")]:
        notes.append(f"{len(odd)} matrices whose rows are no multiple of {GROUP} become F16: {', '.join(odd[:3])}")
    planned = _planned(job, original, f"GGUF {kind}", nbytes, notes)
    yield planned
    if not job.dry_run:
        try:
            check_space(target, writer.file_size(metadata, outputs))
            yield from _write(target, metadata, outputs, nbytes, cancel)
        except OSError as problem:
            raise _cannot_write(target, problem) from None
    yield Exported(planned, time.perf_counter() - started, not job.dry_run)


def _gguf_target(job: ExportModel) -> Path:
    target = Path(job.target).expanduser().absolute()
    if os.path.isdir(target):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        raise UsageError(f"{target} is a folder", expected="the name of a GGUF file")
    if os.path.lexists(target) and not job.force:
        raise UsageError(f"{target} exists", hint="--force replaces it, once the new one is finished.")
    return target


def _gguf_output(original: Original, index: int, kind: str) -> writer.GGUFOutput:
    item = original.items[index]
    hub = f"{item.module}.weight" if isinstance(item, Matrix) else item.name
    name = names.gguf_name(hub)
    if name is None:
        raise UnsupportedModel(f"GGUF has no name for the tensor {hub}", hint="Export the model as safetensors.")
    shape = item.shape
    if not isinstance(item, Matrix) or name.endswith(_ROUTERS):
        kind = "F32"
        shape = shape[1:] if shape[0] == 1 and len(shape) == 2 else shape  # the shared expert's gate is a vector here
    elif kind == "Q8_0" and shape[-1] % GROUP:
        kind = "F16"

    def blocks() -> Iterator[bytes]:
        if isinstance(item, Matrix):
            rows = _floats(original, item)
        else:
            rows = iter([np.array(original.source.rows(item.source).astype(mx.float32))[None]])
        for values in rows:
            _check(values, kind, hub)
            yield encode(values, kind)

    return writer.GGUFOutput(name, kind, shape, blocks)


def _check(values: np.ndarray, kind: str, name: str) -> None:
    """Raises `CheckpointError` for what is no number, or too large for halves."""
    if not np.isfinite(values).all():
        raise CheckpointError(f"tensor {name} holds NaN or infinity", hint="The file is damaged; download it again.")
    if kind == "F16" and np.abs(values).max(initial=0) > 65504:
        raise CheckpointError(f"tensor {name} holds numbers above 65504, the end of float16", hint="Export as bf16.")


def _write(
    target: Path, metadata: dict[str, object], outputs: Sequence[writer.GGUFOutput], nbytes: int, cancel: CancelToken
) -> Iterator[Event]:
    done = 0
    yield Progress("export", 0, nbytes, "bytes")
    with atomic_write(target, "wb") as file:
        file.write(writer.head(metadata, outputs))
        for output, block in writer.data(outputs):
            file.write(block)
            done = min(done + len(block), nbytes)
            cancel.raise_if_cancelled()
            yield Progress("export", done, nbytes, "bytes", output.name)


def _cannot_write(target: Path, problem: OSError) -> QwenError:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{target} cannot be finished: the disk is full; what was written has been removed")
    return QwenError(f"{target} cannot be written", found=problem.strerror or str(problem))

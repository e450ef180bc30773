"""Another program's model -> a folder as MLX's programs have it: first a plan that can be shown, then the work.

What a format is, is seen from the files: a GGUF file or a folder of them, or a folder of the hub whose `config.json`
names a method. Nothing is written before the plan is complete, and everything in it was checked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from qwen_mlx.checkpoints.assemble import QuantizationTable, module_name
from qwen_mlx.checkpoints.folder import check_inside, model_folder, read_json
from qwen_mlx.checkpoints.formats import hub
from qwen_mlx.checkpoints.formats.conversion import NAMES, Change, convert, step
from qwen_mlx.checkpoints.formats.foreign_tensor import ForeignTensor
from qwen_mlx.checkpoints.formats.gguf.source import GGUFSource
from qwen_mlx.checkpoints.mlx_names import Matrix, mlx_config, mlx_tensors
from qwen_mlx.checkpoints.publish import check_target
from qwen_mlx.checkpoints.recipes import PRESETS, Recipe, check_format, make_recipe
from qwen_mlx.checkpoints.rewrite import SHORT
from qwen_mlx.checkpoints.safetensors import TensorInfo
from qwen_mlx.checkpoints.save import hub_tensors
from qwen_mlx.checkpoints.source import Source
from qwen_mlx.checkpoints.stream import Plan, disk_need, side_files, write_checkpoint
from qwen_mlx.errors import UsageError
from qwen_mlx.events import CancelToken, Event, Imported, ImportModel, ImportPlanned, TensorShare
from qwen_mlx.models import Decoder, ModelSpec, read_spec
from qwen_mlx.models.spec import QuantizationSpec
from qwen_mlx.text import tokenizer_files

_TOKENIZERS = ("tokenizer.json", "vocab.json", "qwen.tiktoken")
# How far rounding moves a scale at most: half a unit in the last place.
_ROUNDING = {"float16": "0.05 %", "bfloat16": "0.4 %"}


def iter_import(job: ImportModel, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Import a model; memory does not grow with it.

    Yields:
        `ImportPlanned`, `Progress` in bytes, `Imported`.

    Raises:
        NotFound, CheckpointError: the source cannot be read, is damaged or contradicts itself.
        UnsupportedModel: a format or model that is not imported; the message names it.
        TokenizerError, TemplateError: the tokenizer or template of the source is damaged.
        UsageError: an argument that cannot be meant.
        NoSpace: the disk is too small, or became full.
        Cancelled: nothing is left of it.
    """
    started = time.perf_counter()
    if job.dequantize and job.requantize is not None:
        raise UsageError("--dequantize and --requantize exclude each other")
    recipe = None if job.requantize is None else parse_recipe(job.requantize)
    dtype = None if job.dtype is None else SHORT.get(job.dtype, job.dtype)
    if dtype is not None and dtype not in NAMES:
        raise UsageError(f"there is no type {job.dtype!r} of weights", expected=", ".join(NAMES))
    with ForeignModel(Path(job.source).expanduser().absolute(), job.tokenizer) as original:
        read = (original.path,) if original.path.is_dir() else ()
        target = check_target(Path(job.target), job.force, read)
        plan, announced = make_plan(original, dtype, recipe, job.dequantize, target)
        yield announced
        if job.dry_run:
            yield Imported(announced, 0, time.perf_counter() - started)
            return
        written = yield from write_checkpoint(plan, target, force=job.force, cancel=cancel, stage="import")
        yield Imported(announced, written.files, time.perf_counter() - started)


def parse_recipe(text: str) -> Recipe:
    """The name of a preset, or `bits[:group]`. Raises `UsageError`."""
    if text in PRESETS:
        return make_recipe(text)
    bits, colon, group = text.partition(":")
    try:
        own = int(bits), int(group) if colon else 64
    except ValueError:
        presets = ", ".join(PRESETS)
        raise UsageError(f"--requantize {text!r} cannot be read", expected=f"{presets}, BITS or BITS:GROUP") from None
    check_format(*own, "affine", f"--requantize {text}")
    return Recipe(*own)


class ForeignModel:
    """A model in another program's format, whose headers were checked; use as a context manager, it holds files open.

    Attributes:
        path: the file or folder.
        form: what it is, such as "GGUF Q4_K, Q6_K".
        config: `config.json` without the quantization.
        tensors: by the names of the hub.
        files: of the tokenizer and the like, for the new folder.
    """

    def __init__(self, path: Path, tokenizer: str | None = None) -> None:
        """Read and check everything but the data. `tokenizer` is a model folder to take that from. Raises as above."""
        self.path = path
        self.files: dict[str, Path | bytes] = {}
        self._stack = ExitStack()
        try:
            if os.path.isdir(path) and (path / "config.json").exists():  # noqa: PTH112 - raises for no name
                self._open_folder()
            else:
                self._open_gguf(tokenizer is None)
            if tokenizer is not None:
                self._take_tokenizer(Path(tokenizer).expanduser())
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> ForeignModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def has_tokenizer(self) -> bool:
        return any(name in self.files for name in _TOKENIZERS)

    def _open_folder(self) -> None:
        folder = model_folder(self.path)
        config = read_json(folder / "config.json", "the model's configuration")
        if hub.method_of(config) is None:
            packed = isinstance(config.get("quantization"), Mapping)
            raise UsageError(
                f"{folder} needs no import: it is {'in MLX format' if packed else 'not quantized'} already",
                hint="Use it as it is." if packed else "Use it as it is, or pack it with `qwen-mlx quantize`.",
            )
        self.config = mlx_config(config)
        read_spec(self.config)  # of a model that does not run here, that is what has to be said
        self.form, tensors = hub.read_tensors(self._stack.enter_context(Source(folder)), config)
        self.tensors = {tensor.name: tensor for tensor in tensors}
        self.files = _checked_side_files(folder)
        if self.has_tokenizer():
            tokenizer_files.describe(folder)  # a damaged one shows now

    def _open_gguf(self, with_tokenizer: bool) -> None:
        gguf = self._stack.enter_context(GGUFSource(self.path))
        self.path, self.form, self.config = gguf.files[0], gguf.title(), gguf.config
        self.tensors = {tensor.name: tensor for tensor in gguf.tensors()}
        if with_tokenizer:
            self.files = dict(gguf.text_files())

    def _take_tokenizer(self, folder: Path) -> None:
        self.files = _checked_side_files(folder)
        if not self.has_tokenizer():
            raise UsageError(f"{folder} holds no tokenizer", expected=" or ".join(_TOKENIZERS))


def _checked_side_files(folder: Path) -> dict[str, Path | bytes]:
    """The files of a model beside its weights, none of them a link that leads somewhere else."""
    files = side_files(folder)
    for name in files:
        check_inside(folder, name)
    return dict(files)


def make_plan(
    original: ForeignModel, dtype: str | None, recipe: Recipe | None, dequantize: bool, target: Path
) -> tuple[Plan, ImportPlanned]:
    """What will be written, and what to tell a person about it.

    Args:
        dtype: of floats, scales and biases; None is the source's own.
        recipe: formats for all matrices; with `dequantize` there are none, and all become floats.

    Raises:
        CheckpointError: the tensors are not those of the model that the configuration describes.
        UsageError: the recipe does not fit the model.
    """
    spec = read_spec(original.config)
    tensors = without_empty_biases(original.tensors, spec)
    outline = {name: TensorInfo(name, "F32", t.shape, 0, 4 * t.size) for name, t in tensors.items()}
    found = mlx_tensors(outline, spec, QuantizationTable({}))
    dtype = dtype or _own_dtype(tensors)
    matrices = [item for item in found if isinstance(item, Matrix)]
    formats: Mapping[str, QuantizationSpec | None] | None = None
    if dequantize:
        formats = dict.fromkeys(matrix.module for matrix in matrices)
    elif recipe is not None:
        formats = recipe.formats(matrices, len(spec.layers))
    changes = convert(found, tensors, dtype, formats)
    steps = [step(change) for change in changes]
    config = {key: value for key, value in original.config.items() if key != "dtype"} | {"torch_dtype": dtype}
    if table := quantization_table(changes):
        config["quantization"] = table
    plan = Plan(steps, config, original.files, spec.parameters)
    shares = _shares(changes, [sum(output.nbytes for output in s.outputs) for s in steps])
    source_bytes, nbytes = (sum(getattr(share, part) for share in shares) for part in ("source_bytes", "nbytes"))
    announced = ImportPlanned(
        source=str(original.path),
        form=original.form,
        model_type=str(original.config["model_type"]),
        folder=str(target),
        dtype=dtype,
        parameters=spec.parameters,
        source_bytes=source_bytes,
        nbytes=nbytes,
        disk=disk_need(plan),
        bits_before=8 * source_bytes / spec.parameters,
        bits_after=8 * nbytes / spec.parameters,
        exact=all(share.fate in ("exact", "floats") for share in shares),
        shares=shares,
        notes=tuple(_notes(shares, dtype, recipe is not None, original.has_tokenizer())),
    )
    return plan, announced


def without_empty_biases(tensors: Mapping[str, ForeignTensor], spec: ModelSpec) -> dict[str, ForeignTensor]:
    """The tensors without biases that the model does not have, where these are zero.

    Some writers of GPTQ give a bias to every linear layer.
    """
    biases = [name for name in tensors if name.endswith(".bias")]
    known = {module_name(name) for name in hub_tensors(Decoder(spec), stacked=True)} if biases else set()
    empty = {
        name
        for name in biases
        if module_name(name, spec.tensor_names) not in known
        and not any(values.any() for values in tensors[name].floats())
    }
    return {name: tensor for name, tensor in tensors.items() if name not in empty}


def _own_dtype(tensors: Mapping[str, ForeignTensor]) -> str:
    """The type of the embedding, which the model was meant to run in; float16 where it is quantized."""
    embedding = next((t for name, t in tensors.items() if name.endswith("embed_tokens.weight")), None)
    return embedding.stored if embedding is not None and embedding.stored in NAMES else "float16"


def quantization_table(changes: Sequence[Change]) -> dict[str, Any]:
    """`quantization` of config.json: the commonest format, and every module that has another; empty without any."""
    packed = {change.module: change.target for change in changes if change.target is not None}
    if not packed:
        return {}
    forms = list(packed.values())
    common = max(dict.fromkeys(forms), key=forms.count)
    table = _entry(common)
    table.update({module: _entry(form) for module, form in packed.items() if form != common})
    return table


def _entry(form: QuantizationSpec) -> dict[str, Any]:
    return {"group_size": form.group_size, "bits": form.bits, "mode": form.mode}


def _shares(changes: Sequence[Change], nbytes: Sequence[int]) -> tuple[TensorShare, ...]:
    """Tensors treated alike, those with most bytes first."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for change, size in zip(changes, nbytes):
        form = change.target
        becomes = "floats" if form is None else f"{form.bits}-bit g{form.group_size} {form.mode}"
        total = found.setdefault((change.stored, becomes, change.fate), [0, 0, 0])
        source_bytes = sum(t.nbytes * (stop - start) // max(t.rows, 1) for t, start, stop in change.pieces)
        for i, number in enumerate((1, source_bytes, size)):
            total[i] += number
    shares = [TensorShare(*key, *numbers) for key, numbers in found.items()]
    return tuple(sorted(shares, key=lambda share: -share.nbytes))


def _notes(shares: Sequence[TensorShare], dtype: str, asked: bool, has_tokenizer: bool) -> Iterator[str]:
    anew = ", ".join(sorted({share.stored for share in shares if share.fate == "requantized"}))
    if anew and not asked:
        yield f"quantized anew, because no format of MLX holds these numbers: {anew}"
    elif anew:
        yield "quantized anew, as asked: what the source had lost stays lost, and some more is"
    if any(share.fate == "scales rounded" for share in shares):
        by = f"by {_ROUNDING[dtype]} at most"
        yield f"codes are kept, scales are rounded to {dtype} ({by}); --dtype float32 keeps them, too"
    if not has_tokenizer:
        yield "the source has no tokenizer; --tokenizer FOLDER takes one from another model folder"

"""`quantize`: a model with fewer bits per weight."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from qwen_mlx.checkpoints.convert import run
from qwen_mlx.checkpoints.publish import check_target
from qwen_mlx.checkpoints.recipes import FEW_PARAMETERS, PLAIN, Override, Recipe, aim_at, make_recipe
from qwen_mlx.checkpoints.rewrite import Original, Rewriting
from qwen_mlx.checkpoints.safetensors import DTYPE_BITS
from qwen_mlx.errors import UsageError
from qwen_mlx.events import CancelToken, Event, Notice, QuantizeModel
from qwen_mlx.models.spec import QuantizationSpec

CALIBRATIONS = ("none", "activations", "gptq")
_ELSEWHERE = {
    "awq": "mlx-lm has it for Qwen2 and Qwen3: `mlx_lm.awq`.",
    "dwq": "mlx-lm has it: `mlx_lm.dwq`.",
}


def iter_quantize(job: QuantizeModel, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Quantize a model; memory does not grow with the model, but for a calibration, which loads it.

    Yields:
        `Progress` of a calibration, `ConversionPlanned`, `Progress` in bytes, `Converted`.

    Raises:
        NotFound, CheckpointError: the model cannot be read; see `load`. Weights that are NaN or infinite are named.
        UsageError: a format that MLX does not compute, an override that matches nothing, a model that is quantized
            already; or a target that cannot be meant.
        NoSpace: the disk is too small, or became full.
        Cancelled: nothing is left of it.
    """
    started = time.perf_counter()
    recipe = check_options(job)
    check_target(Path(job.target), job.force, (Path(job.source),))
    original = Original.open(job.source, job.dtype)
    with original.source:
        if original.packed and not job.requantize:
            raise UsageError(
                f"{original.folder} is quantized already ({original.describe()})",
                expected="a model in bfloat16, float16 or float32",
                hint="Rounding twice costs quality: take the original. --requantize does it all the same.",
            )
        formats = choose_formats(original, recipe, job.target_bits)
        yield from _notices(original, recipe, formats)
        importance: Mapping[str, np.ndarray] = {}
        hessians = None
        if job.calibrate != "none" and not job.dry_run:
            from qwen_mlx.checkpoints.calibrate import Hessians, iter_mean_squares

            if job.calibrate == "gptq":
                hessians = Hessians(original.folder, job.calibration_text, cancel)
            else:
                importance = yield from iter_mean_squares(original.folder, job.calibration_text, cancel)
        work = Rewriting(original, formats, _default(formats, recipe), job.rounding, importance, hessians)
        yield from run(work, job.target, job.force, job.dry_run, cancel, started)


def _notices(original: Original, recipe: Recipe, formats: Mapping[str, QuantizationSpec | None]) -> Iterator[Notice]:
    """What a person should know beforehand."""
    if original.packed:
        yield Notice(f"the source is quantized already ({original.describe()}): rounding twice costs quality")
    if recipe.bits < 4 and original.spec.parameters < FEW_PARAMETERS:
        size = original.spec.parameters / 1e9
        yield Notice(f"{recipe.bits} bits leave little of a model with {size:.1f} billion parameters; take 4 or more")
    excused = {m for m in formats if any(o.bits == PLAIN and re.search(o.pattern, m) for o in recipe.overrides)}
    left = [name for name, form in formats.items() if form is None and name not in excused]
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        yield Notice(f"no group fits the columns of {', '.join(left[:3])}{more}: left as they are")


def check_options(job: QuantizeModel) -> Recipe:
    """The recipe that the options of a person mean, before any file is looked at. Raises `UsageError`."""
    overrides = tuple(Override.parse(text) for text in job.overrides)
    if job.rounding not in ("best", "mlx"):
        raise UsageError(f"there is no rounding {job.rounding!r}", expected="best or mlx")
    if job.calibrate not in CALIBRATIONS:
        hint = _ELSEWHERE.get(job.calibrate)
        raise UsageError(f"there is no calibration {job.calibrate!r}", expected=" or ".join(CALIBRATIONS), hint=hint)
    if job.calibrate != "none" and job.rounding != "best":
        raise UsageError("a calibration guides the rounding 'best'", found=f"--rounding {job.rounding}")
    if job.calibrate != "none" and job.mode != "affine":
        raise UsageError("a calibration needs the mode affine", found=f"--mode {job.mode}")
    if job.target_bits is not None and not 0 < job.target_bits < math.inf:  # not NaN, either
        raise UsageError(f"--target-bpw {job.target_bits:g} is no number of bits", expected="such as 4.5")
    if job.target_bits is not None and (job.preset or job.bits or job.mode != "affine"):
        raise UsageError("--target-bpw decides the bits of everything", hint="Leave --preset, --bits and --mode out.")
    return make_recipe(job.preset, job.bits, job.group_size, job.mode, overrides)


def choose_formats(original: Original, recipe: Recipe, target_bits: float | None) -> dict[str, QuantizationSpec | None]:
    """The format of every matrix by its new name; None where it stays plain. Raises `UsageError`."""
    layers = len(original.spec.layers)
    if target_bits is None:
        return recipe.formats(original.matrices, layers)
    plain = DTYPE_BITS[original.dtype] // 8
    parameters = original.spec.parameters
    return aim_at(target_bits, original.matrices, layers, parameters, original.rest, plain, recipe)


def _default(formats: Mapping[str, QuantizationSpec | None], recipe: Recipe) -> QuantizationSpec | None:
    """What config.json names for all: the body's format, or the commonest where nothing has that."""
    packed = [form for form in formats.values() if form is not None]
    body = QuantizationSpec(recipe.bits, recipe.group_size, recipe.mode)
    return body if body in packed else max(packed, key=packed.count) if packed else None

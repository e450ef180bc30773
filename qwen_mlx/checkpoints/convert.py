"""`convert`: a model in mlx-lm's layout, in another type, or unpacked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from qwen_mlx.checkpoints.publish import check_target
from qwen_mlx.checkpoints.rewrite import Original, Rewriting
from qwen_mlx.checkpoints.stream import write_checkpoint
from qwen_mlx.errors import UsageError
from qwen_mlx.events import CancelToken, Converted, ConvertModel, Event


def iter_convert(job: ConvertModel, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Rewrite a model in mlx-lm's layout; memory does not grow with the model.

    Yields:
        `ConversionPlanned`, `Progress` in bytes, `Converted`.

    Raises:
        NotFound, CheckpointError: the model cannot be read; see `load`.
        UsageError: a target or type that cannot be meant; nothing packed to unpack.
        NoSpace: the disk is too small, or became full.
        Cancelled: nothing is left of it.
    """
    started = time.perf_counter()
    original = Original.open(job.source, job.dtype)
    with original.source:
        if job.dequantize and not original.packed:
            raise UsageError(f"{original.folder} is not quantized; there is nothing to unpack")
        formats = {m.module: None if job.dequantize else m.quantization for m in original.matrices}
        packed = [form for form in formats.values() if form is not None]
        default = max(packed, key=packed.count) if packed else None
        yield from run(Rewriting(original, formats, default), job.target, job.force, job.dry_run, cancel, started)


def run(
    work: Rewriting, target: str, force: bool, dry_run: bool, cancel: CancelToken | None, started: float
) -> Iterator[Event]:
    """Announce, write, and say what was written; see `iter_convert`."""
    folder = check_target(Path(target), force, (work.original.folder,))
    plan = work.plan()
    announced = work.announce(plan, folder)
    yield announced
    if dry_run:
        yield Converted(announced, 0, time.perf_counter() - started)
        return
    written = yield from write_checkpoint(
        plan, folder, force=force, sources=(work.original.folder,), cancel=cancel, stage="write"
    )
    yield Converted(announced, written.files, time.perf_counter() - started, work.relative_error)

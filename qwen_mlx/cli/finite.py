"""NaN and infinity in weights: a file of the right form and checksum may still come from a run that broke."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qwen_mlx.events import Event, FileProblem, Progress

if TYPE_CHECKING:
    from qwen_mlx.checkpoints.safetensors import TensorInfo

_BLOCK = 8 << 20  # bytes
_EVERY = 0.2  # seconds
# Bytes of a value, and the mask of its exponent: all of its bits are set in NaN and infinity, and in nothing else.
_EXPONENTS = {
    "F16": (2, 0x7C00),
    "BF16": (2, 0x7F80),
    "F32": (4, 0x7F800000),
    "F64": (8, 0x7FF0000000000000),
}


def not_finite(folder: Path) -> Generator[Event, None, list[FileProblem]]:
    """Read every floating-point tensor of a model folder; yields progress, returns what was found.

    Raises:
        CheckpointError: the files cannot be read as weights.
    """
    from qwen_mlx.checkpoints.folder import find_weights

    headers = find_weights(folder).headers()
    wanted = [(file, tensor) for file, header in headers.items() for tensor in header.tensors.values()]
    wanted = [(file, tensor) for file, tensor in wanted if tensor.dtype in _EXPONENTS]
    total = sum(tensor.nbytes for _, tensor in wanted)
    done, shown = 0, 0.0
    problems = []
    for file, tensor in wanted:
        if bad := _count(file, tensor):
            problems.append(FileProblem(file.name, f"holds {bad:,} values that are not finite in {tensor.name}"))
        done += tensor.nbytes
        if time.monotonic() - shown > _EVERY:
            shown = time.monotonic()
            yield Progress("reading values", done, total, "bytes", file.name)
    return problems


def _count(file: Path, tensor: TensorInfo) -> int:
    """How many values of one tensor are NaN or infinite."""
    width, mask = _EXPONENTS[tensor.dtype]
    bad = 0
    with file.open("rb") as content:
        content.seek(tensor.start)
        left = tensor.nbytes
        while left:
            block = np.frombuffer(content.read(min(_BLOCK, left)), np.dtype(f"<u{width}"))
            bad += int(np.count_nonzero((block & mask) == mask))
            left -= block.nbytes
    return bad

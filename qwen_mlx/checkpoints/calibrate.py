"""What goes into each matrix of a model while it reads a text: the mean square of every column's input.

The expected squared error of an output is the squared errors of its weights, each times the mean square of what it is
multiplied with, as long as inputs are not correlated. So these numbers, one per column, tell where rounding hurts; see
`quantizers/rounding.py`. The model is run a layer at a time, so that only one has to fit in memory, with the
embeddings and the activations of the text.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qwen_mlx import device, paths
from qwen_mlx.checkpoints.assemble import QuantizationTable, Tensors, assemble
from qwen_mlx.checkpoints.config import read_config
from qwen_mlx.checkpoints.folder import load_folder_tensors
from qwen_mlx.checkpoints.stored import StoredMatrix
from qwen_mlx.events import CancelToken, Progress
from qwen_mlx.models import Decoder, read_spec
from qwen_mlx.models.moe import Experts
from qwen_mlx.models.positions import positions
from qwen_mlx.models.projections import FusedLinear
from qwen_mlx.text.corpus import read_text, windows
from qwen_mlx.text.tokenizer import Tokenizer

import mlx.core as mx  # isort: skip
import mlx.nn as nn

WINDOW = 256  # tokens
LIMIT = 16384  # tokens
_BATCH = 8  # windows
# Columns without input get this share of the mean, so that their weights are not rounded at random.
_FLOOR = 1e-3
# Matrices that are stored as one, and a member of each that stands for it: all have the same input.
_STORED_AS_ONE = {"in_proj_qkvz": "in_proj_qkv", "in_proj_ba": "in_proj_qkv", "qkv": "q_proj"}


def iter_mean_squares(
    folder: Path, text: str | None = None, cancel: CancelToken | None = None
) -> Generator[Progress, None, dict[str, np.ndarray]]:
    """Read a text with the model in `folder`, telling how far it is in layers.

    Args:
        text: a file; None is the text that ships with the program.

    Returns:
        By the name of the matrix inside the decoder, without ".weight": float32 (columns,), positive. Embeddings have
        no input, and a head that is tied to them has none of its own.

    Raises:
        NotFound, CheckpointError, TokenizerError: as `load`; or the text cannot be read.
    """
    cancel = cancel or CancelToken()
    config = read_config(folder)
    spec = read_spec(config)
    file = paths.sample_text("calibration") if text is None else Path(text).expanduser()
    cut = windows(Tokenizer.from_folder(folder), read_text(file), min(WINDOW, spec.max_positions), LIMIT)
    cut = [window for window in cut if len(window) == len(cut[0])]
    arrays = load_folder_tensors(folder)
    tensors = Tensors(arrays, QuantizationTable(config), spec.tensor_names)
    arrays.clear()  # so that each is freed as soon as its layer is done
    # Bfloat16 is enough for a mean, but a CPU computes in float32.
    dtype = device.compute_dtype(mx.bfloat16)

    def prepare(matrix: StoredMatrix) -> StoredMatrix:
        return matrix if matrix.weight.shape[0] == spec.vocab_size else matrix.cast(dtype)

    decoder: Any = Decoder(spec)  # parts of it are replaced by other kinds of modules
    found: dict[str, np.ndarray] = {}
    batches: list[mx.array] = []
    for done, total in assemble(decoder, tensors, prepare):
        cancel.raise_if_cancelled()
        if done == 1:
            for start in range(0, len(cut), _BATCH):
                batches.append(decoder.embed_tokens(mx.array(cut[start : start + _BATCH])).astype(dtype))
            mx.eval(batches)
            decoder.embed_tokens = nn.Identity()
        else:
            layer = decoder.layers[done - 2]
            sums = _watch(layer, f"layers.{done - 2}")
            for i, x in enumerate(batches):
                batches[i] = layer(x, positions(x.shape[1], None, layer.window), None)
                mx.eval(batches[i], [s.total for s in sums.values()])
                cancel.raise_if_cancelled()
            found.update({name: s.result() for name, s in sums.items()})
            decoder.layers[done - 2] = nn.Identity()
            del layer
            mx.clear_cache()
        yield Progress("calibrate", done, total, "layers")
    head = _MeanSquare()
    for x in batches:
        head.add(decoder.norm(x))
    found["lm_head"] = head.result()
    return {**found, **dict(_aliases(found))}


class _MeanSquare:
    """The mean square of each column of what was added, in float32."""

    def __init__(self) -> None:
        self.total = mx.zeros(())
        self._count = 0

    def add(self, x: mx.array) -> None:
        flat = x.astype(mx.float32).reshape(-1, x.shape[-1])
        self.total = self.total + mx.square(flat).sum(axis=0)
        self._count += flat.shape[0]

    def result(self) -> np.ndarray:
        """(columns,), positive; all ones where nothing came by."""
        mean = np.array(self.total / max(self._count, 1))
        level = float(mean.mean())
        return np.maximum(mean, _FLOOR * level) if level > 0 else np.ones_like(mean)


class _Watched(nn.Module):
    """A layer that notes what goes into it."""

    def __init__(self, layer: Any, mean: _MeanSquare) -> None:
        super().__init__()
        self._layer, self._mean = layer, mean

    def __call__(self, x: mx.array, *rest: Any) -> mx.array:
        self._mean.add(x)
        return self._layer(x, *rest)


def _watch(module: nn.Module, path: str) -> dict[str, _MeanSquare]:
    """Put a `_Watched` around every matrix inside; what they note, by the names of the matrices."""
    found: dict[str, _MeanSquare] = {}

    def watched(layer: Any, *names: str) -> _Watched:
        mean = _MeanSquare()
        found.update(dict.fromkeys(names, mean))
        return _Watched(layer, mean)

    for name, child in list(module.children().items()):
        inner: Any = child
        if isinstance(child, FusedLinear):
            parts = zip(child.parts, child.grouping)
            child.parts = [watched(part, *(f"{path}.{member}" for member in group)) for part, group in parts]
        elif isinstance(child, Experts):  # of all experts together: each sees too little of a short text
            stacked = f"{path}.switch_mlp"
            inner.gate_up_proj = watched(inner.gate_up_proj, f"{stacked}.gate_proj", f"{stacked}.up_proj")
            inner.down_proj = watched(inner.down_proj, f"{stacked}.down_proj")
        elif isinstance(child, (nn.Linear, nn.QuantizedLinear)):
            setattr(module, name, watched(child, f"{path}.{name}"))
        elif isinstance(child, nn.Module):
            found.update(_watch(child, f"{path}.{name}"))
    return found


def _aliases(found: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """The same numbers under the names of matrices that a file stores as one."""
    for whole, member in _STORED_AS_ONE.items():
        for name, mean in found.items():
            path, _, last = name.rpartition(".")
            if last == member:
                yield f"{path}.{whole}", mean

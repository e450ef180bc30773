"""What goes into each matrix of a model while it reads a text.

The expected squared error of an output is the squared errors of its weights, each times the mean square of what it is
multiplied with, as long as inputs are not correlated. So these numbers, one per column, tell where rounding hurts; see
`quantizers/rounding.py`. What columns have to do with each other is in their Hessian, the mean of `x xᵀ`, of which the
mean squares are the diagonal; see `quantizers/gptq.py`. The model is run a layer at a time, so that only one has to fit
in memory, with the embeddings, the activations of the text and the Hessians of that layer.
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
from qwen_mlx.checkpoints.quantizers.rounding import as_importance
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
    found: dict[str, np.ndarray] = {}
    for done, total, of_layer in _layers(folder, text, cancel, _MeanSquare):
        found.update(of_layer)
        if done <= total:
            yield Progress("calibrate", done, total, "layers")
    return found


class Hessians:
    """What `iter_mean_squares` gives, but the whole Hessians, of one layer at a time, which therefore are asked for in
    the order of the layers."""

    def __init__(self, folder: Path, text: str | None = None, cancel: CancelToken | None = None) -> None:
        """Nothing is read yet; see `iter_mean_squares`."""
        self._layers = _layers(folder, text, cancel, _Hessian)
        self._of_layer: dict[str, np.ndarray] = {}
        self._seen: set[str] = set()

    def of(self, own: str) -> np.ndarray | None:
        """float32 (columns, columns) of the matrix with this name inside the decoder; the same array for matrices that
        read the same. None for embeddings, which read nothing.

        Raises:
            ValueError: it belongs to a layer that was left.
        """
        if own == "embed_tokens":
            return None
        if own in self._seen and own not in self._of_layer:
            raise ValueError(f"{own} was passed already")
        while own not in self._of_layer:
            self._of_layer = {}  # before the next are made: only those of one layer fit
            following = next(self._layers, None)
            if following is None:
                return None
            self._of_layer = following[2]
            self._seen.update(self._of_layer)
        return self._of_layer[own]


def _layers(
    folder: Path, text: str | None, cancel: CancelToken | None, statistic: type[_MeanSquare] | type[_Hessian]
) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """(done, total, what each matrix of this layer reads): first of the embeddings, which is nothing, in the end, with
    `done` beyond the total, of the head."""
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
    batches: list[mx.array] = []
    for done, total in assemble(decoder, tensors, prepare):
        cancel.raise_if_cancelled()
        of_layer: dict[str, np.ndarray] = {}
        if done == 1:
            for start in range(0, len(cut), _BATCH):
                batches.append(decoder.embed_tokens(mx.array(cut[start : start + _BATCH])).astype(dtype))
            mx.eval(batches)
            decoder.embed_tokens = nn.Identity()
        else:
            layer = decoder.layers[done - 2]
            sums = _watch(layer, f"layers.{done - 2}", statistic)
            for i, x in enumerate(batches):
                batches[i] = layer(x, positions(x.shape[1], None, layer.window), None)
                mx.eval(batches[i], [s.total for s in sums.values()])
                cancel.raise_if_cancelled()
            of_layer = _results(sums)
            decoder.layers[done - 2] = nn.Identity()
            del layer, sums
            mx.clear_cache()
        yield done, total, of_layer
        del of_layer
    head = statistic()
    for x in batches:
        head.add(decoder.norm(x))
        mx.eval(head.total)
    yield total + 1, total, {"lm_head": head.result()}


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
        return as_importance(np.array(self.total / max(self._count, 1)))


class _Hessian:
    """The mean of `x xᵀ` of what was added, in float32."""

    def __init__(self) -> None:
        self.total = mx.zeros(())
        self._count = 0

    def add(self, x: mx.array) -> None:
        flat = x.astype(mx.float32).reshape(-1, x.shape[-1])
        self.total = self.total + flat.T @ flat
        self._count += flat.shape[0]

    def result(self) -> np.ndarray:
        """(columns, columns)."""
        return np.array(self.total / max(self._count, 1))


Statistic = _MeanSquare | _Hessian


class _Watched(nn.Module):
    """A layer that notes what goes into it."""

    def __init__(self, layer: Any, mean: Statistic) -> None:
        super().__init__()
        self._layer, self._mean = layer, mean

    def __call__(self, x: mx.array, *rest: Any) -> mx.array:
        self._mean.add(x)
        return self._layer(x, *rest)


def _watch(
    module: nn.Module, path: str, statistic: type[_MeanSquare] | type[_Hessian] = _MeanSquare
) -> dict[str, Statistic]:
    """Put a `_Watched` around every matrix inside; what they note, by the names of the matrices."""
    found: dict[str, Statistic] = {}

    def watched(layer: Any, *names: str) -> _Watched:
        mean = statistic()
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
            found.update(_watch(child, f"{path}.{name}", statistic))
    return found


def _results(sums: Mapping[str, Statistic]) -> dict[str, np.ndarray]:
    """One array for all names of a statistic, also those under which a file stores several matrices as one."""
    results = {id(one): one.result() for one in set(sums.values())}
    found = {name: results[id(one)] for name, one in sums.items()}
    return {**found, **dict(_aliases(found))}


def _aliases(found: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """The same numbers under the names of matrices that a file stores as one."""
    for whole, member in _STORED_AS_ONE.items():
        for name, mean in found.items():
            path, _, last = name.rpartition(".")
            if last == member:
                yield f"{path}.{whole}", mean

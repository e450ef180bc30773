"""A GGUF model -> tensors with the names of the hub, its configuration, and the files of its tokenizer."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from qwen_mlx.checkpoints.foreign import quote
from qwen_mlx.checkpoints.formats.foreign_tensor import ForeignTensor, Rows, affine, row_ranges
from qwen_mlx.checkpoints.formats.gguf import blocks, names, splits, tokenizer
from qwen_mlx.checkpoints.formats.gguf.reader import GGUFTensor
from qwen_mlx.checkpoints.formats.gguf.types import READABLE
from qwen_mlx.checkpoints.source import RawFile
from qwen_mlx.errors import CheckpointError, UnsupportedModel

# The model would compute without them, but not what its maker means: they belong to stretched positions.
_FACTORS = "rope_freqs.weight"


class GGUFSource:
    """A GGUF model, opened; use as a context manager, it holds files open.

    Attributes:
        name: of the model, as its file is called.
        files: of all its parts.
        config: `config.json`, made from the metadata.
    """

    def __init__(self, path: Path) -> None:
        """Read and check the headers.

        Raises:
            NotFound, UsageError, CheckpointError, UnsupportedModel: as `splits.read_model`; a model, a type or a key
                that is not imported.
        """
        self._model = splits.read_model(path)
        self.name, self.files = self._model.name, self._model.files
        self.architecture = names.architecture(self._model.metadata)
        self._check_tensors()
        tensors = self._model.tensors
        bias = "blk.0.attn_q.bias" in tensors
        self.config: dict[str, Any] = names.read_config(
            self._model.metadata, self._rows(), "output.weight" not in tensors, bias
        )
        self._open: dict[Path, RawFile] = {}

    def __enter__(self) -> GGUFSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def text_files(self) -> dict[str, bytes]:
        """The files of the tokenizer; see `tokenizer.read_files`."""
        return tokenizer.read_files(self._model.metadata, self._rows(), self.config["max_position_embeddings"])

    def tensors(self) -> list[ForeignTensor]:
        """All tensors, in the order of the file."""
        return [self._tensor(tensor) for tensor in self._model.tensors.values()]

    def title(self) -> str:
        """What the file holds, such as "GGUF Q4_K, Q6_K": the types of most of it, the one with most bytes first."""
        sizes: dict[str, int] = {}
        for tensor in self._model.tensors.values():
            if len(tensor.shape) > 1:
                sizes[tensor.kind.name] = sizes.get(tensor.kind.name, 0) + tensor.nbytes
        most = [name for name in sizes if sizes[name] * 100 >= sum(sizes.values())]
        return "GGUF " + ", ".join(sorted(most, key=lambda name: -sizes[name]))

    def _rows(self) -> int:
        """Rows of the embedding."""
        embedding = self._model.tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise CheckpointError("the GGUF file has no embedding", expected="a matrix token_embd.weight")
        return embedding.shape[0]

    def _check_tensors(self) -> None:
        for tensor in self._model.tensors.values():
            if tensor.kind.name not in READABLE:
                raise UnsupportedModel(
                    f"GGUF weights of the type {tensor.kind.name} are not imported (tensor {quote(tensor.name)})",
                    expected=", ".join(READABLE),
                    hint="Take another quantization, such as Q8_0 or Q4_K_M, or the original model.",
                )
            if tensor.name == _FACTORS:
                raise UnsupportedModel(
                    f"the GGUF file has rope factors of its own ({_FACTORS}), which are not imported",
                    hint="Take the original model.",
                )
            vector = len(tensor.shape) == 1 and tensor.kind.values > 1
            if names.hub_name(tensor.name) is None or vector:
                raise CheckpointError(
                    f"tensor {quote(tensor.name)} is not part of a {self.architecture.name} model",
                    hint="The file may be damaged, or made for another program; take the original model.",
                )

    def _tensor(self, tensor: GGUFTensor) -> ForeignTensor:
        name = names.hub_name(tensor.name)
        assert name is not None
        shape, kind = tensor.shape, tensor.kind.name
        if name.endswith("mlp.shared_expert_gate.weight") and len(shape) == 1:
            shape = (1, *shape)
        quantized = tensor.kind.values > 1
        return ForeignTensor(
            name,
            shape,
            kind if quantized else {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[kind],
            tensor.nbytes,
            functools.partial(self._blocks, tensor),
            blocks.packing_of(kind),
            frozenset({"float32", "float16"}) if kind in blocks.HALF_SCALES else frozenset({"float32"}),
            affine(shape[-1]) if quantized else None,
        )

    def _blocks(self, tensor: GGUFTensor, start: int, stop: int) -> Iterator[Rows]:
        path, width = self._model.file_of[tensor.name], tensor.row_bytes
        if path not in self._open:
            self._open[path] = RawFile(path)
        for first, last in row_ranges(start, stop, tensor.shape[-1]):
            data = self._open[path].read(tensor.start + first * width, (last - first) * width)
            yield blocks.read_rows(data, tensor.kind.name, tensor.kind.nbytes, tensor.shape[-1])

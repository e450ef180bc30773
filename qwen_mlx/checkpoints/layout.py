"""Where every tensor of a checkpoint that is yet to be written will lie: shards, headers, offsets, and the size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from qwen_mlx.checkpoints.folder import SINGLE
from qwen_mlx.checkpoints.safetensors import DTYPE_BITS

# As mlx-lm cuts; the hub asks for files below 50 GB and likes them smaller.
SHARD_BYTES = 5 << 30


@dataclass(frozen=True)
class Output:
    """One tensor to be written; `dtype` is a name of the safetensors format ("BF16", "U32", ...)."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True)
class Place:
    """Where the data of a tensor begins: which shard, and which byte of that file."""

    shard: int
    start: int


@dataclass(frozen=True)
class Shard:
    """One file of the checkpoint; `head` are its first bytes: the length of the header, and the header."""

    file: str
    head: bytes
    nbytes: int


@dataclass(frozen=True)
class Layout:
    """All files of weights before the first of them exists.

    Attributes:
        shards: in the order of their numbers.
        places: by name of the tensor.
        tensor_bytes: of all tensors; `file_bytes` of all files.
    """

    shards: tuple[Shard, ...]
    places: Mapping[str, Place]
    tensor_bytes: int
    file_bytes: int

    def index(self, parameters: int | None = None) -> bytes:
        """`model.safetensors.index.json`, as mlx-lm writes it."""
        metadata: dict[str, Any] = {"total_size": self.tensor_bytes}
        if parameters is not None:
            metadata["total_parameters"] = parameters
        weight_map = {name: self.shards[self.places[name].shard].file for name in sorted(self.places)}
        return json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=4).encode()


def lay_out(
    outputs: Iterable[Output], metadata: Mapping[str, str] | None = None, shard_bytes: int = SHARD_BYTES
) -> Layout:
    """Share tensors out over files of at most `shard_bytes`, in their order; one that is larger has its own file.

    Args:
        metadata: free text entries of every file; None writes `{"format": "mlx"}`, which transformers asks for.

    Raises:
        ValueError: two tensors of one name.
    """
    groups: list[list[Output]] = []
    size = 0
    seen: set[str] = set()
    for output in outputs:
        if output.name in seen:
            raise ValueError(f"two tensors have the name {output.name}")
        seen.add(output.name)
        if not groups or size + output.nbytes > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(output)
        size += output.nbytes
    notes = {"format": "mlx"} if metadata is None else dict(metadata)
    places: dict[str, Place] = {}
    shards: list[Shard] = []
    for i, group in enumerate(groups):
        file = SINGLE if len(groups) == 1 else f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
        head, starts = _header(group, notes)
        places.update({name: Place(i, start) for name, start in starts.items()})
        shards.append(Shard(file, head, len(head) + sum(output.nbytes for output in group)))
    tensor_bytes = sum(shard.nbytes - len(shard.head) for shard in shards)
    return Layout(tuple(shards), places, tensor_bytes, sum(shard.nbytes for shard in shards))


def _header(group: Sequence[Output], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """The beginning of a file, and where in the file each tensor begins.

    Wide types come first and the header is padded to 8 bytes, so that every tensor lies at a multiple of its own size:
    some readers look at the mapped file without copying, and need that.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    offsets: dict[str, int] = {}
    position = 0
    for output in sorted(group, key=lambda output: -DTYPE_BITS[output.dtype]):
        end = position + output.nbytes
        entries[output.name] = {"dtype": output.dtype, "shape": list(output.shape), "data_offsets": [position, end]}
        offsets[output.name] = position
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head, {name: len(head) + offset for name, offset in offsets.items()}

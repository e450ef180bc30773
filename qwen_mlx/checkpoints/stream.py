"""Writing a checkpoint of any size in little memory: a plan of steps, of which each yields its tensors in row blocks.

Everything is known before the first byte: names, types and shapes of all tensors, so the shards, their headers, and
the room on the disk. Then each step yields the next rows of its tensors, and they go to where they belong. The folder
gets its name when it is finished; see `publish.py`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from qwen_mlx.checkpoints.folder import INDEX
from qwen_mlx.checkpoints.layout import SHARD_BYTES, Layout, Output, lay_out
from qwen_mlx.checkpoints.publish import check_space, check_target, publishing, recover
from qwen_mlx.checkpoints.safetensors import DTYPE_BITS, MLX_DTYPES
from qwen_mlx.checkpoints.source import drop_from_cache
from qwen_mlx.events import CancelToken, Progress

Array = mx.array | np.ndarray
Blocks = Iterable[Mapping[str, Array]]

# What belongs to a model beside its weights. No code: nothing out of a repository is ever run.
SIDE_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "qwen.tiktoken",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
)


@dataclass(frozen=True)
class Step:
    """One piece of the work.

    Attributes:
        outputs: the tensors it makes.
        blocks: called once, when it is this step's turn; yields mappings from the name of an output to its next
            rows, which are written behind those that came before. Every output has to be complete in the end, in its
            own type (8-bit floats as uint8, bfloat16 as an `mx.array` or as uint16 of numpy). An array that is yielded
            is evaluated and let go of at once.
        what: for the progress display, such as the name of the tensor.
    """

    outputs: tuple[Output, ...]
    blocks: Callable[[], Blocks]
    what: str = ""


@dataclass(frozen=True)
class Plan:
    """A checkpoint that can be written.

    Attributes:
        steps: in the order in which they run; their tensors lie in the shards in this order.
        config: what `config.json` will say.
        files: other files of the folder: a file to copy, or the content.
        parameters: for the index; None leaves it out.
        metadata: of each file of weights; None is mlx's.
    """

    steps: Sequence[Step]
    config: Mapping[str, Any]
    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    parameters: int | None = None
    metadata: Mapping[str, str] | None = None
    _layouts: dict[int, Layout] = field(default_factory=dict, init=False, repr=False, compare=False)

    def layout(self, shard_bytes: int = SHARD_BYTES) -> Layout:
        """Where everything will lie; worked out once."""
        if shard_bytes not in self._layouts:
            outputs = (output for step in self.steps for output in step.outputs)
            self._layouts[shard_bytes] = lay_out(outputs, self.metadata, shard_bytes)
        return self._layouts[shard_bytes]


@dataclass(frozen=True)
class Written:
    """What was written: the folder, the bytes of its weights, and in how many files they are."""

    folder: Path
    nbytes: int
    files: int


def side_files(folder: Path) -> dict[str, Path]:
    """The files of a model folder that go into a converted one as they are."""
    return {name: folder / name for name in SIDE_FILES if (folder / name).is_file()}


def config_text(config: Mapping[str, Any]) -> bytes:
    """`config.json` as mlx-lm writes it: sorted, without what says nothing, and "quantization" under both its names."""
    values = {key: value for key, value in config.items() if key not in ("_name_or_path", "vision_config")}
    if "quantization" in values:
        values["quantization_config"] = values["quantization"]
    return json.dumps(dict(sorted(values.items())), indent=4).encode()


def disk_need(plan: Plan, shard_bytes: int = SHARD_BYTES) -> int:
    """Bytes that the finished folder takes."""
    extra = sum(len(f) if isinstance(f, bytes) else f.stat().st_size for f in plan.files.values())
    layout = plan.layout(shard_bytes)
    return layout.file_bytes + len(layout.index(plan.parameters)) + len(config_text(plan.config)) + extra


def write_checkpoint(
    plan: Plan,
    target: Path,
    *,
    force: bool = False,
    sources: tuple[Path, ...] = (),
    cancel: CancelToken | None = None,
    shard_bytes: int = SHARD_BYTES,
    stage: str = "write",
) -> Generator[Progress, None, Written]:
    """Write `plan` into the folder `target`, telling how far it is in bytes of tensors.

    Either all of it is there in the end, or nothing new: whatever goes wrong, the folder in progress is removed; a
    run that is killed leaves a hidden sibling that the next run replaces.

    Args:
        force: replace a model that is there.
        sources: folders that are read, and must not be the target.
        cancel: looked at after every block.

    Raises:
        UsageError: the target cannot be meant; see `check_target`.
        NoSpace: the disk is too small, before anything is written; or became full.
        Cancelled: `cancel` was set.
    """
    cancel = cancel or CancelToken()
    recover(target)
    target = check_target(target, force, sources)
    layout = plan.layout(shard_bytes)
    check_space(target, disk_need(plan, shard_bytes))
    cancel.raise_if_cancelled()
    with publishing(target, force) as folder, _Files(folder, layout) as files:
        done = 0
        started = time.monotonic()
        yield Progress(stage, 0, layout.tensor_bytes, "bytes")
        for step in plan.steps:
            left = {output.name: output for output in step.outputs}
            written = dict.fromkeys(left, 0)
            for block in step.blocks():
                for name, array in block.items():
                    data = _bytes(left[name], array)
                    written[name] += len(data)
                    if written[name] > left[name].nbytes:
                        raise ValueError(f"too many rows for {name}")
                    files.write(name, written[name] - len(data), data)
                    done += len(data)
                    del data, array
                del block
                cancel.raise_if_cancelled()
                yield _progress(stage, done, layout.tensor_bytes, step.what, time.monotonic() - started)
            for name, output in left.items():
                if written[name] != output.nbytes:
                    raise ValueError(f"{written[name]} of {output.nbytes} bytes were given for {name}")
                files.finish(name)
            mx.clear_cache()
        files.close()
        (folder / INDEX).write_bytes(layout.index(plan.parameters))
        for name, content in plan.files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        (folder / "config.json").write_bytes(config_text(plan.config))
    return Written(target, layout.file_bytes, len(layout.shards))


def _progress(stage: str, done: int, total: int, what: str, seconds: float) -> Progress:
    if seconds < 1:  # too early to tell
        return Progress(stage, done, total, "bytes", what)
    return Progress(stage, done, total, "bytes", what, done / seconds, (total - done) * seconds / max(done, 1))


class _Files:
    """The files of weights while they are written; each is open from its first tensor to its last."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._writing: Future[None] | None = None
        self._handles: dict[int, int] = {}
        self._open = [0] * len(layout.shards)
        for place in layout.places.values():
            self._open[place.shard] += 1

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(wait=True)
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Write bytes of a tensor, `offset` bytes from its beginning, while the next are made: one call behind."""
        self._wait()
        place = self._layout.places[name]
        self._writing = self._writer.submit(_write_at, self._handle(place.shard), data, place.start + offset)

    def _wait(self) -> None:
        """Until everything is written. Raises what went wrong there."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def finish(self, name: str) -> None:
        """No more of this tensor will come; a file that is complete goes to the disk and out of memory."""
        shard = self._layout.places[name].shard
        self._open[shard] -= 1
        if self._open[shard] == 0:
            self._wait()
            handle = self._handle(shard)  # opens it, should all its tensors be empty
            os.fsync(handle)
            drop_from_cache(handle, 0, self._layout.shards[shard].nbytes)
            os.close(handle)
            del self._handles[shard]

    def close(self) -> None:
        assert not self._handles and not any(self._open)

    def _handle(self, shard: int) -> int:
        if shard not in self._handles:
            plan = self._layout.shards[shard]
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
            handle = os.open(self._folder / plan.file, flags, 0o666)
            self._handles[shard] = handle
            _write_at(handle, memoryview(plan.head), 0)
            os.ftruncate(handle, plan.nbytes)
        return self._handles[shard]


def _write_at(handle: int, data: memoryview, position: int) -> None:
    while data:
        count = os.pwrite(handle, data, position)
        data, position = data[count:], position + count


def _bytes(output: Output, array: Array) -> memoryview:
    """The bytes of an array as they stand in the file (little-endian, as every machine that MLX runs on).

    Raises:
        TypeError: it is of another type than was planned.
    """
    fits = array.dtype.itemsize * 8 == DTYPE_BITS[output.dtype] if isinstance(array, np.ndarray) else False
    if isinstance(array, mx.array):
        fits = array.dtype == MLX_DTYPES[output.dtype]
        if array.dtype == mx.bfloat16:
            array = array.view(mx.uint16)
        array = np.array(array, copy=False)
    if not fits:
        raise TypeError(f"{output.name} was planned as {output.dtype}, and comes as {array.dtype}")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

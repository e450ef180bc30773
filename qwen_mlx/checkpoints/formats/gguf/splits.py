"""One model in several GGUF files, `NAME-00001-of-00003.gguf`: the parts found, checked, and read as one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_mlx.checkpoints.foreign import quote
from qwen_mlx.checkpoints.formats.gguf.reader import GGUFHeader, GGUFTensor, read_header
from qwen_mlx.errors import CheckpointError, NotFound, UsageError

MAX_PARTS = 1000
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


@dataclass(frozen=True)
class GGUFModel:
    """All parts of a model: the metadata of the first, the tensors of all, and the file each is in."""

    name: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]
    files: tuple[Path, ...]
    file_of: Mapping[str, Path]


def find_file(path: Path) -> Path:
    """The GGUF file that is meant: `path`, or the only model in the folder `path`.

    Raises:
        NotFound: there is none.
        UsageError: there are several.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        return path
    names = sorted(entry.name for entry in path.iterdir() if entry.name.lower().endswith(".gguf"))
    # The vision part of a model is a file of its own, and not a model.
    names = [name for name in names if not name.lower().startswith("mmproj")]
    models = {(match["stem"] if (match := _PART.fullmatch(name)) else name): name for name in reversed(names)}
    if not models:
        raise NotFound(f"{path} holds no GGUF file")
    if len(models) > 1:
        raise UsageError(
            f"{path} holds several GGUF models",
            expected="one of them",
            found=", ".join(quote(name, 80)[1:-1] for name in sorted(models.values())[:8]),
            hint="Name the file.",
        )
    return path / next(iter(models.values()))


def read_model(path: Path) -> GGUFModel:
    """Read the headers of all parts of the model in `path`, any part of it or its folder.

    Raises:
        NotFound, UsageError: as `find_file`; a part is missing.
        CheckpointError: a damaged part, or parts that do not belong together.
    """
    path = find_file(Path(path))
    match = _PART.fullmatch(path.name)
    if match is None:
        header = read_header(path)
        if _number(header, "split.count", 1) > 1:
            raise CheckpointError(
                f"{path} is one part of a model in several files, under a name of its own",
                expected="names such as NAME-00001-of-00003.gguf",
                hint="Give the files the names that they were published under.",
            )
        return _joined(path.stem, [header])
    count = int(match["count"])
    if not 1 <= count <= MAX_PARTS:
        raise CheckpointError(f"{path} has an impossible name", expected=f"1 to {MAX_PARTS} parts", found=str(count))
    files = [path.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    if missing := [file.name for file in files if not file.exists()]:
        raise NotFound(
            f"{path.parent} is incomplete",
            expected=f"{count} parts of {match['stem']}",
            found=f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''} missing",
            hint="Download the missing parts.",
        )
    headers = [read_header(file) for file in files]
    for i, header in enumerate(headers):
        said = (_number(header, "split.no", i), _number(header, "split.count", count))
        if said != (i, count):
            raise CheckpointError(
                f"{header.path} is another part than its name says",
                expected=f"part {i} of {count}",
                found=f"part {said[0]} of {said[1]}",
                hint="Download the model again.",
            )
    return _joined(match["stem"], headers)


def _joined(name: str, headers: list[GGUFHeader]) -> GGUFModel:
    tensors: dict[str, GGUFTensor] = {}
    file_of: dict[str, Path] = {}
    for header in headers:
        for tensor in header.tensors.values():
            if tensor.name in tensors:
                raise CheckpointError(
                    f"tensor {quote(tensor.name)} is in two parts of the model",
                    found=f"{file_of[tensor.name].name} and {header.path.name}",
                    hint="Download the model again.",
                )
            tensors[tensor.name] = tensor
            file_of[tensor.name] = header.path
    expected = _number(headers[0], "split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise CheckpointError(
            f"{headers[0].path} and its parts do not belong together",
            expected=f"{expected} tensors",
            found=str(len(tensors)),
            hint="Download the model again.",
        )
    return GGUFModel(name, headers[0].metadata, tensors, tuple(header.path for header in headers), file_of)


def _number(header: GGUFHeader, key: str, default: int) -> int:
    value = header.metadata.get(key, default)
    if type(value) is not int:
        raise CheckpointError(f"{header.path} is damaged", expected=f"a number as {key}", found=quote(str(value), 40))
    return value

"""Tokenised examples on the disk: written once, read through a memory map, told from damage by checksums.

A cache is a folder that appears whole or not at all. Two processes that make the same one at once do no harm: the
first one's stays. One that is damaged is thrown away and made again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from qwen_mlx import paths
from qwen_mlx.errors import DataError, NoSpace
from qwen_mlx.training.data.encode import Encoded
from qwen_mlx.training.data.examples import Example

_ARRAYS: dict[str, np.dtype[Any]] = {
    "ids": np.dtype("<i4"),  # of all examples, one after the other
    "weights": np.dtype("<f4"),
    "offsets": np.dtype("<i8"),  # where each example begins, and where the last one ends
    "whole": np.dtype("<i4"),  # tokens of each example before it was cut
    "supervised": np.dtype("<f8"),
    "sources": np.dtype("<i8"),  # where its name begins in names.txt, and where the last one ends
}
_NAMES = "names.txt"
_ABOUT = "about.json"
_PIECE = 1 << 22  # bytes of a checksum's step
_UNUSED = 30 * 24 * 3600  # seconds after which a cache that nobody opened is deleted


def cache_folder() -> Path:
    """Where caches are; `QWEN_MLX_CACHE` moves it."""
    return paths.cache_home() / "tokens"


class CachedDataset:
    """Examples in a cache; see `examples.TokenDataset`.

    Attributes:
        folder: where it lies.
        about: what was found while it was made, as `dataset.py` put it there.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.about = about
        sizes = about["sizes"]
        arrays = {name: _mapped(folder / name, kind, sizes[name]) for name, kind in _ARRAYS.items()}
        self._ids, self._weights, self._offsets = arrays["ids"], arrays["weights"], arrays["offsets"]
        self._sources = arrays["sources"]
        self._names = _mapped(folder / _NAMES, np.dtype("u1"), sizes[_NAMES])
        self._lengths = np.diff(self._offsets).astype(np.int32)
        self._supervised = np.array(arrays["supervised"])
        self.whole_lengths = np.array(arrays["whole"])

    @property
    def digest(self) -> str:
        return str(self.about["digest"])

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths

    @property
    def supervised(self) -> np.ndarray:
        return self._supervised

    def __len__(self) -> int:
        return len(self._lengths)

    def source(self, index: int) -> str:
        """Where an example was read, without reading it."""
        begin, end = self._sources[index], self._sources[index + 1]
        return bytes(self._names[begin:end]).decode("utf-8", "replace")

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        begin, end = self._offsets[index], self._offsets[index + 1]
        return Example(np.array(self._ids[begin:end]), np.array(self._weights[begin:end]), self.source(index))


def _mapped(path: Path, kind: np.dtype, size: int) -> np.ndarray:
    """Read-only; an empty file cannot be mapped."""
    return np.memmap(path, kind, "r") if size else np.zeros(0, kind)


def open_cache(folder: Path) -> CachedDataset | None:
    """The cache in a folder; None where there is none, or a damaged one."""
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        for name, size in about["sizes"].items():
            path = folder / Path(name).name
            if path.stat().st_size != size or _checksum(path) != about["checksums"][name]:
                return None
        dataset = CachedDataset(folder, about)
        os.utime(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dataset


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            value = zlib.crc32(piece, value)
    return value


class CacheWriter:
    """Writes a cache beside its place; `finish` moves it there. Leaving the `with` block early leaves nothing behind.

    Raises:
        NoSpace: the disk is full.
        DataError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = self._names_written = 0
        self._tokens = 0
        with _told(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _clean(folder.parent)
            self._work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
            self._files: dict[str, IO[bytes]] = {name: (self._work / name).open("wb") for name in (*_ARRAYS, _NAMES)}
        self._put("offsets", 0)
        self._put("sources", 0)

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def add(self, example: Encoded, source: str) -> None:
        """The next example."""
        name = source.encode("utf-8", "replace")
        with _told(self._folder):
            self._files["ids"].write(example.ids.astype("<i4").tobytes())
            self._files["weights"].write(example.weights.astype("<f4").tobytes())
            self._files[_NAMES].write(name)
            self._tokens += len(example.ids)
            self._names_written += len(name)
            self._put("offsets", self._tokens)
            self._put("sources", self._names_written)
            self._put("whole", example.whole)
            self._put("supervised", float(example.weights.sum(dtype=np.float64)))

    def _put(self, name: str, value: float) -> None:
        self._files[name].write(np.array(value, _ARRAYS[name]).tobytes())

    def finish(self, about: Mapping[str, Any]) -> CachedDataset:
        """Everything is written: `about` is kept beside it."""
        with _told(self._folder):
            sizes, checksums = {}, {}
            for name, file in self._files.items():
                file.flush()
                os.fsync(file.fileno())
                file.close()
                path = self._work / name
                sizes[name], checksums[name] = path.stat().st_size, _checksum(path)
            with paths.atomic_write(self._work / _ABOUT) as text:
                json.dump({**about, "sizes": sizes, "checksums": checksums}, text)
            return self._move()

    def _move(self) -> CachedDataset:
        """To its place; if another process was faster, its cache is the one to use."""
        for _ in range(10):
            try:
                self._work.rename(self._folder)
            except OSError:
                if not self._folder.exists():
                    raise
                if (theirs := open_cache(self._folder)) is not None:
                    return theirs
                _remove(self._folder)
            else:
                paths.sync_folder(self._folder.parent)
                break
        if (dataset := open_cache(self._folder)) is None:
            raise DataError(f"the cache in {self._folder} was damaged while it was written", hint="Try again.")
        return dataset


def _remove(folder: Path) -> None:
    """Take a damaged cache away in one step, so that nobody finds half of it."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    with contextlib.suppress(OSError):
        folder.rename(aside / "damaged")
    shutil.rmtree(aside, ignore_errors=True)


def _clean(parent: Path) -> None:
    """Delete what killed processes left, and caches nobody has opened for long."""
    now = time.time()
    for path in parent.iterdir():
        with contextlib.suppress(OSError):
            limit = _UNUSED if not path.name.startswith(".") else 24 * 3600
            if path.is_dir() and now - path.stat().st_mtime > limit:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"the disk of {folder.parent} is full", hint="QWEN_MLX_CACHE moves the cache.") from None
        raise DataError(
            f"tokens cannot be kept in {folder.parent}",
            found=problem.strerror or str(problem),
            hint="QWEN_MLX_CACHE moves the cache.",
        ) from None

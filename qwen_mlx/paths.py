"""Where things live on this machine, and how a file is written so that it is never half there."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal


def _home(variable: str, xdg: str, xdg_default: str, mac: str) -> Path:
    """`$variable`, else the platform's own place for such files."""
    if own := os.environ.get(variable):
        return Path(own).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / mac / "qwen-mlx"
    base = os.environ.get(xdg) or str(Path.home() / xdg_default)
    return Path(base).expanduser() / "qwen-mlx"


def data_home() -> Path:
    """Conversations and adapters. `QWEN_MLX_HOME` overrides it."""
    return _home("QWEN_MLX_HOME", "XDG_DATA_HOME", ".local/share", "Application Support")


def cache_home() -> Path:
    """What can be made again: measurements, compiled things. `QWEN_MLX_CACHE` overrides it."""
    return _home("QWEN_MLX_CACHE", "XDG_CACHE_HOME", ".cache", "Caches")


def history_file() -> Path:
    return data_home() / "history.db"


def own_models() -> Path:
    """The models that were made on this machine, a folder each, whose name is the model's."""
    return data_home() / "models"


def hf_cache() -> Path:
    """The Hugging Face hub cache that other tools share: `HF_HUB_CACHE`, else `HF_HOME/hub`, else the default."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).expanduser() / "huggingface" / "hub"


def demo_model() -> Path:
    """The tiny model that ships inside the package."""
    return Path(__file__).parent / "demo"


def sample_text(name: Literal["calibration", "evaluation"]) -> Path:
    """A text of many kinds that ships inside the package: one to guide a quantization, another to judge it."""
    return Path(__file__).parent / "evaluation" / "data" / f"{name}.txt"


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w", *, private: bool = False) -> Iterator[IO]:
    """Open a temporary sibling of `path` for writing; on success it is fsynced and renamed over `path`.

    A `private` file is for its owner only; others get the permissions of the file they replace, or those of any new
    file.

    After a crash either the old file or the new one is there, never a part. Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = None if "b" in mode else "utf-8"
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            if not private:
                Path(name).chmod(_file_mode(path))  # mkstemp lets nobody else read it
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    sync_folder(path.parent)


def _file_mode(path: Path) -> int:
    """The permissions of the file that is replaced, or those any new file gets."""
    with contextlib.suppress(OSError):
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable; not every file system allows it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

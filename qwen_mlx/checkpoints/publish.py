"""A folder that appears under its name only when everything in it is there.

It grows in a hidden sibling, `.NAME.partial`, and is renamed at the end. The sibling is locked as long as its maker
lives, however that one ends: what another run finds unlocked was left behind by a run that was killed, and is replaced.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from qwen_mlx.errors import NoSpace, QwenError, UsageError
from qwen_mlx.paths import sync_folder

# Left free beside what is written, for the small files and for the file system's own needs.
_RESERVE = 16 << 20
_FOLDERS_OF_MODELS = ("additional_chat_templates", ".cache")
_FILES_OF_MODELS = (
    "merges.txt",
    "vocab.txt",
    "README.md",
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
    ".gitattributes",
    ".DS_Store",
)
_SUFFIXES_OF_FILES = (".gguf", ".safetensors")
_SUFFIXES_OF_MODELS = (".safetensors", ".json", ".jinja", ".tiktoken", ".model")


def partial_folder(target: Path) -> Path:
    """The hidden sibling in which `target` grows."""
    return target.parent / f".{target.name}.partial"


def check_target(target: Path, force: bool, sources: tuple[Path, ...] = ()) -> Path:
    """The absolute path of a folder that may be written, before anything is.

    Args:
        force: whether a model that is already there may be replaced.
        sources: folders that are read meanwhile, and must not be touched.

    Raises:
        UsageError: something is there that must not be replaced.
    """
    try:
        target = Path(os.path.abspath(Path(target).expanduser()))  # noqa: PTH100 - resolve() follows a link at the end
        for source in sources:
            if overlap := _overlap(target, source):
                raise UsageError(f"{target} {overlap}", hint="Give another folder to write.")
        if target.suffix.lower() in _SUFFIXES_OF_FILES:
            raise UsageError(
                f"{target} would be a folder with the name of a file",
                expected=f"the name of a folder, such as {target.stem}",
                hint="To write a GGUF file: `qwen-mlx export`.",
            )
        return _replaceable(target, force)
    except (OSError, ValueError, RuntimeError) as problem:  # a name too long, a NUL in it, nobody's home
        reason = getattr(problem, "strerror", None) or str(problem)
        raise UsageError(f"{str(target)[:200]!r} cannot be written", found=reason) from None


def _overlap(target: Path, source: Path) -> str | None:
    """What one has to do with the other, if anything; also where the disk takes `Model` and `model` for one."""

    def same(one: Path, other: Path) -> bool:
        return one == other or (one.exists() and other.exists() and one.samefile(other))

    real, own = target.resolve(), source.resolve()
    if same(real, own):
        return "is the model that is read"
    if any(same(folder, own) for folder in real.parents):
        return f"is inside {source}, which is read"
    if any(same(folder, real) for folder in own.parents):
        return f"is a folder in which {source} is, which is read"
    return None


def _replaceable(target: Path, force: bool) -> Path:
    """`target` where nothing would be lost, or only what `force` gives up; else raises `UsageError`."""
    if not os.path.lexists(target):
        return target
    if target.is_symlink() or not target.is_dir():
        found = f"a symbolic link to {os.readlink(target)}" if target.is_symlink() else "a file"  # noqa: PTH115
        raise UsageError(
            f"{target} is in the way", expected="nothing, or a model folder that --force replaces", found=found
        )
    if not any(target.iterdir()):
        return target
    if not (target / "config.json").is_file():
        raise UsageError(f"{target} holds something else than a model; it is not replaced", hint="Give a new folder.")
    if not force:
        raise UsageError(f"{target} exists", hint="--force replaces it, once the new one is finished.")
    if others := sorted(entry.name for entry in target.iterdir() if not _is_of_a_model(entry)):
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise UsageError(
            f"{target} holds more than a model; it is not replaced",
            found=shown,
            hint="Move them, or give a new folder.",
        )
    return target


def _is_of_a_model(entry: Path) -> bool:
    """Whether a file is of the kind that model folders have, so that replacing the model may take it along."""
    if entry.is_dir() and not entry.is_symlink():
        return entry.name in _FOLDERS_OF_MODELS
    return entry.name in _FILES_OF_MODELS or entry.suffix in _SUFFIXES_OF_MODELS


def check_space(target: Path, needed: int) -> None:
    """Raises `NoSpace` when the disk of `target` has less than `needed` bytes, and a little more, left."""
    folder = target.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    left_behind = partial_folder(target)
    if left_behind.is_dir():  # will be removed first
        free += sum(file.stat().st_size for file in left_behind.iterdir() if file.is_file())
    if free < needed + _RESERVE:
        raise NoSpace(
            f"{target} does not fit on its disk",
            expected=f"{needed + _RESERVE:,} bytes free",
            found=f"{free:,}",
            hint="Make room, or give a folder on another disk.",
        )


@contextlib.contextmanager
def publishing(target: Path, force: bool = False) -> Iterator[Path]:
    """A new folder to write into, which becomes `target` when the block ends well and is removed when it does not.

    With `force`, a model that is there is replaced at the very end. Missing parents are made.

    Raises:
        UsageError: as `check_target`; or another process is writing the same folder.
        NoSpace: the disk was full in the middle.
        QwenError: the disk cannot be written.
    """
    recover(target)
    target = check_target(target, force)
    partial = partial_folder(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _take(partial, target)
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        raise _cannot_write(target, problem) from None
    try:
        yield partial
        _sync(partial)
        _rename(partial, target, force)
    except BaseException as problem:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(problem, OSError):
            raise _cannot_write(target, problem) from None
        raise
    finally:
        os.close(lock)


def _take(partial: Path, target: Path) -> int:
    """Make the sibling, or empty the one that a killed run left; returns the handle that keeps it locked."""
    for _ in range(10):
        partial.mkdir(exist_ok=True)
        handle = os.open(partial, os.O_RDONLY)
        try:
            _lock(handle, target)
            # Between opening and locking, its owner may have finished and renamed it, or removed it.
            if partial.exists() and os.path.samestat(os.fstat(handle), partial.stat()):
                for entry in partial.iterdir():
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry)
                    else:
                        entry.unlink()
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    raise _busy(target)


def _lock(handle: int, target: Path) -> None:
    """Lock a folder; the system lets go of it when the process ends in any way."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(target) from None
    except OSError:
        pass  # a file system without locks: nobody else is the likely case


def _busy(target: Path) -> UsageError:
    return UsageError(f"another process is writing {target}", hint="Wait for it, stop it, or give another folder.")


def _old_folder(target: Path) -> Path:
    return target.parent / f".{target.name}.replaced"


def recover(target: Path) -> None:
    """Finish what a run left that was killed while it replaced a model: the old one is either back, or gone."""
    old = _old_folder(target)
    try:
        if not old.is_dir():
            return
        if os.path.lexists(target):
            shutil.rmtree(old)
        else:
            old.rename(target)
    except OSError as problem:
        raise _cannot_write(target, problem) from None


def _rename(partial: Path, target: Path, force: bool) -> None:
    old = None
    if target.is_dir() and any(target.iterdir()):
        check_target(target, force)  # it may have appeared meanwhile
        old = _old_folder(target)
        target.rename(old)
    partial.rename(target)
    sync_folder(target.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Bring every file of the folder to the disk before the folder gets its name."""
    for entry in folder.iterdir():
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    sync_folder(folder)


def _cannot_write(target: Path, problem: OSError | ValueError) -> QwenError:
    import errno

    if getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"{target} cannot be finished: the disk is full; what was written has been removed",
            hint="Make room, or give a folder on another disk.",
        )
    reason = getattr(problem, "strerror", None) or str(problem)
    return QwenError(f"{str(target)!r} cannot be written", found=reason)

"""The models in the Hugging Face cache: what is there, what it takes, and what can go.

Looking is our own and forgives anything. Deleting models is left to huggingface_hub, which knows what else may share
a file; we delete only what no model refers to: parts of downloads, and blobs without a snapshot.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qwen_mlx import paths
from qwen_mlx.errors import NotFound, QwenError
from qwen_mlx.events import CancelToken
from qwen_mlx.hub.cache import NOTES, OWN, PART, Repository, file_size
from qwen_mlx.hub.lock import locked
from qwen_mlx.hub.references import Reference, cached_repositories

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo
    from huggingface_hub.utils import DeleteCacheStrategy

_CONTENT = ("blobs", "snapshots", "refs")
_FOREIGN_PART = ".incomplete"
# huggingface_hub may be at work on a part right now; ours is guarded by a lock.
_FOREIGN_REST = 3600.0  # seconds
Kind = Literal["partial", "unfinished", "orphan", "detached"]
ALL_KINDS: tuple[Kind, ...] = ("partial", "unfinished", "orphan", "detached")


@dataclass(frozen=True)
class CachedModel:
    """One commit of a repository in the cache.

    Attributes:
        revisions: branches and tags that are this commit; empty for one that none of them names any more.
        folder: its snapshot.
        size: bytes of the files, each content once.
        used: when a file was last read or written, seconds since 1970. Some disks do not keep the first.
        whole: no file is missing, as far as the note of its pull tells.
    """

    repository: str
    commit: str
    revisions: tuple[str, ...]
    folder: Path
    size: int
    used: float
    whole: bool

    @property
    def name(self) -> str:
        """How to refer to it: the repository, with its revision where that is not the usual one."""
        if "main" in self.revisions:
            return self.repository
        if "modelscope/master" in self.revisions:
            return f"modelscope:{self.repository}"
        if self.revisions:
            revision = self.revisions[0]
            source, _, rest = revision.partition("/")
            return f"modelscope:{self.repository}@{rest}" if source == "modelscope" else f"{self.repository}@{revision}"
        return f"{self.repository}@{self.commit}" if self.whole else self.repository


@dataclass(frozen=True)
class Leftover:
    """Something no model needs.

    `kind` is "partial" for a file that is not whole, "unfinished" for the snapshot of a download that did not end,
    "orphan" for a blob without a snapshot, "detached" for a snapshot that no branch or tag names any more.
    """

    kind: Kind
    repository: str
    path: Path
    size: int
    changed: float


@dataclass(frozen=True)
class Usage:
    """Bytes that one repository takes on the disk."""

    repository: str
    models: int
    partials: int
    orphans: int

    @property
    def total(self) -> int:
        return self.models + self.partials + self.orphans


def cached_models() -> list[CachedModel]:
    """Every snapshot in the cache, sorted by name."""
    found = [model for name in cached_repositories() for model in _models(Repository(name))]
    return sorted(found, key=lambda model: model.name.lower())


def own_models() -> list[CachedModel]:
    """The models that were made on this machine, sorted by name; each is one commit that only its folder names."""
    found = []
    for folder in _folders(paths.own_models()):
        files = [file for file in folder.iterdir() if file.is_file()]
        if folder.name.startswith(".") or not files:
            continue  # one that is being written
        times = [max(status.st_atime, status.st_mtime) for file in files if (status := file.stat())]
        size = sum(file.stat().st_size for file in files)
        found.append(CachedModel(folder.name, "", ("main",), folder, size, max(times), True))
    return found


def usage() -> list[Usage]:
    """What every repository takes, the largest first."""
    found = []
    for name in cached_repositories():
        repository = Repository(name)
        rest = list(_blob_leftovers(repository))
        found.append(
            Usage(
                name,
                sum(_sizes(repository, _linked(repository)).values()),
                sum(item.size for item in rest if item.kind == "partial"),
                sum(item.size for item in rest if item.kind == "orphan"),
            )
        )
    return sorted(found, key=lambda each: -each.total)


# ------------------------------------------------------------------------------------------------ deleting models


class Deletion:
    """Models that are to be deleted: look at `freed` and `models`, then `execute`."""

    def __init__(
        self, models: Sequence[CachedModel], strategies: Sequence[DeleteCacheStrategy], parts: Sequence[Leftover]
    ) -> None:
        self.models = tuple(models)
        self.parts = tuple(parts)
        self.freed = sum(each.expected_freed_size for each in strategies) + sum(part.size for part in parts)
        self._strategies = strategies

    def execute(self) -> None:
        """Delete. Raises `QwenError` while one of them is being downloaded, or where the disk does not allow it."""
        repositories = {model.repository for model in self.models} | {part.repository for part in self.parts}
        with contextlib.ExitStack() as locks:
            for name in sorted(repositories):
                locks.enter_context(locked(Repository(name), CancelToken(), wait=0))
            _delete(self.parts)
            for strategy in self._strategies:
                strategy.execute()
            for model in self.models:
                Repository(model.repository).forget(model.commit)
        left = [model.name for model in self.models if model.folder.exists()]
        if left:
            raise QwenError(f"could not delete {', '.join(left)}", hint="You may not write there, or the disk refused.")


def deletion(references: Sequence[Reference]) -> Deletion:
    """What has to go for these models to be gone: the commit where a revision was named, else all of them.

    Raises:
        NotFound: one of them is not in the cache.
        QwenError: the cache is damaged so that huggingface_hub does not read it.
    """
    models: dict[tuple[str, str], CachedModel] = {}
    parts: dict[Path, Leftover] = {}
    for reference in references:
        repository = Repository(reference.repository)
        found = list(_models(repository))
        own_parts = [item for item in _blob_leftovers(repository) if item.kind == "partial"]
        named = "@" in reference.text or reference.source == "modelscope"
        if named:
            found = [model for model in found if reference.ref in (*model.revisions, model.commit)]
            own_parts = []
        if not found and not own_parts:
            have = ", ".join(cached_repositories())
            raise NotFound(f"{reference} is not on this machine", found=f"only {have}" if have else "no models")
        models.update({(model.repository, model.commit): model for model in found})
        parts.update({part.path: part for part in own_parts})
    chosen = list(models.values())
    return Deletion(chosen, _strategies(chosen), list(parts.values()))


def _strategies(models: Sequence[CachedModel]) -> list[DeleteCacheStrategy]:
    """What huggingface_hub would do, for each repository by itself: it looks for a commit in all it is shown."""
    if not models:
        return []
    cache = _scan()
    found = []
    for name in sorted({model.repository for model in models}):
        commits = {model.commit for model in models if model.repository == name}
        own = [repo for repo in cache.repos if repo.repo_id == name and repo.repo_type == "model"]
        if commits - {revision.commit_hash for repo in own for revision in repo.revisions}:
            reasons = "; ".join(str(warning) for warning in cache.warnings)
            raise QwenError(
                f"huggingface_hub cannot read the cache of {name}, so nothing is deleted",
                found=reasons[:300] or "no such revision",
                hint=f"Pull it again, or delete its folder by hand: {Repository(name).home}",
            )
        found.append(dataclasses.replace(cache, repos=frozenset(own)).delete_revisions(*commits))
    return found


def _scan() -> HFCacheInfo:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()
    return scan_cache_dir(paths.hf_cache())


# ------------------------------------------------------------------------------------------------ leftovers


def leftovers(kinds: Sequence[Kind] = ALL_KINDS, older: float = 0.0) -> list[Leftover]:
    """What can go without a model missing it.

    Args:
        older: only what did not change for so many seconds.
    """
    now = time.time()
    found: list[Leftover] = []
    for name in cached_repositories():
        repository = Repository(name)
        found += _blob_leftovers(repository)
        found += [
            Leftover(kind, name, model.folder, model.size, model.folder.stat().st_mtime)
            for model in _models(repository)
            if (kind := _unneeded(model)) is not None
        ]
    return [item for item in found if item.kind in kinds and now - item.changed >= older]


def _unneeded(model: CachedModel) -> Kind | None:
    if model.revisions:
        return None
    return "detached" if model.whole else "unfinished"


def prune(items: Sequence[Leftover]) -> None:
    """Delete leftovers. Those of a repository that is being downloaded stay.

    Raises:
        QwenError: the disk does not allow it, or huggingface_hub cannot read the cache.
    """
    for name in sorted({item.repository for item in items}):
        with contextlib.suppress(_Busy), _unused(Repository(name)):
            own = [item for item in items if item.repository == name]
            snapshots = [item for item in own if item.kind in ("detached", "unfinished")]
            _delete([item for item in own if item not in snapshots])
            commits = {item.path.name for item in snapshots}
            models = [model for model in _models(Repository(name)) if model.commit in commits]
            for strategy in _strategies(models):
                strategy.execute()
            for commit in commits:
                Repository(name).forget(commit)


def _delete(items: Iterable[Leftover]) -> None:
    """Unlink parts and orphans, and the notes beside parts."""
    for item in items:
        try:
            item.path.unlink(missing_ok=True)
            if item.path.name.endswith(PART):
                item.path.with_name(item.path.name.removesuffix(PART) + NOTES).unlink(missing_ok=True)
        except OSError as problem:
            raise QwenError(f"{item.path} cannot be deleted: {problem.strerror or problem}") from None
        _tidy(item.path.parent.parent)


def _tidy(home: Path) -> None:
    """Remove the folder of a repository of which only our notes are left."""
    if any(file.is_file() or file.is_symlink() for name in _CONTENT for file in (home / name).rglob("*")):
        return
    with contextlib.suppress(OSError):
        for note in (home / OWN).glob("*.json"):
            note.unlink()
        for folder in sorted(home.rglob("*"), reverse=True):
            folder.rmdir()  # fails where something is left, and that is right
        home.rmdir()


class _Busy(Exception):
    """A repository that another process is downloading."""


@contextlib.contextmanager
def _unused(repository: Repository) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(repository, CancelToken(), wait=0))
        except QwenError:
            raise _Busy from None
        yield


# ------------------------------------------------------------------------------------------------ looking


def _models(repository: Repository) -> Iterator[CachedModel]:
    refs = _refs(repository)
    for folder in _folders(repository.home / "snapshots"):
        files = [file for file in folder.rglob("*") if file.is_symlink() or file.is_file()]
        blobs = _sizes(repository, {file.resolve() for file in files})
        manifest = repository.manifest(folder.name)
        whole = len(blobs) == len({file.resolve() for file in files}) and all(
            repository.present(folder.name, path, sum_.size or 0, sum_.etag) for path, sum_ in manifest.items()
        )
        times = [max(status.st_atime, status.st_mtime) for blob in blobs if (status := blob.stat())]
        yield CachedModel(
            repository=repository.name,
            commit=folder.name,
            revisions=tuple(sorted(name for name, commit in refs.items() if commit == folder.name)),
            folder=folder,
            size=sum(blobs.values()),
            used=max(times, default=folder.stat().st_mtime),
            whole=whole,
        )


def _refs(repository: Repository) -> dict[str, str]:
    refs = repository.home / "refs"
    found = {}
    for file in refs.rglob("*"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if file.is_file():
                found[file.relative_to(refs).as_posix()] = file.read_text(encoding="utf-8").strip()
    return found


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(entry for entry in place.iterdir() if entry.is_dir())
    except OSError:
        return []


def _linked(repository: Repository) -> set[Path]:
    """Everything a snapshot refers to, with every link on the way: a blob may itself be a link to a shared one."""
    found: set[Path] = set()
    for folder in _folders(repository.home / "snapshots"):
        for file in folder.rglob("*"):
            if file.is_symlink():
                found.add(Path(os.path.normpath(file.parent / file.readlink())))
            if file.is_symlink() or file.is_file():
                found.add(file.resolve())
    return found


def _sizes(repository: Repository, files: Iterable[Path]) -> dict[Path, int]:
    sizes = {file: file_size(file) for file in files if not file.is_symlink()}
    return {file: size for file, size in sizes.items() if size is not None}


def _blob_leftovers(repository: Repository) -> Iterator[Leftover]:
    linked = {str(path) for path in _linked(repository)} | {str(path.resolve()) for path in _linked(repository)}
    try:
        blobs = sorted(repository.blobs.iterdir())
    except OSError:
        return
    for blob in blobs:
        if blob.is_symlink() or not blob.is_file() or blob.name.endswith(NOTES):
            continue
        status = blob.stat()
        item = (repository.name, blob, status.st_size, status.st_mtime)
        if blob.name.endswith(PART):
            yield Leftover("partial", *item)
        elif blob.name.endswith(_FOREIGN_PART):
            if time.time() - status.st_mtime > _FOREIGN_REST:
                yield Leftover("partial", *item)
        elif str(blob) not in linked and str(blob.resolve()) not in linked:
            yield Leftover("orphan", *item)

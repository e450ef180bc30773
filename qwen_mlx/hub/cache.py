"""One repository in the Hugging Face cache: blobs, snapshots and refs as other tools lay them out, and our notes.

models--Qwen--Qwen3-8B/
  blobs/<etag>                      content, named by its sha256 (large files) or git's sha1 (small ones)
  blobs/<etag>.part, .part.json     a download that is not finished, and what is known of it
  snapshots/<commit>/config.json    a link to a blob
  refs/main                         the commit a branch was when it was pulled
  trees/<commit>.json               huggingface_hub's listing of the commit, with checksums
  .qwen-mlx/<commit>.json           the same, written by us
  .qwen-mlx/damaged.json            blobs that a verification found damaged; the next pull fetches them again
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qwen_mlx.errors import NoSpace, QwenError
from qwen_mlx.hub.references import snapshot_home
from qwen_mlx.paths import atomic_write, sync_folder

PART = ".part"
NOTES = ".part.json"
OWN = ".qwen-mlx"
_DAMAGED = "damaged.json"
_FORMAT = 1


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...

    def copy(self) -> Digest: ...


@dataclass(frozen=True)
class Checksum:
    """What a file has to be: its size and either a sha256 or git's sha1."""

    size: int | None
    etag: str

    def digest(self) -> Digest:
        """A running digest whose end must be `etag`. Git's sha1 needs the size, which begins what it covers."""
        if len(self.etag) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % (self.size or 0), usedforsecurity=False)


class Repository:
    """The folder of one repository. Nothing is made before it is written to."""

    def __init__(self, repository: str) -> None:
        self.name = repository
        self.home = snapshot_home(repository)
        self.blobs = self.home / "blobs"

    def snapshot(self, commit: str) -> Path:
        return self.home / "snapshots" / commit

    def blob(self, etag: str) -> Path:
        return self.blobs / etag

    def part(self, etag: str) -> Path:
        return self.blobs / f"{etag}{PART}"

    def notes(self, etag: str) -> Path:
        return self.blobs / f"{etag}{NOTES}"

    def present(self, commit: str, path: str, size: int, etag: str) -> bool:
        """Whether the content is there, as a blob or, where links cannot be made, in the snapshot itself."""
        return any(file_size(place) == size for place in (self.blob(etag), self.snapshot(commit) / path))

    def finish(self, etag: str) -> None:
        """A part that is whole and checked becomes a blob."""
        os.replace(self.part(etag), self.blob(etag))
        self.notes(etag).unlink(missing_ok=True)
        sync_folder(self.blobs)

    def link(self, commit: str, path: str, etag: str) -> None:
        """Make `path` of the snapshot a relative link to the blob; the blob itself where a disk has no links."""
        pointer = self.snapshot(commit) / path
        blob = self.blob(etag)
        if pointer.is_symlink() or pointer.exists():
            if not pointer.is_symlink() and not blob.exists():
                return  # a disk without links: the content is here
            if pointer.is_symlink() and pointer.resolve() == blob.resolve():
                return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            pointer.unlink()
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError as problem:
            if problem.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            os.replace(blob, pointer)

    def write_ref(self, name: str, commit: str) -> None:
        """Remember which commit a branch or tag is; a commit needs no such note."""
        if name != commit:
            with atomic_write(self.home / "refs" / name) as file:
                file.write(commit)

    def ref(self, name: str) -> str | None:
        """The commit a branch or tag was when it was pulled, None where it was not."""
        try:
            return (self.home / "refs" / name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None

    # ------------------------------------------------------------------------------------------------ our notes

    def write_manifest(self, commit: str, source: str, files: Mapping[str, Checksum]) -> None:
        """Keep the checksums the hub gave for the files, beside those of earlier pulls of the same commit."""
        files = {**self.manifest(commit), **files}
        listing = {path: {"size": sum_.size, "etag": sum_.etag} for path, sum_ in sorted(files.items())}
        content = {"format_version": _FORMAT, "repository": self.name, "source": source, "files": listing}
        with atomic_write(self.home / OWN / f"{commit}.json") as file:
            json.dump(content, file, indent=1)

    def forget(self, commit: str) -> None:
        """Remove our note of a commit that was deleted."""
        with contextlib.suppress(OSError):
            (self.home / OWN / f"{commit}.json").unlink()

    def manifest(self, commit: str) -> dict[str, Checksum]:
        """The files that belong to the model, as they were listed when it was pulled here; empty when it was not."""
        found = _json(self.home / OWN / f"{commit}.json")
        return _checksums(found, lambda entry: Checksum(entry["size"], str(entry["etag"])))

    def tree(self, commit: str) -> dict[str, Checksum]:
        """The whole listing of the commit as huggingface_hub keeps it; empty where it did not."""
        found = _json(self.home / "trees" / f"{commit}.json")
        return _checksums(
            found, lambda entry: Checksum(entry["size"], str(entry.get("lfs_sha256") or entry["blob_id"]))
        )

    def damaged(self) -> set[str]:
        found = _json(self.home / OWN / _DAMAGED)
        return {str(etag) for etag in found} if isinstance(found, list) else set()

    def set_damaged(self, etags: Iterable[str]) -> None:
        """Remember blobs for the next pull. Where nothing can be written, nothing is remembered."""
        path = self.home / OWN / _DAMAGED
        wanted = sorted(etags)
        with contextlib.suppress(OSError):
            if wanted:
                with atomic_write(path) as file:
                    json.dump(wanted, file)
            else:
                path.unlink(missing_ok=True)


def repository_of(snapshot: Path) -> tuple[Repository, str] | None:
    """The repository and commit a folder is the snapshot of, None for any other folder."""
    home = snapshot.parent.parent
    if snapshot.parent.name != "snapshots" or not home.name.startswith("models--"):
        return None
    repository = Repository(home.name.removeprefix("models--").replace("--", "/", 1))
    repository.home, repository.blobs = home, home / "blobs"  # perhaps of another cache than today's
    return repository, snapshot.name


def etag_of_link(file: Path) -> str | None:
    """The checksum in the name of the blob a file of a snapshot links to."""
    try:
        name = file.readlink().name
    except OSError:
        return None
    return name if len(name) in (40, 64) and all(digit in "0123456789abcdef" for digit in name) else None


def writing(problem: OSError, place: Path) -> QwenError:
    """The error for a cache that cannot be written to."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"the disk of {place} is full", hint="What has arrived is kept: free some space, and pull again."
        )
    reasons = {
        errno.EROFS: "the disk is read-only",
        errno.EACCES: "you may not write there",
        errno.EPERM: "you may not write there",
        errno.ENAMETOOLONG: "the path is longer than the disk allows",
        errno.EIO: "the disk does not answer; was it unplugged?",
        errno.ENOENT: "the folder is gone; was a disk unplugged?",
        errno.ENOTDIR: "there is a file where a folder should be",
    }
    reason = reasons.get(problem.errno or 0, problem.strerror or str(problem))
    return QwenError(f"{place} cannot be written: {reason}", hint="HF_HUB_CACHE says where models are kept.")


def file_size(path: Path) -> int | None:
    """Bytes of what is there, links followed; None for nothing."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _checksums(found: Any, read: Any) -> dict[str, Checksum]:
    """A damaged note is no note: the names of the blobs still say what they are."""
    try:
        if found["format_version"] != _FORMAT:
            return {}
        return {str(path): read(entry) for path, entry in found["files"].items()}
    except (KeyError, TypeError, AttributeError):
        return {}

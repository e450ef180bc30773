"""Is a model still what the hub gave? Its checksums were kept when it was pulled, so no network is needed.

They come from our own note of the pull, from huggingface_hub's listing, or from the names of the blobs, which are
checksums. What is inside the files (headers, index, values) is not looked at here.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path

from qwen_mlx.errors import NotFound
from qwen_mlx.events import CancelToken, Event, FileProblem, Progress, VerifyFinished
from qwen_mlx.hub.cache import Checksum, Digest, etag_of_link, file_size, repository_of
from qwen_mlx.hub.wrong_body import instead_of_file

_BLOCK = 1 << 20
_EVERY = 0.2
_HEAD = 512
_MISSING = "is missing"


def verify(folder: Path, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Compare every file of a model with the checksum the hub listed.

    Damaged blobs are remembered beside the model, so that the next pull fetches them again.

    Args:
        folder: of a model: a snapshot in the cache, or any other, of which no checksums are known.

    Yields:
        `Progress` in bytes, and `VerifyFinished`, which holds what is wrong.

    Raises:
        NotFound: no such folder.
        Cancelled: by the token.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}")
    return _verify(folder, cancel or CancelToken())


def _verify(folder: Path, cancel: CancelToken) -> Iterator[Event]:
    began = time.monotonic()
    expected = _expected(folder)
    found = sorted(file for file in folder.rglob("*") if not file.is_dir() and not _hidden(folder, file))
    names = {file.relative_to(folder).as_posix(): file for file in found}
    problems = [FileProblem(name, _MISSING) for name in sorted(expected.keys() - names.keys())]
    checked: list[str] = []
    unknown: list[str] = []
    total = sum(file_size(file) or 0 for name, file in names.items() if name in expected)
    done = 0
    for name, file in names.items():
        sum_ = expected.get(name)
        if sum_ is None:
            unknown.append(name)
            continue
        result = yield from _file(file, sum_, done, total, cancel)
        done += file_size(file) or 0
        if result is None:
            checked.append(name)
        else:
            problems.append(FileProblem(name, result))
    _remember(folder, expected, checked, problems)
    yield VerifyFinished(str(folder), tuple(checked), tuple(unknown), tuple(problems), done, time.monotonic() - began)


def _expected(folder: Path) -> dict[str, Checksum]:
    """Checksums by name: of the files that were chosen, or else of those that are there."""
    place = repository_of(folder)
    if place is None:
        return {}
    repository, commit = place
    known = repository.manifest(commit)
    tree = repository.tree(commit)
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if name in known or (file.is_dir() and not file.is_symlink()) or _hidden(folder, file):
            continue
        if name in tree:
            known[name] = tree[name]
        elif etag := etag_of_link(file):
            known[name] = Checksum(file_size(file), etag)
    return known


def _file(
    file: Path, sum_: Checksum, before: int, total: int, cancel: CancelToken
) -> Generator[Event, None, str | None]:
    """Yields progress; returns what is wrong with one file, None if nothing."""
    size = file_size(file)
    if size is None:
        return "is a link to nothing"
    if sum_.size is not None and size != sum_.size:
        instead = _instead(file)
        return f"has {size} bytes instead of {sum_.size}" + (f": {instead}" if instead else "")
    digest: Digest = Checksum(size, sum_.etag).digest()
    done, shown = 0, 0.0
    try:
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                cancel.raise_if_cancelled()
                digest.update(block)
                done += len(block)
                if time.monotonic() - shown > _EVERY:
                    shown = time.monotonic()
                    yield Progress("checking", before + done, total, "bytes", file.name)
    except OSError as problem:
        return f"cannot be read: {problem.strerror or problem}"
    if digest.hexdigest() == sum_.etag:
        return None
    instead = _instead(file)
    return f"is not what the hub gave{': it is ' + instead if instead else ' (its checksum is another)'}"


def _remember(folder: Path, expected: dict[str, Checksum], checked: list[str], problems: list[FileProblem]) -> None:
    if (place := repository_of(folder)) is None:
        return
    repository, _ = place
    before = repository.damaged()
    bad = {expected[problem.file].etag for problem in problems if problem.what != _MISSING}
    good = {expected[name].etag for name in checked}
    if (after := (before | bad) - good) != before:
        repository.set_damaged(after)


def _instead(file: Path) -> str | None:
    try:
        with file.open("rb") as content:
            return instead_of_file(content.read(_HEAD))
    except OSError:
        return None


def _hidden(folder: Path, file: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)

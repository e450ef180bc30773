"""What a repository holds: its files with sizes and checksums at one commit, and which of them a model needs.

Nothing in a listing is believed: names must stay inside the folder, sizes are whole numbers, checksums have the form
of checksums. Code and pickles are never chosen.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urljoin

from qwen_mlx.errors import CheckpointError, NetworkError, NotFound, UsageError
from qwen_mlx.hub.endpoint import Endpoint
from qwen_mlx.hub.references import Reference, has_quant
from qwen_mlx.hub.refusals import explain
from qwen_mlx.hub.transport import Refused, Transport

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_LAST_LINK = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')
_MAX_FILES = 100_000
_LONGEST_PART = 255  # bytes of a file's name that every file system takes
FORBIDDEN = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".so", ".dylib", ".dll", ".sh")
_SMALL = ("*.json", "*.txt", "*.jinja", "*.tiktoken", "*.model")
_QUANT_IN_NAME = re.compile(r"(?:^|[-_./])((?:I?Q\d[A-Z0-9_]*|BF16|F16|F32|MXFP4\w*|TQ\d_0))(?=[-.]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class RemoteFile:
    """One file on the hub.

    Attributes:
        path: relative, with slashes.
        size: bytes.
        sha256: of large files; `git_sha1` of the others, over git's header and the content. One of them is known.
        url: where it is.
    """

    path: str
    size: int
    url: str
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def etag(self) -> str:
        """Its name among the blobs of the cache."""
        return self.sha256 or self.git_sha1 or ""


@dataclass(frozen=True)
class Listing:
    """The files of `reference` at `commit`, 40 hexadecimal digits."""

    reference: Reference
    commit: str
    files: tuple[RemoteFile, ...]


def read_listing(transport: Transport, reference: Reference, notice: Callable[[str], None]) -> Listing:
    """Ask the hub.

    Raises:
        NotFound, NetworkError: no such repository or revision, no access, or no hub.
        CheckpointError: a listing that cannot be right.
    """
    endpoint = transport.endpoint
    try:
        if reference.source == "modelscope":
            return _modelscope(transport, reference, notice)
        api = f"{endpoint.url}/api/models/{reference.repository}"
        info, _ = transport.json(f"{api}/revision/{quote(reference.revision, safe='')}", notice)
        commit = info.get("sha") if isinstance(info, dict) else None
        if not isinstance(commit, str) or _SHA1.fullmatch(commit) is None:
            raise NetworkError(
                f"{endpoint.name} does not speak the protocol of a model hub", expected="a commit", found=repr(commit)
            )
        entries = _pages(transport, f"{api}/tree/{commit}?recursive=true&expand=false", notice)
    except Refused as refused:
        raise explain(refused, endpoint, reference) from None
    base = f"{endpoint.url}/{reference.repository}/resolve/{commit}"
    files = [_hf_file(endpoint, entry, base) for entry in entries if _kind(entry) == "file"]
    return Listing(reference, commit, _checked(reference, files))


def choose(listing: Listing, include: Sequence[str] = ()) -> tuple[RemoteFile, ...]:
    """The files of the model, the smallest first.

    Args:
        include: patterns such as "*.gguf": these files instead, but still no code and no pickles.

    Raises:
        NotFound: nothing of the kind is there.
        CheckpointError: only files that are refused.
    """
    files = {file.path: file for file in listing.files if not _hidden(file.path)}
    allowed = {path: file for path, file in files.items() if not path.lower().endswith(FORBIDDEN)}
    if include:
        chosen = {path for path in allowed if any(fnmatch.fnmatch(path, pattern) for pattern in include)}
        if not chosen:
            raise _nothing_included(listing, include, files)
    elif listing.reference.quant:
        chosen = _gguf(listing, allowed)
    else:
        small = {path for path in allowed if any(fnmatch.fnmatch(path, each) for each in _SMALL) and "/" not in path}
        templates = {path for path in allowed if fnmatch.fnmatch(path, "additional_chat_templates/*.jinja")}
        chosen = small | templates | _weights(listing, files)
    _refuse_same_names(chosen)
    return tuple(sorted((files[path] for path in chosen), key=lambda file: (file.size, file.path)))


# ------------------------------------------------------------------------------------------------ reading


def _pages(transport: Transport, url: str, notice: Callable[[str], None]) -> list[Any]:
    entries: list[Any] = []
    endpoint = transport.endpoint
    while True:
        page, headers = transport.json(url, notice)
        if not isinstance(page, list):
            raise NetworkError(
                f"{endpoint.name} does not speak the protocol of a model hub", expected="a list of files"
            )
        entries += page
        if len(entries) > _MAX_FILES:
            raise CheckpointError("the listing of the repository is refused", found=f"more than {_MAX_FILES} files")
        link = _LAST_LINK.search(headers.get("Link", ""))
        if link is None or not page:
            return entries
        following = urljoin(url, link[1])
        if url.startswith("https:") and not following.startswith("https:"):
            raise NetworkError(f"{endpoint.name} continues its listing over an unencrypted connection")
        url = following  # of a mirror it may be another host, which gets no token


def _kind(entry: Any) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise CheckpointError("the hub's listing is damaged", expected="objects with a path", found=repr(entry)[:80])
    return str(entry.get("type"))


def _hf_file(endpoint: Endpoint, entry: dict[str, Any], base: str) -> RemoteFile:
    path = entry["path"]
    lfs = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else None
    size = lfs.get("size", entry.get("size")) if lfs else entry.get("size")
    sha256 = lfs.get("oid") if lfs else None
    return _remote(endpoint, path, size, f"{base}/{quote(path)}", sha256, None if lfs else entry.get("oid"))


def _remote(endpoint: Endpoint, path: str, size: Any, url: str, sha256: Any, sha1: Any) -> RemoteFile:
    if type(size) is not int or not 0 <= size < 2**53:
        raise CheckpointError(f"the hub's listing is damaged: {path!r} has the size {size!r}")
    sha256 = sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None
    sha1 = sha1 if isinstance(sha1, str) and _SHA1.fullmatch(sha1) else None
    if sha256 is None and sha1 is None:
        raise NetworkError(
            f"{endpoint.name} answers without the hub's checksums: none for {path!r}",
            hint="Perhaps a mirror that leaves them out; set HF_ENDPOINT to another.",
        )
    return RemoteFile(path, size, url, sha256, sha1)


def _modelscope(transport: Transport, reference: Reference, notice: Callable[[str], None]) -> Listing:
    """ModelScope's listing. It has no commit for the whole; one is made of what the files are."""
    endpoint = transport.endpoint
    api = f"{endpoint.url}/api/v1/models/{reference.repository}/repo"
    query = urlencode({"Revision": reference.revision, "Recursive": "true"})
    answer, _ = transport.json(f"{api}/files?{query}", notice)
    data = answer.get("Data") if isinstance(answer, dict) else None
    entries = data.get("Files") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise NetworkError(f"{endpoint.name} does not answer as ModelScope does", expected="Data.Files")
    files = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("Type") == "tree":
            continue
        path = str(entry.get("Path"))
        url = f"{api}?{urlencode({'Revision': reference.revision, 'FilePath': path})}"
        files.append(_remote(endpoint, path, entry.get("Size"), url, entry.get("Sha256"), None))
    checked = _checked(reference, files)
    text = "\n".join(f"{file.sha256} {file.path}" for file in sorted(checked, key=lambda file: file.path))
    return Listing(reference, hashlib.sha1(text.encode()).hexdigest(), checked)


def _checked(reference: Reference, files: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    """Raises `CheckpointError` for a name that could leave its folder, or one that is there twice."""
    found: dict[str, RemoteFile] = {}
    for file in files:
        if problem := _bad_name(file.path):
            raise CheckpointError(
                f"{reference} is refused: it holds a file with the name {file.path!r}",
                found=problem,
                hint="Do not use this repository unless you know who made it.",
            )
        if file.path in found:
            raise CheckpointError(f"the hub's listing is damaged: {file.path!r} is there twice")
        found[file.path] = file
    return tuple(found.values())


def _bad_name(path: str) -> str | None:
    parts = path.split("/")
    if not path or path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "a path that does not stay in its folder"
    if any(part in ("", ".", "..") for part in parts):
        return "a path that does not stay in its folder"
    if "\\" in path or not path.isprintable():
        return "a backslash or a control character"
    if any(len(part.encode()) > _LONGEST_PART for part in parts) or len(path) > 1024:
        return "a name longer than file systems take"
    return None


# ------------------------------------------------------------------------------------------------ choosing


def _hidden(path: str) -> bool:
    """`.gitattributes`, and whatever else would not be seen."""
    return any(part.startswith(".") for part in path.split("/"))


def _weights(listing: Listing, files: dict[str, RemoteFile]) -> set[str]:
    """The safetensors files a loader would take: `model*` before any other."""
    tensors = {path for path in files if path.endswith(".safetensors") and "/" not in path}
    if tensors:
        return {path for path in tensors if path.startswith("model")} or tensors
    reference = listing.reference
    if quants := _quants(files):
        raise NotFound(
            f"{reference} holds GGUF files of several quantizations",
            expected=f"one of them: {', '.join(f'{reference.repository}:{each}' for each in quants)}",
        )
    pickles = sorted(path for path in files if path.lower().endswith(FORBIDDEN[1:]))
    if pickles:
        raise CheckpointError(
            f"{reference} holds only pickle weights ({pickles[0]}); refused",
            hint="Pickles can run code; take a repository with safetensors files.",
        )
    raise NotFound(f"{reference} holds no weights", expected="safetensors files", found=_some(files))


def _quants(files: Iterable[str]) -> list[str]:
    found = [_QUANT_IN_NAME.findall(path) for path in files if path.lower().endswith(".gguf")]
    return sorted({names[-1] for names in found if names})


def _gguf(listing: Listing, allowed: dict[str, RemoteFile]) -> set[str]:
    quant = listing.reference.quant or ""
    chosen = {path for path in allowed if has_quant(path, quant) and not path.rpartition("/")[2].startswith("mmproj")}
    if not chosen:
        quants = _quants(allowed)
        raise NotFound(
            f"{listing.reference.repository} has no GGUF file of {quant}",
            expected=f"one of {', '.join(quants)}" if quants else "a repository of GGUF files",
        )
    return chosen


def _refuse_same_names(paths: Iterable[str]) -> None:
    """Names that are one and the same where the disk does not tell capitals from small letters."""
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(path.casefold(), path)
        if other != path:
            raise CheckpointError(
                f"the repository holds both {other!r} and {path!r}; many disks cannot tell them apart"
            )


def _nothing_included(listing: Listing, include: Sequence[str], files: dict[str, RemoteFile]) -> Exception:
    refused = [path for path in files if any(fnmatch.fnmatch(path, pattern) for pattern in include)]
    if refused:
        return UsageError(
            f"--include {' '.join(include)} names only files that are never downloaded: {_some(refused)}",
            hint="Code and pickles can run programs of strangers.",
        )
    return NotFound(f"{listing.reference} has no file that matches {' '.join(include)}", found=_some(files))


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "") or "no files"

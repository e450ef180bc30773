"""What the name of a model means: a folder, a repository in the local Hugging Face cache, or "demo".

Nothing here uses the network: a name that is not on this machine is an error that says how to get it.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import stat
from pathlib import Path
from typing import Literal

from qwen_mlx import paths
from qwen_mlx.errors import NotFound, UsageError

DEMO = "demo"

# One part of a repository's name as the hub allows it; it cannot be "..", and has no slash of either kind.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"({_PART})(?:/({_PART}))?")
# A branch, tag ("v1.0"), pull request ("refs/pr/3") or commit.
_REVISION = re.compile(rf"{_PART}(?:/{_PART}){{0,5}}")
_LONGEST = 4096  # characters of a path
_COMMIT = re.compile(r"[0-9A-Za-z_-]{1,64}")


def default_model() -> str:
    """The model that is meant when none is named: `QWEN_MLX_MODEL`, else the one that ships with the package."""
    return os.environ.get("QWEN_MLX_MODEL", "").strip() or DEMO


def resolve(name: str) -> Path:
    """The folder a model's name stands for.

    Args:
        name: "demo"; an existing folder; or `organisation/repository[@revision]`, looked up in the cache that
            `paths.hf_cache()` names. A folder goes before a repository of the same name.

    Returns:
        An absolute path of an existing folder. What is in it is not checked, only that a snapshot of a repository
        has a `config.json`.

    Raises:
        NotFound: there is no such model on this machine.
        UsageError: it is a file, or neither a path nor a repository's name.
    """
    if not name.strip() or "\0" in name or len(name) > _LONGEST:
        raise UsageError(f"{reprlib.repr(name)} is not the name of a model", expected=_expected())
    if name == DEMO:
        return _demo()
    path = _as_path(name)
    kind = _kind(path)
    if kind == "folder":
        return path
    if kind == "file":
        raise UsageError(f"{path} is a file", expected="the folder of a model", hint=f"Name its folder: {path.parent}")
    repository, _, revision = name.partition("@")
    match = _REPOSITORY.fullmatch(repository)
    if match is None:
        if _looks_like_path(name):
            raise NotFound(f"there is no folder {path}", expected=_expected())
        raise UsageError(f"{name!r} is not the name of a model", expected=_expected())
    if "@" in name and _REVISION.fullmatch(revision) is None:
        raise UsageError(
            f"{revision!r} in {name!r} is not a revision", expected="a branch, a tag or a commit after the @"
        )
    return _snapshot(repository, revision or "main", path)


def cached_repositories() -> list[str]:
    """Names of the model repositories in the local Hugging Face cache, sorted."""
    try:
        folders = [entry.name for entry in paths.hf_cache().iterdir() if entry.is_dir()]
    except OSError:
        return []
    names = [name.removeprefix("models--").replace("--", "/", 1) for name in folders if name.startswith("models--")]
    return sorted(name for name in names if _REPOSITORY.fullmatch(name))


def _demo() -> Path:
    folder = paths.demo_model()
    if not (folder / "config.json").is_file():
        raise NotFound(
            f"the demo model is missing from {folder}",
            hint="Install qwen-mlx again, or name another model with --model",
        )
    return folder


def _as_path(name: str) -> Path:
    try:
        return Path(name).expanduser().absolute()
    except RuntimeError:  # ~somebody, who does not exist
        return Path(name).absolute()


def _kind(path: Path) -> Literal["folder", "file"] | None:
    try:
        mode = path.stat().st_mode
    except OSError:  # not there, not ours to look at, or a name no file system takes
        return None
    return "folder" if stat.S_ISDIR(mode) else "file"


def _looks_like_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def _expected() -> str:
    return 'a folder, a repository such as "Qwen/Qwen3-8B", or "demo"'


def _snapshot(repository: str, revision: str, path: Path) -> Path:
    cache = paths.hf_cache()
    home = cache / f"models--{repository.replace('/', '--')}"
    if not home.is_dir():
        raise NotFound(
            f"there is no model {repository!r} on this machine: neither the folder {path} nor, in the Hugging Face "
            f"cache {cache}, {home.name}",
            hint=_how_to_get(repository, suggest=True),
        )
    commit = _commit(home, revision)
    folder = home / "snapshots" / commit if commit else None
    if folder is None or not folder.is_dir():
        have = _revisions(home)
        raise NotFound(
            f"the Hugging Face cache {cache} has {repository}, but not its revision {revision!r}",
            found=", ".join(have) if have else "no complete download",
            hint=_how_to_get(repository, revision),
        )
    if not (folder / "config.json").is_file():
        raise NotFound(
            f"{repository} is not complete in the Hugging Face cache: {folder} has no config.json",
            hint=_how_to_get(repository, revision),
        )
    return folder.absolute()


def _commit(home: Path, revision: str) -> str | None:
    """The commit a branch or tag points to, a commit itself, or None."""
    try:
        commit = (home / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = revision
    # A damaged or hostile ref must not lead out of the snapshots.
    return commit if _COMMIT.fullmatch(commit) else None


def _revisions(home: Path) -> list[str]:
    """What can be named after the @: branches and tags first, then commits that none of them names."""
    refs = home / "refs"
    named = sorted(file.relative_to(refs).as_posix() for file in refs.rglob("*") if file.is_file())
    commits = {name: _commit(home, name) for name in named}
    snapshots = home / "snapshots"
    present = {entry.name for entry in snapshots.iterdir() if entry.is_dir()} if snapshots.is_dir() else set()
    usable = [name for name in named if commits[name] in present]
    return usable + sorted(present - set(commits.values()))


def _how_to_get(repository: str, revision: str = "main", *, suggest: bool = False) -> str:
    near = _near(repository) if suggest else []
    advice = f"Did you mean {' or '.join(near)}? " if near else ""
    if advice and "/" not in repository:
        return advice.rstrip()  # without its owner it cannot be downloaded anyway
    option = "" if revision == "main" else f" --revision {revision}"
    owned = repository if "/" in repository else f"ORGANISATION/{repository}"
    return f"{advice}qwen-mlx cannot download yet: get it with `hf download {owned}{option}`"


def _near(repository: str) -> list[str]:
    """Up to three cached repositories that may have been meant: the same without its owner, or a slip of the keys."""
    names = {name.lower(): name for name in [*cached_repositories(), DEMO]}
    wanted = repository.lower()
    tail = wanted.rpartition("/")[2]
    alike = [name for name in names if name.rpartition("/")[2] == tail]
    alike += difflib.get_close_matches(wanted, names, n=3, cutoff=0.75)
    tails = {name.rpartition("/")[2]: name for name in names}
    alike += [tails[match] for match in difflib.get_close_matches(tail, tails, n=3, cutoff=0.75)]
    return [names[name] for name in dict.fromkeys(alike)][:3]
